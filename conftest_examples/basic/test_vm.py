"""The smallest use: ask for `lima` and run commands in a real Linux machine."""

import pytest

pytestmark = pytest.mark.lima


def test_it_is_a_machine_with_systemd(lima):
    state = lima.run("systemctl is-system-running --wait", check=False).stdout.strip()
    assert state in {"running", "degraded"}
    assert lima.run("cat /proc/1/comm").stdout.strip() == "systemd"


def test_a_service_of_our_own(lima):
    lima.write_text("/tmp/hello.service", "[Service]\nExecStart=/bin/sleep infinity\n")
    lima.run("mv /tmp/hello.service /etc/systemd/system/ && systemctl start hello", user="root")
    assert lima.run("systemctl is-active hello").stdout == "active\n"


def test_files_go_both_ways(lima, tmp_path):
    lima.write_text("greeting.txt", "hello from the host\n")
    lima.get("greeting.txt", tmp_path / "greeting.txt")
    assert (tmp_path / "greeting.txt").read_text() == "hello from the host\n"
