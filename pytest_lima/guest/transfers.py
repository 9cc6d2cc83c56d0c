"""What holds for all files that come and go: how much, for how long, and whose fault it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_lima.errors import LimaError
from pytest_lima.guest.startup import NotBegunError, NotBegunInTimeError

TIMEOUT = 600.0
SIZE_LIMIT = 4 * 1024**3


@contextmanager
def refusals(verb: str, remote: str) -> Iterator[None]:
    """Turn a guest's refusal of a path into an error that names it."""
    try:
        yield
    except NotBegunError as error:
        error.ran = f"{verb} {remote}"
        raise
    except NotBegunInTimeError as error:
        problem = f"the login shell has not begun it in time; it said: {error.said or 'nothing'}"
        remedy = "see whether the guest is busy, and what the user's startup files wait for"
    except TimeoutError:
        problem = "it did not end in time"
        remedy = "see how large it is, and whether the guest is busy"
    except OSError as error:
        if error.filename is not None:
            raise  # a file of this host, which Python's words name
        problem = error.strerror or str(error)
        remedy = "check that the path exists and the login user may use it"
    else:
        return
    raise LimaError(f"{verb} {remote} in the guest failed", seen=problem, remedy=remedy)
