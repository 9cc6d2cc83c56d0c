"""Promises 34 and 35: what limactl prints and what a guest sends is not trusted."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from pytest_lima import LimaError, lima_instance

# No text, colours, half a JSON, and more than is read of it.
NOISE = r"""#!/bin/sh
printf '\377\376\033[31mred\033[0m\r\n{"level":"fatal","msg":"hal' >&2
head -c 20000000 /dev/zero | tr '\0' x >&2
echo >&2
case " $* " in
*" list "*) printf '{"name":"pl-\n\377\n[1]\nnull\n{"level":"warning","msg":"on stdout"}\n' ;;
esac
exec @REAL@ "$@"
"""
LIES = r"""#!/bin/sh
case " $* " in
*" @COMMAND@ "*) echo "Error: none"; exit 0 ;;
esac
exec @REAL@ "$@"
"""


@pytest.fixture
def limactl(fake_lima, monkeypatch):
    """Puts a script before the fake's limactl."""

    def put(script: str, command: str = "") -> None:
        path = fake_lima.dir / "other-limactl"
        path.write_text(
            script.replace("@REAL@", str(fake_lima.limactl)).replace("@COMMAND@", command)
        )
        path.chmod(0o755)
        monkeypatch.setenv("PYTEST_LIMA_LIMACTL", str(path))

    return put


def test_34_noise_does_no_harm(fake_lima, limactl):
    limactl(NOISE)
    with lima_instance() as vm:
        assert vm.run("echo hello").stdout == "hello\n"
    fake_lima.assert_clean()


def test_34_an_error_in_the_noise_is_found(fake_lima, limactl):
    limactl(NOISE)
    fake_lima.scenario("create-fails")
    with pytest.raises(LimaError, match="https://fake.invalid/disk.qcow2") as caught:
        with lima_instance():
            raise AssertionError("it booted")
    text = str(caught.value)
    assert len(text.splitlines()) <= 5
    assert "\x1b" not in text
    fake_lima.assert_clean()


@pytest.mark.parametrize("command", ["create", "start", "list"])
def test_34_what_it_claims_to_have_done_is_looked_at(fake_lima, limactl, monkeypatch, command):
    monkeypatch.setenv("PYTEST_LIMA_TIMEOUT", "5")
    limactl(LIES, command)
    with pytest.raises(LimaError) as caught, lima_instance():
        raise AssertionError("it booted")
    assert len(str(caught.value).splitlines()) <= 5
    fake_lima.forget_unknown()  # a start of what was never created
    fake_lima.assert_clean()


def stream(*members: tuple[str, bytes, str]) -> bytes:
    """A tar stream of files (name, type, where a link leads)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
    return file.getvalue()


@pytest.fixture
def hostile(fake_lima, tmp_path):
    """Gets a directory from a guest whose tar sends this."""

    def get(data: bytes) -> Path:
        with lima_instance() as vm:
            vm.write_bytes("hostile", data)
            vm.run("rm /bin/tar")
            vm.write_text("/bin/tar", '#!/bin/sh\ncat "$HOME/hostile"\n')
            vm.run("chmod +x /bin/tar; mkdir tree")
            vm.get("tree", tmp_path / "back")
        return tmp_path / "back"

    return get


@pytest.mark.parametrize("name", ["../../evil", "/tmp/pl-evil", "sub/../../evil"])
def test_35_names_do_not_lead_out(fake_lima, hostile, tmp_path, name):
    with pytest.raises(LimaError, match="a name outside the directory") as caught:
        hostile(stream(("fine", tarfile.REGTYPE, ""), (name, tarfile.REGTYPE, "")))
    assert name in str(caught.value)
    assert not list(tmp_path.rglob("evil")) and not Path("/tmp/pl-evil").exists()
    assert not list(tmp_path.parent.glob("evil"))
    fake_lima.assert_clean()


def test_35_links_and_pipes_are_left_out(fake_lima, hostile):
    back = hostile(
        stream(
            ("passwd", tarfile.SYMTYPE, "/etc/passwd"), ("hard", tarfile.LNKTYPE, "/etc/passwd"),
            ("pipe", tarfile.FIFOTYPE, ""), ("null", tarfile.CHRTYPE, ""),
            ("file", tarfile.REGTYPE, ""),
        )
    )  # fmt: skip
    assert [path.name for path in back.iterdir()] == ["file"]
    fake_lima.assert_clean()


def test_35_too_many_files_are_refused(fake_lima, hostile, monkeypatch):
    monkeypatch.setattr("pytest_lima.guest.trees._COUNT_LIMIT", 3)
    with pytest.raises(LimaError, match="more than 4 GiB or 3 files"):
        hostile(stream(*((f"{number}", tarfile.REGTYPE, "") for number in range(5))))
    fake_lima.assert_clean()


def test_35_a_size_that_is_too_large_is_refused_before_it_is_written(fake_lima, hostile, tmp_path):
    info = tarfile.TarInfo("large")
    info.size = 10 * 1024**3
    with pytest.raises(LimaError, match="more than 4 GiB"):
        hostile(info.tobuf() + b"x")
    assert not list((tmp_path / "back").iterdir())
    fake_lima.assert_clean()


@pytest.mark.parametrize("name", ["a\nb", "-rf", "$(touch x)", "'", "ünï ✓", "\x1b[31m"])
def test_35_odd_names_are_taken_as_they_are(fake_lima, tmp_path, name):
    with lima_instance() as vm:
        vm.write_text(name, "there")
        assert vm.read_text(name) == "there"
        vm.get(name, tmp_path / "back")
    assert (tmp_path / "back").read_text() == "there"
    fake_lima.assert_clean()
