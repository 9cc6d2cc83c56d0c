"""SSH host keys of its own for a guest that has woken up with those of the kept one."""

from __future__ import annotations

from pytest_lima.errors import CommandError, CommandTimeoutError, StartError
from pytest_lima.guest import commands, hostkeys
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.ssh import Connection
from pytest_lima.guest.startup import NotBegunError

_TIMEOUT = 60.0

# sshd says itself which keys it has, so that none of them stays (`ssh-keygen -A` knows the usual
# places alone). It is content with one. A new RSA key would take an emulated processor one to
# three seconds, where another takes 0.3, and every client since 2014 knows others.
#
# SIGHUP is what `reload` of ssh.service, sshd.service and OpenRC sends: sshd executes itself
# anew, loads its keys, listens, and writes its pid; its sessions go on. With systemd's ssh.socket
# it ends instead, as it can't bind the port, and the next connection starts another. Where each
# connection gets its own, with `Accept=yes`, there is no such file and nothing to load.
_RENEW = """\
set -eu
command -v ssh-keygen >/dev/null || { echo "it has no ssh-keygen" >&2; exit 1; }
config=$("$(command -v sshd || echo /usr/sbin/sshd)" -T)
made= rsa= pid_file=
renew() {
  file=$1; shift
  rm -f "$file" "$file.pub"
  ssh-keygen -q -N "" -f "$file" "$@" </dev/null >&2
  restorecon "$file" "$file.pub" 2>/dev/null || true  # where there is SELinux
  made=yes
  cat "$file.pub"
}
while read -r name value; do
  case $name in
    pidfile) pid_file=$value ;;
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
[ -s "$pid_file" ] || exit 0
read -r pid <"$pid_file"
rm "$pid_file"
kill -HUP "$pid"
for try in $(seq 200); do
  [ ! -s "$pid_file" ] || exit 0
  kill -0 "$pid" 2>/dev/null || exit 0
  sleep 0.1
done
echo "its sshd does not listen again" >&2
exit 1
"""


def renew(connection: Connection) -> HostKeys:
    """Replace the guest's host keys; its sshd answers with the new ones when this returns.

    The new keys are told over the connection, which is pinned to the old ones; close it then, as
    the last that is. A reboot makes keys anew, as of any guest that has woken up.

    Raises:
        StartError: The guest can't; it may have no keys at all then.
        ConnectionLostError: The connection broke.
    """
    try:
        told = commands.run(connection, ["sh", "-c", _RENEW], user="root", timeout=_TIMEOUT)
        keys, problem = hostkeys.found_in(told.stdout), "it told no key"
    except (CommandError, CommandTimeoutError, NotBegunError) as error:
        keys, problem = {}, error.seen or error.what
    if not keys:
        raise StartError(
            "the guest could not be given SSH host keys of its own",
            seen=problem,
            remedy="take --lima-host-keys=kept, or an image with OpenSSH's sshd and ssh-keygen",
        )
    return HostKeys(keys, "the guest's own, told by itself", lasting=False)
