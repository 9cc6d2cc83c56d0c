import pytest

pytestmark = pytest.mark.lima


def test_web_has_its_user(lima, team):
    lima.run(f"id -u web || useradd --gid {team} web", user="root")
    assert lima.run("id -gn web").stdout.strip() == team
    lima.run("echo web >>/var/tmp/visitors")
