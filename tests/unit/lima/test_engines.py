from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.lima import engines

WAITING = "-o DPkg::Lock::Timeout=300"
UPDATE = f"apt-get {WAITING} -o APT::Update::Error-Mode=any update -q"
SH = shutil.which("dash") or "/bin/sh"


@pytest.mark.parametrize(
    ("rules", "socket"),
    [
        ([], None),
        ([{"guestPort": 80}], None),
        ([{"guestSocket": "/run/docker.sock"}], "/run/docker.sock"),
        ([{"guestPort": 1}, {"guestSocket": "/run/user/{{.UID}}/docker.sock"}],
         "/run/user/{{.UID}}/docker.sock"),
        ([{"guestSocket": "/run/podman/podman.sock"}], "/run/podman/podman.sock"),
        ([{"guestSocket": "/run/k3s.sock"}], None),
        ([{"guestSocket": "/run/notdocker.sock"}], None),
        ([{"guestSocket": None}], None),
        ([{"guestSocket": "/run/docker.sock", "reverse": True}], None),
    ],
)  # fmt: skip
def test_the_socket_a_template_brings(rules, socket) -> None:
    assert engines.docker_socket(rules) == socket


@pytest.fixture
def stock_image(tmp_path: Path, tool) -> Path:
    """A folder for a guest's files, and tools that write down how they are called."""
    for name in ("systemctl", "chown"):
        tool(name, f'echo "{name} $*" >>{tmp_path}/calls')
    return tmp_path


def provision(engine: str, guest: Path) -> subprocess.CompletedProcess[str]:
    """Run the script as Lima would, with the guest's folders below ``guest``."""
    script = engines.provision_script(engine)
    for folder in ("/etc/", "/run/"):
        script = script.replace(folder, f"{guest}{folder}")
    (guest / "calls").unlink(missing_ok=True)
    return subprocess.run(
        [SH, "-c", script],
        env={"PATH": f"{guest}/bin:/nonexistent", "LIMA_CIDATA_USER": "ann"},
        capture_output=True,
        text=True,
        check=False,
    )


def _link(tmp_path: Path, *names: str) -> None:
    for name in names:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)


@pytest.mark.parametrize(
    ("manager", "engine", "installs"),
    [
        ("apt-get", "docker", f"{WAITING} install -q -y --no-install-recommends docker.io"),
        ("dnf", "docker", "install -q -y moby-engine"),
        ("zypper", "docker", "-n install docker"),
        ("apk", "docker", "--wait 300 add docker"),
        ("pacman", "docker", "-Sy --noconfirm docker"),
        ("apt-get", "containerd", f"{WAITING} install -q -y --no-install-recommends containerd"),
        ("dnf", "containerd", "install -q -y containerd"),
    ],
)
def test_a_stock_image_gets_the_distributions_package(
    stock_image: Path, tool, manager, engine, installs
) -> None:
    _link(stock_image, "mkdir", "id")
    tool(manager, f'echo "{manager} $*" >>{stock_image}/calls')
    done = provision(engine, stock_image)
    calls = (stock_image / "calls").read_text().splitlines()
    # ann doesn't exist here, so the group can't be had; that is after the installation.
    assert f"{manager} {installs}" in calls, done.stderr
    assert (manager == "apt-get") == (UPDATE in calls)


@pytest.mark.parametrize("manager", ["apt-get", "dnf", "zypper", "apk", "pacman"])
def test_a_busy_first_boot_is_waited_for(stock_image: Path, tool, manager: str) -> None:
    _link(stock_image, "mkdir")
    tool("sleep", f'echo "sleep $*" >>{stock_image}/calls')
    # As apt does whose lists are locked, pacman, or any of them without network.
    tool(
        manager,
        f"""echo x >>{stock_image}/tries
        while read -r _; do set -- "$@" x; done <{stock_image}/tries
        case $* in *"x x x x x"*) exit 0;; esac
        echo 'Could not get lock' >&2; exit 100""",
    )
    done = provision("docker", stock_image)
    assert done.returncode == 0, done.stderr
    calls = (stock_image / "calls").read_text().splitlines()
    assert [call for call in calls if call.startswith("sleep")][:2] == ["sleep 5", "sleep 10"]
    assert f"{manager} is tried again in 5 s" in done.stderr


def test_a_package_that_is_not_there_is_not_waited_for(stock_image: Path, tool) -> None:
    tool("sleep", f'echo "sleep $*" >>{stock_image}/calls')
    tool("apt-get", "case $* in *update*) exit 0;; esac; exit 100")
    assert provision("docker", stock_image).returncode != 0
    assert not (stock_image / "calls").exists()


def test_a_package_that_cannot_be_had_is_given_up(stock_image: Path, tool) -> None:
    tool("sleep", f'echo "sleep $*" >>{stock_image}/calls')
    tool("dnf", "exit 1")
    assert provision("docker", stock_image).returncode != 0
    assert len((stock_image / "calls").read_text().splitlines()) == 5


def test_docker_goes_to_the_login_user_and_a_second_boot_changes_nothing(
    stock_image: Path, tool
) -> None:
    _link(stock_image, "mkdir")
    tool("dockerd", "")
    assert provision("docker", stock_image).returncode == 0
    dropin = stock_image / "etc/systemd/system/docker.socket.d/pytest-lima.conf"
    assert dropin.read_text() == "[Socket]\nSocketUser=ann\n"
    start = "systemctl start --no-block docker.socket docker.service"
    assert (stock_image / "calls").read_text().splitlines() == ["systemctl daemon-reload", start]
    dropin.write_text("changed by the user")
    assert provision("docker", stock_image).returncode == 0
    assert dropin.read_text() == "changed by the user"
    assert (stock_image / "calls").read_text().splitlines() == [start]


def test_an_image_without_a_known_package_manager_says_so(stock_image: Path) -> None:
    done = provision("docker", stock_image)
    assert done.returncode != 0
    assert "no known package manager to install docker with" in done.stderr


@pytest.mark.parametrize("engine", engines.SOCKETS)
def test_every_engine_has_a_script_that_is_posix_shell(engine: str) -> None:
    script = engines.provision_script(engine)
    assert script.startswith("#!/bin/sh\n")
    assert engines.SOCKETS[engine] in script
    subprocess.run([SH, "-n", "-c", script], check=True)


def test_paths_of_a_templates_engine_are_filled_in() -> None:
    user = {"name": "ann", "uid": 1001, "home": "/home/ann.guest"}
    path = "/run/user/{{.UID}}/{{.User}}{{.Home}}/docker.sock"
    assert engines.expand(path, user) == "/run/user/1001/ann/home/ann.guest/docker.sock"
    spaced = "/run/{{ .Name }}/{{- .Hostname -}}/{{ .Param.dir }}/docker.sock"
    expanded = engines.expand(spaced, user, "pl-1", {"dir": "x"})
    assert expanded == "/run/pl-1/lima-pl-1/x/docker.sock"
    with pytest.raises(TemplateError, match="can't be told: /run/{{.Param.dir}}"):
        engines.expand("/run/{{.Param.dir}}", user)
