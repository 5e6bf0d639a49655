"""pytest benchmarks --benchmark-only: ours beside the rivals that are installed, group by group.

pytest-benchmark times one contender after the other, so that what else the machine does meanwhile falls on some and not
on others: before each round there is a pause in which the thread pools of the one before go to sleep, and figures are
medians. `gpunet bench` takes turns round by round, and is what README shows.

    pytest benchmarks --benchmark-only --benchmark-json FILE    # then: gpunet bench report FILE
    pytest benchmarks --benchmark-only -k "conv and not jax"
    pytest benchmarks --benchmark-only --smallest --rounds 1    # whether all of it runs
"""

from __future__ import annotations

import time

import pytest

from gpunet.backend import why_no_gpu
from gpunet.backend.blas import threads
from gpunet.bench.harness import agree
from gpunet.bench.record import with_as_many_threads
from gpunet.bench.results import Entry, provenance
from gpunet.timing import PAUSE

DEVICES = ["cpu"] if why_no_gpu() else ["cpu", "cuda"]


def pytest_addoption(parser):
    group = parser.getgroup("gpunet")
    group.addoption("--rounds", type=int, default=5, metavar="N", help="rounds of each contender (default 5)")
    group.addoption("--smallest", action="store_true", help="the smallest case of each group alone")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.addinivalue_line("markers", "smallest: the smallest case of its group")
    if config.getoption("benchmark_group_by", None) == "group":  # as nobody asked otherwise
        config.option.benchmark_group_by = "group,param:case"
        config.option.benchmark_columns = ["min", "median", "iqr", "rounds"]


def pytest_collection_modifyitems(config, items):
    if config.getoption("smallest"):
        kept = [item for item in items if item.get_closest_marker("smallest")]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["gpunet"] = provenance()


@pytest.fixture(scope="session", autouse=True)
def _as_many_threads_for_torch():
    with_as_many_threads()


@pytest.fixture(scope="session")
def reached():
    """What each contender reached, by group and case."""
    return {}


@pytest.fixture
def timed(benchmark, request, reached):
    """Times one contender, then holds what it reached against what others of its case reached."""

    def run(who, contender, case, device="cpu", pieces=1, first=0, check=lambda entries: None):
        if contender.missing:
            pytest.skip(contender.missing)
        work, slow = contender.make(), contender.slow
        work.run(first) if first else None
        rounds = request.config.getoption("rounds")
        benchmark.pedantic(
            work.run, (pieces,), setup=lambda: time.sleep(PAUSE), rounds=min(rounds, 3) if slow else rounds,
            warmup_rounds=0 if slow else 1,
        )  # fmt: skip
        entry, others = Entry(contender.role, notes=work.reached()), reached.setdefault((benchmark.group, case), {})
        others[who] = entry
        for what in ("loss", "mean_feature"):
            agree(others, what)
        check({who: entry})
        assert not entry.failed, entry.failed
        noted = {"case": case, "who": who, "role": contender.role, "device": device, "threads": threads()}
        benchmark.extra_info |= noted | {"pieces": pieces / contender.share} | entry.notes

    return run
