"""The root conftest.py of a monorepo: what all packages share, the VM included.

The `lima` fixture belongs to the session, so tests of all packages get the same VM. So does
what is built on it, such as the group here, which is made once.
"""

import pytest


@pytest.fixture(scope="session")
def team(lima):
    """A group in the VM that both packages work with."""
    lima.run("groupadd --force team", user="root")
    return "team"
