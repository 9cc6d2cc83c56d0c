from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_lima.errors import TemplateError
from pytest_lima.lima import engines, scripts, template
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.spec import MachineSpec, machine_spec

IMAGES = [{"location": "https://example.invalid/debian.qcow2", "arch": "x86_64"}]
DOCKER_RULE = {
    "guestSocket": "/run/user/{{.UID}}/docker.sock", "hostSocket": "{{.Dir}}/sock/docker.sock"
}  # fmt: skip
NOTHING_FORWARDED = {
    "guestIP": "0.0.0.0", "guestIPMustBeZero": False, "proto": "any", "ignore": True
}  # fmt: skip


def fill(spec: MachineSpec | None = None, /, **base: Any) -> FilledTemplate:
    text = yaml.safe_dump({"images": IMAGES, **base})
    return template.fill("my.yaml", text, spec or machine_spec(), vmtype="qemu", arch="x86_64")


def filled(spec: MachineSpec | None = None, /, **base: Any) -> dict[str, Any]:
    result: dict[str, Any] = yaml.safe_load(fill(spec, **base).text)
    return result


def with_engines(*names: str, **spec: Any) -> MachineSpec:
    return replace(machine_spec(**spec), engines=frozenset(names))


SAFE = {
    "mounts": [],
    "propagateProxyEnv": False,
    "audio": {"device": ""},
    "video": {"display": "none"},
    "containerd": {"system": False, "user": False},
}
SAFE_SSH = {"forwardAgent": False, "forwardX11": False, "loadDotSSHPubKeys": False}


def test_a_bare_template_gets_the_safe_defaults() -> None:
    result = filled()
    assert SAFE.items() <= result.items()
    assert result["ssh"] == SAFE_SSH
    assert (result["vmType"], result["arch"], result["images"]) == ("qemu", "x86_64", IMAGES)
    assert result["portForwards"] == [NOTHING_FORWARDED]
    assert not {"cpus", "memory", "disk", "networks"} & result.keys()


def test_safe_defaults_are_forced_on_a_template_that_says_otherwise() -> None:
    result = filled(
        mounts=[{"location": "~", "writable": True}], propagateProxyEnv=True,
        ssh={"forwardAgent": True, "forwardX11": True, "loadDotSSHPubKeys": True, "localPort": 1},
        audio={"device": "default"}, video={"display": "cocoa"}, cpus=3,
    )  # fmt: skip
    assert SAFE.items() <= result.items()
    assert result["ssh"] == {**SAFE_SSH, "localPort": 0}  # Lima takes a free one
    assert result["cpus"] == 3


@pytest.mark.parametrize("value", [None, "yes", []])
def test_safe_defaults_are_forced_on_malformed_values(value: object) -> None:
    result = filled(ssh=value, audio=value)
    assert (result["ssh"], result["audio"]) == (SAFE_SSH, SAFE["audio"])


def test_what_a_test_needs_of_the_host_it_asks_for() -> None:
    spec = machine_spec(overrides={"ssh": {"forwardAgent": True}, "propagateProxyEnv": True})
    result = filled(spec)
    assert result["ssh"] == {**SAFE_SSH, "forwardAgent": True}
    assert result["propagateProxyEnv"] is True


def test_the_specs_values() -> None:
    spec = machine_spec(cpus=4, memory="1.5GiB", disk=10, networks=[{"lima": "shared"}])
    result = filled(spec, cpus=1, memory="8GiB", disk="100GiB", networks=[{"lima": "other"}])
    assert (result["cpus"], result["memory"], result["disk"]) == (4, "1536MiB", "10240MiB")
    assert result["networks"] == [{"lima": "shared"}]


def test_a_port_or_an_address_that_one_vm_alone_can_have_is_not_the_templates() -> None:
    result = filled(
        ssh={"localPort": 60022}, networks=[{"lima": "shared", "macAddress": "52:55:55:00:00:01"}]
    )
    assert result["ssh"]["localPort"] == 0
    assert result["networks"] == [{"lima": "shared"}]


