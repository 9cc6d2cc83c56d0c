"""With pytest-xdist, whose workers are sessions of their own."""

from __future__ import annotations

import pytest

pytest.importorskip("xdist")


def test_workers_leave_nothing(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_shared(lima, number):
            lima.write_text(f"{number}", "seen")
            assert lima.read_text(f"{number}") == "seen"

        @pytest.mark.lima(cpus=2)
        def test_other(lima):
            assert lima.cpus == 2

        def test_fails(lima):
            assert 0

        def test_plain(): pass
    """)
    result = pytester.runpytest("-n", "2")
    result.assert_outcomes(passed=6, failed=1)
    # The report has come over from the worker, its sections too.
    result.stdout.fnmatch_lines(["*- lima console of pl-*", "*- lima cloud-init of pl-*"])
    fake_lima.assert_clean()


def test_what_workers_warn_of_is_in_the_summary(pytester, fake_lima):
    """Even where warnings are errors: the VM is fit for use, and its tests run."""
    fake_lima.scenario(probe=134)
    pytester.makepyfile("def test_one(lima): pass\ndef test_two(lima): pass")
    result = pytester.runpytest("-n", "2", "--lima-accel=auto", "-W", "error")
    result.assert_outcomes(passed=2, warnings=2)
    result.stdout.fnmatch_lines(["*= warnings summary =*", "*lima: * does not work here*"])


def test_a_failed_boot_is_told_by_the_controller(pytester, fake_lima):
    fake_lima.scenario("provision-failed")
    pytester.makepyfile("def test_one(lima): pass\ndef test_two(lima): pass")
    result = pytester.runpytest("-n", "2")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines([
        "*_ ERROR at setup of test_*", "ProvisionError: a provision script failed: *",
        "  seen: *nosuchpackage", "  do: *", "  log: *",
    ])  # fmt: skip
    fake_lima.assert_clean()


def test_workers_without_lima_tests_start_nothing(pytester, fake_lima):
    pytester.makepyfile("def test_one(): pass\ndef test_two(): pass")
    pytester.runpytest("-n", "2").assert_outcomes(passed=2)
    assert fake_lima.calls() == []
