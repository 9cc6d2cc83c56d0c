from __future__ import annotations

from typing import Any

import pytest
from fakelima.keys import IN_PLAIN, NOT_IN_PLAIN, at

from pytest_lima.lima import plain


@pytest.mark.parametrize("path", IN_PLAIN)
def test_keys_that_plain_mode_honours(path: str) -> None:
    assert plain.needs(at(path, IN_PLAIN[path])) == []


@pytest.mark.parametrize("path", NOT_IN_PLAIN)
def test_keys_that_take_limas_boot_scripts_or_its_guest_agent(path: str) -> None:
    found = plain.needs(at(path, NOT_IN_PLAIN[path]))
    assert len(found) == 1
    assert path.replace("[]", "").startswith(found[0])


@pytest.mark.parametrize("path", [path for path in (*IN_PLAIN, *NOT_IN_PLAIN) if "[]" not in path])
def test_null_asks_for_nothing(path: str) -> None:
    assert plain.needs(at(path, None)) == []


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"mounts": [], "networks": [], "probes": [], "additionalDisks": [], "copyToHost": []},
        {"env": {}, "hostResolver": {"hosts": {}, "ipv6": False, "enabled": False}},
        {"containerd": {"system": False, "user": False}, "propagateProxyEnv": False},
        {"timezone": "", "upgradePackages": False, "rosetta": {"enabled": False}},
        {"ssh": {"forwardAgent": False, "forwardX11": False}, "os": "default"},
        {"portForwards": [{"guestIP": "0.0.0.0", "ignore": True}]},
        {"provision": [{"script": "x"}, {"mode": "boot", "script": "x"}]},
    ],
)  # fmt: skip
def test_what_asks_for_nothing(content: dict[str, Any]) -> None:
    assert plain.needs(content) == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"new": False}, ["new"]),
        ({"ssh": {"new": 0}}, ["ssh.new"]),
        ({"images": [{"location": "x", "new": ""}]}, ["images.new"]),
        ({"vmOpts": {"krunkit": {}}}, ["vmOpts.krunkit"]),
        ({"vmOpts": {"qemu": {"new": 1}}}, ["vmOpts.qemu.new"]),
        ({"provision": [{"mode": "new"}]}, ["provision.mode"]),
        ({"provision": ["text"]}, ["provision"]),
        ({"ssh": "text"}, ["ssh"]),
        ({"portForwards": ["text"]}, ["portForwards"]),
        *(({"provision": [{"mode": mode}]}, ["provision.mode"])
          for mode in ("user", "yq", "dependency", "ansible")),
        # A boot script gives it its data disk, another lets it read the journal, and one waits
        # for the clock that vz doesn't give to a kernel that it boots itself.
        ({"images": [{"location": "https://example.invalid/alpine.iso"}]}, ["images.location"]),
        ({"user": {"uid": 501}}, ["user.uid"]),
        ({"vmType": "vz", "images": [{"location": "x", "kernel": {"location": "y"}}]},
         ["images.kernel"]),
    ],
)  # fmt: skip
def test_what_nobody_has_looked_at_and_other_values(content, found) -> None:
    assert plain.needs(content) == found


@pytest.mark.parametrize(
    ("edit", "enough"),
    [
        (".cpus = 2", True),
        ('.memory="2GiB"', True),
        (".mounts = []", True),
        (".plain = true", True),
        ('.vmOpts.qemu.cpuType.x86_64 = "max"', True),
        ('.env.APP_MODE = "staging"', False),
        ('.hostResolver.hosts = {"a": "10.0.0.1"}', False),
        ('.mounts = [{"location": "/srv"}]', False),
        (".mounts[0].writable = true", False),
        ('.provision += [{"script": "x"}]', False),
        ('.cpus = 2 | .env.A = "b"', False),
        ("del(.probes)", False),
        (".new = 1", False),
        ("nonsense", False),
    ],
)
def test_an_edit_that_limactl_makes_afterwards_counts_unless_it_is_known(edit, enough) -> None:
    assert plain.is_enough({}, [edit]) is enough
    assert not plain.is_enough({"env": {"A": "b"}}, [edit])
    assert plain.is_enough({})
