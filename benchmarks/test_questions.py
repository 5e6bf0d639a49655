"""Groups train-step, epoch, lowrank, conv, svd and class-pca: `gpunet.bench`'s contenders, in cases of some tenths of a
second.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from conftest import DEVICES

from gpunet.bench import data, svd, train

STEPS = {"mnist-2048": 8, "mnist-64": 100, "wide-128": 4, "digits-32": 200, "points-21": 300}
CONV_STEPS = {"convnet-8": 20, "convnet-8-30": 20, "features-8": 8, "features-13-82": 2}
SAMPLES, IMAGES = 20_480, 2_000  # at most
SMALLEST = {"points-21", "digits-32", "break-even 1/2", "convnet-8", "256×20000", "ten classes"}


def nets(cases):
    """(contenders on a device, pieces of work, those before anything is timed) by case."""
    return {
        case.name: (
            partial(train.contenders, case), case.steps, 0 if case.whole or not case.trains else train.FIRST
        )
        for case in (replace(each, samples=min(each.samples, SAMPLES)) for each in cases)
    }  # fmt: skip


def problems(*found):
    return {problem.name: (partial(svd.contenders, problem), 1, 0) for problem in found}


GROUPS = {
    "train-step": nets(replace(train.CASES[name], steps=steps) for name, steps in STEPS.items()),
    "epoch": nets(train.EPOCHS[name] for name in ("mnist-2048", "digits-32")),
    "lowrank": nets(replace(train.FACTORED[net], whole=True, steps=1) for net in ("dense", "break-even 1/2")),
    "conv": nets(replace(train.CONV[name], steps=steps, samples=IMAGES) for name, steps in CONV_STEPS.items()),
    "svd": problems(
        svd.Problem("256×20000", [svd.made((256, 20_000))], 20),
        svd.Problem("784×10000", [svd.made((784, 10_000))], 100),
    ),
    "class-pca": problems(replace(svd.classes(*data.made(6_000, (20, 20)), 10), name="ten classes")),
}


@pytest.mark.parametrize(
    ("group", "case", "who", "device"),
    [
        pytest.param(
            group, case, who, device, id=f"{group}-{case}-{who}-{device}",
            marks=[pytest.mark.benchmark(group=group), *([pytest.mark.smallest] if case in SMALLEST else [])],
        )
        for group, cases in GROUPS.items() for case, (contenders, *_) in cases.items()
        for device in DEVICES for who in contenders(device)
    ],
)  # fmt: skip
def test_contender(timed, group, case, who, device):
    contenders, pieces, first = GROUPS[group][case]
    timed(who, contenders(device)[who], case, device, pieces, first, svd.check)
