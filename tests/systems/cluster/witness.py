"""Writes by which token it runs, every 10 ms: ``witness.py FILE NODE``. One line is one write."""

import os
import sys
import time

path, node = sys.argv[1:]
token = os.environ["EVERUP_FENCE"]
file = os.open(path, os.O_WRONLY | os.O_APPEND)
while True:
    at = time.clock_gettime(time.CLOCK_BOOTTIME)
    os.write(file, f"{at:.6f} {node} {token} {os.getpid()}\n".encode())
    time.sleep(0.01)
