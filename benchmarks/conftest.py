"""pytest benchmarks --benchmark-only: ours beside the rivals that are installed, group by group.

pytest-benchmark times one contestant after the other, so that what else the machine does meanwhile falls on some and
not on others: before each round there is a pause in which the thread pools of the one before go to sleep, and figures
are medians. The scripts beside this file take turns round by round, and are what README shows.

    pytest benchmarks --benchmark-only --benchmark-json FILE    # then: gpunet bench report FILE
    pytest benchmarks --benchmark-only -k "conv and not jax"
    pytest benchmarks --benchmark-only --smallest --rounds 1    # whether all of it runs
    pytest benchmarks --benchmark-only --gpu cpu                # the GPU's contestants too, a CPU in its place
"""

from __future__ import annotations

import time

import pytest

from gpunet.backend.blas import threads
from gpunet.bench.entrants import GPU
from gpunet.bench.lowrank import SAME
from gpunet.bench.record import provenance
from gpunet.timing import PAUSE


def pytest_addoption(parser):
    group = parser.getgroup("gpunet")
    group.addoption("--rounds", type=int, default=5, metavar="N", help="rounds of each contestant (default 5)")
    group.addoption("--smallest", action="store_true", help="the smallest case of each group alone")
    group.addoption("--gpu", default=GPU, metavar="DEVICE", help=f"the GPU (default {GPU}), or what stands in for it")


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
    try:
        import torch
    except ImportError:
        return
    if count := threads():
        torch.set_num_threads(count)


@pytest.fixture(scope="session")
def place(request):
    """The GPU's name, or its stand-in's."""
    return request.config.getoption("gpu")


@pytest.fixture(scope="session")
def reached():
    """What each contestant reached, and the median of each floor, by group and case."""
    return {}


@pytest.fixture
def race(benchmark, request, reached, place):
    """Times one contestant, then holds what it reached against what others of its case reached.

    entrant: who; case: name; work: a call that waits for its device, and makes `pieces` of what is counted; loss: as it
    stands, before and after; judge: called after timing, asserts what must hold and returns what is to be noted.
    """
    rounds = request.config.getoption("rounds")

    def run(entrant, case, work, *, pieces=1, loss=None, learns=False, judge=None, most=None, warmup=1, **sizes):
        group = benchmark.group
        at_first = loss() if loss and learns else None
        benchmark.pedantic(
            work, setup=lambda: time.sleep(PAUSE), rounds=min(rounds, most or rounds), warmup_rounds=warmup
        )
        noted = {"case": case, "who": entrant.who, "role": entrant.role, "device": device_of(entrant), "pieces": pieces}
        if loss:
            noted |= found(loss(), at_first, reached.setdefault((group, case), {}), entrant)
        if judge:
            noted |= judge()
        median = benchmark.stats.stats.median if benchmark.stats else None
        floors = reached.setdefault("floors", {})
        if entrant.role == "floor":
            floors[group, case, noted["device"]] = median
        elif median and (floor := floors.get((group, case, noted["device"]))):
            noted["over_floor"] = median / floor
        benchmark.extra_info |= noted | {"threads": threads(), **sizes}

    return run


def device_of(entrant):
    """Where it computed; JAX chooses for itself."""
    if entrant.who != "jax":
        return entrant.device
    from gpunet.bench import jax_rival

    return jax_rival.device()


def found(value, at_first, others, entrant):
    """The loss reached: lower than at first, and as low as everybody else's after as many steps."""
    if at_first is not None:
        assert value < at_first, f"{entrant} learned nothing: the loss went from {at_first:.4g} to {value:.4g}"
    for name, other in others.items():
        assert abs(value - other) <= SAME * max(abs(value), abs(other)), (
            f"{entrant} and {name} did different things: {value:.4g} and {other:.4g}"
        )
    others[str(entrant)] = value
    return {"loss_at_first": at_first, "loss": value}


def skip_where_it_cannot(entrant, place):
    if why := entrant.why_not(place):
        pytest.skip(why)


def contests(cases, entrants, smallest):
    """Parameters (case, entrant), a case's contestants one after the other."""
    return [
        pytest.param(case, entrant, id=f"{case}-{entrant}", marks=[pytest.mark.smallest] if case == smallest else [])
        for case in cases
        for entrant in entrants
    ]
