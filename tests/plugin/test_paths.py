"""Relative paths: each source has its folder, whatever directory a test changes to."""

from __future__ import annotations

import json

import pytest


def vm(cpus: int) -> str:
    return json.dumps({"images": [{"location": "https://fake.invalid/disk"}], "cpus": cpus})


# Goes elsewhere before the VM is asked for.
ELSEWHERE = """
    import os, pytest

    @pytest.fixture(autouse=True)
    def elsewhere(tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
"""


@pytest.fixture
def project(pytester):
    """A suite whose tests run elsewhere, with templates of 1, 2 and 3 CPUs in its folders."""
    pytester.makeconftest(ELSEWHERE)
    for folder, cpus in ((".", 1), ("sub", 2), ("conf", 3)):
        (pytester.path / folder).mkdir(exist_ok=True)
        (pytester.path / folder / "vm.yaml").write_text(vm(cpus))
        (pytester.path / folder / "data").mkdir()
    return pytester


FRESH = """
    def test_it(lima_fresh, lima):
        assert {lima_fresh.cpus, lima.cpus} == {%d}
"""


@pytest.mark.parametrize("template", ["vm.yaml", "./vm.yaml", "../%s/vm.yaml", "sub/../vm.yaml"])
def test_a_flag_starts_where_pytest_was_started(project, fake_lima, template):
    project.makepyfile(FRESH % 1)
    if "%s" in template:
        template %= project.path.name
    result = project.runpytest(f"--lima-template={template}")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["lima: *vm.yaml, qemu, *"])
    fake_lima.assert_clean()


@pytest.mark.parametrize("source", ["flag", "variable", "PYTEST_ADDOPTS"])
def test_from_a_folder_below(project, fake_lima, monkeypatch, source):
    project.makepyfile(**{"sub/test_it": FRESH % 2})
    project.makeini("[pytest]\n")
    monkeypatch.chdir(project.path / "sub")
    args = ["--lima-template=vm.yaml"] if source == "flag" else []
    if source == "variable":
        monkeypatch.setenv("PYTEST_LIMA_TEMPLATE", "vm.yaml")
    if source == "PYTEST_ADDOPTS":
        monkeypatch.setenv("PYTEST_ADDOPTS", "--lima-template=vm.yaml")
    project.runpytest(*args).assert_outcomes(passed=1)
    fake_lima.assert_clean()


def test_the_ini_file_of_c_and_another_rootdir(project, fake_lima, monkeypatch):
    project.makepyfile(**{"sub/test_it": FRESH % 3})
    (project.path / "conf" / "other.ini").write_text("[pytest]\nlima_template = vm.yaml\n")
    result = project.runpytest("-c", "conf/other.ini", "--rootdir=sub", "sub")
    result.assert_outcomes(passed=1)
    overruled = project.runpytest("-c", "conf/other.ini", "sub", "-o",
                                  "lima_template=../sub/vm.yaml")  # fmt: skip
    overruled.assert_outcomes(failed=1)  # two CPUs


def test_home_limactl_mounts_and_the_users_home(project, fake_lima, monkeypatch):
    monkeypatch.delenv("PYTEST_LIMA_HOME")
    (project.path / "limactl").symlink_to(fake_lima.limactl)
    project.makepyfile("""
        import os
        from pathlib import Path

        def test_it(lima_fresh, lima_settings, pytestconfig):
            root = pytestconfig.rootpath
            # The path of a home may not be long; pytest's folders are.
            assert lima_settings.home == str(root / "../../../h")
            assert lima_settings.limactl == str(root / "limactl")
            assert lima_settings.mount == (str(root / "data") + ":w", os.environ["OLD_HOME"] + "/m")
            mounted = lima_fresh.limactl("list", "--format=json", lima_fresh.name).stdout
            assert str(root / "data") in mounted and "/m" in mounted
    """)
    home = fake_lima.dir / "user"
    (home / "m").mkdir()
    monkeypatch.setenv("OLD_HOME", str(home))
    monkeypatch.setenv("PYTEST_LIMA_HOME", "../../../h")
    monkeypatch.setenv("PYTEST_LIMA_MOUNT", "data:w\n~/m")
    monkeypatch.chdir(project.path)
    result = project.runpytest("--lima-limactl=./limactl")
    result.assert_outcomes(passed=1)


