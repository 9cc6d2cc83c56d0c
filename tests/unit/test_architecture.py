"""The rooms of the package and who may go where, read from its source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "pytest_lima"

# From the bottom up. A module may import its own room and those before it. The package itself
# hands out names of the engine, so it counts as standing on top of it.
ROOMS = (
    "errors", "realtime", "realfiles", "realsockets", "values", "settings", "spec", "observer",
    "lima", "guest", "booted", "boot", "machine", "instance", "warm", "ownership", "", "cli",
    "plugin",
)  # fmt: skip

OWNERS = {
    "subprocess": "pytest_lima.lima.process",
    "paramiko": "pytest_lima.guest.ssh",
    "tenacity": "pytest_lima.guest.readiness",
    "yaml": "pytest_lima.lima.lima_yaml",
    "h2": "pytest_lima.guest.answers",
    "qemu": "pytest_lima.lima.qmp",
    "filelock": "pytest_lima.ownership.ledger",
    "platformdirs": "pytest_lima.ownership.ledger",
    "psutil": "pytest_lima.lima.identity",
}
# Some modules of a standard library start processes too.
STARTERS = {"multiprocessing", "pty", "asyncio", "concurrent.futures.process"}


def _module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def _room(module: str) -> str:
    return module.removeprefix(PACKAGE).lstrip(".").partition(".")[0]


def _is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if _is_typing_only(child):
            for other in child.orelse:  # type: ignore[attr-defined]
                yield from _runtime_nodes(other)
        else:
            yield from _runtime_nodes(child)


def _targets(node: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package]
            base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            name = f"{base}.{alias.name}"
            yield name if name in MODULES else base


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports when it runs, at its top or inside functions."""
    path = MODULES[module]
    tree = ast.parse(path.read_text())
    return frozenset(
        target
        for node in _runtime_nodes(tree)
        for target in _targets(node, module, is_package=path.name == "__init__.py")
    )


def test_the_walk_sees_the_package() -> None:
    assert len(MODULES) > 20
    assert "pytest_lima.errors" in imports("pytest_lima.settings")
    assert "pytest_lima.lima.process" in imports("pytest_lima.lima.limactl")
    # h2 is imported inside functions, and for types: the former counts.
    assert "h2.connection" in imports("pytest_lima.guest.answers")
    assert "pytest_lima.guest.commands" not in imports("pytest_lima.errors")


@pytest.mark.parametrize("module", [name for name in MODULES if _room(name) != "plugin"])
def test_the_engine_works_without_pytest(module: str) -> None:
    assert not [name for name in imports(module) if name.split(".")[0] in ("pytest", "_pytest")]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards_only(module: str) -> None:
    assert _room(module) in ROOMS, "a room that isn't in the list: say where it stands"
    allowed = ROOMS[: ROOMS.index(_room(module)) + 1]
    ours = {name for name in imports(module) if name.split(".")[0] == PACKAGE}
    assert {name for name in ours if _room(name) not in allowed} == set()


def test_no_import_goes_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for target in sorted(imports(module) & MODULES.keys()):
                visit(target, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())
    assert done == MODULES.keys()


def _third_party(module: str) -> set[str]:
    tops = {name.partition(".")[0] for name in imports(module)}
    return tops - sys.stdlib_module_names - {PACKAGE, "pytest"}


def test_each_library_and_outside_process_has_one_owner() -> None:
    users: dict[str, set[str]] = {library: set() for library in OWNERS}
    for module in MODULES:
        for library in _third_party(module) | ({"subprocess"} & imports(module)):
            users.setdefault(library, set()).add(module)
    assert users == {library: {owner} for library, owner in OWNERS.items()}
    # qemu.qmp is asyncio; its owner starts no process with that.
    assert {name for name in MODULES if imports(name) & STARTERS} == {OWNERS["qemu"]}


def test_contributing_names_the_owners() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().split("| Library | Owner |\n|---|---|\n")[1]
    named = {}
    for row in table.split("\n\n")[0].splitlines():
        libraries, owner = row.strip("| ").split(" | ")
        for library in libraries.strip("`").split(", "):
            imported = {"PyYAML": "yaml", "qemu.qmp": "qemu"}.get(library, library)
            named[imported] = f"{PACKAGE}." + owner.strip("`").removesuffix(".py").replace("/", ".")
    assert named == OWNERS


# Sent to the guest, where no test patches anything.
IN_THE_GUEST = "pytest_lima.guest.waker"
CLOCK = "pytest_lima.realtime"
CHANNELS = "pytest_lima.guest.channels"


def test_one_module_tells_the_time() -> None:
    users = {name for name in MODULES if imports(name) & {"time", "datetime"}}
    assert users == {CLOCK, IN_THE_GUEST}


def test_nothing_runs_in_a_guest_without_the_sign_that_it_began() -> None:
    texts = {name: path.read_text() for name, path in MODULES.items()}
    assert {name for name in texts if "exec_command" in texts[name]} == {CHANNELS}
    users = {name for name in texts if "channels.execute(" in texts[name]}
    assert users == {"pytest_lima.guest.sessions", "pytest_lima.guest.shell"}


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_long(module: str) -> None:
    lines = MODULES[module].read_text().count("\n")
    assert lines <= 400, "does it have two subjects?"


HEAVY = sorted({*OWNERS, "asyncio", "multiprocessing", "http", "ssl", "sqlite3", "pytest"})


@pytest.mark.parametrize(
    "module", [PACKAGE, *(f"{PACKAGE}.{name}" for name in ("settings", "spec", "errors"))]
)
def test_importing_what_every_pytest_start_imports_is_cheap(module: str) -> None:
    program = (
        f"import sys; before = set(sys.modules); import {module}; "
        f"print(*sorted((set(sys.modules) - before) & set({HEAVY!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
