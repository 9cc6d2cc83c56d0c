"""Each text is what limactl 2.2, its drivers or QEMU 7.2 print."""

from __future__ import annotations

import pytest

from pytest_lima.lima import causes

SAID = [
    # QEMU
    ("qemu-system-x86_64: -netdev user,id=net0,hostfwd=tcp:127.0.0.1:60022-:22: Could not set up "
     "host forwarding rule 'tcp:127.0.0.1:60022-:22'", "another process has that port"),
    ("failed to listen tcp: listen tcp 127.0.0.1:5355: bind: address already in use",
     "another process has that port"),
    ("Could not access KVM kernel module: Permission denied\nqemu-system-x86_64: -accel kvm: "
     "failed to initialize kvm: Permission denied", "let this user open /dev/kvm"),
    ("Could not access KVM kernel module: No such file or directory", "load its module"),
    ("ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy", "another hypervisor"),
    ("KVM internal error. Suberror: 1", "this host's accelerator can't run the guest"),
    ("qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69", "use another host"),
    ("qemu-system-aarch64: Error: ret = HV_ERROR (0xfae94001, at ../accel/hvf/hvf-accel-ops.c:335)",
     "use another host"),
    ("Error: HV_DENIED", "com.apple.security.hypervisor"),
    ("qemu-system-x86_64: -accel hvf: invalid accelerator hvf", "built with this accelerator"),
    ("qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory",
     "--lima-memory"),
    ("qemu: could not load PC BIOS 'bios-256k.bin'", "reinstall QEMU"),
    ('qemu-system-x86_64: -drive file=disk: Failed to get "write" lock\nIs another process using '
     "the image [disk]?", "another VM uses that disk"),
    ("qemu-system-x86_64: unsupported machine type\nUse -machine help to list supported machines",
     "a newer QEMU"),
    ("qemu-system-x86_64: unable to find CPU model 'foo'", "cpuType"),
    ("qemu-system-x86_64: CPU model 'host' requires KVM or HVF", "cpuType"),
    ("qemu-system-x86_64: TCG doesn't support requested features", "cpuType"),
    ("qemu-system-x86_64: -device virtio-foo: 'virtio-foo' is not a valid device model name",
     "a newer QEMU"),
    # Lima's drivers
    ("could not find firmware for `x86_64` (hint: try setting `firmware.legacyBIOS` to `true`)",
     '"legacyBIOS": True'),
    ("could not find firmware for `aarch64` (hint: try copying the `edk-aarch64-code.fd` firmware "
     "to $HOME/.local/share/qemu/)", "qemu-efi-aarch64"),
    ('failed to get the information of `/h/x/image`: failed to run [qemu-img]: exec: "qemu-img": '
     "executable file not found in $PATH", "install qemu-img"),
    ("failed to find the QEMU binary for the architecture `riscv64`: not found",
     "install QEMU for riscv64"),
    ('decompressor "zstd" not found and no built-in fallback', "install zstd"),
    ("failed to locate virtiofsd", "install virtiofsd"),
    ("swtpm not found in PATH: not found (hint: install swtpm)", "install swtpm"),
    ("QEMU 3.1.0 is too old, 4.0.0 or later required", "install QEMU 4.0.0 or later"),
    ("QEMU 7.2.0 is too old, template requires `8.0.0` or later", "install QEMU 8.0.0 or later"),
    ("accelerator `kvm` is not supported by qemu-system-x86_64", "built with this accelerator"),
    ('Error Domain=VZErrorDomain Code=2 Description="Virtualization is not available on this '
     'hardware."', "--lima-vmtype=qemu --lima-accel=tcg"),
    ("networks.yaml: `/opt/socket_vmnet/bin/socket_vmnet` (`paths.socketVMNet`) has to be "
     "installed", "socket_vmnet"),
    ("sudoers file `/private/etc/sudoers.d/lima` is out of sync and must be regenerated "
     "(Hint: run)", "sudoers"),
    # Images
    ("failed to download `/nonexistent/disk.qcow2`: failed to open source /nonexistent/disk.qcow2: "
     "open /nonexistent/disk.qcow2: no such file or directory", "there is no such file"),
    ('failed to download `https://h.invalid/d`: Get "https://h.invalid/d": dial tcp: lookup '
     "h.invalid on 127.0.0.53:53: no such host", "DNS"),
    ('failed to download `https://h/d`: Get "https://h/d": dial tcp: lookup h: Temporary failure '
     "in name resolution", "DNS"),
    ('failed to download `http://127.0.0.1:9/d`: Get "http://127.0.0.1:9/d": dial tcp 127.0.0.1:9: '
     "connect: connection refused", "network"),
    ('failed to download `https://h/d`: Get "https://h/d": proxyconnect tcp: dial tcp 10.0.0.1:1: '
     "connect: connection refused", "correct the proxy variables"),
    ('failed to download `https://h/d`: Get "https://h/d": tls: failed to verify certificate: '
     "x509: certificate signed by unknown authority", "SSL_CERT_FILE"),
    ("failed to download `https://h/d`: unexpected HTTP status Not Found, body=``",
     "isn't there any more"),
    ("failed to download `https://h/d`: unexpected HTTP status Service Unavailable, body=``",
     "try later"),
    ("failed to download `https://github.com/containerd/nerdctl/releases/download/v2/nerdctl-full-2"
     "-linux-amd64.tar.gz`: dial tcp: lookup github.com: no such host", '"containerd"'),
    ("[skipped to download: `https://h/d`: unsupported arch: `aarch64`]", "--lima-arch"),
    ("field `images` must be set", "add one to its images"),
    ("no images are configured (did you set --image-variant to a value not present in the "
     "template?)", "add one to its images"),
    ("file `/h/x/image` is not acceptable as a disk image: has a backing file", "qemu-img convert"),
    ("write /h/x/disk: no space left on device", "free disk space"),
    ("write /h/x/disk: disk quota exceeded", "free disk space"),
    # What was asked for
    ("field `disk`: shrinking the disk (10 --> 5) is not supported", "--lima-disk"),
    ("disk shrinking is not supported", "--lima-disk"),
    ("template requires Lima version `99.0.0`; this is only `2.2.0`", "install Lima 99.0.0"),
    ("failed to create driver instance: unknown or unsupported VM type: vz", "--lima-vmtype"),
    ("vmType `foo` is not a registered driver", "--lima-vmtype"),
    ("error while processing flag `param`: template does not define param `nope`", "--lima-param"),
    ("field `param` key `a` is not used in any provision, probe, copyToHost, or portForward",
     "--lima-param"),
    ("'=' expects 2 args but there is 1", "--lima-set"),
    ("field `mountType` must be `reverse-sshfs` or `9p` or `virtiofs`, or `wsl2`, got `foo`",
     "in the template"),
    ("network `nope` is not defined", "networks.yaml"),
    ("field `networks[0].lima` is only supported on macOS right now", "user-v2"),
    ("failed to unmarshal YAML (t.yaml): [1:10] could not find flow mapping end token '}'",
     "in the template"),
    ("instance name `x` too long: `/h/x/ssh.sock.1` must be less than UNIX_PATH_MAX=108 characters",
     "--lima-home"),
    ("failed to run attach disk `data`, in use by instance `other`", "another VM uses that disk"),
    ("open /images/d.qcow2: permission denied", "let this user use what it names"),
    ("open /h/x/disk: too many open files", "ulimit -n"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "remedy"), SAID, ids=[remedy for _, remedy in SAID])
