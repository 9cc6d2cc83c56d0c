"""The marker: what it asks for, which tests share a VM, and what a wrong one does."""

from __future__ import annotations

import json
import re


def test_closest_wins_and_specs_are_grouped(pytester, fake_lima):
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def follower(lima):
            print(f"follows {lima.cpus} {lima.memory}")
            yield lima.name
            print(f"leaves {lima.status}")

        @pytest.fixture
        def alive(lima):
            return sorted(path.name for path in lima.dir.parent.glob("pl-*"))
    """)
    pytester.makepyfile("""
        import pytest

        pytestmark = pytest.mark.lima(cpus=1, memory=1)

        def test_module(lima, follower, alive):
            assert (lima.cpus, lima.memory, [lima.name], follower) == (1, 1024, alive, lima.name)

        @pytest.mark.lima(cpus=2)
        class TestClass:
            def test_class(self, lima, follower, alive):
                assert (lima.cpus, lima.memory, [lima.name]) == (2, 1024, alive)

            @pytest.mark.lima(memory="3GiB", cpus=1)
            def test_function(self, lima, follower):
                assert (lima.cpus, lima.memory, follower) == (1, 3072, lima.name)

        def test_module_again(lima, follower):
            assert (lima.cpus, lima.memory, follower) == (1, 1024, lima.name)

        @pytest.mark.lima(cpus=2, memory=1)
        @pytest.mark.lima(memory="2048MiB")
        def test_stacked(request):
            lima = request.getfixturevalue("lima")
            assert (lima.cpus, lima.memory) == (2, 2048)

        @pytest.mark.lima(memory="1024MiB", cpus=2)
        def test_as_class(lima, follower):
            assert (lima.cpus, lima.memory, follower) == (2, 1024, lima.name)
    """)
    result = pytester.runpytest("-v", "-s")
    result.assert_outcomes(passed=6)
    text = result.stdout.str()
    assert re.findall(r"follows \d \d+|leaves \w+", text) == [
        "follows 1 1024", "leaves Running", "follows 2 1024", "leaves Running",
        "follows 1 3072", "leaves Running",
    ]  # fmt: skip
    order = list(dict.fromkeys(re.findall(r"::(test_\w+) ", text)))
    assert order[:2] == ["test_module", "test_module_again"]
    assert {"test_class", "test_as_class"} in ({*order[2:4]}, {*order[3:5]}, {*order[4:]})
    assert len(fake_lima.calls("create")) == 4
    fake_lima.assert_clean()


def test_m_lima_selects_whatever_uses_a_vm(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest, unittest

        @pytest.fixture(scope="session")
        def database(lima_docker_host): pass

        @pytest.fixture
        def query(database): pass

        @pytest.mark.lima
        def test_marked(): pass
        def test_direct(lima): pass
        @pytest.mark.parametrize("n", [1, 2])
        def test_other_fixture(query, n): pass
        def test_factory(lima_factory): pass
        @pytest.mark.lima
        class TestMarked(unittest.TestCase):
            def test_case(self): pass
        def test_settings(lima_settings): pass
        def test_plain(): pass
    """)
    name = "test_m_lima_selects_whatever_uses_a_vm.py::"
    chosen = pytester.runpytest("--collect-only", "-q", "-m", "lima").outlines[:6]
    assert sorted(line.removeprefix(name) for line in chosen) == [
        "TestMarked::test_case", "test_direct", "test_factory", "test_marked",
        "test_other_fixture[1]", "test_other_fixture[2]",
    ]  # fmt: skip
    result = pytester.runpytest("-m", "not lima", "-v")
    result.assert_outcomes(passed=2, deselected=6)
    result.stdout.fnmatch_lines(["*::test_settings PASSED*", "*::test_plain PASSED*"])
    assert fake_lima.calls() == []


WRONG = {
    "'template:debian' has none": "'template:debian'",
    "unexpected keyword argument 'cpu'": "cpu=2",
    "cpus=0 is not accepted; give a whole number from 1": "cpus=0",
    "cpus=True is not accepted": "cpus=True",
    "vmtype='wsl2' is not accepted; give one of auto, vz, qemu": "vmtype='wsl2'",
    "memory='lots' is not accepted; give a size such as 2": "memory='lots'",
    "provision=7 is not accepted; give a text or a list of texts": "provision=7",
    "param=['A=1'] is not accepted; give a mapping": "param=['A=1']",
    "give a mapping": "overrides=['cpus']",
}


