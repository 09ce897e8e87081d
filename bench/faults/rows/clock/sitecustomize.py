"""A clock that can be set: Python loads this first in a process that has it on its path.

Owns ``time.time`` and ``time.time_ns`` of that process, by what the file FAULTS_CLOCK
says (seconds, a C double). Never touches clocks that nobody can set.
"""

import mmap
import os
import struct
import time

if "FAULTS_CLOCK" in os.environ:
    _fd = os.open(os.environ["FAULTS_CLOCK"], os.O_RDONLY)
    _map = mmap.mmap(_fd, 8, prot=mmap.PROT_READ)
    _real, _real_ns = time.time, time.time_ns

    def _ahead() -> float:
        return struct.unpack_from("d", _map)[0]

    time.time = lambda: _real() + _ahead()
    time.time_ns = lambda: _real_ns() + int(_ahead() * 1e9)
