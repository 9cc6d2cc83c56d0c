"""Templates as the real limactl reads them, before and after us. No VM is started."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.lima import edits, keys, lima_yaml, template
from pytest_lima.lima.limactl import Limactl
from pytest_lima.lima.merging import without_nulls
from pytest_lima.settings import Settings
from pytest_lima.spec import MachineSpec, machine_spec

LIMACTL = shutil.which("limactl") or "limactl"
SHARE = Path(
    os.environ.get("LIMA_TEMPLATES_PATH", Path(LIMACTL).parents[1] / "share/lima/templates")
)
NAMES = sorted(
    str(path.relative_to(SHARE).with_suffix(""))
    for path in SHARE.rglob("*.yaml")
    if not path.relative_to(SHARE).parts[0].startswith("_")
)
IMAGES = "images: [{location: /dev/null, arch: x86_64}]\n"


@pytest.fixture
def limactl(tmp_path: Path) -> Limactl:
    home = tmp_path / "home"
    home.mkdir()
    return Limactl(LIMACTL, home, os.environ, {})


def resolved(limactl: Limactl, folder: Path, text: str) -> dict[str, Any]:
    """All that limactl makes of a lima.yaml."""
    folder.mkdir(exist_ok=True)
    path = folder / "vm.yaml"
    path.write_text(text, newline="")
    done = limactl.run("template", "copy", "--fill", str(path), "-")
    assert done.ok, done.stderr
    found = lima_yaml.read("limactl's answer", done.stdout)
    assert isinstance(found, dict)
    return found


def without_ours(found: dict[str, Any]) -> dict[str, Any]:
    """What we don't mean to change."""
    changed = {"plain", "vmType", "arch", "containerd", "mounts", "audio", "video",
               "propagateProxyEnv", "portForwards", "copyToHost"}  # fmt: skip
    kept = {key: value for key, value in found.items() if key not in changed}
    for key in ("forwardAgent", "forwardX11", "loadDotSSHPubKeys"):
        kept["ssh"].pop(key, None)
    scripts = kept.get("provision") or []
    kept["provision"] = [one for one in scripts if "SSH HOST KEY" not in str(one.get("script"))]
    plain: dict[str, Any] = without_nulls(kept)
    return plain


def assert_nothing_else_changes(limactl: Limactl, folder: Path, source: str) -> dict[str, Any]:
    text = limactl.template(source)
    before = resolved(limactl, folder / "before", text)
    # Plain mode changes what Lima fills in.
    spec = machine_spec(overrides={"plain": before["plain"], "copyToHost": []})
    filled = template.fill(source, text, spec, vmtype="qemu", arch="x86_64")
    after = resolved(limactl, folder / "after", filled.text)
    assert without_ours(after) == without_ours(before)
    return after


