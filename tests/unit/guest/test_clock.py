from __future__ import annotations

import email.utils
import time
from pathlib import Path

import pytest

from pytest_lima.errors import CommandError, LimaError, ReadyTimeoutError
from pytest_lima.guest.clock import correct, is_right_by_docker


@pytest.fixture
def date(tool, tmp_path):
    """A `date` of the guest with a clock of its own, as far from ours as this many seconds."""
    drift = tmp_path / "drift"

    def make(seconds: float, can_be_set: bool = True, nanoseconds: bool = True) -> Path:
        drift.write_text(str(seconds))
        setting = f"echo 0 >'{drift}'" if can_be_set else "echo 'date: not permitted' >&2; exit 1"
        # As busybox's, which neither prints nor takes parts of a second.
        refusal = "" if nanoseconds else "-u*-s*@*.*) exit 1 ;;"
        form = "%.6f" if nanoseconds else "%d.%%N"
        tool(
            "date",
            f"""case "$*" in {refusal} -u*-s*) {setting} ;;
            *) /usr/bin/date "$@" | awk -v d=$(cat '{drift}') '{{printf "{form}\\n", $1 + d}}'
            esac""",
        )
        return drift

    return make


def test_a_clock_that_is_right_is_left_alone(connection, guest, date) -> None:
    date(0)
    correct(connection)
    assert not any("date -u -s" in command for command in guest.commands)


def test_a_first_answer_that_takes_long_sets_no_clock(connection, guest, tool, tmp_path) -> None:
    """As while the guest starts the connection's shell."""
    tool("date", f"mkdir '{tmp_path}/asked' 2>/dev/null && sleep 3; exec /usr/bin/date \"$@\"")
    correct(connection)
    assert not any("date -u -s" in command for command in guest.commands)


@pytest.mark.parametrize("seconds", [-3600, 5, 1e9])
def test_a_clock_that_is_off_is_set(connection, guest, date, seconds: float) -> None:
    drift = date(seconds)
    correct(connection)
    assert drift.read_text() == "0\n"
    [setting] = [command for command in guest.commands if "date -u -s" in command]
    assert "exec sudo -n -H -u root" in setting


def test_a_clock_that_cannot_be_set(connection, date) -> None:
    date(-90, can_be_set=False)
    with pytest.raises(ReadyTimeoutError, match=r"-\d+\.\d s off and can't be set"):
        correct(connection)


def test_a_guest_that_answers_slowly_is_not_taken_for_one_whose_clock_is_off(
    connection, tool
) -> None:
    """It answers at the end of a round trip that is long: right, as far as one can see."""
    tool("date", 'case "$*" in -u*-s*) ;; *) sleep 2.4; exec /usr/bin/date "$@" ;; esac')
    correct(connection)


def test_a_date_without_nanoseconds(connection, date) -> None:
    date(0, nanoseconds=False)
    correct(connection)
    drift = date(-90, nanoseconds=False)
    correct(connection)
    assert drift.read_text() == "0\n"


def test_a_date_that_tells_no_time(connection, tool) -> None:
    tool("date", "echo soon")
    with pytest.raises(LimaError):
        correct(connection)
    tool("date", "exit 1")
    with pytest.raises(CommandError):
        correct(connection)


@pytest.fixture
def docker(engine):
    """A Docker in a guest whose clock is as far from ours as this many seconds."""

    def start(seconds: float, takes: float = 0.0) -> Path:
        def serve(sock) -> None:
            sock.recv(65536)
            date = email.utils.formatdate(int(time.time() + seconds), usegmt=True)
            time.sleep(takes)
            sock.sendall(f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 2\r\n\r\nOK".encode())

        return engine(serve)

    return start


def await_begin_of_a_second() -> None:
    time.sleep(1.05 - time.time() % 1)


def test_a_clock_is_seen_to_be_right_by_docker(docker) -> None:
    path = docker(0)
    await_begin_of_a_second()
    assert is_right_by_docker(path)


@pytest.mark.parametrize("seconds", [-1e6, -1.6, 1.6, 3600])
def test_one_that_is_off_is_not(docker, seconds: float) -> None:
    assert not is_right_by_docker(docker(seconds))


class Told:
    """A Docker of a guest whose clock is so far from ours, and all of our time."""

    def __init__(self, now: float, ahead: float, takes: float) -> None:
        self.time = now
        self.asked = 0
        self.slept = 0.0
        self._ahead = ahead
        self._takes = takes

    def date(self, _: object) -> float:
        self.asked += 1
        said = float(int(self.time + self._takes / 2 + self._ahead))
        self.time += self._takes
        return said

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float) -> bool:
        self.slept += seconds
        self.time += seconds
        return False


@pytest.mark.parametrize("ahead", [-0.8, -0.5, -0.2, 0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("takes", [0.001, 0.05])
def test_docker_is_asked_again_when_that_tells_more(
    monkeypatch, ahead: float, takes: float
) -> None:
    for part in range(20):
        told = Told(1000 + part / 20, ahead, takes)
        monkeypatch.setattr("pytest_lima.guest.clock.realtime", told)
        monkeypatch.setattr("pytest_lima.guest.clock.answers.docker_date", told.date)
        assert is_right_by_docker(Path("docker.sock"), told.wait)
        assert told.asked <= 2 and told.slept <= 1.1


@pytest.mark.parametrize("ahead", [-1e6, -2.1, 2.1, 3600])
def test_but_not_when_it_is_clear(monkeypatch, ahead: float) -> None:
    told = Told(1000.5, ahead, 0.05)
    monkeypatch.setattr("pytest_lima.guest.clock.realtime", told)
    monkeypatch.setattr("pytest_lima.guest.clock.answers.docker_date", told.date)
    assert not is_right_by_docker(Path("docker.sock"), told.wait)
    assert (told.asked, told.slept) == (1, 0.0)


@pytest.mark.parametrize("ahead", [-1.4, -1.1, 1.1, 1.4])
def test_however_often_it_is_asked_one_that_is_off_stays_so(monkeypatch, ahead: float) -> None:
    for part in range(20):
        told = Told(1000 + part / 20, ahead, 0.05)
        monkeypatch.setattr("pytest_lima.guest.clock.realtime", told)
        monkeypatch.setattr("pytest_lima.guest.clock.answers.docker_date", told.date)
        assert not is_right_by_docker(Path("docker.sock"), told.wait)
        assert told.asked <= 3


def test_nor_one_of_which_an_answer_came_too_late(docker) -> None:
    assert not is_right_by_docker(docker(0, takes=1.1))


def test_nor_one_whose_docker_tells_nothing(engine, short_path) -> None:
    def serve(sock) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nDate: soon\r\nContent-Length: 2\r\n\r\nOK")

    assert not is_right_by_docker(engine(serve))
    assert not is_right_by_docker(short_path / "none")
