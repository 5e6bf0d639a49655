"""cifar-mlp, document 004: what is run, part by part; `Paper` says what is not stated in it, and chosen.

Training, validation and test set are data_batch_1, data_batch_2 and test_batch. A cost has the L2 term in it.
A net whose cost triples, or is no longer a number, has diverged: it is given up, and its accuracy is chance. The η
table and the search are read after 3 of 10 epochs; on fewer samples than 10,000 there are more, towards as many steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import gpunet as gn
from gpunet.experiments.cifar_mlp import EPOCHS, Part, Settings, x
from gpunet.experiments.cifar_mlp.data import Problem, Split
from gpunet.experiments.cifar_mlp.nets import COSTS, Recipe, train
from gpunet.experiments.cifar_mlp.search import search as best_of
from gpunet.experiments.framework import Run
from gpunet.rng import DATA, stream

MOST_EPOCHS, STEPS = 40, 1570
EARLY = 0.3  # of the epochs
DECAY = 0.9  # after a tenth of the epochs: of ten, after each
# For all batches, chosen by validation; twice the epochs, with FULL_DECAY after a twentieth of them.
FULL: dict[str, Any] = {"learning_rate": 0.025, "l2": 8e-4, "batch_size": 100, "init": "he"}
FULL_DECAY = 0.85
NAMES = {"0.weight": "W1", "0.bias": "b1", "2.weight": "W2", "2.bias": "b2"}  # the document's, of parameters
CHECKED = 200  # samples and dimensions of the gradient check
RATES, RATE_RANGE, L2 = 5, (0.02, 0.03), "l2=log:1e-06..0.1"  # section 1.5.2
RATE_PLACE = 11  # in the stream of DATA
# Our choice, around what He's weights and a decaying rate are known to like; of the decay as of DECAY.
WIDE, LEAST_DECAY = ("learning_rate=log:5e-3..6e-2", "l2=log:2e-4..1e-2", "batch_size=32,64,100"), 0.7


x.load(lambda names, settings: Split.load(names[0], settings.has("full")))


@x.run
def body(run: Run) -> None:
    """The parts that are asked for."""
    run.data = Split.of(run.data, run.settings.has("full"))
    problem = Problem.of(run.data, run.backend)
    run.settings = resolved(run.settings, problem)
    run.note(early=max(1, round(EARLY * run.settings.epochs)), samples=problem.counts)
    for part, work in PARTS.items():
        if run.settings.has(part):
            work(run, problem)


def resolved(settings: Settings, problem: Problem) -> Settings:
    """With what None stands for on these data."""
    steps = problem.train.batches(settings.batch_size)
    epochs = settings.epochs or max(EPOCHS, min(MOST_EPOCHS, round(STEPS / steps)))
    return replace(settings, epochs=epochs, wide_trials=settings.wide_trials or max(1, settings.trials // 4))


def recipe(run: Run, **changes: Any) -> Recipe:
    """The document's final setting with changes."""
    s = run.settings
    final = Recipe(
        s.final_rate, s.final_l2, s.momentum, s.batch_size, s.epochs, s.hidden, precision=s.precision
    )  # fmt: skip
    return replace(final, **changes)


def row(run: Run, problem: Problem, name: str, *, early: int = 0, place: str = "", **changes: Any) -> None:
    """Train the final setting with changes, with every seed; early: an epoch whose test accuracy is kept, too."""
    trained = recipe(run, **changes)
    run.each_seed(
        name, trained.epochs, lambda seed: train(problem, trained, seed, run.backend, run.bar, early), place
    )  # fmt: skip
    metrics = run.result.row(name).metrics
    if any(metrics["diverged"].values):
        for cost in COSTS:  # has no mean then
            del metrics[cost]
    run.note(recipes={name: asdict(trained)})


def gradient(run: Run, problem: Problem) -> None:
    """Rows "gradient-check W1", "b1", …, a value a seed, which draws the weights."""
    data, labels = (run.backend.to_host(each[:CHECKED]) for each in (problem.train.x, problem.train.labels))
    data = data[:, :CHECKED]
    for seed in run.over_seeds("gradient check", 1):
        model = recipe(run).model(problem.classes)
        found = gn.gradient_check(model, "softmax_cross_entropy", data, labels, seed=seed)
        for name, check in found.parameters.items():
            run.result.row(f"gradient-check {NAMES[name]}").add(
                relative_error=check.relative_error, elementwise_error=check.elementwise_error,
                corners=check.corners, largest_gradient=check.largest,
            )  # fmt: skip
        run.bar.advance(1, f"largest error {found.relative_error:.1e}")
    run.note(gradient_check={"samples": data.shape[0], "dimensions": data.shape[1], "step": found.step})


def rates(run: Run, problem: Problem) -> None:
    """The η table: rows "eta=0.02" and "eta=0.02 no momentum", …."""
    settings, early = run.settings, run.result.notes["early"]
    planned = {
        f"eta={rate:g}{kind}": {"learning_rate": rate, "momentum": momentum}
        for kind, momentum in (("", settings.momentum), (" no momentum", 0.0))
        for rate in settings.learning_rates
    }
    for index, (name, changes) in enumerate(planned.items(), 1):
        row(run, problem, name, early=early, place=f"rates {index}/{len(planned)}", l2=settings.table_l2, **changes)


def search(run: Run, problem: Problem) -> None:
    """The document's search, of 5 learning rates drawn at random; row "searched": its best setting on all seeds."""
    drawn = sorted(stream(run.seeds[0], DATA, RATE_PLACE).uniform(*RATE_RANGE, RATES))
    space = [f"learning_rate={','.join(f'{rate:.6f}' for rate in drawn)}", L2]
    base = recipe(run, epochs=run.result.notes["early"])
    row(run, problem, "searched", **best_of(run, problem, "search", space, run.settings.trials, base))


def final(run: Run, problem: Problem) -> None:
    """The document's setting (Figure 5), and what it is compared with."""
    early = run.result.notes["early"]
    row(run, problem, "final", early=early)
    row(run, problem, "final no momentum", early=early, momentum=0.0)
    row(run, problem, "one layer", hidden=0)


def better(run: Run, problem: Problem) -> None:
    """What the document proposes, one by one and together; and the best of a wider search, "found"."""
    epochs = run.settings.epochs
    decay = DECAY ** (EPOCHS / epochs)
    row(run, problem, "final fixed order", shuffle=False)
    row(run, problem, "final cyclical", cycle=True)
    row(run, problem, "final he", init="he")
    row(run, problem, "final decay", decay=decay)
    row(run, problem, "final decay early stopping", decay=decay, patience=5, epochs=3 * epochs)
    row(run, problem, "final he decay", init="he", decay=decay, batch_size=100, l2=1e-3)
    space = [*WIDE, f"decay={LEAST_DECAY ** (EPOCHS / epochs):.4f}..1"]
    best = best_of(run, problem, "wide search", space, run.settings.wide_trials, recipe(run, init="he"))
    row(run, problem, "found", init="he", **best)


def full(run: Run, _: Problem) -> None:
    """The document's setting and our own, trained on all batches but a hold-out."""
    epochs, problem = run.settings.epochs, Problem.of(run.data.full, run.backend)
    run.note(full_samples={part: problem.counts[part] for part in ("train", "validation")})
    row(run, problem, "final full")
    row(run, problem, "full", epochs=2 * epochs, decay=FULL_DECAY ** (EPOCHS / epochs), **FULL)


PARTS: dict[Part, Callable[[Run, Problem], None]] = {
    "gradient": gradient, "rates": rates, "search": search, "final": final, "better": better, "full": full,
}  # fmt: skip