def test_who_asks_for_it_in_a_test_has_it() -> None:
    networks = [{"lima": "shared", "macAddress": "52:55:55:00:00:01"}]
    spec = machine_spec(networks=networks, overrides={"ssh": {"localPort": 60022}})
    assert filled(spec)["networks"] == networks
    assert filled(spec)["ssh"]["localPort"] == fill(spec).ssh_port == 60022


def test_overrides_merge_deep_and_lists_are_replaced() -> None:
    spec = machine_spec(cpus=4, overrides={"vmOpts": {"qemu": {"a": 1}}, "env": {"B": "2"},
                                           "dns": ["1.1.1.1"], "cpus": 7})  # fmt: skip
    result = filled(spec, vmOpts={"qemu": {"b": 2}, "vz": {}}, env={"A": "1"}, dns=["8.8.8.8"])
    assert result["vmOpts"] == {"qemu": {"a": 1, "b": 2}, "vz": {}}
    assert result["env"] == {"A": "1", "B": "2"}
    assert result["dns"] == ["1.1.1.1"]
    assert result["cpus"] == 7


def test_a_mount_may_have_another_place_in_the_guest(tmp_path: Path) -> None:
    result = filled(machine_spec(mounts=[f"{tmp_path}:/mnt/src:w"]))
    location = str(tmp_path.resolve())
    assert result["mounts"] == [
        {"location": location, "mountPoint": "/mnt/src", "writable": True}
    ]  # fmt: skip
    own = [{"location": "/srv", "mountPoint": "/mnt/x", "9p": {"cache": "mmap"}}]
    assert filled(machine_spec(overrides={"mounts": own}))["mounts"] == own


def test_mounts_are_host_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a:b").mkdir()
    result = filled(machine_spec(mounts=[str(tmp_path), "~/a:b:w"]))
    assert result["mounts"] == [
        {"location": str(tmp_path.resolve()), "writable": False},
        {"location": str((tmp_path / "a:b").resolve()), "writable": True},
    ]


@pytest.mark.parametrize("mount", ["/no/such/dir", "/etc/passwd", "", ":w", "  "])
def test_mounts_that_are_none(mount: str) -> None:
    """An empty one would be the current directory."""
    with pytest.raises(TemplateError) as caught:
        fill(machine_spec(mounts=[mount]))
    assert str(caught.value).startswith(f"the mount {mount!r} is not a directory on this host")
    assert "give an existing directory" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "it is not a mapping"),
        ("just text", "it is not a mapping"),
        ("- a\n- b", "it is not a mapping"),
        ("cpus: 2", "it has no images"),
        ("images: []", "it has no images"),
        ("a: [", "line 1, column"),
        ("images: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("[" * 3_000, "recursion"),
        ("a: \x00", "special characters are not allowed"),
    ],
)
def test_what_is_no_template(text: str, seen: str) -> None:
    with pytest.raises(TemplateError) as caught:
        template.fill("my.yaml", text, machine_spec(), vmtype="qemu", arch="x86_64")
    message = str(caught.value)
    assert message.splitlines()[0] == "my.yaml is not a Lima template"
    assert seen in message
    assert len(message.splitlines()) == 3


def test_a_template_without_end_is_not_parsed() -> None:
    text = "a: " + "x" * (1024 * 1024)
    with pytest.raises(TemplateError, match="larger than 1 MiB"):
        template.fill("my.yaml", text, machine_spec(), vmtype="qemu", arch="x86_64")


@pytest.mark.parametrize("by", ["template", "overrides"])
def test_what_reaches_out_of_the_instance_is_refused(by: str) -> None:
    content = {"copyToHost": [{"guest": "/a", "host": "/b"}]}
    with pytest.raises(TemplateError, match="my.yaml reaches outside its instance"):
        if by == "template":
            fill(**content)
        else:
            fill(machine_spec(overrides=content))


