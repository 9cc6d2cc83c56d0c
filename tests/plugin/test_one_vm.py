"""The same spec, reached in different ways, is one VM."""

from __future__ import annotations

import pytest

BY_NAME = """
    import pytest

    @pytest.fixture(scope="session")
    def database(request):
        lima = request.getfixturevalue("lima")
        return lima.name

    @pytest.fixture(scope="session")
    def docker(request):
        return request.getfixturevalue("lima_docker_host")
"""

ORDERS = {
    "by name first": ("by_name", "named", "engine"),
    "named first": ("named", "by_name", "engine"),
    "the engine first": ("engine", "named", "by_name"),
    "the engine by name first": ("engine_by_name", "by_name", "named"),
    "the engine by name last": ("named", "by_name", "engine_by_name"),
    "in the test": ("named", "in_the_test", "engine", "parametrised"),
    "in other ways": ("uses", "unittest", "engine", "autouse", "by_name", "override"),
}
TESTS = {
    "by_name": "def test_it(database): pass",
    "named": "def test_it(lima): pass",
    "engine": "def test_it(lima_docker_host): pass",
    "engine_by_name": "def test_it(docker): pass",
    "in_the_test": "def test_it(request): request.getfixturevalue('lima').run('true')",
    "parametrised": """
        import pytest
        @pytest.mark.parametrize("name", ["lima", "lima_docker_env"])
        def test_it(request, name): request.getfixturevalue(name)
        """,
    "uses": """
        import pytest
        @pytest.mark.usefixtures("lima")
        def test_it(): pass
        """,
    "autouse": """
        import pytest
        @pytest.fixture(autouse=True)
        def machine(request): request.getfixturevalue("lima")
        def test_it(): pass
        """,
    "unittest": """
        import pytest, unittest
        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def take(self, lima): self.lima = lima
            def test_it(self): self.lima.run("true")
        """,
    "override": """
        import pytest
        @pytest.fixture(scope="session")
        def lima(lima):
            lima.run("true")
            return lima
        def test_it(lima): pass
        """,
}


def write(pytester: pytest.Pytester, kinds: tuple[str, ...], folder: str = "") -> None:
    for number, kind in enumerate(kinds):
        pytester.makepyfile(**{f"{folder}test_{number}_{kind}": TESTS[kind]})


@pytest.mark.parametrize("order", ORDERS)
def test_however_it_is_asked_for(pytester, fake_lima, order):
    pytester.makeconftest(BY_NAME)
    write(pytester, ORDERS[order])
    result = pytester.runpytest()
    assert "failed" not in result.parseoutcomes() and "errors" not in result.parseoutcomes()
    assert len(fake_lima.calls("create")) == 1
    fake_lima.assert_clean()


def test_in_folders_that_override_alike(pytester, fake_lima):
    pytester.makeconftest(BY_NAME)
    override = "import pytest\n@pytest.fixture(scope='session')\ndef lima_overrides(): return {}\n"
    pytester.makepyfile(**{"a/conftest": override, "b/conftest": override})
    for folder in ("a", "b"):
        (pytester.path / folder / "__init__.py").touch()
        write(pytester, ("named", "by_name", "engine", "unittest"), f"{folder}/")
    pytester.runpytest().assert_outcomes(passed=8)
    assert len(fake_lima.calls("create")) == 1


def test_doctests_share_it(pytester, fake_lima):
    pytester.makepyfile(test_a="def test_it(lima): pass", mod='''
        def use():
            """
            >>> getfixture("lima").run("echo hi").stdout
            'hi\\\\n'
            """
    ''', test_z="def test_it(lima_docker_host): pass")  # fmt: skip
    result = pytester.runpytest("--doctest-modules")
    result.assert_outcomes(passed=3)
    assert len(fake_lima.calls("create")) == 1


def test_the_marker_follows_what_is_asked_for_by_name(pytester, fake_lima):
    pytester.makeconftest(BY_NAME)
    write(pytester, ("by_name", "engine_by_name", "in_the_test"))
    pytester.makepyfile(test_plain="def test_it(): pass")
    pytester.runpytest("-m", "not lima").assert_outcomes(passed=1, deselected=3)
    assert fake_lima.calls() == []


def test_what_is_never_asked_for_is_not_started(pytester, fake_lima):
    pytester.makepyfile("""
        def test_it(request):
            if request.config.getoption("verbose") > 5:
                request.getfixturevalue("lima")
    """)
    pytester.runpytest().assert_outcomes(passed=1)
    assert fake_lima.calls("create") == []


def test_an_engine_that_nobody_could_foresee_says_how_to_have_it(pytester, fake_lima):
    pytester.makepyfile("""
        def test_it(lima): pass

        def test_unforeseen(request):
            request.getfixturevalue("_".join(["lima", "docker", "host"]))
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([
        "*LimaError: pl-* was started without docker", "*do: ask for it with --lima-engine=docker*",
    ])  # fmt: skip


def test_several_templates_and_a_name(pytester, fake_lima):
    one, two = fake_lima.template(keys={"cpus": 1}), fake_lima.template(keys={"cpus": 2})
    pytester.makeconftest(BY_NAME)
    write(pytester, ("named", "by_name", "unittest", "engine"))
    result = pytester.runpytest(f"--lima-template={one}", f"--lima-template={two}")
    result.assert_outcomes(passed=7)
    assert len(fake_lima.calls("create")) == 2
