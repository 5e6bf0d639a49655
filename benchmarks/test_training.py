"""Groups train-step, epoch, lowrank and conv: Adam, the same batch size and kind of initial weights for everybody."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from conftest import contests, skip_where_it_cannot

from gpunet.bench import conv, entrants, lowrank, train

# A timed call takes some tenths of a second at most; the scripts' own cases take longer.
STEPS = {"mnist-2048": 8, "mnist-64": 100, "digits-32": 200, "points-21": 300}
CONV_STEPS = {"convnet-8": 20, "convnet-8-30": 20, "features-8": 8, "features-13-82": 2}
EPOCHS, FACTORED = ["digits-32", "mnist-2048"], ["dense", "break-even 1/2"]
SAMPLES, IMAGES = 20_480, 2_000  # at most
# A forward pass alone is not recorded.
ENTRANTS_OF_FEATURES = [entrant for entrant in entrants.CONVOLUTION if entrant.who != "graph"]


@cache
def data(name):
    x, y = train.data_for(train.CASES[name])
    return x[:SAMPLES], y[:SAMPLES]


@cache
def images(name):
    return conv.data_for(conv.CASES[name], IMAGES)


@pytest.mark.benchmark(group="train-step")
@pytest.mark.parametrize(("case", "entrant"), contests(STEPS, entrants.TRAINING, "points-21"))
def test_train_step(race, place, case, entrant):
    skip_where_it_cannot(entrant, place)
    x, y = data(case)
    chosen = replace(train.CASES[case], steps=STEPS[case], samples=len(x))
    work, loss = entrants.training(entrant, chosen, x, y, place)
    sizes = {"widths": chosen.widths, "batch": chosen.batch, "samples": len(x)}
    race(entrant, case, work, pieces=chosen.steps, loss=loss, learns=True, **sizes)


@pytest.mark.benchmark(group="epoch")
@pytest.mark.parametrize(("case", "entrant"), contests(EPOCHS, entrants.TRAINING, "digits-32"))
def test_epoch(race, place, case, entrant):
    skip_where_it_cannot(entrant, place)
    chosen, (x, y) = train.CASES[case], data(case)
    work, loss = entrants.epoch(entrant, chosen, x, y, place)
    race(entrant, case, work, loss=loss, learns=True, widths=chosen.widths, batch=chosen.batch, samples=len(x))


@pytest.mark.benchmark(group="lowrank")
@pytest.mark.parametrize(("case", "entrant"), contests(FACTORED, entrants.FACTORED, "break-even 1/2"))
def test_factored_epoch(race, place, case, entrant):
    skip_where_it_cannot(entrant, place)
    x, y = data("mnist-2048")
    work, loss = entrants.factored(entrant, case, x, y, place)
    sizes = {"shapes": lowrank.SHAPES, "ranks": lowrank.NETS[case], "batch": lowrank.CASE.batch, "samples": len(x)}
    race(entrant, case, work, loss=loss, learns=True, **sizes)


@pytest.mark.benchmark(group="conv")
@pytest.mark.parametrize(
    ("case", "entrant"),
    [
        *contests([name for name in CONV_STEPS if conv.CASES[name].trains], entrants.CONVOLUTION, "convnet-8"),
        *contests([name for name in CONV_STEPS if not conv.CASES[name].trains], ENTRANTS_OF_FEATURES, None),
    ],
)
def test_convolution(race, place, case, entrant):
    skip_where_it_cannot(entrant, place)
    chosen = replace(conv.CASES[case], steps=CONV_STEPS[case])
    work, loss = entrants.convolution(entrant, chosen, *images(case), place)
    sizes = {"shape": chosen.shape, "filters": chosen.filters, "batch": chosen.batch}
    race(entrant, case, work, pieces=chosen.steps, loss=loss, learns=chosen.trains, **sizes)
