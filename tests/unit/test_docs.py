"""What the docs list is what the code has: options, fixtures, modules, links."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pytest_lima.settings import DEFAULT_TEMPLATE, OPTIONS, Option

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_lima"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def section(page: str, title: str) -> str:
    """The text below a heading of the second level, up to the next one."""
    text = (ROOT / page).read_text()
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in it, without their headings."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [cells for number, cells in enumerate(lines) if not _is_heading(lines, number)]


def _is_heading(lines: list[list[str]], number: int) -> bool:
    return any(re.fullmatch(r"[-| ]+", "".join(cells)) for cells in lines[number : number + 2])


def anchors(page: Path) -> set[str]:
    """The fragments that its headings can be reached by, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


OPTION_ROWS = {cells[0].strip("`"): cells[1:] for cells in rows(section("README.md", "Options"))}


def test_the_options_are_all_in_the_readme() -> None:
    assert list(OPTION_ROWS) == [option.flag for option in OPTIONS]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_s_row_says_its_default_and_choices(option: Option) -> None:
    default, meaning = OPTION_ROWS[option.flag]
    if option.name == "template":
        assert default == f"`{DEFAULT_TEMPLATE}`"
    elif option.switch:
        assert default == "`off`"
    elif option.default in (None, ()):
        # Decided later, by the template or the host: said in words.
        assert default
        assert option.default is None or default.startswith("none")
    elif isinstance(option.default, float):
        assert default == f"`{option.default:g}`"
    else:
        assert default == f"`{option.default}`"
    assert ("Repeatable" in meaning) == option.repeatable
    choices = option.metavar.split("|")
    if choices[0].islower():
        assert all(f"`{choice}`" in meaning for choice in choices)


def test_the_fixtures_are_all_in_the_readme() -> None:
    tree = ast.parse((PACKAGE / "plugin" / "fixtures.py").read_text())
    fixtures = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("pytest.fixture" in ast.unparse(mark) for mark in node.decorator_list)
    }
    assert fixtures
    assert {cells[0].strip("`") for cells in rows(section("README.md", "Fixtures"))} == fixtures


def _is_trivial(module: Path) -> bool:
    """An ``__init__.py`` with nothing but its docstring."""
    return module.name == "__init__.py" and len(ast.parse(module.read_text()).body) <= 1


def test_the_map_of_the_rooms_is_complete() -> None:
    modules = {
        module.relative_to(PACKAGE).as_posix()
        for module in PACKAGE.rglob("*.py")
        if not _is_trivial(module)
    }
    rooms = section("CONTRIBUTING.md", "Rooms").split("| Library | Owner |")[0]
    named = {cells[0].strip("`") for cells in rows(rooms) if not cells[0].startswith("**")}
    assert named == modules


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if fragment:
            assert fragment in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    links = set(_LINK.findall((ROOT / "README.md").read_text()))
    missing = {str(page.relative_to(ROOT)) for page in PAGES} - links - {"README.md"}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_compiles(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        if "->" in block.splitlines()[-1] or block.startswith("lima_instance(*"):
            continue  # a signature, no program
        compile(block, page.name, "exec")


def test_every_promise_has_tests_and_every_such_test_a_promise() -> None:
    promised = set(re.findall(r"^(\d+)\. ", (ROOT / "PROMISES.md").read_text(), re.MULTILINE))
    sources = "".join(path.read_text() for path in (ROOT / "tests" / "promises").glob("test_*.py"))
    tested = {
        str(int(number)) for number in re.findall(r"^def test_(\d\d)_", sources, re.MULTILINE)
    }
    assert promised == tested