OVERRIDE = """
    import pytest

    @pytest.fixture(scope="session")
    def lima_template():
        return "vm.yaml"
"""


def test_an_override_starts_beside_its_file(project, fake_lima):
    project.makepyfile(**{
        "sub/conftest": OVERRIDE, "sub/test_sub": FRESH % 2,
        "conf/test_conf": OVERRIDE + FRESH % 3,
    })  # fmt: skip
    project.runpytest().assert_outcomes(passed=2)
    # Where there is nothing beside it, from where pytest was started, as it was.
    (project.path / "sub" / "vm.yaml").unlink()
    project.makepyfile(**{"sub/test_sub": FRESH % 1})
    project.runpytest("sub").assert_outcomes(passed=1)


def test_a_marker_starts_beside_its_test(project, fake_lima):
    project.makepyfile(**{"sub/test_it": """
        import json, pytest

        @pytest.mark.lima(template="vm.yaml", mounts=["data"])
        def test_shared(lima, pytestconfig):
            assert lima.cpus == 2
            config = json.loads(lima.limactl("list", "--format=json", lima.name).stdout)["config"]
            mounted = [mount["location"] for mount in config["mounts"]]
            assert mounted == [str(pytestconfig.rootpath / "sub" / "data")]

        @pytest.mark.lima(template="./vm.yaml")
        def test_fresh(lima_fresh): assert lima_fresh.cpus == 2

        @pytest.mark.lima(template="conf/vm.yaml")
        def test_from_where_pytest_was_started(lima): assert lima.cpus == 3

        @pytest.mark.parametrize("n", [pytest.param(2, marks=pytest.mark.lima(template="vm.yaml"))])
        def test_parameter(lima, n): assert lima.cpus == n
    """})  # fmt: skip
    project.runpytest().assert_outcomes(passed=4)


def test_a_call_starts_at_the_current_directory(project, fake_lima):
    project.makepyfile("""
        from pathlib import Path
        import pytest, pytest_lima

        def test_factory(lima_factory, pytestconfig, monkeypatch):
            assert lima_factory(template="vm.yaml").cpus == 1
            monkeypatch.chdir(pytestconfig.rootpath / "sub")
            assert lima_factory(template="vm.yaml").cpus == 2

        def test_library(pytestconfig, monkeypatch):
            monkeypatch.chdir(pytestconfig.rootpath / "conf")
            with pytest_lima.lima_instance(template="vm.yaml") as vm:
                assert vm.cpus == 3
    """)
    project.runpytest().assert_outcomes(passed=2)


def test_a_relative_state_directory_is_no_state_directory(project, fake_lima, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    project.makepyfile("def test_it(lima): pass")
    project.runpytest_subprocess().assert_outcomes(passed=1)
    assert (fake_lima.dir / "user" / ".local" / "state" / "pytest-lima").is_dir()
    assert not (project.path / "state").exists()


def test_workers_see_the_same(project, fake_lima):
    pytest.importorskip("xdist")
    project.makepyfile(test_a=FRESH % 1, test_b=FRESH % 1)
    result = project.runpytest_subprocess("-n2", "--lima-template=vm.yaml")
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("template", ["template:debian", "https://fake.invalid/x.yaml", "/x.yaml"])
def test_what_is_no_relative_path_stays(project, template):
    project.makepyfile(f"""
        def test_it(lima_settings):
            assert lima_settings.template == ({template!r},)
    """)
    project.runpytest(f"--lima-template={template}").assert_outcomes(passed=1)


def test_a_missing_template_is_named_with_its_folder(project, fake_lima):
    project.makepyfile("def test_it(lima): pass")
    result = project.runpytest("--lima-template=nosuch.yaml")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"TemplateError: the template {project.path}/nosuch.yaml can't*"])
