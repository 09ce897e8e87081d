"""The faults, a room each for what belongs together.

Importing it enters all of them into the table, in the order of the report.
"""

# ruff: noqa: I001
from bench.faults.rows import kills as kills
from bench.faults.rows import points as points
from bench.faults.rows import events as events
from bench.faults.rows import pauses as pauses
from bench.faults.rows import relays as relays
from bench.faults.rows import brokers as brokers
from bench.faults.rows import journals as journals
from bench.faults.rows import partitions as partitions
from bench.faults.rows import lost as lost
from bench.faults.rows import duplicates as duplicates
from bench.faults.rows import clocks as clocks
from bench.faults.rows import disks as disks
from bench.faults.rows import deploys as deploys
from bench.faults.rows import operators as operators
from bench.faults.rows import limiter as limiter
from bench.faults.rows import bugs as bugs
from bench.faults.rows import soak as soak
