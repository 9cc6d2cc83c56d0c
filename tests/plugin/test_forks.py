"""Tests that fork: a child is no run of its own, and ends nothing of its parent's."""

from __future__ import annotations

import signal
import subprocess
import sys


def test_a_forked_child_ends_by_sigterm(pytester, fake_lima):
    pytester.makepyfile("""
        import multiprocessing, os, signal, time

        def work(pipe):
            pipe.send("begun")
            while True:
                try:
                    time.sleep(60)
                except Exception:
                    pass

        def test_it(lima):
            context = multiprocessing.get_context("fork")
            ours, theirs = context.Pipe()
            child = context.Process(target=work, args=(theirs,))
            child.start()
            assert ours.poll(30)
            child.terminate()
            child.join(20)
            assert child.exitcode == -signal.SIGTERM
            assert lima.run("echo x").stdout == "x\\n"
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    fake_lima.assert_clean()


def test_a_child_that_goes_on_through_pytest_ends_nothing(pytester, fake_lima):
    """Out of the test by SystemExit, through the tests behind it and to pytest's end."""
    pytester.makepyfile("""
        import os, sys
        import pytest

        parent = os.getpid()

        @pytest.fixture(scope="session")
        def engine(lima_docker_host):
            return lima_docker_host.removeprefix("unix://")

        def test_forks(lima, engine):
            lima.run("true")
            pid = os.fork()
            if not pid:
                sys.exit(3)
            os.waitpid(pid, 0)
            assert lima.run("echo parent").stdout == "parent\\n"
            assert os.path.exists(engine)
            assert lima.status == "Running"

        def test_later(lima, engine):
            assert lima.run("echo later").stdout == "later\\n"
            assert os.path.exists(engine)

        def test_other(lima_factory):
            if os.getpid() == parent:
                return
            with open("child", "w") as file:
                file.write(lima_factory().run("echo own").stdout)
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.parseoutcomes()["passed"] == 3
    assert (pytester.path / "child").read_text() == "own\n"
    fake_lima.assert_clean()


def test_a_plugin_may_run_each_test_in_a_child(pytester, fake_lima):
    """As pytest-forked does: the VM is the child's where it asks first, else its parent's."""
    pytester.makeconftest("""
        import os, pickle
        import pytest
        from _pytest.runner import runtestprotocol

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item, nextitem):
            if "here" in item.keywords:
                return None
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                reports = runtestprotocol(item, log=False, nextitem=None)
                data = pickle.dumps([item.config.hook.pytest_report_to_serializable(
                    config=item.config, report=report) for report in reports])
                os.write(writing, data)
                os._exit(0)
            os.close(writing)
            with open(reading, "rb") as file:
                data = file.read()
            os.waitpid(pid, 0)
            for report in pickle.loads(data):
                item.ihook.pytest_runtest_logreport(report=item.config.hook
                    .pytest_report_from_serializable(config=item.config, data=report))
            return True
    """)
    pytester.makepyfile("""
        import pytest

        def test_first(lima):
            assert lima.run("echo x").stdout == "x\\n"

        @pytest.mark.here
        def test_parent(lima):
            assert lima.run("echo x").stdout == "x\\n"

        def test_child(lima):
            assert lima.run("echo x").stdout == "x\\n"

        def test_child_again(lima, lima_fresh):
            assert lima.run("echo x").stdout == "x\\n"
            assert lima_fresh.run("echo x").stdout == "x\\n"

        @pytest.mark.here
        def test_last(lima):
            assert lima.run("echo x").stdout == "x\\n"
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "ignore")
    result.assert_outcomes(passed=5)
    fake_lima.wait_until(lambda: not list(fake_lima.home.glob("pl-*")), 30)


def test_a_signal_ends_a_run_whose_first_vm_a_thread_has_asked_for(pytester, fake_lima):
    pytester.makepyfile("""
        import signal, time
        from concurrent.futures import ThreadPoolExecutor

        def test_it(lima_factory, capsys):
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
            with ThreadPoolExecutor() as threads:
                [vm] = threads.map(lambda _: lima_factory(), [1])
            with capsys.disabled():
                print("testing", flush=True)
            time.sleep(60)
    """)
    run = subprocess.Popen([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    try:
        assert any("testing" in line for line in run.stdout)
        run.send_signal(signal.SIGTERM)
        output, _ = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 143, output
    fake_lima.assert_clean()
