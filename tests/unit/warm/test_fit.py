from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_lima.guest.hostkeys import FIRST_CONNECTION, HostKeys
from pytest_lima.lima.accel import Accelerator
from pytest_lima.lima.host import Host
from pytest_lima.lima.limactl import Limactl
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.warm import fit

KEYS = HostKeys({"ssh-ed25519": "AAAA"}, "the console log")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    qemu = tmp_path / "bin" / "qemu-system-x86_64"
    qemu.parent.mkdir()
    qemu.write_text("7.2")
    qemu.chmod(0o755)
    limactl = Limactl("/bin/limactl", tmp_path / "home", {"PATH": str(qemu.parent)}, {})
    return Host(limactl, "2.2.0", "qemu", "x86_64", Accelerator("kvm"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"image")
    return path


@pytest.fixture
def filled(image: Path) -> FilledTemplate:
    return FilledTemplate("text", "key", {}, (), ({"location": str(image)},))


def with_qemu(limactl: Limactl, command: str) -> Limactl:
    extra = {"QEMU_SYSTEM_X86_64": command}
    return Limactl(limactl.path, limactl.home, limactl.env, extra)


def test_equal_machines_have_one_key(host: Host, filled: FilledTemplate) -> None:
    assert fit.key(host, filled) == fit.key(host, replace(filled))
    assert fit.key(host, filled).isalnum()


def test_what_is_not_equal_has_another(host: Host, filled: FilledTemplate, image: Path) -> None:
    before = fit.key(host, filled)
    others = [
        fit.key(replace(host, version="2.2.1"), filled),
        fit.key(replace(host, accelerator=Accelerator("tcg")), filled),
        fit.key(host, replace(filled, key="another")),
        fit.key(host, replace(filled, images=())),
        fit.key(replace(host, limactl=with_qemu(host.limactl, "q")), filled),
    ]  # fmt: skip
    image.write_bytes(b"a newer image")
    others.append(fit.key(host, filled))
    config = host.limactl.home / "_config"
    config.mkdir(parents=True)
    (config / "override.yaml").write_text("cpus: 3")
    others.append(fit.key(host, filled))
    qemu = Path(host.limactl.env["PATH"]) / "qemu-system-x86_64"
    qemu.write_text("9.2.1")
    others.append(fit.key(host, filled))
    assert len({before, *others}) == len(others) + 1


def test_a_recipe_of_another_version_of_ours_is_another(
    host: Host, filled: FilledTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fit.key(host, filled)
    monkeypatch.setattr(fit, "RECIPE", fit.RECIPE + 1)
    assert fit.key(host, filled) != before


def test_an_image_with_a_digest_is_known_by_it(host: Host, filled: FilledTemplate) -> None:
    def key(**image: str) -> str:
        return fit.key(host, replace(filled, images=({"location": "https://x/i", **image},)))

    assert key(digest="sha512:1") != key(digest="sha512:2")
    assert key(digest="sha512:1") == key(digest="sha512:1")
    assert key() != key(digest="sha512:1")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"additionalDisks": [{"name": "data"}]}, "additional disks"),
        ({"tpm": True}, "TPM"),
        ({"os": "Windows"}, "not Linux"),
    ],
)
def test_a_machine_that_can_t_be_kept(instance: Path, change: dict[str, Any], problem: str) -> None:
    assert problem in (fit.unfit_machine(instance, change, KEYS) or "")


@pytest.fixture
def instance(short_path: Path) -> Iterator[Path]:
    (short_path / "disk").write_bytes(b"")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "qmp.sock"))
        yield short_path


def test_a_machine_that_can_be_kept(instance: Path) -> None:
    config = {"mounts": [], "networks": None, "os": "Linux", "tpm": False}
    assert fit.unfit_machine(instance, config, KEYS) is None


def test_one_whose_keys_were_not_on_its_console(instance: Path) -> None:
    keys = replace(KEYS, source=FIRST_CONNECTION)
    assert "host keys" in (fit.unfit_machine(instance, {}, keys) or "")


def test_one_whose_disk_or_qemu_isn_t_where_it_should_be(instance: Path) -> None:
    (instance / "iso").write_bytes(b"")
    assert "disk" in (fit.unfit_machine(instance, {}, KEYS) or "")
    (instance / "qmp.sock").unlink()
    assert "QMP" in (fit.unfit_machine(instance, {}, KEYS) or "")


def test_one_of_vz_has_no_qemu(instance: Path) -> None:
    (instance / "qmp.sock").unlink()
    assert fit.unfit_machine(instance, {"vmType": "vz"}, KEYS) is None


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"vmType": "vz"}, "vz can't keep a VM's memory"),
        ({"mounts": [{"location": "/srv"}]}, "mounts directories"),
        ({"networks": [{"lima": "user-v2"}]}, "networks"),
    ],
)
def test_one_whose_disk_alone_can_be_kept(config: dict[str, Any], problem: str) -> None:
    assert problem in (fit.unfit_memory(config) or "")


def test_one_whose_memory_can_be_kept() -> None:
    assert fit.unfit_memory({"vmType": "qemu", "mounts": [], "networks": None}) is None


def test_vz_s_key_is_not_made_of_qemu(host: Host, filled: FilledTemplate) -> None:
    vz = replace(host, vmtype="vz")
    before = fit.key(vz, filled)
    assert before != fit.key(host, filled)
    (Path(host.limactl.env["PATH"]) / "qemu-system-x86_64").write_text("9.2.1")
    assert fit.key(vz, filled) == before


def test_edits_that_hide_the_images() -> None:
    assert fit.unfit_edits(["--set=.cpus=3"]) is None
    assert "images" in (fit.unfit_edits(["--set=.images=[]"]) or "")


def test_what_lima_takes_from_this_host_is_part_of_it(
    host: Host, filled: FilledTemplate, tmp_path: Path
) -> None:
    def key(filled: FilledTemplate, **environ: str) -> str:
        env = {**host.limactl.env, **environ}
        limactl = Limactl(host.limactl.path, host.limactl.home, env, {})
        return fit.key(replace(host, limactl=limactl), filled)

    proxied = replace(filled, proxied=True)
    assert key(filled, http_proxy="http://a") == key(filled, http_proxy="http://b")
    assert key(proxied, http_proxy="http://a") != key(proxied, http_proxy="http://b")
    assert key(proxied, HTTPS_PROXY="http://a") != key(proxied)
    assert key(proxied, PATH_TO="a") == key(proxied, PATH_TO="b")
    authority = tmp_path / "ca.pem"
    authority.write_text("old")
    trusting = replace(filled, certificates=(str(authority),))
    before = key(trusting)
    authority.write_text("renewed")
    assert key(trusting) != before


def test_a_local_image_may_be_given_as_a_url(
    host: Host, filled: FilledTemplate, image: Path
) -> None:
    local = replace(filled, images=({"location": f"file://{image}"},))
    before = fit.key(host, local)
    image.write_bytes(b"built anew")
    assert fit.key(host, local) != before
