"""Children of our own, whatever a test makes of ``subprocess.Popen``: the one owner of subprocess.

A test may replace the class by a mock, or have pytest-subprocess put a class of its own in its
place. limactl and what else a VM takes are run all the same: pytest imports this module with the
plugin, so before any of that. ``lima.process`` says how a child is started and ended.
"""

from __future__ import annotations

import subprocess
from subprocess import DEVNULL as DEVNULL
from subprocess import PIPE as PIPE
from subprocess import STDOUT as STDOUT


class RealPopen(subprocess.Popen[bytes]):
    """A child with the methods that were there when pytest began."""

    __init__ = subprocess.Popen.__init__
    poll = subprocess.Popen.poll
