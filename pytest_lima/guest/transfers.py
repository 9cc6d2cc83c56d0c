"""What holds for all files that come and go: how much, for how long, and whose fault it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_lima.errors import LimaError
from pytest_lima.guest.startup import NotBegunError, NotBegunInTimeError

TIMEOUT = 600.0
SIZE_LIMIT = 4 * 1024**3


# What helps where the guest didn't write it all.
SEE = "check that the user exists and may write there, and how much space is left"


def failed(verb: str, remote: str, user: str | None = None) -> str:
    """What is said of a file that didn't come or go."""
    return f"{verb} {remote}{f' as {user}' if user else ''} in the guest failed"


@contextmanager
def refusals(verb: str, remote: str, user: str | None = None) -> Iterator[None]:
    """Turn a guest's refusal of a path into an error that names it, and who wanted it."""
    try:
        yield
    except NotBegunError as error:
        error.ran = f"{verb} {remote}"
        raise
    except NotBegunInTimeError as error:
        problem = f"the login shell did not start it in time; it printed: {error.said or 'nothing'}"
        remedy = "check whether the guest is busy, and what the user's startup files wait for"
    except TimeoutError:
        problem = "it did not end in time"
        remedy = "check how large it is, and whether the guest is busy"
    except OSError as error:
        if error.filename is not None:
            raise  # a file of this host, which Python's words name
        problem = error.strerror or str(error)
        whose = f"{user} and the path exist" if user else "the path exists"
        remedy = f"check that {whose} and {user or 'the login user'} may use it"
    else:
        return
    raise LimaError(failed(verb, remote, user), seen=problem, remedy=remedy)