@pytest.mark.parametrize("value", ["text", 5, {"a": 1}, ["text"], [None], [[]]])
@pytest.mark.parametrize("key", ["provision", "portForwards"])
@pytest.mark.parametrize("by", ["template", "overrides"])
def test_lists_that_are_none_are_template_errors(key: str, value: object, by: str) -> None:
    with pytest.raises(TemplateError, match=f"{key} is not a list of mappings"):
        if by == "template":
            fill(**{key: value})
        else:
            fill(machine_spec(overrides={key: value}))


@pytest.mark.parametrize("key", ["provision", "portForwards"])
def test_an_empty_list_may_be_null(key: str) -> None:
    assert filled(**{key: None}) == filled()
    assert filled(machine_spec(overrides={key: None}))["images"] == IMAGES


@pytest.mark.parametrize(
    "rule",
    [
        {"guestPort": 80},
        {"guestPort": 80, "hostIP": "127.0.0.1"},
        {"guestPort": 80, "hostIP": "::1"},
        {"guestSocket": "/run/x.sock", "hostSocket": "{{.Dir}}/sock/x.sock"},
    ],
)
def test_harmless_forwards_stay_before_the_rule_that_ignores_the_rest(rule) -> None:
    assert filled(portForwards=[rule])["portForwards"] == [rule, NOTHING_FORWARDED]
    spec = machine_spec(overrides={"portForwards": [rule]})
    assert filled(spec)["portForwards"] == [rule, NOTHING_FORWARDED]


def test_limas_forward_of_an_engine_makes_room_for_ours() -> None:
    # Even one whose hostSocket we would refuse.
    rule = {**DOCKER_RULE, "hostSocket": "{{.Home}}/docker.sock"}
    assert filled(portForwards=[rule])["portForwards"] == [NOTHING_FORWARDED]


@pytest.mark.parametrize(
    ("asked", "rules", "sockets", "installed"),
    [
        ((), [], {}, ()),
        ((), [DOCKER_RULE], {}, ()),
        (("docker",), [], {"docker": "/run/docker.sock"}, ("docker",)),
        (("docker",), [DOCKER_RULE], {"docker": "/run/user/{{.UID}}/docker.sock"}, ()),
        (("containerd",), [DOCKER_RULE], {"containerd": "/run/containerd/containerd.sock"},
         ("containerd",)),
        (("docker", "containerd"), [],
         {"docker": "/run/docker.sock", "containerd": "/run/containerd/containerd.sock"},
         ("containerd", "docker")),
    ],
)  # fmt: skip
def test_engines(asked, rules, sockets, installed) -> None:
    result = fill(with_engines(*asked), portForwards=rules)
    assert result.sockets == sockets
    texts = [script for _, script in result.provision]
    for engine in engines.SOCKETS:
        assert (engines.provision_script(engine) in texts) == (engine in installed)


def test_provision_keeps_limas_order_with_ours_around_it() -> None:
    theirs = [{"mode": "user", "script": "theirs"}, {"script": "default mode"}, {"mode": "data"}]
    result = fill(with_engines("docker", provision=["mine 1", "mine 2"]), provision=theirs)
    modes = [mode for mode, _ in result.provision]
    texts = [script for _, script in result.provision]
    assert texts[0] == scripts.FIRST
    assert texts[1:4] == ["theirs", "default mode", ""]
    assert texts[4] == engines.provision_script("docker")
    assert texts[5:] == ["mine 1", "mine 2"]
    assert modes == ["system", "user", "system", "data", "system", "system", "system"]
    written = yaml.safe_load(result.text)["provision"]
    assert [entry.get("script", "") for entry in written] == texts


@pytest.mark.parametrize(
    ("containerd", "kept"),
    [
        ({"user": True}, {"user": True}),
        ({"system": True, "user": False},) * 2,
        # Lima's own default of `user` is true.
        ({"system": True}, {"system": True, "user": False}),
        ({"system": True, "user": None}, {"system": True, "user": False}),
    ],
)
def test_a_template_that_brings_containerd_keeps_it(containerd, kept) -> None:
    assert filled(containerd=containerd)["containerd"] == kept


