"""`@pytest.mark.lima`: from the arguments of a marker to a parameter of the `lima` fixture.

Indirect parametrisation makes pytest group tests by spec, lets equal specs share a VM, and
makes session fixtures that depend on `lima` follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pytest

from pytest_lima.errors import TemplateError
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


def parametrize(metafunc: pytest.Metafunc, templates: Sequence[str]) -> None:
    """Add `lima` to a marked test, and parametrise it wherever it is used.

    Args:
        metafunc: Of the test.
        templates: The run's; from two on, tests that leave it open run on each.
    """
    marked = metafunc.definition.get_closest_marker("lima") is not None
    if marked and _GIVERS.isdisjoint(metafunc.fixturenames):
        metafunc.fixturenames.insert(0, "lima")
    if "lima" not in metafunc.fixturenames or _is_parametrized(metafunc):
        return
    ask = replace(_ask(metafunc.definition), scope=_scope(metafunc))
    asks, ids = [ask], [pytest.HIDDEN_PARAM]
    if len(templates) > 1 and not ask.spec.template and not ask.problem:
        asks = [replace(ask, spec=replace(ask.spec, template=name)) for name in templates]
        ids = template_ids(templates)  # type: ignore[assignment]
    metafunc.parametrize("lima", asks, indirect=True, scope="session", ids=ids)


def template_ids(templates: Sequence[str]) -> list[str]:
    """Short ids for templates: the last part of the name, numbered where that is not unique."""
    short = [
        PurePosixPath(name.removeprefix("template:").strip("/")).name.removesuffix(".yaml")
        for name in templates
    ]
    if len(set(short)) == len(short):
        return short
    return [f"{name}-{number}" for number, name in enumerate(short)]


def adopt(item: pytest.Item, number_of: Callable[[Ask], int]) -> None:
    """Mark a test that uses `lima`, and give it the fixture where it could only be marked."""
    names: list[str] = getattr(item, "fixturenames", [])
    marked = item.get_closest_marker("lima") is not None
    if uses_lima(item) and not marked:
        item.add_marker("lima")
    if marked and _GIVERS.isdisjoint(names) and isinstance(item, pytest.Function):
        names.insert(0, "lima")  # a unittest.TestCase, which pytest can't parametrise
    ask = ask_of(item)
    callspec = getattr(item, "callspec", None)
    if ask is not None and callspec is not None and "lima" in callspec.indices:
        # pytest 8.4 to 9.1 group tests by the number of a parameter instead of its value.
        callspec.indices["lima"] = number_of(ask)


def uses_lima(item: pytest.Item) -> bool:
    """Whether a collected test has a fixture that starts VMs."""
    return not {*_GIVERS, "lima_factory"}.isdisjoint(getattr(item, "fixturenames", ()))


def ask_of(item: pytest.Item) -> Ask | None:
    """What a collected test asks for; None if it needs no VM."""
    if "lima" not in getattr(item, "fixturenames", ()):
        return None
    callspec = getattr(item, "callspec", None)
    ask = callspec.params.get("lima") if callspec is not None else None
    return ask if isinstance(ask, Ask) else Ask()


def own_spec(item: pytest.Item) -> MachineSpec:
    """The machine that a test's markers describe, for a fixture that isn't parametrised.

    Raises:
        TemplateError: They can't be used.
    """
    ask = _ask(item)
    if ask.problem:
        raise TemplateError(f"@pytest.mark.lima: {ask.problem}")
    return ask.spec


def fresh_spec(item: pytest.Item) -> MachineSpec | None:
    """The machine that a test's `lima_fresh` will be; None if it has none."""
    if "lima_fresh" not in getattr(item, "fixturenames", ()):
        return None
    ask = _ask(item)
    return None if ask.problem else ask.spec


def check(item: pytest.Item) -> None:
    """Fail a test whose marker can't be honoured, without starting anything."""
    lone = getattr(item, "callspec", None) is None and ask_of(item) is not None
    if lone and _ask(item) != Ask():
        pytest.fail(
            "@pytest.mark.lima: arguments need a test that pytest can parametrise, and this "
            "is none (a unittest.TestCase, for one); use the options, or a plain function",
            pytrace=False,
        )
    ask = ask_of(item)
    if ask is not None and ask.problem:
        pytest.fail(f"@pytest.mark.lima: {ask.problem}", pytrace=False)


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


def _is_parametrized(metafunc: pytest.Metafunc) -> bool:
    """Whether the test brings parameters for `lima` of its own."""
    names = [
        marker.args[0] if marker.args else marker.kwargs.get("argnames", "")
        for marker in metafunc.definition.iter_markers("parametrize")
    ]
    return any("lima" in (name.split(",") if isinstance(name, str) else name) for name in names)


def _scope(metafunc: pytest.Metafunc) -> tuple[str, ...]:
    """The folders whose conftest.py defines what the test sees at the override points; or none."""
    manager = metafunc.config.pluginmanager.get_plugin("funcmanage")
    found = []
    for name in _OVERRIDE_POINTS:
        defs = manager.getfixturedefs(name, metafunc.definition) if manager else None
        found.append(defs[-1].baseid if defs else "")
    return tuple(found) if any(found) else ()