def test_a_wrong_marker_fails_its_test_and_starts_nothing(pytester, fake_lima):
    wrong = [f"@pytest.mark.lima({args})\ndef test_{n}(): pass" for n, args in
             enumerate(WRONG.values())]  # fmt: skip
    pytester.makepyfile("\n".join(["import pytest", *wrong, "def test_plain(): pass"]))
    result = pytester.runpytest("-rN")
    result.assert_outcomes(errors=len(WRONG), passed=1)
    for number, text in enumerate(WRONG):
        result.stdout.fnmatch_lines([
            f"_* ERROR at setup of test_{number} _*",
            "@pytest.mark.lima: *" + text.replace("[", "[[]") + "*",
        ], consecutive=number > 0)  # fmt: skip
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_lima/*")
    assert fake_lima.calls("create") == []


def test_a_testcase_takes_the_bare_marker(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest, unittest

        @pytest.mark.lima
        class TestBare(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def take(self, lima):
                self.lima = lima

            def test_it(self):
                assert self.lima.run("echo hi").stdout == "hi\\n"

        class TestArguments(unittest.TestCase):
            @pytest.mark.lima(cpus=2)
            def test_refused(self): pass

        def test_shares_the_vm(lima):
            assert lima.run("true").ok

        def test_shares_it_with_docker(lima, lima_docker_host):
            assert lima_docker_host
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["@pytest.mark.lima: arguments need a test that *", "*ERROR *"])
    assert len(fake_lima.calls("create")) == 1
    fake_lima.assert_clean()


def test_two_templates_are_a_matrix(pytester, fake_lima):
    for name, cpus in (("one", 1), ("two", 2)):
        content = {"images": [{"location": "https://fake.invalid/disk"}], "cpus": cpus}
        (pytester.path / f"{name}.yaml").write_text(json.dumps(content))
    pytester.makepyfile(
        test_it="""
        import pytest

        def test_each(lima, request):
            assert request.node.name == {1: "test_each[one]", 2: "test_each[two]"}[lima.cpus]

        @pytest.mark.lima(memory=1)
        @pytest.mark.parametrize("n", [7])
        def test_spec(lima, n): pass

        @pytest.mark.lima(template="one.yaml")
        def test_own(lima, lima_template):
            assert lima.cpus == 1
    """
    )
    two = ("--lima-template=one.yaml", "--lima-template=two.yaml")
    ids = ["test_each[one]", "test_each[two]", "test_own", "test_spec[one-7]", "test_spec[two-7]"]
    single = pytester.runpytest("--collect-only", "-q").outlines[:3]
    assert [line.split("::")[1] for line in single] == ["test_each", "test_spec[7]", "test_own"]
    listed = pytester.runpytest("--collect-only", "-q", *two).outlines[:5]
    assert sorted(line.split("::")[1] for line in listed) == ids
    result = pytester.runpytest(*two, "-k", "not spec")
    result.assert_outcomes(passed=3, deselected=2)
    result.stdout.fnmatch_lines(["lima: one.yaml + two.yaml, qemu, *"])
    fake_lima.assert_clean()


def test_folders_override_and_those_that_do_alike_share_a_vm(pytester, fake_lima):
    override = "import pytest\n@pytest.fixture(scope='session')\ndef {}(): return {!r}\n"
    like_a = override.format("lima_overrides", {"cpus": 3, "env": {"A": "1"}})
    like_b = override.format("lima_template", fake_lima.template(keys={"cpus": 5}))
    pytester.makepyfile(**{
        "a/conftest": like_a, "a/test_a": "def test_it(lima): assert lima.cpus == 3\n",
        "b/conftest": like_b, "b/test_b": "def test_it(lima): assert lima.cpus == 5\n",
        "c/test_c": "def test_it(lima): assert lima.cpus == 4\n",
        "d/conftest": like_a, "d/test_d": "def test_it(lima): assert lima.cpus == 3\n",
    })  # fmt: skip
    pytester.runpytest().assert_outcomes(passed=4)
    assert len(fake_lima.calls("create")) == 3
    fake_lima.assert_clean()


def test_a_parameter_that_is_no_spec_is_refused(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("lima", [{"cpus": 2}], indirect=True)
        def test_it(lima): pass
    """)
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([
        "TemplateError: the `lima` fixture can't take {'cpus': 2} as a parameter",
        "  do: give the spec to the marker, as in @pytest.mark.lima(cpus=4)",
    ])  # fmt: skip
    assert fake_lima.calls("create") == []


def test_a_vm_is_gone_when_no_later_test_wants_it(pytester, fake_lima):
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def follower(lima):
            yield
            assert lima.run("true").ok
        """
    )
    pytester.makepyfile(
        """
        import os, pathlib

        def alive():
            return len(list(pathlib.Path(os.environ["PYTEST_LIMA_HOME"]).glob("pl-*")))

        def test_one(follower): assert alive() == 1
        def test_two(follower): assert alive() == 1
        def test_later(): assert alive() == 0
        """
    )
    pytester.runpytest().assert_outcomes(passed=3)
    assert len(fake_lima.calls("create")) == 1
