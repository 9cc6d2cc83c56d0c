"""The provision script of ours that every guest runs first, as root, at each boot."""

from __future__ import annotations

# cloud-init prints the host keys when everything else is done, some images never do. This
# prints the same block first, so that SSH can be pinned while provisioning goes on.
#
# Lima's boot script 06-etc-hosts.sh gives host.lima.internal its address; plain mode skips it,
# and cloud-init may write /etc/hosts anew at each boot. The file is written in place, as it may
# be a mount; where it can't be written at all, the VM is as good as without.
FIRST = """\
#!/bin/sh
{
  echo "-----BEGIN SSH HOST KEY KEYS-----"
  cat /etc/ssh/ssh_host_*_key.pub
  echo "-----END SSH HOST KEY KEYS-----"
} >/dev/console 2>/dev/null || true

name_the_host() {
  line="$LIMA_CIDATA_SLIRP_GATEWAY host.lima.internal"
  if grep -qxF "$line" /etc/hosts 2>/dev/null; then return; fi
  others=$(grep -v '[[:space:]]host\\.lima\\.internal$' /etc/hosts 2>/dev/null)
  printf '%s\\n' ${others:+"$others"} "$line" >/etc/hosts
}
if [ "${LIMA_CIDATA_PLAIN:-}" = 1 ] && [ -n "${LIMA_CIDATA_SLIRP_GATEWAY:-}" ]; then
  name_the_host || echo "pytest-lima: host.lima.internal can't be written into /etc/hosts"
fi
"""
