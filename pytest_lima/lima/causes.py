"""Why a VM could not be made or started, as limactl and QEMU word it, and what helps.

A remedy is for its cause alone. What isn't known here gets none that blames anything.
"""

from __future__ import annotations

import re

_EMULATE = "`pytest --lima-accel=tcg` emulates it, slowly"
_FETCH = "an image that is a local file needs no network"

# What QEMU says when the accelerator can't run a guest. After some of it QEMU is gone, after some
# it stays, with the guest stopped for good.
_ACCELERATOR = re.compile(
    r"KVM internal error|KVM: entry failed|KVM: unknown exit|kvm run failed"  # it stays
    r"|failed to [gs]et MSR\b|kvm_\w+: Assertion"
    r"|Could not access KVM kernel module|ioctl\(KVM_\w+\) failed|kvm_init_vcpu\b.*failed"
    r"|failed to initialize (kvm|hvf)\b|invalid accelerator (kvm|hvf)\b|No accelerator found"
    r"|accelerator `(kvm|hvf)` is not supported"
    r"|\bHV_(ERROR|BUSY|BAD_ARGUMENT|ILLEGAL_GUEST_STATE|NO_RESOURCES|NO_DEVICE|DENIED"
    r"|UNSUPPORTED|FAULT)\b"
    r"|internal-error$"
    r"|^(qemu-system-\w+: )?hvf: (?!warning)|VM-Entry failed|Unimplemented handler \("
)
# The first that is found counts, so what is said of a cause comes before what follows from it.
_REMEDIES = [
    (re.compile(pattern, re.IGNORECASE), remedy)
    for pattern, remedy in (
        # The accelerator.
        (r"KVM kernel module: Permission denied|initialize kvm: Permission denied",
         f"let this user open /dev/kvm (see its group, often kvm); {_EMULATE}"),
        (r"KVM kernel module: No such (file|device)|initialize kvm: No such (file|device)",
         "load its module (kvm_intel or kvm_amd) and turn on virtualisation in the firmware, or "
         f"for the VM that this host is; {_EMULATE}"),
        (r"KVM_CREATE_VM\) failed: (16\b|.*busy)|initialize kvm: Device or resource busy|HV_BUSY",
         f"another hypervisor, such as VirtualBox, uses the processor: end its VMs; {_EMULATE}"),
        (r"HV_DENIED|lacking the `com\.apple\.security\.hypervisor` entitlement",
         "sign QEMU with the entitlement com.apple.security.hypervisor, or reinstall it; "
         f"{_EMULATE}"),
        (r"invalid accelerator|accelerator `\w+` is not supported",
         f"install a QEMU that was built with this accelerator; {_EMULATE}"),
        (r"VZErrorDomain.*Code=2\b|Virtualization is not available on this hardware",
         "this Mac can't run VMs, which is so where it is a VM itself: use another, or emulate "
         "with --lima-vmtype=qemu --lima-accel=tcg"),
        # What the host lacks.
        (r"no space left on device|disk quota exceeded",
         "free disk space where LIMA_HOME and Lima's downloads are"),
        (r"Cannot allocate memory|cannot set up guest memory|not enough memory",
         "free memory of this host, or ask for less with --lima-memory"),
        (r"too many open files", "allow more open files (ulimit -n)"),
        (r"could not find firmware for `x86_64`",
         "install it (ovmf on Debian and Ubuntu, edk2-ovmf on Fedora and Arch), or boot without: "
         'lima_overrides = {"firmware": {"legacyBIOS": True}}'),
        (r"could not find firmware for",
         "install it (qemu-efi-aarch64 on Debian and Ubuntu, edk2-aarch64 on Fedora)"),
        (r"could not load PC BIOS|Could not (find|open) ROM image|failed to find romfile",
         "reinstall QEMU: files that belong to it are missing"),
        (r'exec: "([^"]+)": executable file not found', r"install \1, or put it on pytest's PATH"),
        (r"failed to find the QEMU binary for the architecture `(\w+)`",
         r"install QEMU for \1, or ask for another architecture with --lima-arch"),
        (r'decompressor "([^"]+)" not found', r"install \1, which unpacks the image"),
        (r"failed to locate virtiofsd|virtiofsd never created",
         "install virtiofsd, or take another mountType in the template"),
        (r"virtfs support|virtio-9p\S*' is not a valid device|no option group 'fsdev'",
         "install a QEMU with virtfs for mounts by 9p, or take mountType: reverse-sshfs"),
        (r"swtpm (not found|exited|socket)|start swtpm",
         "install swtpm, or leave tpm out of the template"),
        (r"QEMU \S+ is too old, (template requires )?\W*([\d.]+)", r"install QEMU \2 or later"),
        (r"socket_vmnet`|sudoers file|`paths\.",
         "set up socket_vmnet and its sudoers file (Lima's documentation, Networks: vmnet), or "
         "take a network that needs none"),
        # What others use.
        (r"host forwarding rule|address already in use|failed to listen",
         "another process has that port of this host: end it, or leave the choice to Lima"),
        (r"Failed to get (shared )?\"(write|consistent read)\" lock|in use by instance",
         "another VM uses that disk: end it, or give each VM a disk of its own"),
        (r"seems running \(hint|instance `[^`]+` already exists",
         "remove what is left of it: pytest-lima prune --all"),
        # Images and other downloads.
        (r"failed to download `[^`]*nerdctl",
         "that is for `containerd` of the template; it isn't downloaded with lima_overrides = "
         '{"containerd": {"system": False, "user": False}}'),
        (r"proxyconnect|Proxy Authentication Required",
         f"correct the proxy variables (https_proxy, no_proxy), which limactl gets; {_FETCH}"),
        (r"x509:|tls: |verify certificate",
         "make this host trust the server's certificate, or name yours with SSL_CERT_FILE; a "
         f"proxy may be in between; {_FETCH}"),
        (r"no such host|name resolution|server misbehaving",
         f"see to this host's DNS and proxy variables, and to the host name in the URL; {_FETCH}"),
        (r"unexpected HTTP status (Not Found|Gone)",
         "the image isn't there any more: correct its location, or take a newer template"),
        (r"unexpected HTTP status",
         f"the server doesn't give the image now: try later, or take another location; {_FETCH}"),
        (r"dial tcp|connection re(fused|set)|network is unreachable|no route to host|i/o timeout"
         r"|TLS handshake timeout|unexpected EOF|context deadline exceeded",
         f"see to this host's network and proxy variables, or try again; {_FETCH}"),
        (r"failed to download `[^`]*`: failed to open source|invalid local file path",
         "correct the location of the image in the template: there is no such file"),
        (r"unsupported arch",
         "the template has no image for this architecture: add one, or ask for another "
         "architecture with --lima-arch"),
        (r"no images are configured|field `images` must be set|variant mismatch",
         "the template names no image that fits: add one to its images"),
        (r"not acceptable as a disk image|Image is not in \S+ format",
         "the image has a format or a backing file that Lima doesn't take: convert it with "
         "qemu-img convert -O qcow2"),
        # What was asked for.
        (r"shrinking\b.* is not supported",
         "the image is larger: ask for more with --lima-disk"),
        (r"template requires Lima version `([^`]+)`", r"install Lima \1 or later"),
        (r"unknown or unsupported VM type|is not a registered driver",
         "take another --lima-vmtype: `limactl info` lists this host's under vmTypes"),
        (r"template does not define param|field `param`",
         "give with --lima-param what the template has under `param` and uses"),
        (r"CPU model '\w+' requires|cpu `\w+` is not supported|unable to find CPU model"
         r"|doesn't support requested feature",
         "take another vmOpts.qemu.cpuType in the template; without it Lima's default is taken"),
        (r"unsupported machine type|not a valid device model|invalid option|Invalid parameter",
         "install a newer QEMU, or correct QEMU_SYSTEM_* where that is set"),
        (r"network `[^`]+` is not defined",
         "take a network that LIMA_HOME/_config/networks.yaml has"),
        (r"is only supported on macOS", "leave that out on this host; user-v2 works everywhere"),
        (r"UNIX_PATH_MAX|instance name `[^`]+` too long",
         "give a shorter directory with --lima-home"),
        (r"failed to unmarshal YAML|field `", "correct what it names in the template"),
        (r"expects \d args|yq expression|lexer error|bad expression|parsing expression",
         "correct the expression of --lima-set, which is yq's"),
        (r"permission denied", "let this user use what it names"),
    )
]  # fmt: skip


def remedy(said: str, otherwise: str) -> str:
    """What helps against what ``said`` tells; ``otherwise`` where that isn't known."""
    for pattern, text in _REMEDIES:
        found = pattern.search(said)
        if found is not None:
            return found.expand(text)
    if blames_accelerator(said):
        return f"this host's accelerator can't run the guest: use another host; {_EMULATE}"
    return otherwise


def blames_accelerator(said: str) -> str:
    """Those of the lines that say that the accelerator has failed; empty for none."""
    lines = [line.strip() for line in said.splitlines() if "warning:" not in line]
    return "\n".join(line for line in lines if _ACCELERATOR.search(line))