def test_a_remedy_is_for_its_cause(said: str, remedy: str) -> None:
    assert remedy in causes.remedy(said, "OTHERWISE")


@pytest.mark.parametrize(
    "said",
    [
        "exit status 1",
        "host agent process has exited: signal: killed",
        "did not receive an event with the `running` status",
        "qemu-system-x86_64: terminating on signal 15 from pid 7",
        "",
    ],
)
def test_what_is_not_known_blames_nothing(said: str) -> None:
    assert causes.remedy(said, "see the log") == "see the log"


@pytest.mark.parametrize(
    ("said", "blamed"),
    [
        ("KVM internal error. Suberror: 1\nemulation failure\nRAX=0", ["KVM internal error"]),
        ("error: kvm run failed Bad address\nRAX=0", ["error: kvm run failed"]),
        ("KVM: entry failed, hardware error 0x80000021", ["KVM: entry failed"]),
        ("qemu-system-x86_64: kvm_init_vcpu: kvm_get_vcpu failed (0): Invalid argument",
         ["qemu-system-x86_64: kvm_init_vcpu"]),
        ("kvm.c:3183: kvm_buf_set_msrs: Assertion `ret == n' failed.", ["kvm.c:3183"]),
        ("qemu-system-aarch64: Error: HV_ERROR", ["qemu-system-aarch64: Error"]),
        ("hvf: Failed to set up the vCPU", ["hvf: Failed"]),
        ("qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.01H:ECX.vmx",
         []),
        ("qemu-system-x86_64: warning: hvf: something", []),
        ("kvm-clock: using sched offset", []),
        ("qemu-system-x86_64: terminating on signal 15", []),
        ("", []),
    ],
)  # fmt: skip
def test_the_accelerator_is_blamed_for_its_own_failures_alone(said: str, blamed: list[str]) -> None:
    lines = causes.blames_accelerator(said).splitlines()
    assert len(lines) == len(blamed)
    assert all(line.startswith(start) for line, start in zip(lines, blamed, strict=True))
