"""Container engines in the guest: which sockets they have, and how a stock image gets one.

A template that brings an engine is used as it is: its forward of ``docker.sock`` or
``podman.sock`` says where it listens. A stock image gets the distribution's packages by a
provision script of ours. Lima runs provision scripts at every boot, so each is idempotent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_lima.errors import TemplateError
from pytest_lima.lima import gotemplate

DOCKER = "docker"
CONTAINERD = "containerd"
ENGINES = {
    "docker": frozenset({DOCKER}),
    "containerd": frozenset({CONTAINERD}),
    "both": frozenset({DOCKER, CONTAINERD}),
    "none": frozenset[str](),
}

SOCKETS = {DOCKER: "/run/docker.sock", CONTAINERD: "/run/containerd/containerd.sock"}
_DOCKER_COMPATIBLE = ("/docker.sock", "/podman.sock")

# At a first boot, others such as apt-daily are at the package manager, and the network may not be
# up. DPkg::Lock::Timeout is for dpkg's lock alone: an update that finds the lists locked fails at
# once, and one without network says it was fine unless Error-Mode tells it otherwise (apt 2.6,
# tried). dnf waits by itself. pacman doesn't.
_INSTALL = """\
install_any() {  # the distribution's packages, under the name it has for them
  for manager in apt-get dnf zypper apk pacman none; do
    if command -v "$manager" >/dev/null; then break; fi
  done
  for pause in 5 10 20 40 60 0; do
    hindered=yes
    case $manager in
    apt-get)
      export DEBIAN_FRONTEND=noninteractive
      if apt-get -o DPkg::Lock::Timeout=300 -o APT::Update::Error-Mode=any update -q
      then hindered=; fi
      apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends "$1" && return ;;
    dnf) dnf install -q -y "$2" && return ;;
    zypper) ZYPP_LOCK_TIMEOUT=300 zypper -n install "$3" && return ;;
    apk) apk --wait 300 add "$3" && return ;;
    pacman) pacman -Sy --noconfirm "$3" && return ;;
    *)
      echo "pytest-lima: no known package manager to install $3 with" >&2
      return 1 ;;
    esac
    if [ -z "$hindered" ] || [ "$pause" = 0 ]; then return 1; fi
    echo "pytest-lima: $manager is tried again in $pause s" >&2
    sleep "$pause" || true
  done
}
"""

# The socket goes to the login user: now if it is there, and by a drop-in at each later start.
# --no-block: the engine warms up while cloud-init ends.
_SCRIPTS = {
    DOCKER: f"""\
#!/bin/sh
set -eu
{_INSTALL}
command -v dockerd >/dev/null || install_any docker.io moby-engine docker
dropin=/etc/systemd/system/docker.socket.d/pytest-lima.conf
if [ ! -e "$dropin" ]; then
  mkdir -p "${{dropin%/*}}"
  printf '[Socket]\\nSocketUser=%s\\n' "$LIMA_CIDATA_USER" >"$dropin"
  systemctl daemon-reload
fi
systemctl start --no-block docker.socket docker.service
[ ! -S /run/docker.sock ] || chown "$LIMA_CIDATA_USER" /run/docker.sock
""",
    CONTAINERD: f"""\
#!/bin/sh
set -eu
{_INSTALL}
command -v containerd >/dev/null || install_any containerd containerd containerd
dropin=/etc/systemd/system/containerd.service.d/pytest-lima.conf
share="/bin/chgrp $(id -g "$LIMA_CIDATA_USER") /run/containerd/containerd.sock"
if [ ! -e "$dropin" ]; then
  mkdir -p "${{dropin%/*}}"
  printf '[Service]\\nExecStartPost=%s\\n' "$share" >"$dropin"
  systemctl daemon-reload
fi
systemctl start --no-block containerd.service
[ ! -S /run/containerd/containerd.sock ] || $share
""",
}


def provision_script(engine: str) -> str:
    """The script, run as root at each boot, that provides ``engine`` on a stock image."""
    return _SCRIPTS[engine]


def docker_socket(port_forwards: Sequence[Mapping[str, Any]]) -> str | None:
    """The guest socket of the Docker-compatible engine a template brings, if it does.

    May hold Lima's variables, see ``expand``.
    """
    for rule in port_forwards:
        socket = str(rule.get("guestSocket") or "")
        if socket.endswith(_DOCKER_COMPATIBLE) and not rule.get("reverse"):
            return socket
    return None


def expand(
    path: str, user: Mapping[str, Any], name: str = "", param: Mapping[str, Any] | None = None
) -> str:
    """A guest socket's path with Lima's variables filled in.

    Args:
        path: May hold ``{{.UID}}``, ``{{.User}}``, ``{{.Home}}``, ``{{.Name}}``,
            ``{{.Hostname}}`` and ``{{.Param.…}}``.
        user: The ``user`` of the instance's resolved lima.yaml.
        name: The instance's.
        param: The ``param`` of its resolved lima.yaml.

    Raises:
        TemplateError: It holds something else, which Lima alone could tell the value of.
    """
    values = {
        "UID": str(user.get("uid")),
        "User": str(user.get("name")),
        "Home": str(user.get("home")),
        "Name": name,
        "Hostname": f"lima-{name}",
        **gotemplate.params(param),
    }
    try:
        return gotemplate.expand(path, values)
    except gotemplate.NotANameError as error:
        problem = str(error)
    raise TemplateError(
        f"the path of the engine's socket in the guest can't be told: {path}",
        seen=f"{problem} is none of the variables that are known here",
        remedy="give the template's guestSocket with {{.UID}}, {{.User}}, {{.Home}}, {{.Name}}, "
        "{{.Hostname}} and {{.Param.NAME}} of its own param alone",
    )


def require_known(path: str, param: Mapping[str, Any] | None) -> None:
    """Refuse a guest socket's path that ``expand`` won't be able to expand.

    Raises:
        TemplateError: It can't.
    """
    expand(path, {}, "", param)