@pytest.mark.parametrize(
    ("base", "spec", "plain"),
    [
        ({}, {}, True),
        ({"provision": [{"mode": "system", "script": "true"}]}, {}, True),
        ({"portForwards": [DOCKER_RULE]}, {}, True),
        ({"portForwards": [{"guestPort": 80}]}, {}, False),
        ({"probes": [{"script": "true"}]}, {}, False),
        ({"additionalDisks": ["data"]}, {}, False),
        ({"containerd": {"user": True}}, {}, False),
        ({"containerd": {"system": True}}, {}, False),
        ({"networks": [{"lima": "shared"}]}, {}, False),
        ({"provision": [{"mode": "dependency", "script": "true"}]}, {}, False),
        ({"mounts": [{"location": "~"}]}, {}, True),
        ({}, {"mounts": ["/"]}, False),
        ({}, {"networks": [{"lima": "shared"}]}, False),
        ({"plain": False}, {}, False),
        ({"plain": True, "networks": [{"lima": "shared"}]}, {}, True),
        ({}, {"overrides": {"plain": False}}, False),
        ({}, {"overrides": {"mounts": [{"location": "/"}]}}, False),
        ({"plain": None}, {}, True),
        ({"plain": None, "env": {"A": "b"}}, {}, False),
        ({"env": {"APP_MODE": "staging"}}, {}, False),
        ({}, {"overrides": {"env": {"APP_MODE": "staging"}}}, False),
        ({"hostResolver": {"hosts": {"db.test": "10.1.2.3"}}}, {}, False),
        ({}, {"overrides": {"hostResolver": {"hosts": {"db.test": "10.1.2.3"}}}}, False),
        ({"timezone": "Europe/Berlin"}, {}, False),
        ({"propagateProxyEnv": True}, {}, True),  # which it doesn't get
        ({}, {"overrides": {"propagateProxyEnv": True}}, False),
        ({}, {"overrides": {"ssh": {"forwardAgent": True}}}, False),
        ({"provision": [{"mode": "user", "script": "true"}]}, {}, False),
        ({}, {"set": '.env.APP_MODE = "staging"'}, False),
        ({}, {"set": ".cpus = 1"}, True),
        ({"plain": True}, {"set": '.env.APP_MODE = "staging"'}, True),
        ({}, {"provision": "true", "param": {"a": "b"}, "cpus": 1}, True),
    ],
)
def test_plain_mode_where_nothing_needs_the_guest_agent(base, spec, plain: bool) -> None:
    assert filled(machine_spec(**spec), **base)["plain"] is plain


def key_of(spec: MachineSpec | None = None, /, **base: Any) -> str:
    return fill(spec, **base).key


def test_equal_machines_have_equal_keys() -> None:
    one = machine_spec(overrides={"env": {"A": "1", "B": "2"}}, param={"A": "1", "B": "2"})
    other = machine_spec(overrides={"env": {"B": "2", "A": "1"}}, param={"B": "2", "A": "1"})
    assert key_of(one) == key_of(other)
    # A spec that says what the template says anyway is the same machine.
    assert key_of(machine_spec(cpus=2), cpus=2) == key_of(cpus=2)


@pytest.mark.parametrize(
    "spec",
    [
        machine_spec(cpus=3), machine_spec(memory=3), machine_spec(provision="true"),
        machine_spec(set=".a = 1"), machine_spec(param={"A": "1"}), machine_spec(mounts=["/"]),
        machine_spec(overrides={"env": {"A": "1"}}), with_engines("docker"),
    ],
)  # fmt: skip
def test_whatever_makes_another_machine_makes_another_key(spec: MachineSpec) -> None:
    assert key_of(spec) != key_of()


