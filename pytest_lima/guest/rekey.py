"""SSH host keys of its own for a guest that has woken up with those of the kept one.

They are made in the guest, told over the connection that is pinned to the old ones, and sshd
answers with no other from then on.
"""

from __future__ import annotations

from pytest_lima.errors import CommandError, CommandTimeoutError, HostKeyError, StartError
from pytest_lima.guest import commands, hostkeys
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.ssh import Address, Connection, NotYetError, connect

_TIMEOUT = 60.0

# sshd says itself which keys it has, so that none of them stays. It is content with one. RSA is
# the exception to "a new one of each type": to find its primes takes an emulated processor up to
# half a minute, and every client since 2014 takes Ed25519. `ssh-keygen -A` would make it, and
# not know of keys in other places.
# SIGHUP is what `reload` of ssh.service, sshd.service and OpenRC sends: sshd starts itself anew,
# and its sessions go on. Where each connection starts an sshd, no file has the pid of one.
_RENEW = """\
set -eu
command -v ssh-keygen >/dev/null || { echo "it has no ssh-keygen" >&2; exit 1; }
config=$("$(command -v sshd || echo /usr/sbin/sshd)" -T)
made= rsa= pid=
renew() {
  rm -f "$1" "$1.pub"
  file=$1; shift
  ssh-keygen -q -N "" -f "$file" "$@" </dev/null >&2
  restorecon "$file" "$file.pub" 2>/dev/null || true  # where there is SELinux
  made=yes
  cat "$file.pub"
}
while read -r name value; do
  case $name in
    pidfile) [ ! -s "$value" ] || read -r pid <"$value" ;;
    hostkey)
      [ -e "$value" ] || continue
      { read -r type rest <"$value.pub"; } 2>/dev/null || type=$(ssh-keygen -y -f "$value")
      case $type in
        ssh-ed25519*) renew "$value" -t ed25519 ;;
        ecdsa-sha2-nistp*) type=${type%% *}; renew "$value" -t ecdsa -b "${type#*nistp}" ;;
        ssh-rsa*) rsa=$value; rm -f "$value" "$value.pub" ;;
        *) rm -f "$value" "$value.pub" ;;
      esac ;;
  esac
done <<END
$config
END
[ -n "$made" ] || [ -z "$rsa" ] || renew "$rsa" -t rsa
[ -n "$made" ] || { echo "its sshd has no host keys in files" >&2; exit 1; }
[ -z "$pid" ] || kill -HUP "$pid"
"""


def renew(connection: Connection) -> HostKeys:
    """Replace the guest's host keys; its sshd loads the new ones within a moment.

    Sessions that stand go on. A reboot makes keys anew, as of any guest that has woken up.

    Raises:
        StartError: The guest can't; it may have no keys at all then.
        ConnectionLostError: The connection broke.
    """
    try:
        told = commands.run(connection, ["sh", "-c", _RENEW], user="root", timeout=_TIMEOUT)
        problem = "it told no key"
        keys = hostkeys.found_in(told.stdout)
    except CommandError as error:
        problem, keys = error.seen or error.what, {}
    except CommandTimeoutError as error:
        problem, keys = error.what, {}
    if not keys:
        raise StartError(
            "the guest could not be given SSH host keys of its own",
            seen=problem,
            remedy="take --lima-host-keys=kept, or an image with OpenSSH's sshd and ssh-keygen",
        )
    return HostKeys(keys, "the guest's own, told by itself", lasting=False)


def log_in(address: Address, keys: HostKeys) -> Connection:
    """Log in with keys that sshd may not have loaded yet.

    Raises:
        NotYetError: No connection, no login, or another key; nothing but the handshake was sent.
    """
    try:
        return connect(address, keys)
    except HostKeyError as error:
        raise NotYetError(error.what, ran=error.ran, seen=error.seen) from error
