"""`@pytest.mark.lima`: from the arguments of a marker to a parameter of the `lima` fixture.

Indirect parametrisation makes pytest group tests by spec, lets equal specs share a VM, and
makes session fixtures that depend on `lima` follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.plugin.byname import fixtures_of
from pytest_lima.spec import MachineSpec, machine_spec

HELP = (
    "lima(*, template=None, vmtype=None, cpus=None, memory=None, disk=None, provision=(), "
    "mounts=(), networks=(), set=(), param=None, arch=None, overrides=None, fresh=False): the "
    "test needs a Linux VM, the `lima` fixture's; with arguments one of that spec; fresh: in the "
    "state in which it first was ready"
)

# Session fixtures that hold plain data; a conftest.py in a folder may replace them for its tests.
_OVERRIDE_POINTS = ("lima_template", "lima_overrides")
# What gives a test the machine that its marker describes.
_GIVERS = frozenset({"lima", "lima_fresh"})


@dataclass(frozen=True)
class Ask:
    """What a test asks of the `lima` fixture: its parameter.

    Attributes:
        spec: The machine, before options and fixtures fill it.
        problem: Why the marker can't be used, to be raised when the test is set up.
        scope: Where the override points that count for the test are defined; tests of two
            packages that override them differently can't share a value of `lima`.
        fresh: Every test gets it as it first was ready; it is shared with such tests only.
    """

    spec: MachineSpec = MachineSpec()  # noqa: RUF009 - frozen
    problem: str = ""
    scope: tuple[str, ...] = ()
    fresh: bool = False

    def like(self, other: Ask) -> bool:
        """Whether both may come to the same machine, each with its folder's overrides."""
        return (self.spec, self.fresh) == (other.spec, other.fresh)


_ask_key = pytest.StashKey[Ask | None]()
_said_key = pytest.StashKey[Ask]()
_names_key = pytest.StashKey[frozenset[str]]()
_added_key = pytest.StashKey[pytest.Mark]()


def parametrize(metafunc: pytest.Metafunc, templates: Sequence[str]) -> None:
    """Add `lima` to a marked test, and parametrise it wherever it is or may come to be used.

    Args:
        metafunc: Of the test.
        templates: The run's; from two on, tests that leave it open run on each.
    """
    test = metafunc.definition
    marked = test.get_closest_marker("lima") is not None
    if marked and _GIVERS.isdisjoint(metafunc.fixturenames):
        metafunc.fixturenames.insert(0, "lima")
    names = fixtures_of(test, _parameter_texts(test))
    by_name = "lima" not in metafunc.fixturenames
    if _is_parametrized(test) or (by_name and "lima" not in names and not _marks_parameters(test)):
        return
    ask = _located(_ask(test), test)
    asks, ids = [ask], [pytest.HIDDEN_PARAM]
    if len(templates) > 1 and not ask.spec.template and not ask.problem:
        asks = [replace(ask, spec=replace(ask.spec, template=name)) for name in templates]
        ids = template_ids(templates)  # type: ignore[assignment]
    if by_name:
        metafunc.fixturenames.append("lima")
    metafunc.parametrize("lima", asks, indirect=True, scope="session", ids=ids)
    if by_name:  # it has the parameter when it asks, and no VM if it doesn't
        metafunc.fixturenames.remove("lima")


def template_ids(templates: Sequence[str]) -> list[str]:
    """Short ids for templates: the last part of the name, numbered where that is not unique."""
    short = [
        PurePosixPath(name.removeprefix("template:").strip("/")).name.removesuffix(".yaml")
        for name in templates
    ]
    if len(set(short)) == len(short):
        return short
    return [f"{name}-{number}" for number, name in enumerate(short)]


def adopt(item: pytest.Item, templates: Sequence[str], number_of: Callable[[Ask], int]) -> None:
    """Mark a test that uses `lima`, and note what it asks for by all the markers that it has now.

    When it is collected, and again when others have had their say.
    """
    marked = any(mark is not item.stash.get(_added_key, None) for mark in item.iter_markers("lima"))
    static: Sequence[str] = getattr(item, "fixturenames", ())
    if marked and _GIVERS.isdisjoint(static) and isinstance(item, pytest.Function):
        # A unittest.TestCase, which pytest can't parametrise, or one that was marked late. The
        # list is shared by all tests of a function.
        item.fixturenames = ["lima", *static]
    item.stash[_names_key] = fixtures_of(item)
    if uses_lima(item) and item.get_closest_marker("lima") is None:
        item.add_marker("lima")
        item.stash[_added_key] = item.own_markers[-1]
    item.stash[_said_key] = _ask(item)
    item.stash[_ask_key] = ask = _ask_now(item, templates) if "lima" in names_of(item) else None
    if ask is not None and _given(item) is not None:
        callspec = item.callspec  # type: ignore[attr-defined]
        callspec.params["lima"] = ask
        # pytest 8.4 to 9.1 group tests by the number of a parameter instead of its value.
        callspec.indices["lima"] = number_of(ask)


def names_of(item: pytest.Item) -> frozenset[str]:
    """The fixtures that a collected test may use, by name too."""
    stash: Any = getattr(item, "stash", {})
    foreseen: frozenset[str] = stash.get(_names_key, frozenset())
    return foreseen.union(getattr(item, "fixturenames", ()))


def uses_lima(item: pytest.Item) -> bool:
    """Whether a collected test has a fixture that starts VMs."""
    return not names_of(item).isdisjoint({*_GIVERS, "lima_factory"})


