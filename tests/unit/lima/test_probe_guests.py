"""The bytes of the test guests, and that these run where nothing is wrong: under emulation."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_lima.lima import probe_guests

SOURCE = Path(probe_guests.__file__).with_name("probe_x86_64.S")
CLAIMED = "sse3 ssse3 sse4.1 sse4.2 pclmulqdq aes cx16 movbe popcnt rdrand bmi1 bmi2 adx erms"


def needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"no {missing}")


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(arg) for arg in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


@needs("as", "ld")
def test_the_bytes_are_those_of_the_source(tmp_path: Path) -> None:
    done = run("as", "--64", SOURCE, "-o", tmp_path / "probe.o")
    if "--64" in done.stderr:
        pytest.skip("an assembler for another processor")
    assert done.returncode == 0, done.stderr
    linked = run("ld", "-m", "elf_x86_64", "-Ttext=0x100000", "--oformat", "binary",
                 tmp_path / "probe.o", "-o", tmp_path / "probe.bin")  # fmt: skip
    assert linked.returncode == 0, linked.stderr
    assert (tmp_path / "probe.bin").read_bytes() == probe_guests.X86_64


@needs("qemu-system-x86_64")
@pytest.mark.parametrize(
    ("cpu", "executed"),
    [
        ("max", [*CLAIMED.split(), "lzcnt", "rdtscp", "xsave", "avx", "f16c", "fma", "avx2"]),
        ("qemu64", ["sse3", "cx16"]),  # what a processor doesn't claim is left alone
        ("Nehalem", ["sse3", "ssse3", "sse4.1", "sse4.2", "cx16", "popcnt"]),
    ],
)
def test_a_processor_that_holds_what_it_claims(tmp_path: Path, cpu: str, executed) -> None:
    guest = tmp_path / "guest"
    guest.write_bytes(probe_guests.X86_64)
    done = run("qemu-system-x86_64", "-accel", "tcg", "-cpu", cpu, "-m", "16", "-display", "none",
               "-nodefaults", "-no-reboot", "-machine", "q35,vmport=off", "-debugcon", "stdio",
               "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-kernel", guest)  # fmt: skip
    assert done.returncode == 33, done.stderr
    # Each QEMU emulates more than the one before.
    assert [name for name in done.stdout.split() if name in executed] == executed


@needs("qemu-system-x86_64")
def test_an_instruction_that_fails_is_the_last_word(tmp_path: Path) -> None:
    guest = tmp_path / "guest"
    popcnt = bytes.fromhex("f3480fb8c0")  # becomes ud2
    assert probe_guests.X86_64.count(popcnt) == 1
    guest.write_bytes(probe_guests.X86_64.replace(popcnt, b"\x0f\x0b\x90\x90\x90"))
    done = run("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "16", "-display", "none",
               "-nodefaults", "-no-reboot", "-machine", "q35,vmport=off", "-debugcon", "stdio",
               "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-kernel", guest)  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.split()[-1] == "popcnt"


@needs("qemu-system-aarch64")
@pytest.mark.parametrize("cpu", ["max", "cortex-a57"])
def test_the_guest_of_arm_says_so_and_turns_itself_off(tmp_path: Path, cpu: str) -> None:
    guest = tmp_path / "guest"
    guest.write_bytes(probe_guests.AARCH64)
    done = run("qemu-system-aarch64", "-accel", "tcg", "-cpu", cpu, "-m", "16", "-display", "none",
               "-nodefaults", "-no-reboot", "-machine", "virt", "-serial", "stdio",
               "-kernel", guest)  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, ["ran"]), done.stderr
