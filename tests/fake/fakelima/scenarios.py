"""What can go wrong, by name. A scenario is a set of values; all others stay as in DEFAULTS."""

from __future__ import annotations

from typing import Any

DEFAULTS: dict[str, Any] = {
    # limactl
    "version": "2.2.0",  # what --version says
    "hang": None,  # the command that never returns: create, create-early, start, list, delete, …
    "stubborn": False,  # a hanging command ignores SIGTERM too
    "create_error": None,  # limactl create's last words; the folder stays, as with the real one
    "delete_error": None,  # limactl delete's last words; nothing is deleted
    "vz": False,  # take vmType vz on a host that isn't a Mac
    # QEMU
    "probe": 33,  # exit status of the accelerator's test guest, or "hang"
    "qemu_stderr": None,  # lines that QEMU says before it ends at once
    "kvm_fails": None,  # lines that QEMU says unless it emulates; it stays, and no guest boots
    "boot_seconds": 0.0,  # until sshd answers
    "panics": 0,  # in how many boots of an instance its kernel panics
    "panic": [],  # and what it says then
    "dies_after": None,  # seconds after it is ready that the VM's process is gone
    # the guest
    "sshd": "up",  # "refuses" drops connections, "silent" takes them and says nothing
    "console_keys": True,  # the console shows the host keys
    "wrong_host_key": False,  # sshd has another key than the console shows
    "provision_seconds": 0.0,  # how long cloud-init takes
    "failing_script": None,  # output of the last provision script, which then fails
    "cloud_init_errors": [],  # for result.json
    "boot_marker": True,  # /run/lima-boot-done appears
    "degraded": [],  # errors the host agent reports with running
    "clock_offset": 0.0,  # seconds the guest is ahead
    "clock_stuck": False,  # and can't be set
    "freezes": True,  # its root file system can be frozen
    "engines": True,  # docker and containerd answer once their units were started
}

SCENARIOS: dict[str, dict[str, Any]] = {
    "ok": {},
    "old-version": {"version": "1.2.3"},
    "hang": {"hang": "create"},
    "create-fails": {"create_error": "failed to download `https://fake.invalid/disk.qcow2`"},
    "delete-fails": {"delete_error": "permission denied"},
    "start-fails": {
        "qemu_stderr": [
            "Could not access KVM kernel module: Permission denied",
            "qemu-system-x86_64: failed to initialize kvm: Permission denied",
        ]
    },
    "never-ready": {"sshd": "refuses"},
    "slow": {"boot_seconds": 1.0},
    "provision-failed": {
        "failing_script": ["Reading package lists...", "E: Unable to locate package nosuchpackage"]
    },
    "cloud-init-failed": {"cloud_init_errors": ["('users_groups', OSError('no such group'))"]},
    "no-boot-marker": {"boot_marker": False},
    "degraded": {"degraded": ['failed to satisfy the optional requirement 1 of 1 "probe"']},
    "dies": {"dies_after": 0.5},
    "wrong-host-key": {"wrong_host_key": True},
    "no-host-keys": {"console_keys": False},
    "clock-off": {"clock_offset": 3600.0},
    "engine-silent": {"engines": False},
    "broken-accelerator": {"probe": 134},
    "vz": {"vz": True},
}


def values(name: str, more: dict[str, Any]) -> dict[str, Any]:
    """A named scenario with single values changed; a typo is an error."""
    unknown = sorted(set(more) - set(DEFAULTS))
    if name not in SCENARIOS or unknown:
        raise ValueError(f"no scenario {name!r}, or no such values: {unknown}")
    return {**SCENARIOS[name], **more}
