"""Templates as the real limactl reads and checks them; no VM is started."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakelima.keys import IN_PLAIN, NOT_IN_PLAIN, OPEN

from pytest_lima import TemplateError
from pytest_lima.lima import template
from pytest_lima.spec import MachineSpec, machine_spec

LIMACTL = shutil.which("limactl") or "limactl"
# Lima's own, which refers to an image that isn't there (2.2.0).
BROKEN = "experimental/fedora-rawhide"


def limactl(*args: str) -> str:
    done = subprocess.run([LIMACTL, "--tty=false", *args], capture_output=True, text=True,
                          check=False, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _names() -> list[str]:
    """All that the limactl in use has."""
    done = subprocess.run([LIMACTL, "create", "--list-templates"], capture_output=True, text=True,
                          check=False, timeout=60)  # fmt: skip
    return [name for name in done.stdout.split() if name != BROKEN and not name.startswith("_")]


def fill(source: str, spec: MachineSpec) -> dict[str, Any]:
    """What limactl would get, checked by limactl."""
    text = limactl("template", "copy", "--embed-all", source, "-")
    filled = template.fill(source, text, spec, vmtype="qemu", arch="x86_64").text
    result: dict[str, Any] = yaml.safe_load(filled)
    return result


def test_we_have_looked_at_every_key_that_lima_has() -> None:
    """For one that is new, ``lima/plain.py`` and ``fakelima/keys.py`` say whether plain has it."""
    schema = json.loads(limactl("generate-jsonschema"))
    paths = set(_paths(schema["$defs"]["LimaYAML"], schema["$defs"]))
    ours = {path for path in (*IN_PLAIN, *NOT_IN_PLAIN)
            if not path.startswith(tuple(f"{key}." for key in OPEN))}  # fmt: skip
    assert paths - {*OPEN} == ours - {*OPEN}
    assert {*OPEN} <= paths


def _paths(node: Mapping[str, Any], kinds: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The keys below a schema's node, with dots; those of a list's entries behind ``[]``."""
    if "$ref" in node:
        node = kinds[node["$ref"].rpartition("/")[2]]
    for name, value in node.get("properties", {}).items():
        yield from _paths(value, kinds, f"{path}.{name}".lstrip("."))
    for kind in node.get("oneOf", ()):
        if kind != {"type": "null"} and kind != {"type": "array"}:
            yield from _paths(kind, kinds, path)
    if "items" in node:
        yield from _paths(node["items"], kinds, f"{path}[]")
    elif not {"properties", "oneOf"} & node.keys():
        yield path.removesuffix("[]")


@pytest.mark.parametrize("name", _names())
def test_each_of_limas_templates_is_taken_or_refused_with_a_way_on(
    name: str, tmp_path: Path
) -> None:
    source = f"template:{name}"
    try:
        filled = fill(source, machine_spec())
    except TemplateError as error:
        if "makes no Linux guest" in error.what:
            return
        lift = re.search(r"overrides=(\{.*\}) in the marker", str(error))
        filled = fill(source, machine_spec(overrides=ast.literal_eval(lift[1]) if lift else {}))
    path = tmp_path / "filled.yaml"
    path.write_text(yaml.safe_dump(filled))
    limactl("validate", str(path))


@pytest.mark.parametrize(
    "name", ["k3s", "k8s", "k0s", "experimental/rke2", "experimental/u7s"]
)  # fmt: skip
def test_copies_to_the_host_are_refused_with_the_override_that_lifts_it(name: str) -> None:
    with pytest.raises(TemplateError) as caught:
        fill(f"template:{name}", machine_spec())
    assert 'overrides={"copyToHost": []}' in str(caught.value)
    spec = machine_spec(overrides={"copyToHost": []})
    assert fill(f"template:{name}", spec)["copyToHost"] == []


def test_a_mount_with_a_place_in_the_guest_is_one_for_limactl(tmp_path: Path) -> None:
    spec = machine_spec(mounts=[f"{tmp_path}:{{{{.Home}}}}/src:w", f"{tmp_path}:/mnt/src"])
    path = tmp_path / "filled.yaml"
    path.write_text(yaml.safe_dump(fill("template:debian", spec)))
    limactl("validate", str(path))