def ask_of(item: pytest.Item) -> Ask | None:
    """What a collected test asks for; None if it needs no VM."""
    stash: Any = getattr(item, "stash", {})
    if _ask_key in stash:
        ask: Ask | None = stash[_ask_key]
        return ask
    return (_given(item) or Ask()) if "lima" in getattr(item, "fixturenames", ()) else None


def ask_by_name(item: pytest.Item, templates: Sequence[str]) -> Ask:
    """What a test asks for that has no parameter, and maybe asks by a name that nobody foresaw."""
    return ask_of(item) or _ask_now(item, templates)


def own_spec(item: pytest.Item) -> MachineSpec:
    """The machine that a test's markers describe, for a fixture that isn't parametrised.

    Raises:
        TemplateError: They can't be used.
    """
    ask = _ask(item)
    if ask.problem:
        raise TemplateError(f"@pytest.mark.lima: {ask.problem}")
    return _located(ask, item).spec


def fresh_spec(item: pytest.Item) -> MachineSpec | None:
    """The machine that a test's `lima_fresh` will be; None if it has none."""
    if "lima_fresh" not in names_of(item):
        return None
    ask = _ask(item)
    return None if ask.problem else ask.spec


def check(item: pytest.Item) -> None:
    """Fail a test whose markers can't be honoured: before anything is started, and once it was."""
    ask = ask_of(item)
    if ask is None:
        return
    problem = ask.problem
    if _given(item) is None and _ask(item) != Ask():
        problem = (
            "arguments need a test that pytest can parametrise, and this is none (a "
            "unittest.TestCase, for one), or was marked when that was over; use the options, or "
            "a plain function that takes `lima`"
        )
    elif _ask(item) != item.stash[_said_key]:
        problem = (
            "it was added when the VM of the test was decided on already; add it where the test "
            "is defined, or in a hook of the collection"
        )
    if problem:
        pytest.fail(f"@pytest.mark.lima: {problem}", pytrace=False)


def _given(item: pytest.Item) -> Ask | None:
    """The parameter that it got from `parametrize`."""
    callspec = getattr(item, "callspec", None)
    given = callspec.params.get("lima") if callspec is not None else None
    return given if isinstance(given, Ask) else None


def _ask_now(item: pytest.Item, templates: Sequence[str]) -> Ask:
    """What the markers that a test has at this moment ask for."""
    ask = _located(_ask(item), item)
    given = _given(item)
    several = len(templates) > 1 and not ask.scope
    template = given.spec.template if given else templates[0] if several else None
    # Of several that the run names, each test has one.
    return replace(ask, spec=replace(ask.spec, template=ask.spec.template or template))


def _ask(node: pytest.Item) -> Ask:
    """The markers of a test, its class and its module as one; the closest wins."""
    arguments: dict[str, object] = {}
    for marker in reversed(list(node.iter_markers("lima"))):
        if marker.args:
            return Ask(problem=f"arguments have names, {marker.args[0]!r} has none")
        arguments.update(marker.kwargs)
    fresh = arguments.pop("fresh", False)
    if not isinstance(fresh, bool):
        return Ask(problem=f"fresh={fresh!r} is not accepted; give True or False")
    try:
        return Ask(machine_spec(**arguments), fresh=fresh)  # type: ignore[arg-type]
    except TemplateError as error:
        return Ask(problem=str(error))
    except TypeError as error:
        return Ask(problem=str(error).replace("machine_spec() got an", "an").split("(")[0])


def _located(ask: Ask, test: pytest.Item) -> Ask:
    """With the paths of the markers: beside the test's file, or where pytest was started."""
    spec = ask.spec.located(test.path.parent, test.config.invocation_params.dir)
    return replace(ask, spec=spec, scope=_scope(test))


def _is_parametrized(test: pytest.Item) -> bool:
    """Whether the test brings parameters for `lima` of its own."""
    return any(
        "lima" in (names.split(",") if isinstance(names, str) else names)
        for names, _ in _parametrizations(test)
    )


def _marks_parameters(test: pytest.Item) -> bool:
    """Whether some of a test's parameters have the marker."""
    return any(
        mark.name == "lima"
        for _, values in _parametrizations(test)
        for value in values
        for mark in getattr(value, "marks", ())
    )


def _parameter_texts(test: pytest.Item) -> set[str]:
    """Those among its parameters that are texts."""
    values = (value for _, values in _parametrizations(test) for value in values)
    parts = (value if isinstance(value, list | tuple) else (value,) for value in values)
    return {text for part in parts for text in part if isinstance(text, str)}


def _parametrizations(test: pytest.Item) -> Iterator[tuple[Any, Sequence[object]]]:
    """Names and values of its `parametrize` markers; not those that can be read only once."""
    for marker in test.iter_markers("parametrize"):
        names, values = ([*marker.args, None, None])[:2]
        values = marker.kwargs.get("argvalues", values)
        known = values if isinstance(values, list | tuple) else ()
        yield marker.kwargs.get("argnames", names) or "", known


def _scope(test: pytest.Item) -> tuple[str, ...]:
    """The folders whose conftest.py defines what the test sees at the override points; or none."""
    manager = test.config.pluginmanager.get_plugin("funcmanage")
    found = []
    for name in _OVERRIDE_POINTS:
        defs = manager.getfixturedefs(name, test) if manager else None
        found.append(defs[-1].baseid if defs else "")
    return tuple(found) if any(found) else ()
