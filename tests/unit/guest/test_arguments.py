"""What can't be meant is refused in words that name the argument, and nothing is sent."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from pytest_lima.errors import LimaError
from pytest_lima.guest import arguments
from pytest_lima.guest.commands import run


class AsBytes:
    def __fspath__(self) -> bytes:
        return b"/tmp"


REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ("", {}, ValueError, "an empty command"),
    ("  \n", {}, ValueError, "an empty command"),
    ([], {}, ValueError, "an empty command"),
    ([""], {}, ValueError, "an empty command"),
    ("echo a\0b", {}, ValueError, "command is 'echo a.x00b', with a NUL"),
    (["echo", "a\0b"], {}, ValueError, r"command\[1\] is .*a NUL"),
    ("echo \udc80", {}, ValueError, "command has .* at 5, half of a character"),
    (["echo", "\ud83d"], {}, ValueError, r"command\[1\] has"),
    (None, {}, TypeError, "command is None"),
    (7, {}, TypeError, "command is of type int"),
    (b"echo", {}, TypeError, "command is of type bytes"),
    (Path("/bin/true"), {}, TypeError, "command is of type PosixPath; give a text"),
    ({"echo"}, {}, TypeError, "command is of type set"),
    (["sleep", 1], {}, TypeError, r"command\[1\] is of type int; give a text or a path"),
    (["echo", None], {}, TypeError, r"command\[1\] is None"),
    (["echo", b"x"], {}, TypeError, r"command\[1\] is of type bytes"),
    (["echo", ["a", "b"]], {}, TypeError, r"command\[1\] is of type list"),
    (["echo", AsBytes()], {}, TypeError, r"command\[1\] is of type AsBytes"),
    ("true", {"timeout": 0}, ValueError, "timeout is 0; give seconds above 0"),
    ("true", {"timeout": -1}, ValueError, "timeout is -1"),
    ("true", {"timeout": math.nan}, ValueError, "timeout is nan"),
    ("true", {"timeout": -math.inf}, ValueError, "timeout is -inf"),
    ("true", {"timeout": None}, TypeError, r'timeout is None; give seconds, or float\("inf"\)'),
    ("true", {"timeout": "5"}, TypeError, "timeout is of type str"),
    ("true", {"timeout": True}, TypeError, "timeout is of type bool"),
    ("true", {"timeout": Decimal(5)}, TypeError, "timeout is of type Decimal"),
    ("true", {"input": 123}, TypeError, "input is of type int; give a text or bytes"),
    ("true", {"input": ["a"]}, TypeError, "input is of type list"),
    ("true", {"input": "a\udc80"}, ValueError, "input has"),
    ("true", {"env": {"A": None}}, TypeError, r"env\['A'\] is None"),
    ("true", {"env": {"A": True}}, TypeError, r"env\['A'\] is of type bool"),
    ("true", {"env": {"A": b"x"}}, TypeError, r"env\['A'\] is of type bytes"),
    ("true", {"env": {"A": "x\0y"}}, ValueError, r"env\['A'\] is .*a NUL"),
    ("true", {"env": {"A": "\udcff"}}, ValueError, r"env\['A'\] has"),
    ("true", {"env": {"A\0": "x"}}, ValueError, r"'A.x00' is not a name for an"),
    ("true", {"env": {1: "x"}}, TypeError, "env has the name 1"),
    ("true", {"env": ["A=x"]}, TypeError, "env is of type list"),
    ("true", {"env": "A=x"}, TypeError, "env is of type str"),
    ("true", {"cwd": ""}, ValueError, "cwd is empty"),
    ("true", {"cwd": "a\0b"}, ValueError, "cwd is .*a NUL"),
    ("true", {"cwd": b"/tmp"}, TypeError, "cwd is of type bytes"),
    ("true", {"cwd": 3}, TypeError, "cwd is of type int"),
    ("true", {"user": ""}, ValueError, "user is '', which is no name of a user"),
    ("true", {"user": "-u root"}, ValueError, "user is '-u root'"),
    ("true", {"user": "-i"}, ValueError, "user is '-i'"),
    ("true", {"user": "a b"}, ValueError, "user is 'a b'"),
    ("true", {"user": "root\n"}, ValueError, "user is"),
    ("true", {"user": "a\0b"}, ValueError, "user is"),
    ("true", {"user": "a\udc80"}, ValueError, "user has"),
    ("true", {"user": 0}, TypeError, "user is of type int"),
    ("true", {"on_output": "x"}, TypeError, "on_output is of type str"),
]


@pytest.mark.parametrize(("command", "given", "kind", "words"), REFUSED)
def test_what_no_command_can_have(connection, guest, command, given, kind, words: str) -> None:
    with pytest.raises(kind, match=f"^{words}") as caught:
        run(connection, command, **given)
    assert type(caught.value) is kind
    assert guest.commands == []
    assert guest.shells == 0


def test_paths_are_texts(connection, guest) -> None:
    (guest.root / "a b").mkdir()
    (guest.root / "a b" / "file").touch()
    listed = run(connection, [Path("/bin/ls"), PurePosixPath("a b")], cwd=guest.root)
    assert listed.stdout == "file\n"
    shown = run(connection, 'echo "$A $B $C"', env={"A": Path("/x"), "B": 8080, "C": 0.5})
    assert shown.stdout == "/x 8080 0.5\n"


@pytest.mark.parametrize("name", ["-", "-P", "+1", "~", "$HOME"])
def test_a_directory_is_taken_by_its_name(connection, guest, name: str) -> None:
    (guest.root / name).mkdir()
    assert run(connection, "pwd; echo $OLDPWD", cwd=name).stdout.startswith(
        f"{guest.root}/{name}\n"
    )


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x"), "x"])
def test_bytes_of_any_kind_are_an_input(connection, data) -> None:
    assert run(connection, "cat", input=data).stdout == "x"


@pytest.mark.parametrize("name", ["root", "ann", "a.b-c_d", "host$", "#1000", "ann@example.org",
                                  "DOMAIN\\ann"])  # fmt: skip
def test_names_of_users(name: str) -> None:
    assert arguments.user(name) == name


@pytest.mark.parametrize(
    ("use", "kind", "words"),
    [
        (lambda vm: vm.run("a\0b"), ValueError, "command is"),
        (lambda vm: vm.put("", "/tmp"), ValueError, "local is empty"),
        (lambda vm: vm.put(b"/etc/hosts", "/tmp/x"), TypeError, "local is of type bytes"),
        (lambda vm: vm.put("a\0b", "/tmp/x"), ValueError, "local is .*no path holds a NUL"),
        (lambda vm: vm.put(__file__, ""), ValueError, "remote is empty"),
        (lambda vm: vm.put(__file__, "a\0b"), ValueError, "remote is .*a NUL"),
        (lambda vm: vm.put(__file__, 7), TypeError, "remote is of type int"),
        (lambda vm: vm.put("/no/such", "/tmp/x"), LimaError, "there is no file /no/such to copy"),
        (lambda vm: vm.put("/dev/null", "/tmp/x"), LimaError, "neither a file nor a directory"),
        (lambda vm: vm.get("", "x"), ValueError, "remote is empty"),
        (lambda vm: vm.get("/etc\udc80", "x"), ValueError, "remote has"),
        (lambda vm: vm.get("/etc/hosts", None), TypeError, "local is None"),
        (lambda vm: vm.read_bytes("\0"), ValueError, "remote is"),
        (lambda vm: vm.read_text(b"/etc/hosts"), TypeError, "remote is of type bytes"),
        (lambda vm: vm.write_bytes("/x", "text"), TypeError, "data is of type str; give bytes"),
        (lambda vm: vm.write_text("/x", b"bytes"), TypeError, "text is of type bytes"),
        (lambda vm: vm.write_text("/x", "a\udc80"), ValueError, "text has .* at 1"),
        (lambda vm: vm.write_text("", "a"), ValueError, "remote is empty"),
        (lambda vm: vm.reboot(0), ValueError, "timeout is 0"),
        (lambda vm: vm.reboot("5"), TypeError, "timeout is of type str"),
        (lambda vm: vm.limactl("list", 5), TypeError, r"args\[1\] is of type int"),
        (lambda vm: vm.limactl("a\0b"), ValueError, r"args\[0\] is"),
        (lambda vm: vm.limactl("list", timeout=None), TypeError, "timeout is None"),
    ],
)
def test_methods_look_before_anything_is_sent(use, kind, words: str) -> None:
    """They don't even look whether there is a VM."""
    from pytest_lima.instance import Instance

    with pytest.raises(kind, match=words):
        use(Instance.__new__(Instance))
