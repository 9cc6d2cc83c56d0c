import pytest

pytestmark = pytest.mark.lima


def test_worker_has_its_user(lima, team):
    lima.run(f"id -u worker || useradd --gid {team} worker", user="root")
    assert lima.run("id -gn worker").stdout.strip() == team
    lima.run("echo worker >>/var/tmp/visitors")


def test_it_is_the_machine_of_the_other_package(lima):
    # Run both packages together: pytest packages/api packages/worker
    assert "worker\n" in lima.read_text("/var/tmp/visitors")
