"""Machines of other kinds from the same fixture, and the suite on several templates.

Name the templates on the command line or, one a line, in the ini file:
``pytest --lima-template=template:debian --lima-template=template:fedora``
"""

import os

import pytest

TEMPLATE = os.environ.get("PYTEST_LIMA_TEMPLATE", "template:ubuntu-lts")

# A spec that several tests share is a marker like any other. All of them get the same VM.
small = pytest.mark.lima(template=TEMPLATE, cpus=1, memory="1GiB")


@pytest.mark.lima
def test_runs_on_each_template(lima):
    assert "ID=" in lima.read_text("/etc/os-release")


@small
def test_fits_one_cpu(lima):
    assert lima.run("nproc").stdout.strip() == "1"


@small
class TestSmall:
    def test_fits_one_gibibyte(self, lima):
        total = int(lima.run("awk '/MemTotal/ { print $2 }' /proc/meminfo").stdout)
        assert total <= 1024 * 1024

    def test_is_the_same_machine(self, lima):
        assert lima.cpus == 1
        assert lima.memory == 1024
