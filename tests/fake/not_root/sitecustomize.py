"""On PYTHONPATH of subprocesses of a test run by root: the fake limactl doesn't mind root."""

import os

os.geteuid = lambda: 1001
