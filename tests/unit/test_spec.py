from __future__ import annotations

import math

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.settings import Settings
from pytest_lima.spec import MachineSpec, canonical, machine_spec


def test_nothing_asked_for_is_the_empty_spec() -> None:
    assert machine_spec() == MachineSpec()


def test_specs_that_mean_the_same_are_equal() -> None:
    one = machine_spec(
        memory="2GiB", disk=10, provision="true", param={"a": "1", "b": "2"},
        overrides={"x": {"b": 1, "a": [2]}}, networks=[{"lima": "shared", "a": 1}],
    )  # fmt: skip
    other = machine_spec(
        memory=2, disk="10240MiB", provision=["true"], param={"b": "2", "a": "1"},
        overrides={"x": {"a": [2], "b": 1}}, networks=[{"a": 1, "lima": "shared"}],
    )  # fmt: skip
    assert one == other
    assert hash(one) == hash(other)
    assert one != machine_spec(memory=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vmtype": "wsl2"}, "vmtype='wsl2' is not accepted; give one of auto, vz, qemu"),
        ({"vmtype": ["qemu"]}, "vmtype=['qemu'] is not accepted"),
        ({"cpus": 0}, "cpus=0 is not accepted; give a whole number from 1"),
        ({"cpus": "2"}, "cpus='2' is not accepted"),
        ({"cpus": True}, "cpus=True is not accepted"),
        ({"cpus": 1.5}, "cpus=1.5 is not accepted"),
        ({"memory": "lots"}, "memory='lots' is not accepted; give a size such as"),
        ({"memory": 0}, "memory=0 is not accepted"),
        ({"memory": math.nan}, "memory=nan is not accepted"),
        ({"memory": math.inf}, "memory=inf is not accepted"),
        ({"disk": -1}, "disk=-1 is not accepted"),
        ({"disk": True}, "disk=True is not accepted"),
        ({"template": ""}, "template='' is not accepted; give a text that is not empty"),
        ({"template": 3}, "template=3 is not accepted"),
        ({"arch": " "}, "arch=' ' is not accepted"),
        ({"provision": 3}, "provision=3 is not accepted; give a text or a list of texts"),
        ({"provision": None}, "provision=None is not accepted"),
        ({"provision": ["true", 1]}, "provision=['true', 1] is not accepted"),
        ({"mounts": {"/a": "w"}}, "mounts={'/a': 'w'} is not accepted"),
        ({"mounts": b"/a"}, "mounts=b'/a' is not accepted"),
        ({"set": {".a"}}, "set={'.a'} is not accepted"),
        ({"param": "A=1"}, "param='A=1' is not accepted; give a mapping of texts"),
        ({"param": [("A", "1")]}, "param=[('A', '1')] is not accepted"),
        ({"overrides": [1]}, "overrides or networks=[1] is not accepted; give a mapping"),
        ({"overrides": {"a": {1}}}, "give plain data"),
        ({"overrides": {"a": math.nan}}, "give plain data"),
        ({"overrides": {"a": 1, 2: "b"}}, "give plain data"),
        ({"networks": {"lima": "shared"}}, "give a list of mappings"),
        ({"networks": "shared"}, "give a mapping"),
        ({"networks": ["shared"]}, "give a mapping"),
        ({"networks": None}, "networks=None is not accepted"),
        ({"networks": 3}, "networks=3 is not accepted"),
    ],
)
def test_bad_arguments_are_named(arguments, message) -> None:
    with pytest.raises(TemplateError) as caught:
        machine_spec(**arguments)
    assert message in str(caught.value)


def test_unknown_arguments_are_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'cpu'"):
        machine_spec(cpu=2)  # type: ignore[call-arg]


def test_a_circular_mapping_is_refused() -> None:
    loop: dict[str, object] = {}
    loop["loop"] = loop
    with pytest.raises(TemplateError, match="plain data"):
        machine_spec(overrides=loop)


def test_canonical_form() -> None:
    assert canonical({"b": (1, None), "a": {"d": True, "c": "ü"}}) == canonical(
        {"a": {"c": "ü", "d": True}, "b": [1, None]}
    )
    assert canonical({"a": 1}) != canonical({"a": "1"})


OPTIONS = Settings(
    vmtype="qemu", arch="x86_64", cpus=2, memory=2.0, disk=8.0, mount=("/srv",), set=(".a = 1",),
    param=("A=option", "B=option"),
)  # fmt: skip


def test_what_a_spec_leaves_open_comes_from_the_options() -> None:
    filled = machine_spec().filled(OPTIONS, "template:debian", {"x": 1})
    assert filled == MachineSpec(
        template="template:debian", vmtype="qemu", arch="x86_64", cpus=2, memory=2.0, disk=8.0,
        mounts=("/srv",), set=(".a = 1",), param=(("A", "option"), ("B", "option")),
        overrides='{"x": 1}',
    )  # fmt: skip


def test_what_a_spec_says_stays() -> None:
    spec = machine_spec(
        template="t", vmtype="vz", arch="aarch64", cpus=1, memory=1, disk=4, mounts=["/mnt:w"],
        set=".b = 2", param={"B": "spec", "C": "spec"}, overrides={"y": 2}, provision="true",
    )  # fmt: skip
    filled = spec.filled(OPTIONS, "template:debian", {"x": 1})
    assert (filled.template, filled.vmtype, filled.arch) == ("t", "vz", "aarch64")
    assert (filled.cpus, filled.memory, filled.disk) == (1, 1.0, 4.0)
    assert (filled.mounts, filled.provision) == (("/mnt:w",), ("true",))
    assert filled.overrides == '{"y": 2}'
    # Edits add up, the spec's last so that they win; params merge.
    assert filled.set == (".a = 1", ".b = 2")
    assert dict(filled.param) == {"A": "option", "B": "spec", "C": "spec"}


def test_filling_twice_with_nothing_changes_nothing() -> None:
    filled = machine_spec().filled(Settings(), "t", {})
    assert filled.filled(Settings(), "other", {}) == filled


def test_overrides_of_a_fixture_must_be_plain_data() -> None:
    with pytest.raises(TemplateError, match="plain data"):
        machine_spec().filled(Settings(), "t", {"a": object()})
