"""Options: which source wins, what the header shows of it, and what is said of a bad value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_the_nearest_source_wins_and_is_shown(pytester, fake_lima, monkeypatch):
    monkeypatch.setenv("PYTEST_LIMA_CPUS", "2")
    monkeypatch.setenv("PYTEST_LIMA_MEMORY", "2GiB")
    pytester.makeini("""
        [pytest]
        lima_cpus = 1
        lima_memory = 1
        lima_disk = 7
        lima_set =
            .audio.device = "none"
            .video.display = "vnc"
    """)
    pytester.makepyfile("""
        def test_it(lima, lima_settings):
            assert (lima.cpus, lima.memory) == (3, 2048)
            assert lima_settings.disk == 7.0 and lima_settings.keep == "never"
            assert lima_settings.sources["keep"] == "default"
    """)
    result = pytester.runpytest("--lima-cpus=3")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([
        "lima: template:ubuntu-lts, qemu, tcg, limactl 2.2.0 (*set from ini, "
        "cpus from command line, memory from environment, disk from ini, *)"
    ])  # fmt: skip
    [create] = fake_lima.calls("create")
    edits = [arg for arg in create.argv if arg.startswith("--set=")]
    assert edits == ['--set=.audio.device = "none"', '--set=.video.display = "vnc"']


def test_paths_in_the_ini_file_start_there(pytester, fake_lima, monkeypatch):
    monkeypatch.delenv("PYTEST_LIMA_HOME")
    pytester.makeini("""
        [pytest]
        lima_template =
            vm.yaml
            template:debian
        lima_mount = data:w
        lima_home = ../h
        lima_limactl = bin/limactl
    """)
    pytester.makepyfile(**{"sub/test_it": """
        def test_it(lima_settings, pytestconfig):
            root = str(pytestconfig.rootpath)
            assert lima_settings.template == (root + "/vm.yaml", "template:debian")
            assert lima_settings.mount == (root + "/data:w",)
            assert lima_settings.home == root + "/../h"
            assert lima_settings.limactl == root + "/bin/limactl"
    """})  # fmt: skip
    monkeypatch.chdir(pytester.path / "sub")
    pytester.runpytest().assert_outcomes(passed=1)


def test_a_template_file_and_a_mount_are_used_from_another_folder(pytester, fake_lima, monkeypatch):
    (pytester.path / "data").mkdir()
    content = {"images": [{"location": "https://fake.invalid/disk"}], "cpus": 3, "param": {"A": ""}}
    (pytester.path / "vm.yaml").write_text(json.dumps(content))
    pytester.makeini("[pytest]\nlima_template = vm.yaml\nlima_mount = data:w\nlima_param = A=b=c\n")
    pytester.makepyfile(**{"sub/test_it": """
        import json

        def test_it(lima, pytestconfig):
            assert lima.cpus == 3
            config = json.loads(lima.limactl("list", "--format=json", lima.name).stdout)["config"]
            mount = {"location": str(pytestconfig.rootpath / "data"), "writable": True}
            assert config["mounts"] == [mount]
            assert config["param"] == {"A": "b=c"}
    """})  # fmt: skip
    monkeypatch.chdir(pytester.path / "sub")
    pytester.runpytest().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("vmtype", "wsl2", "one of auto, vz, qemu"),
        ("cpus", "two", "a whole number from 1"),
        ("memory", "lots", "a size such as 2, 2GiB or 512MiB"),
        ("timeout", "-1", "a number above 0"),
        ("param", "novalue", "KEY=VALUE"),
        ("home", " ", "a text that is not empty"),
    ],
)
def test_a_bad_value_is_one_clear_usage_error(pytester, monkeypatch, option, value, accepted):
    pytester.makepyfile("def test_plain(): pass")
    for name in ("TIMEOUT", "VMTYPE"):  # the fake's own
        monkeypatch.delenv(f"PYTEST_LIMA_{name}")
    complaint = f"'{value}' is not accepted; give {accepted}"

    def assert_refused(where, *args):
        result = pytester.runpytest(*args)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert result.outlines == []
        assert [line for line in result.errlines if line] == [f"ERROR: {where}: {complaint}"]

    assert_refused(f"--lima-{option}", f"--lima-{option}={value}")
    if value.strip():  # an ini file can't hold a blank
        pytester.makeini(f"[pytest]\nlima_{option} = {value}\n")
        assert_refused(f"lima_{option} in the ini file")
    monkeypatch.setenv(f"PYTEST_LIMA_{option.upper()}", value)
    assert_refused(f"PYTEST_LIMA_{option.upper()}")


def test_a_template_that_cannot_be_used_is_named(pytester, fake_lima):
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest("--lima-template=template:nosuch")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "TemplateError: the template template:nosuch can't be used",
            "  ran: *",
            "  seen: *",
            "  do: *",
        ],
        consecutive=True,
    )
    assert [call.argv[3:] for call in fake_lima.calls("create")] == [("--list-templates",)]


def test_a_template_that_is_not_there_has_near_names(pytester, fake_lima):
    pytester.makepyfile("def test_it(lima): pass")
    for given, meant in (("debain", "there is no file debain in *; did you mean template:debian?"),
                         ("template:debain", "did you mean template:debian?")):  # fmt: skip
        result = pytester.runpytest(f"--lima-template={given}")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([f"  do: {meant}"])


def test_a_template_by_any_name(pytester, fake_lima):
    """limactl makes an instance's name of a file's, and refuses some."""
    pytester.makepyfile("def test_it(lima): assert lima.cpus == 3")
    for name in (".lima.yaml", "my vm.yaml"):
        Path(fake_lima.template(keys={"cpus": 3})).rename(pytester.path / name)
        result = pytester.runpytest(f"--lima-template={name}")
        result.assert_outcomes(passed=1)


def test_an_expression_is_checked_before_anything_is_made(pytester, fake_lima):
    pytester.makepyfile("def test_it(lima): pass")
    for given, shown in (
        (".vmType=qemu", ["TemplateError: --lima-set .vmType=qemu can't be applied to the template",
                          "  seen: *lexer: invalid input text*",
                          '  do: write it as .vmType = "qemu"']),
        (".cpuss=3", ["TemplateError: *with --lima-set .cpuss=3, has keys that Lima doesn't know*",
                      "  seen: cpuss (did you mean cpus??"]),
    ):  # fmt: skip
        result = pytester.runpytest(f"--lima-set={given}")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(shown, consecutive=True)
    assert fake_lima.calls("create") == []


def test_an_expression_may_be_key_and_value(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lima(set="memory=3GiB")
        def test_it(lima):
            assert (lima.cpus, lima.memory) == (3, 3072)
    """)
    result = pytester.runpytest("--lima-set=cpus=3", "--lima-set=vmType=qemu")
    result.assert_outcomes(passed=1)
    (create,) = fake_lima.calls("create")
    assert [arg for arg in create.argv if arg.startswith("--set=")] == [
        "--set=.cpus = 3", '--set=.vmType = "qemu"', '--set=.memory = "3GiB"',
    ]  # fmt: skip


def test_a_misspelt_key_is_told_before_anything_is_made(pytester, fake_lima):
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest(f"--lima-template={fake_lima.template(keys={'cpuz': 2})}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["  seen: cpuz (did you mean cpus?)"])
    assert fake_lima.calls("create") == []


def test_an_expression_about_ports_leaves_all_others_in_the_guest(pytester, fake_lima):
    pytester.makepyfile("""
        import json

        def test_it(lima):
            told = lima.limactl("list", "--format=json", lima.name).stdout
            rules = json.loads(told)["config"]["portForwards"]
            assert [rule.get("guestPort") for rule in rules] == [80, None]
            assert rules[-1]["ignore"] is True
    """)
    rule = '[{"guestPort": 80, "hostPort": 18080}]'
    pytester.runpytest(f"--lima-set=.portForwards = {rule}").assert_outcomes(passed=1)
