# Helpers of scripts/engine: what this machine has to have, and who runs the VMs.
# shellcheck shell=bash

# limactl refuses root, so root runs everything that starts a VM as this user.
vm_user=limatest

# command:package of Debian, needed to boot a VM, to talk to its engines, and to be another host
boot_tools=(qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils ssh:openssh-client
	sshd:openssh-server docker:docker-cli ctr:containerd)
# the same, needed to build the guest
build_tools=(mmdebstrap:mmdebstrap mke2fs:e2fsprogs xz:xz-utils)

# missing_packages COMMAND:PACKAGE...
missing_packages() {
	local tool
	for tool in "$@"; do
		PATH=$PATH:/usr/sbin:/sbin command -v "${tool%%:*}" >/dev/null || echo "${tool#*:}"
	done
}

missing_venv() {
	"$python" -c 'import ensurepip' 2>/dev/null || echo python3-venv
}

# need_tools boot [build]
need_tools() {
	local tools=("${boot_tools[@]}") missing
	if [[ ${2:-} == build ]]; then
		tools+=("${build_tools[@]}")
		# for user namespaces
		if ((EUID != 0)); then tools+=(newuidmap:uidmap); fi
	fi
	missing=$(missing_packages "${tools[@]}" && missing_venv)
	# shellcheck disable=SC2086  # a list of words
	[[ -z $missing ]] || install_packages $missing
}

can_install() {
	((EUID == 0)) && command -v apt-get >/dev/null
}

install_packages() {
	if ! can_install; then
		die "missing on this machine: $*
  Debian and Ubuntu: sudo apt-get install --no-install-recommends $*"
	fi
	say "installing $* ..."
	local log
	log=$(mktemp)
	locked apt apt_install "$@" >"$log" 2>&1 </dev/null || {
		tail -n 20 "$log" >&2
		die "could not install $*; the lines above are the end of $log"
	}
	rm -f "$log"
}

apt_install() {
	local policy=/usr/sbin/policy-rc.d package packages=() pause
	# On a machine that was just booted, apt-daily may have the lists, which apt doesn't wait for.
	for pause in 5 10 20 40 60 0; do
		if apt-get -o APT::Update::Error-Mode=any update; then break; fi
		sleep "$pause"
	done
	for package in "$@"; do
		# Debian 12 has the docker command only together with the daemon.
		if [[ $package == docker-cli ]] && ! apt-cache show docker-cli >/dev/null 2>&1; then
			package=docker.io
		fi
		packages+=("$package")
	done
	# The commands are wanted, not their daemons. A policy that is there already is kept.
	if [[ ! -e $policy ]]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
		install --yes --no-install-recommends "${packages[@]}"
}

# Sets `python`: one that the user who runs the tests can read.
find_python() {
	python=$(command -v python3 || true)
	if ((EUID == 0)); then python=/usr/bin/python3; fi
	"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
		die "needs Python 3.11 or newer${python:+, and $python is not}"
}

make_user() {
	id "$vm_user" >/dev/null 2>&1 || locked user create_user
	vm_home=$(getent passwd "$vm_user" | cut -d: -f6)
}

create_user() {
	id "$vm_user" >/dev/null 2>&1 && return
	say "creating the user $vm_user, as limactl refuses root"
	useradd --create-home --shell /bin/bash "$vm_user"
	# Where this machine has a usable KVM, its VMs are to have it.
	[[ $(stat -c %G /dev/kvm 2>/dev/null) != kvm ]] || usermod --append --groups kvm "$vm_user"
}

# as_user COMMAND...: as the user who runs the tests, with nothing of root's environment.
as_user() {
	if ((EUID == 0)); then
		setpriv --reuid="$vm_user" --regid="$vm_user" --init-groups \
			env -i HOME="$vm_home" USER="$vm_user" PATH="$PATH" "$@"
	else
		"$@"
	fi
}