def test_drivers_and_architectures_make_other_keys() -> None:
    text = yaml.safe_dump({"images": IMAGES})
    keys = {
        template.fill("t", text, machine_spec(), vmtype=vmtype, arch=arch).key
        for vmtype in ("qemu", "vz")
        for arch in ("x86_64", "aarch64")
    }
    assert len(keys) == 4


def test_an_engine_that_the_template_brings_is_part_of_the_key() -> None:
    """The same lima.yaml, but only one of the two has docker forwarded."""
    assert key_of(portForwards=[DOCKER_RULE]) != key_of(
        with_engines("docker"), portForwards=[DOCKER_RULE]
    )


def test_the_text_is_yaml_that_limactl_can_read() -> None:
    result = fill(machine_spec(provision="echo 'ü: \"x\"' | tr a b\n"), message="ünïcode")
    document = yaml.safe_load(result.text)
    assert document["message"] == "ünïcode"
    assert document["provision"][-1]["script"] == "echo 'ü: \"x\"' | tr a b\n"
    assert json.loads(json.dumps(document)) == document


def test_an_emulated_guest_has_a_processor_that_can_be_emulated() -> None:
    """Lima's default is the host's wherever there is a /dev/kvm, usable or not."""

    def cpu_type(*, emulated: bool, **base: Any) -> object:
        text = yaml.safe_dump({"images": IMAGES, **base})
        spec = machine_spec()
        result = template.fill(
            "my.yaml", text, spec, vmtype="qemu", arch="x86_64", emulated=emulated
        )
        return (yaml.safe_load(result.text).get("vmOpts") or {}).get("qemu")

    assert cpu_type(emulated=False) is None
    assert cpu_type(emulated=True) == {"cpuType": {"x86_64": "max"}}
    own = {"qemu": {"cpuType": {"x86_64": "Haswell"}}}
    assert cpu_type(emulated=True, vmOpts=own) == own["qemu"]


def test_what_lima_takes_from_this_host_is_told() -> None:
    assert (fill().proxied, fill().certificates) == (False, ())
    asked = {
        "propagateProxyEnv": True,
        "caCerts": {"files": ["/etc/ca.pem"], "removeDefaults": True},
    }
    found = fill(machine_spec(overrides=asked))
    assert (found.proxied, found.certificates) == (True, ("/etc/ca.pem",))
    for wrong in ("text", {"files": "text"}, []):
        assert fill(caCerts=wrong).certificates == ()


@pytest.mark.parametrize(
    "unset",
    [
        {"containerd": None}, {"containerd": {"system": None, "user": None}}, {"containerd": {}},
        {"plain": None}, {"mounts": None}, {"portForwards": None}, {"provision": None},
        {"probes": None}, {"networks": None}, {"additionalDisks": None}, {"ssh": None},
        {"ssh": {"forwardAgent": None, "localPort": None}}, {"propagateProxyEnv": None},
        {"audio": {"device": None}}, {"video": None}, {"video": {"display": None}},
        {"vmOpts": None}, {"env": None}, {"cpus": None}, {"memory": None}, {"vmType": None},
        {"arch": None}, {"copyToHost": None}, {"caCerts": {"files": None}}, {"param": None},
    ],
)  # fmt: skip
def test_null_is_not_set(unset: dict[str, Any]) -> None:
    """As for Lima, whose own default.yaml says null of all that it leaves open."""
    bare = filled()
    for result in (filled(**unset), filled(machine_spec(overrides=unset))):
        assert {key: value for key, value in result.items() if value != {}} == bare
    assert fill(**unset).images == fill().images


def test_null_in_an_image_is_not_set() -> None:
    images = [
        {**IMAGES[0], "kernel": None},
        {"location": "https://example.invalid/any.img", "arch": None},
    ]
    result = fill(images=images)
    assert [image["location"] for image in result.images] == [image["location"] for image in images]
    assert yaml.safe_load(result.text)["images"] == [IMAGES[0], {"location": images[1]["location"]}]


