from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest
import yaml

from pytest_lima.errors import TemplateError
from pytest_lima.lima import edits, template
from pytest_lima.lima.keys import LIMA_2_2
from pytest_lima.lima.limactl import Limactl
from pytest_lima.lima.process import Completed
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.settings import Settings, resolve
from pytest_lima.spec import MachineSpec, machine_spec

BASE = {
    "images": [{"location": "https://example.invalid/a.img"}], "param": {"size": "1", "name": "x"},
    "probes": [{"script": "$PARAM_size $PARAM_name"}],
}  # fmt: skip


class Yq:
    """limactl whose yq knows plain assignments of top keys."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def yq(self, text: str, expression: str) -> Completed:
        self.asked.append(expression)
        result = yaml.safe_load(text)
        for one in expression.split("\n| "):
            key, _, value = one.removeprefix(".").partition(" = ")
            if one == ".cpus":
                return Completed((), 0, "2\n", "")
            try:
                if key.startswith("param["):
                    result["param"][json.loads(key[6:-1])] = json.loads(value)
                else:
                    result[key] = json.loads(value)
            except ValueError:
                return Completed((), 1, "", '{"level":"fatal","msg":"1:9: lexer: invalid input"}')
        return Completed((), 0, json.dumps(result), "")


def apply(
    spec: MachineSpec, settings: Settings | None = None, base: Mapping[str, Any] = BASE
) -> FilledTemplate:
    settings = settings or Settings()
    asked = spec.filled(settings, "my.yaml", {})
    text = yaml.safe_dump(dict(base))
    filled = template.fill("my.yaml", text, asked, vmtype="qemu", arch="x86_64")
    limactl = cast("Limactl", Yq())
    return edits.apply("my.yaml", filled, asked, settings, limactl, LIMA_2_2)


def test_without_edits_nothing_is_asked() -> None:
    filled = template.fill("t", yaml.safe_dump(BASE), MachineSpec(), vmtype="qemu", arch="x86_64")
    yq = Yq()
    limactl = cast("Limactl", yq)
    assert edits.apply("t", filled, MachineSpec(), Settings(), limactl, LIMA_2_2) is filled
    assert yq.asked == []


def test_what_the_machine_is_afterwards() -> None:
    image = {"location": "/b.img"}
    spec = machine_spec(set=[f'.images = {json.dumps([image, {**image, "arch": "riscv64"}])}',
                             ".propagateProxyEnv = true", '.caCerts = {"files": ["/ca.pem"]}'],
                        provision="mine")  # fmt: skip
    result = apply(spec)
    assert result.images == (image,)
    assert (result.proxied, result.certificates) == (True, ("/ca.pem",))
    assert [script for _, script in result.provision][-1] == "mine"
    # The text is still limactl's to edit.
    assert yaml.safe_load(result.text)["images"] == BASE["images"]
    assert apply(machine_spec(param={"size": "2"})).provision == apply(MachineSpec()).provision


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        (".vmType=qemu", 'write it as .vmType = "qemu"'),
        (".memory=4GiB", 'write it as .memory = "4GiB"'),
        ('.mounts=[{location: "/a", writable: true}]',
         'write it as .mounts = [{"location": "/a", "writable": true}]'),
        (".message += hi there", 'write it as .message += "hi there"'),
        (".cpus = 2 |", "write it as"),
        ("del(.cpus", "write it as for `limactl create --set`"),
        ("cpus", "write it as for `limactl create --set`"),
    ],
)  # fmt: skip
def test_an_expression_that_is_none(expression: str, right: str) -> None:
    with pytest.raises(TemplateError) as caught:
        apply(machine_spec(set=[".cpus = 3", expression]))
    assert caught.value.what == f"set= {expression} can't be applied to the template"
    assert caught.value.seen == "1:9: lexer: invalid input"
    assert right in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("sources", "giver"),
    [
        ({"cli": {"set": [".cpus=two"]}, "env": {}, "ini": {}}, "--lima-set .cpus=two"),
        ({"cli": {}, "env": {"PYTEST_LIMA_SET": ".cpus=two"}, "ini": {}},
         "PYTEST_LIMA_SET .cpus=two"),
        ({"cli": {}, "env": {}, "ini": {"set": [".cpus=two"]}},
         "lima_set in the ini file .cpus=two"),
    ],
)  # fmt: skip
def test_who_gave_it(sources: dict[str, Any], giver: str) -> None:
    with pytest.raises(TemplateError) as caught:
        apply(machine_spec(set=".cpus = 3"), resolve(**sources))
    assert caught.value.what.startswith(giver)


def test_a_key_that_lima_doesn_t_know() -> None:
    with pytest.raises(TemplateError, match=r"my.yaml, with set= .cpuss = 3, has keys") as caught:
        apply(machine_spec(set="cpuss=3"))
    assert caught.value.seen == "cpuss (did you mean cpus?)"


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        (".cpus", "is no template"),
        ('.vmType = "vz"', "has another vmType, which was decided before"),
        ('.arch = "riscv64"', "has another arch, which was decided before"),
        (".images = []", "has no images"),
        (".images = null", "has no images"),
        ('.copyToHost = [{"guest": "/a", "host": "/b"}]', "reaches outside its instance"),
        ('.portForwards = [{"guestPort": 80, "hostIP": "0.0.0.0"}]', "reaches outside"),
    ],
)
def test_what_would_not_be_what_we_believe(expression: str, what: str) -> None:
    with pytest.raises(TemplateError, match=what):
        apply(machine_spec(set=expression))


def test_what_is_set_to_what_it_is_anyway() -> None:
    assert apply(machine_spec(set=["vmType=qemu", "arch=x86_64"])).images


def test_an_engine_whose_script_is_taken_out() -> None:
    asked = MachineSpec(set=(".provision = []",), engines=frozenset({"docker"}))
    with pytest.raises(TemplateError, match="has no script any more that provides docker"):
        apply(asked)
    assert apply(machine_spec(set=".provision = []")).provision == ()


def test_a_param_that_the_template_hasn_t() -> None:
    with pytest.raises(TemplateError) as caught:
        apply(machine_spec(param={"sise": "2"}))
    assert caught.value.what == "the template my.yaml has no param 'sise'"
    assert caught.value.seen == "its params: name, size"
    assert caught.value.remedy == "did you mean size?"