def test_limas_own_templates_are_found() -> None:
    assert {"default", "docker", "k3s", "ubuntu-lts"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_changes_in_limas_own(limactl: Limactl, tmp_path: Path, name: str) -> None:
    source = f"template:{name}"
    if not limactl.run("template", "copy", "--embed-all", source, "-").ok:
        pytest.skip("limactl can't read it here")
    system = lima_yaml.read(source, limactl.template(source)).get("os") or "Linux"
    if system == "Linux":
        assert_nothing_else_changes(limactl, tmp_path, source)
    else:
        with pytest.raises(TemplateError, match="makes no Linux guest"):
            assert_nothing_else_changes(limactl, tmp_path, source)


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("{DEBUG: on, PORTS: 22:22, OFF: off, Y: y, NO: NO}",
         {"DEBUG": "on", "PORTS": "22:22", "OFF": "off", "Y": "y", "NO": "NO"}),
        # Numbers are what Lima's reader makes of them, a text for the guest all the same.
        ("{A: 0755, B: 0o17, C: 0x1F, D: 1_000, E: 0b11, F: 08, G: +5, H: 017}",
         {"A": "493", "B": "15", "C": "31", "D": "1000", "E": "3", "F": "08", "G": "5", "H": "15"}),
        ("{A: 1.0, B: 1.10, C: .5, D: 1e3, E: 99999999999999999999, F: 1.2.3, G: -0}",
         {"A": "1", "B": "1.1", "C": "0.5", "D": "1e3", "E": "99999999999999999999", "F": "1.2.3",
          "G": "0"}),
        ("{A: 2001-01-01, B: 12:30:45, C: =, D: 2026-13-45, E: '<<'}",
         {"A": "2001-01-01", "B": "12:30:45", "C": "=", "D": "2026-13-45", "E": "<<"}),
        ("{A: '0755', B: \"1.10\", C: 'on', D: 'null', E: '~', F: '', G: ' x '}",
         {"A": "0755", "B": "1.10", "C": "on", "D": "null", "E": "~", "F": "", "G": " x "}),
        ("{A: true, B: True, C: FALSE, D: null, E: ~, F: }",
         {"A": "true", "B": "true", "C": "false", "D": "", "E": "", "F": ""}),
        ("{1: x, on: y, 0755: z}", {"1": "x", "on": "y", "493": "z"}),
        ("{A: !!str 5, B: !!binary aGkK, C: ! 0755}", {"A": "5", "B": "hi\n", "C": "0755"}),
        # limactl prints control characters as they are, so no others can be seen here.
        ("{A: \"a\\tb\\u2028\\u0085\"}", {"A": "a\tb\u2028\u0085"}),
        ("{A: \"a\u2028b\u0085c\"}", {"A": "a\u2028b\u0085c"}),
        ("{A: ü, B: 😀, C: \"\\U0001F600\"}", {"A": "ü", "B": "😀", "C": "😀"}),
        ("\n  A:\tx\n", {"A": "x"}),
        ("\n  A: |\n    x  \n\n    y\n  B: |+\n    z\n\n  C: |-\n    z\n\n  D: >\n    a\n    b\n",
         {"A": "x  \n\ny\n", "B": "z\n\n", "C": "z", "D": "a b\n"}),
        ("&e {A: x}\nparam: {}\n", {"A": "x"}),
        ("\n  A: &a on\n  B: *a\n", {"A": "on", "B": "on"}),
        ("{A: b}\n---\nenv: {A: c}\n", {"A": "b"}),
        ("{A: b}\r\nmessage: |\r\n  x\r\n  y\r\n", {"A": "b"}),
        (f"{{A: {'x' * 70_000}}}", {"A": "x" * 70_000}),
    ],
)  # fmt: skip
def test_texts_are_what_lima_makes_of_them(
    limactl: Limactl, tmp_path: Path, text: str, env: dict[str, str]
) -> None:
    source = tmp_path / "vm.yaml"
    source.write_text(f"{IMAGES}env: {text}\n", newline="")
    after = assert_nothing_else_changes(limactl, tmp_path, str(source))
    assert after["env"] == env


@pytest.mark.parametrize(
    "text",
    ["env: {A: 1, A: 2}", "env:\n\tA: x", "message: 'a\u2028'\nenv: [", "\ufeffcpus: 2",
     "cpus: 2\r\nmessage: 'a\r\n  b'\r\n", "env: {12:30: x}", "env: {A: !!timestamp 2001-01-01}"],
)  # fmt: skip
def test_what_can_t_be_carried_over_is_refused(limactl: Limactl, tmp_path: Path, text: str) -> None:
    source = tmp_path / "vm.yaml"
    source.write_text(f"{text}\n{IMAGES}", newline="")
    with pytest.raises(TemplateError):
        template.fill(
            "t", limactl.template(str(source)), MachineSpec(), vmtype="qemu", arch="x86_64"
        )


def test_a_file_that_is_no_utf_8(limactl: Limactl, tmp_path: Path) -> None:
    source = tmp_path / "vm.yaml"
    source.write_bytes(IMAGES.encode() + b"message: '\xff'\n")
    with pytest.raises(TemplateError, match="UTF-8"):
        limactl.template(str(source))


def test_overrides_arrive_as_they_are(limactl: Limactl, tmp_path: Path) -> None:
    env = {"DEBUG": "on", "PORTS": "22:22", "MODE": "0755", "NOTHING": "", "NULL": "null",
           "LINES": "a\n  b \n", "ODD": "\u0085\u2028", "YES": True, "FIVE": 5}  # fmt: skip
    spec = machine_spec(overrides={"env": env, "plain": False, "message": "é\n\n x"})
    filled = template.fill("t", IMAGES, spec, vmtype="qemu", arch="x86_64")
    found = resolved(limactl, tmp_path / "x", filled.text)
    expected = {**env, "YES": "true"}
    assert {key: str(one) for key, one in found["env"].items()} == {
        key: str(one) for key, one in expected.items()
    }
    assert found["message"] == "é\n\n x"


@pytest.mark.parametrize(
    "name", [".lima.yaml", "my vm.yaml", "-x.yaml", "100%.yaml", "ü.yml", "a__b"]
)
def test_a_template_by_any_name(limactl: Limactl, tmp_path: Path, name: str) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/base.yaml").write_text("cpus: 3\n")
    (tmp_path / "setup.sh").write_text("echo hi\n")
    source = tmp_path / name
    source.write_text(
        f"{IMAGES}base: parts/base.yaml\nprovision: [{{file: setup.sh}}]\n"
        "probes: [{file: setup.sh}]\n"
    )
    found = lima_yaml.read(name, limactl.template(str(source)))
    assert found["cpus"] == 3
    assert found["provision"] == [{"script": "echo hi\n"}]
    assert found["probes"] == [{"file": f"{tmp_path}/setup.sh"}]  # limactl leaves it out there
    source.write_text("images: [")
    with pytest.raises(TemplateError) as caught:
        limactl.template(str(source))
    assert str(source) in str(caught.value.seen)


