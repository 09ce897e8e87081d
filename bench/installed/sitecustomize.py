"""Read by Python when it starts: what a user has not installed cannot be imported here either.

The libraries take in whatever they find (redis-py OpenTelemetry's SDK, kombu PyYAML), and the
environment of the tests has more than that of those who run mailgate.
"""

import os
import sys

for name in os.environ.get("BENCH_NOT_INSTALLED", "").split():
    sys.modules.setdefault(name, None)  # type: ignore[arg-type]
