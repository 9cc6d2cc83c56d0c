import pytest

pytestmark = pytest.mark.lima


def test_api_has_its_user(lima, team):
    lima.run(f"id -u api || useradd --gid {team} api", user="root")
    assert lima.run("id -gn api").stdout.strip() == team
    lima.run("echo api >>/var/tmp/visitors")