def test_a_template_that_is_not_there(limactl: Limactl) -> None:
    for given in ("template:ubunto-lts", "template://ubunto-lts", "ubunto-lts"):
        with pytest.raises(TemplateError) as caught:
            limactl.template(given)
        assert "did you mean template:ubuntu-lts" in str(caught.value.remedy)
    assert "images" in limactl.template("template://ubuntu-lts")


def test_limas_keys_are_those_of_its_schema(limactl: Limactl) -> None:
    if keys.is_newer(limactl.version()):
        pytest.skip("the table is of an older Lima; this one is asked")
    assert keys.of_schema(limactl.run("generate-jsonschema").stdout) == keys.LIMA_2_2


def apply(limactl: Limactl, *expressions: str, **spec: Any) -> Any:
    asked = machine_spec(set=expressions, **spec)
    base = f"{IMAGES}param: {{size: '1'}}\nprobes: [{{script: '#!/bin/sh\n\n# $PARAM_size'}}]\n"
    filled = template.fill("t", base, asked, vmtype="qemu", arch="x86_64")
    return edits.apply("t", filled, asked, Settings(), limactl, keys.LIMA_2_2)


def test_expressions_are_tried_by_limactls_own_yq(limactl: Limactl) -> None:
    result = apply(limactl, '.caCerts.files += ["/a.pem"] | .propagateProxyEnv = true',
                   "cpus=3", '.images[0].digest = "sha256:0" # a comment',
                   param={"size": 'a"b\n'})  # fmt: skip
    assert (result.proxied, result.certificates) == (True, ("/a.pem",))
    assert result.images[0]["digest"] == "sha256:0"


@pytest.mark.parametrize(
    ("expression", "own"),
    [
        ('.portForwards = [{"guestPort": 80, "hostPort": 8080}]', [8080]),
        ('.portForwards += {"guestPort": 80, "hostPort": 8080} # it is', [8080]),
        (".portForwards = null", []),
        ("del(.portForwards)", []),
        (".cpus = 3", []),
    ],
)
def test_ports_that_nobody_asked_for_stay_in_the_guest(
    tmp_path: Path, expression: str, own: list[int]
) -> None:
    with tempfile.TemporaryDirectory(prefix="pl", dir="/tmp") as home:  # short, for sockets' paths
        limactl = Limactl(LIMACTL, Path(home), os.environ, {})
        result = apply(limactl, expression, param={"size": "2"})
        source = tmp_path / "vm.yaml"
        source.write_text(result.text)
        made = limactl.run("create", "--name=x", "--vm-type=qemu", *result.edits, str(source))
        assert made.ok, made.stderr
        after = lima_yaml.read("it", Path(home, "x", "lima.yaml").read_text())
    assert [rule["hostPort"] for rule in after["portForwards"][:-1]] == own
    assert after["portForwards"][-1]["ignore"] is True
    assert after["param"] == {"size": "2"}


@pytest.mark.parametrize(
    ("expression", "what", "do"),
    [
        (".vmType=qemu", "set= .vmType=qemu can't be applied", '.vmType = "qemu"'),
        (".os = Linux", "set= .os = Linux can't be applied", '.os = "Linux"'),
        ('.mounts=[{location: "/"}]', "can't be applied", '.mounts = [{"location": "/"}]'),
        (".cpus = 2 |", "can't be applied", "a key begins with a dot"),
        ("(.cpus = 2", "can't be applied", "a key begins with a dot"),
        (".env.A = env(HOME)", "can't be applied", "as for `limactl create --set`"),
        (".cpus", "is no template", "assignments"),
        (".cpuss = 3", "keys that Lima doesn't know", "remove"),
    ],
)
def test_expressions_that_fail(limactl: Limactl, expression: str, what: str, do: str) -> None:
    with pytest.raises(TemplateError) as caught:
        apply(limactl, ".cpus = 4", expression)
    assert what in caught.value.what
    assert do in str(caught.value.remedy)


def test_a_param_whose_mount_is_left_out(limactl: Limactl, tmp_path: Path) -> None:
    base = f"{IMAGES}param: {{src: /tmp}}\nmounts: [{{location: '{{{{.Param.src}}}}'}}]\n"
    spec = MachineSpec(param=(("src", "/var"),))
    filled = template.fill("t", base, spec, vmtype="qemu", arch="x86_64")
    edits.apply("t", filled, spec, Settings(), limactl, keys.LIMA_2_2)
    path = tmp_path / "vm.yaml"
    path.write_text(filled.text)
    done = limactl.run("validate", str(path))
    assert done.ok, done.stderr
