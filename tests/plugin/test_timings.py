"""`--lima-timings`: a table at the end, and properties in junit's file."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

TWO = """
    def test_one(lima): pass
    def test_two(lima): pass
    def test_without(): pass
"""
TABLE = [
    r"-+ lima timings -+",
    r" +\d+\.\d\d s  pl-[0-9a-f]{8} ready",
    r" +\d+\.\d\d s    creating",
    r" +\d+\.\d\d s    booting",
    r" +\d+\.\d\d s    provisioning",
]


def properties(xml: str) -> dict[str, list[tuple[str, str]]]:
    """By test: names without the instance's, and values."""
    found = {}
    for case in ET.fromstring(xml).iter("testcase"):
        found[case.get("name")] = [
            (re.sub(r" pl-\S+", "", one.get("name")), one.get("value"))
            for one in case.iter("property")
        ]
    return found


@pytest.mark.parametrize("how", ["flag", "ini", "quiet"])
def test_a_table_at_the_end(pytester, fake_lima, how):
    pytester.makepyfile(TWO)
    if how == "ini":
        pytester.makeini("[pytest]\nlima_timings = on\n")
    args = {"flag": ["--lima-timings"], "ini": [], "quiet": ["-q", "--lima-timings"]}[how]
    result = pytester.runpytest("--lima-start=cold", *args)
    result.assert_outcomes(passed=3)
    result.stdout.re_match_lines(TABLE, consecutive=True)


def test_not_unless_it_is_asked_for(pytester, fake_lima):
    pytester.makepyfile(TWO)
    result = pytester.runpytest("--junitxml=it.xml")
    result.stdout.no_fnmatch_line("*timings*")
    assert not any(properties((pytester.path / "it.xml").read_text()).values())


def test_not_where_nothing_was_started(pytester, fake_lima):
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest("--lima-timings")
    result.stdout.no_fnmatch_line("*timings*")


def test_the_test_that_started_it_has_it_as_properties(pytester, fake_lima):
    pytester.makepyfile(TWO)
    pytester.runpytest("--lima-timings", "--lima-start=cold", "--junitxml=it.xml")
    found = properties((pytester.path / "it.xml").read_text())
    assert [name for name, _ in found["test_one"]] == [
        "lima creating", "lima booting", "lima provisioning", "lima ready",
    ]  # fmt: skip
    seconds = [float(value) for _, value in found["test_one"]]
    assert sum(seconds[:-1]) == pytest.approx(seconds[-1], abs=0.05)
    assert found["test_two"] == found["test_without"] == []


def test_a_start_that_failed_is_there_too(pytester, fake_lima):
    fake_lima.scenario("provision-failed")
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest("--lima-timings", "--lima-start=cold")
    result.assert_outcomes(errors=1)
    result.stdout.re_match_lines([TABLE[0], r" +\d+\.\d\d s  pl-[0-9a-f]{8} failed"])


def test_workers_tell_their_controller(pytester, fake_lima):
    pytest.importorskip("xdist")
    pytester.makepyfile(TWO)
    result = pytester.runpytest_subprocess("-n2", "--lima-timings", "--junitxml=it.xml")
    result.assert_outcomes(passed=3)
    result.stdout.re_match_lines(TABLE[:2])
    found = properties((pytester.path / "it.xml").read_text())
    assert "lima ready" in [name for one in found.values() for name, _ in one]