@pytest.mark.parametrize("key", ["env", "param"])
def test_null_among_texts_is_an_empty_text(key: str) -> None:
    """Lima sets the variable."""
    assert filled(**{key: {"A": None, "B": "b"}})[key] == {"A": "", "B": "b"}


def test_null_in_the_overrides_takes_out_what_the_template_says() -> None:
    base: dict[str, Any] = {
        "env": {"A": "1", "B": "2"}, "containerd": {"user": True}, "plain": False,
        "provision": [{"script": "theirs"}], "networks": [{"lima": "shared"}],
        "propagateProxyEnv": True, "ssh": {"localPort": 1, "forwardAgent": True},
        "copyToHost": [{"guest": "/a", "host": "/b"}],
    }  # fmt: skip
    out: dict[str, Any] = {
        **dict.fromkeys(base), "env": {"A": None}, "ssh": {"localPort": None, "forwardAgent": None}
    }  # fmt: skip
    result = filled(machine_spec(overrides=out), **base)
    assert result == {**filled(), "env": {"B": "2"}, "plain": False}
    # What was asked for in another way stays.
    spec = machine_spec(
        networks=[{"lima": "user-v2"}], cpus=3, overrides={"networks": None, "cpus": None}
    )
    assert filled(spec, cpus=2)["networks"] == [{"lima": "user-v2"}]
    assert filled(spec, cpus=2)["cpus"] == 3


def test_a_param_stays_used_when_its_mount_is_left_out() -> None:
    """limactl refuses one that nothing uses, and may be given a value for it."""
    base = {"param": {"src": "/tmp", "other": "x"}, "mounts": [{"location": "{{.Param.src}}"}],
            "probes": [{"script": "$PARAM_other"}]}  # fmt: skip
    result = filled(**base)
    assert result["param"] == base["param"]
    assert "PARAM_src" in result["provision"][-1]["script"]
    assert "PARAM_other" not in str(result["provision"])
    assert (
        "PARAM_other"
        in filled(machine_spec(overrides={"probes": []}), **base)["provision"][-1]["script"]
    )


@pytest.mark.parametrize(
    ("spec", "base", "who", "seen"),
    [
        ({}, {"cpuz": 2}, "the template my.yaml", "cpuz (did you mean cpus?)"),
        ({}, {"cpuz": None}, "the template my.yaml", "cpuz (did you mean cpus?)"),
        ({"overrides": {"ssh": {"localport": 1}}}, {}, "lima_overrides, or overrides=, for my.yaml",
         "ssh.localport (did you mean localPort?)"),
        ({"networks": [{"lime": "shared"}]}, {}, "networks= for my.yaml",
         "networks[0].lime (did you mean lima?)"),
    ],
)  # fmt: skip
def test_a_key_that_lima_doesn_t_know(spec, base, who: str, seen: str) -> None:
    with pytest.raises(TemplateError) as caught:
        fill(machine_spec(**spec), **base)
    assert caught.value.what.startswith(who)
    assert caught.value.seen == seen


def test_keys_of_the_author_s_own_are_left_out() -> None:
    assert filled(**{"x-common": {"any": 1}}) == filled()


def test_texts_of_a_template_stay_texts() -> None:
    base = "images: [{location: /a.img}]\nenv: {DEBUG: on, PORTS: 22:22, DAY: 2026-13-45}\n"
    env = {"DEBUG": "on", "PORTS": "22:22", "DAY": "2026-13-45"}
    for overrides in ({}, {"env": {"DEBUG": "on", "NO": "no", "MODE": "0755"}}):
        spec = machine_spec(overrides=overrides)
        result = template.fill("t", base, spec, vmtype="qemu", arch="x86_64")
        assert yaml.safe_load(result.text)["env"] == {**env, **overrides.get("env", {})}


