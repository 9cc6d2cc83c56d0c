"""What a guest has in Lima's plain mode too.

Plain mode spares the guest agent and Lima's boot scripts, and with them what those do. So what
is known to be there without them is listed here; all else, keys of a later Lima included, takes
them. The list was made from Lima 2.2 (pkg/limayaml/defaults.go: fixUpForPlainMode,
pkg/cidata/cidata.TEMPLATE.d: user-data, network-config, boot.sh, boot.essential.Linux and
boot.Linux, pkg/hostagent: what it leaves out with Plain).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pytest_lima.lima import assignments

_Rule = Callable[[Any], bool] | Mapping[str, "_Rule"]

_FIRST_ORDINARY_UID = 1000


def _any(_: object) -> bool:
    return True


def _off(value: object) -> bool:
    return not value


def _unknown(_: object) -> bool:
    return False


def _one_of(*values: object) -> Callable[[object], bool]:
    return lambda value: value in values


def _is_disk(location: object) -> bool:
    """A live system (Alpine's ISO) has its data disk from a boot script."""
    return not str(location).endswith(".iso")


def _is_ordinary(uid: object) -> bool:
    """A boot script lets system users read the journal."""
    return isinstance(uid, int) and uid >= _FIRST_ORDINARY_UID


def _forward_nothing(rules: object) -> bool:
    return isinstance(rules, list) and all(
        isinstance(rule, Mapping) and bool(rule.get("ignore")) for rule in rules
    )


_FILE: _Rule = {"location": _any, "arch": _any, "digest": _any}
_ROSETTA: _Rule = {"enabled": _off, "binfmt": _off}
_WITHOUT: Mapping[str, _Rule] = {
    "minimumLimaVersion": _any,
    "plain": _any,
    "message": _any,
    # What the VM is made of, which its driver does.
    "vmType": _any,
    "vmOpts": {
        "qemu": {"minimumVersion": _any, "cpuType": _any},
        "vz": {"rosetta": _ROSETTA, "diskImageFormat": _any},
    },
    "os": _one_of("Linux", "default", ""),
    "arch": _any,
    "images": {
        "location": _is_disk, "arch": _any, "digest": _any, "variant": _any, "initrd": _FILE,
        "kernel": {"location": _any, "arch": _any, "digest": _any, "cmdline": _any},
    },
    "cpuType": _any,
    "cpus": _any,
    "memory": _any,
    "disk": _any,
    "firmware": {"legacyBIOS": _any, "images": _any},
    "audio": {"device": _any, "interface": _any},
    "video": {"display": _any, "vnc": {"display": _any}},
    "nestedVirtualization": _any,
    "tpm": _any,
    # cloud-init does it, from Lima's user-data and network-config.
    "user": {
        "name": _any, "comment": _any, "home": _any, "shell": _any, "uid": _is_ordinary,
        "passwordlessSudo": _any,
    },
    "ssh": {
        "localPort": _any, "loadDotSSHPubKeys": _any, "forwardAgent": _off, "forwardX11": _off,
        "forwardX11Trusted": _off, "overVsock": _off,
    },
    "caCerts": {"removeDefaults": _any, "files": _any, "certs": _any},
    "dns": _any,
    # boot.sh runs these whatever the mode. `user` has no lingering session in plain mode.
    "param": _any,
    "provision": {
        "mode": _one_of("system", "boot", "data", ""), "script": _any, "content": _any,
        "overwrite": _any, "owner": _any, "path": _any, "permissions": _any,
    },
    # Nothing is asked of the boot scripts or the guest agent where these are empty or off.
    "hostResolver": {"enabled": _one_of(False), "ipv6": _off, "hosts": _off},
    "containerd": {"system": _off, "user": _off, "archives": _any},
    "portForwards": _forward_nothing,
    "mountType": _any,
    "mountTypesUnsupported": _any,
    "rosetta": _ROSETTA,
    **dict.fromkeys(
        ("base", "env", "propagateProxyEnv", "timezone", "upgradePackages", "guestInstallPrefix",
         "mounts", "mountInotify", "additionalDisks", "networks", "probes", "copyToHost",
         "osOpts"), _off,
    ),
}  # fmt: skip


def is_enough(filled: Mapping[str, Any], later: Sequence[str] = ()) -> bool:
    """Whether a machine has all that is asked for without Lima's boot scripts and guest agent.

    Args:
        filled: Its lima.yaml.
        later: yq expressions that limactl applies to it afterwards.
    """
    return not needs(filled) and all(_is_harmless(edit) for edit in later)


def needs(filled: Mapping[str, Any]) -> list[str]:
    """Keys of a lima.yaml that ask for what plain mode hasn't, with dots."""
    found = list(_walk("", filled, _WITHOUT))
    images = filled.get("images")
    if filled.get("vmType") == "vz" and any(
        isinstance(image, Mapping) and image.get("kernel") for image in images or ()
    ):
        found.append("images.kernel")  # without a clock of its own, which a boot script awaits
    return found


def _is_harmless(edit: str) -> bool:
    value = assignments.assigned(edit)
    return value is not None and not needs(value)


def _walk(path: str, value: object, rule: _Rule) -> Iterator[str]:
    if value is None:
        return  # not set
    if callable(rule):
        if not rule(value):
            yield path
        return
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, Mapping):
            yield path  # whatever that is
            continue
        for key, inner in item.items():
            yield from _walk(f"{path}.{key}".lstrip("."), inner, rule.get(key, _unknown))
