"""The pytest plugin: the only room that imports pytest. Here are the hooks, and nothing else.

A run without a Lima test passes through here at every start, so nothing heavy is imported
and nothing is started until a test asks for a VM: `report` is imported where it is needed.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lima import realfiles, realsockets  # noqa: F401 - before a test replaces sockets
from pytest_lima.errors import TemplateError
from pytest_lima.plugin import boundary, marks, options, progress
from pytest_lima.plugin.session import LimaSession, session_key
from pytest_lima.plugin.tracebacks import Tracebacks

if TYPE_CHECKING:
    from _pytest.fixtures import SubRequest

pytest_plugins = ("pytest_lima.plugin.fixtures",)

_GIVERS = ("lima", "lima_fresh", "lima_factory")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the table of options."""
    options.declare(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and check the options before anything is collected."""
    config.addinivalue_line("markers", marks.HELP)
    try:
        settings = options.settings_of(config)
    except TemplateError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[session_key] = LimaSession(config, settings)
    if not config.getoption("fulltrace", False):
        config.pluginmanager.register(Tracebacks(), "lima-tracebacks")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that needs a VM the spec of it, as a parameter of the `lima` fixture."""
    marks.parametrize(metafunc, metafunc.config.stash[session_key].settings.template)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Make `-m lima` mean what it says, however a test came to need a VM."""
    item.config.stash[session_key].adopt(item)


@pytest.hookimpl(tryfirst=True)  # before the terminal asks for the header
def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which VMs the tests that are left will want; markers may have come since."""
    lima = session.config.stash[session_key]
    for item in session.items:
        lima.adopt(item)
    lima.expect(session.items)
    progress.hold_screen(session.config)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """One line on what Lima will run, if it will."""
    session = config.stash[session_key]
    if not session.in_use or _runs_nothing(config) or config.get_verbosity() < 0:
        return []
    lines: list[str] = []
    with boundary.told(lines.append, "lima: what will be run can't be told"):
        from pytest_lima.plugin import report

        lines += report.header(session)
    return lines


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Note what comes next: of pytest-xdist's workers, none knows the tests that it will get."""
    item.config.stash[session_key].note_next(nextitem)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse what a marker asks of a test that can't have it, and freshen what is to be fresh."""
    marks.check(item)
    item.config.stash[session_key].begin(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Refuse what a fixture's marker asks of a test that has its VM by now."""
    marks.check(item)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: SubRequest) -> None:
    """Note how to end `lima` early: pytest would keep it until another VM is asked for.

    And have signals end the run in order: a thread of the test may start the first VM, and none
    but this one can install handlers.
    """
    session = request.config.stash[session_key]
    if fixturedef.argname in _GIVERS:
        session.signals.install()
    if fixturedef.argname == "lima":
        session.note_end(partial(fixturedef.finish, request))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """End a VM, and what was built on it, in the teardown of the last test that wants it.

    A VM that can't be deleted is then an error of that test, not of the next.
    """
    __tracebackhide__ = True
    session = item.config.stash[session_key]
    session.finished(item)
    try:
        yield
    finally:
        session.end_unwanted(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show why the VM failed, or what it printed when a test of it did."""
    session = item.config.stash[session_key]
    session.note_timings(item)
    outcome = yield
    if outcome.failed and (session.in_use or session.made is not None):
        missing: list[str] = []
        with boundary.told(missing.append, "left out"), realfiles.aside():
            from pytest_lima.plugin import report

            report.explain(item, call, outcome, session)
        outcome.sections += [("lima", line) for line in missing]
    return outcome


@pytest.hookimpl(wrapper=True, trylast=True)  # before the terminal's, which shows the summary
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Delete what is left; after pytest's own, so that all fixtures have ended."""
    ours = session.config.stash[session_key]
    ours.finishing = True
    try:
        return (yield)
    finally:
        if not ours.close() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """After an interrupt of the teardown: what is left of it. Signals are as they were."""
    session = config.stash.get(session_key, None)
    if session is not None:
        try:
            session.close()
        finally:
            session.signals.restore()
            progress.let_go_of_screen(config)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: object) -> None:
    """Note what pytest-timeout is about to set, and let it."""
    item.config.stash[session_key].timer.was_set(item, settings)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> None:
    """Note that pytest-timeout ends its timer, and let it."""
    item.config.stash[session_key].timer.was_cancelled()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist is about to start a worker: tell it which run it belongs to."""
    node.config.stash[session_key].workers.configure(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    """A worker of pytest-xdist has collected: show what it will start."""
    session = node.config.stash[session_key]
    with boundary.told(session.notes.append, "what the workers start is not shown"):
        if session.workers.collected():
            session.signals.install()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker of pytest-xdist has ended, or crashed."""
    session = node.config.stash[session_key]
    with boundary.told(session.notes.append, "what a worker has left is not known"):
        session.workers.ended(node, error)
        if error:
            session.note_crash()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was kept and how to get in, and how long it took, if that was asked for."""
    session = config.stash[session_key]
    if session.made is not None:
        with boundary.told(session.notes.append, "what was kept can't be told"):
            from pytest_lima.plugin import report

            report.summary(terminalreporter, session)
    for line in [*session.notes, *(session.problems if session.made is None else ())]:
        terminalreporter.line(f"lima: {line}", red=True)


def _runs_nothing(config: pytest.Config) -> bool:
    """Whether pytest was asked to show something instead of running tests."""
    flags = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan")
    return any(config.getoption(flag, False) for flag in flags)