@pytest.mark.parametrize("by", ["template", "overrides"])
@pytest.mark.parametrize("system", ["FreeBSD", "Darwin", "Windows", "linux", "Plan9"])
def test_a_guest_of_another_system_is_refused_in_its_own_words(system: str, by: str) -> None:
    with pytest.raises(TemplateError, match="my.yaml makes no Linux guest") as caught:
        if by == "template":
            fill(os=system)
        else:
            fill(machine_spec(overrides={"os": system}))
    assert caught.value.seen == f"os: {system}"
    for usual in ("Linux", "default", None, ""):
        assert fill(os=usual).text


SOCKET = {"hostSocket": "{{.Dir}}/sock/docker.sock"}


@pytest.mark.parametrize(
    "path", ["/run/user/{{ .UID }}/docker.sock", "/run/{{- .User -}}/docker.sock",
             "{{.Home}}/docker.sock", "/run/{{.Name}}/docker.sock", "/run/{{.Param.x}}/docker.sock"]
)  # fmt: skip
def test_an_engine_s_socket_may_have_limas_variables(path: str) -> None:
    rules = [{"guestSocket": path, **SOCKET}]
    spec = with_engines("docker", param={"x": "here"})
    assert fill(spec, portForwards=rules).sockets == {"docker": path}


@pytest.mark.parametrize(
    "path", ["{{if .UID}}/run{{end}}/docker.sock", "/run/{{.UID | print}}/docker.sock",
             "/run/{{.Param.none}}/docker.sock", "/run/{{.Dir}}/docker.sock"]
)  # fmt: skip
def test_one_that_lima_alone_could_expand_is_refused_at_once(path: str) -> None:
    rules = [{"guestSocket": path, **SOCKET}]
    with pytest.raises(TemplateError, match="path of the engine's socket") as caught:
        fill(with_engines("docker"), portForwards=rules)
    assert "none of the variables that are known here" in caught.value.seen
    assert "{{.UID}}, {{.User}}, {{.Home}}" in caught.value.remedy
    assert fill(portForwards=rules).sockets == {}  # nobody asks for it


@pytest.mark.parametrize(
    ("base", "spec", "wishes"),
    [
        ({}, {}, (None, None)),
        ({"arch": "aarch64", "vmType": "vz"}, {}, ("vz", "aarch64")),
        ({"arch": "default", "vmType": ""}, {}, (None, None)),
        ({"arch": None, "vmType": None}, {}, (None, None)),
        ({"arch": "aarch64", "vmType": "vz"}, {"arch": "x86_64", "vmtype": "qemu"},
         ("qemu", "x86_64")),
        ({"vmType": "qemu"}, {"vmtype": "auto"}, ("qemu", None)),
        ({"arch": "aarch64"}, {"overrides": {"arch": "riscv64"}, "arch": "x86_64"},
         (None, "riscv64")),
        ({}, {"overrides": {"vmType": "qemu"}}, ("qemu", None)),
        ({}, {"set": ['.arch = "aarch64"', ".cpus = 1"], "arch": "x86_64"}, (None, "aarch64")),
    ],
)  # fmt: skip
def test_driver_and_architecture_are_the_templates_unless_somebody_says_otherwise(
    base, spec, wishes
) -> None:
    text = yaml.safe_dump({"images": IMAGES, **base})
    assert template.wishes("my.yaml", text, machine_spec(**spec)) == wishes


def test_what_a_machine_needs_of_this_host_is_told() -> None:
    result = fill(
        additionalDisks=["data", {"name": "more", "format": False}],
        portForwards=[{"guestPort": 80, "hostPort": 8080}, {"guestPortRange": [90, 92]}],
    )
    assert result.disks == ("data", "more")
    assert result.ports == (8080, 90, 91, 92)
    assert result.ssh_port == 0


def test_mounts_of_a_plain_template_are_told_to_be_missing() -> None:
    (note,) = fill(machine_spec(mounts=["/"]), plain=True).notes
    assert "plain: true, in which Lima mounts nothing" in note
    assert fill(machine_spec(mounts=["/"], overrides={"plain": False}), plain=True).notes == ()
