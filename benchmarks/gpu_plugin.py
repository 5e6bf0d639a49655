"""A pytest plugin for gpu_check.py: each test's outcome in a file as it happens, and no test in a process that is lost.

After one of CUDA's sticky errors (an illegal address, say) everything fails that a process does on its GPU. The worker
of pytest-xdist in which a test met one ends itself, and the tests that it had left run in a new one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gpu_process import LOST

from gpunet.bench.harness import sticky
from gpunet.extras import lacking

MOST = 6000  # characters of a failure's text that are kept


def pytest_addoption(parser):
    group = parser.getgroup("gpu_check")
    group.addoption("--outcomes", type=Path, help="file that gets a line of JSON for each test")
    group.addoption("--stage", default="tests", help="stands in each of these lines")
    group.addoption("--leave-out", type=Path, help="file with the names of tests that are not run, one a line")
    group.addoption("--died", type=Path, help="file that gets the names of tests whose process died")


def pytest_configure(config):
    # What is read beyond an array would lie in its block of CuPy's pool, whose sizes are multiples of 512 bytes.
    if config.option.stage == "sanitizer" and not lacking("cupy"):
        import cupy

        cupy.cuda.set_allocator(None)
    if config.option.outcomes:
        config.pluginmanager.register(Outcomes(config))


class Outcomes:
    def __init__(self, config):
        self.option, self.worker = config.option, hasattr(config, "workerinput")
        self.config, self.lost = config, False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        done = set(lines(self.option.leave_out))
        left = [item for item in items if item.nodeid not in done]
        if len(left) < len(items):
            config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
            items[:] = left

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        if item.nodeid in lines(self.option.died):  # a crashed worker's test is given to the next one, and so on
            pytest.fail("the process that ran it died: it is not run again", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        self.lost = self.lost or (call.excinfo is not None and sticky(call.excinfo.value))
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid):
        """Its reports are with the controller by now."""
        if self.lost and self.worker:
            add(self.option.died, nodeid)
            os._exit(LOST)
        if self.lost:
            self.config.pluginmanager.getplugin("session").shouldstop = "the GPU is lost to this process"

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem):
        add(self.option.died, crashitem)

    def pytest_runtest_logreport(self, report):
        if self.worker or (report.when != "call" and report.passed):
            return
        text = report.longreprtext if report.failed else ""
        why = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else brief(report)
        add(self.option.outcomes, json.dumps({
            "stage": self.option.stage, "test": report.nodeid, "outcome": report.outcome,
            "seconds": round(getattr(report, "duration", 0.0), 3), "why": why, "text": text[-MOST:],
        }))  # fmt: skip

    def pytest_collectreport(self, report):
        if report.failed and not self.worker:
            self.pytest_runtest_logreport(report)


def brief(report):
    """A failure in one line; "" for another outcome."""
    if not report.failed:
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    return " ".join((crash.message if crash else report.longreprtext).split())[:300]


def lines(path):
    return path.read_text().splitlines() if path and path.exists() else []


def add(path, line):
    with path.open("a") as file:
        file.write(f"{line}\n")
