"""What the user reads besides progress: the header line, sections of a failure, a summary."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_lima.errors import LimaError
from pytest_lima.lima import logs, messages
from pytest_lima.plugin import boundary, timings
from pytest_lima.plugin.session import LimaSession

if TYPE_CHECKING:
    from pytest_lima.instance import Instance

_TAIL = 20
_CLOUD_INIT_TIMEOUT = 10.0


def header(session: LimaSession) -> list[str]:
    """What will be run, with the source of each value that is not the default."""
    settings = session.settings
    try:
        host = session.pool.host()
    except LimaError as error:
        return [f"lima: can't run here: {error.what}"]
    facts = [
        " + ".join(name.removeprefix(f"{Path.cwd()}/") for name in settings.templates),
        host.vmtype,
        host.accelerator.name,
        f"limactl {host.version}",
    ]
    given = [
        f"{name} from {source}" for name, source in settings.sources.items() if source != "default"
    ]
    return [f"lima: {', '.join(facts)}" + (f" ({', '.join(given)})" if given else "")]


def explain(
    item: pytest.Item,
    call: pytest.CallInfo[None],
    outcome: pytest.TestReport,
    session: LimaSession,
) -> None:
    """Make the report of a failure tell what the VM knows."""
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, LimaError) and call.when != "call":
        # Our frames explain nothing to the reader; the message is made to.
        outcome.longrepr = f"{_users_line(item, call)}{type(error).__name__}: {error}"
    for machine in session.machines_of(item):
        session.pool.mark_failed(machine)
        outcome.sections += _evidence(machine)


def _users_line(item: pytest.Item, call: pytest.CallInfo[None]) -> str:
    """Where a fixture of the user's failed; nothing where `lima` itself did."""
    root = item.config.rootpath
    for entry in reversed(call.excinfo.traceback if call.excinfo else []):
        path = Path(entry.path)
        ours = str(entry.frame.f_globals.get("__name__")).startswith("pytest_lima.")
        if path.is_relative_to(root) and "site-packages" not in path.parts and not ours:
            line = linecache.getline(str(path), entry.lineno + 1).strip()
            return f"{path.relative_to(root)}:{entry.lineno + 1}: in {entry.name}\n    {line}\n"
    return ""


def _evidence(machine: Instance) -> list[tuple[str, str]]:
    looks: dict[str, Callable[[], str]] = {
        "console": lambda: logs.last(logs.console_text(machine.dir), _TAIL),
        "host agent": lambda: messages.told(logs.read(machine.dir / logs.HOST_AGENT), _TAIL),
        "cloud-init": lambda: _cloud_init_log(machine),
    }
    found: list[tuple[str, str]] = []
    missing: list[str] = []
    for name, look in looks.items():
        with boundary.told(missing.append, name):
            found.append((f"lima {name} of {machine.name}", look()))
    if missing:
        found.append((f"lima evidence of {machine.name}", f"left out: {'; '.join(missing)}"))
    return [(title, text) for title, text in found if text]


def _cloud_init_log(machine: Instance) -> str:
    """The end of it; the guest may be what failed, so a refusal is shown in its place."""
    command = f"tail -n {_TAIL} /var/log/cloud-init-output.log"
    try:
        said = machine.run(command, user="root", timeout=_CLOUD_INIT_TIMEOUT).stdout
    except LimaError as error:
        return str(error)
    return "\n".join(map(logs.printable, said.splitlines()))


def summary(reporter: pytest.TerminalReporter, session: LimaSession) -> None:
    """Timings if they are wanted; a section if a VM was kept, or could not be removed."""
    if session.settings.timings and session.timings:
        timings.show(reporter, session.timings)
    kept = [*session.pool.kept, *session.workers.kept]
    if not kept and not session.problems:
        return
    reporter.section("lima", sep="-")
    for one in kept:
        where = f" on {one.host}" if one.host else ""
        reporter.line(f"{one.name} was kept{where}. To get in:  {one.enter}")
        reporter.line(f"{'':{len(one.name + where)}}        To remove:  {one.delete}")
    for problem in session.problems:
        reporter.line(problem, red=True)
