"""cifar-mlp, document 004: a ReLU layer and softmax trained by mini-batch gradient descent, momentum, L2; CIFAR-10.

Parts: `gradient`, the check of section 1.3; `rates`, the η table with and without momentum (Figures 1, 2); `search`,
coarse to fine over η and λ (Figures 3, 4); `final`, the document's setting (Figure 5), and without a hidden layer;
`better`, what the document proposes (He's weights, a decaying rate, early stopping) and what a wider search finds;
`full`, all batches but a hold-out. All choices are made on the validation set.

Training, validation and test set are data_batch_1, data_batch_2 and test_batch. A cost has the L2 term in it.
A net whose cost triples, or is no longer a number, has diverged: it is given up, and its accuracy is chance.

Not stated in the document, our choice: 50 hidden units; the training set's mean image is subtracted (without it
η ≥ 0.05 collapses); momentum 0.9; the η table and the search are read after 3 of 10 epochs; on fewer samples than
10,000, more epochs, towards as many steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import gpunet as gn
from gpunet.experiments.cifar_mlp import EPOCHS, Part, Settings, x
from gpunet.experiments.cifar_mlp import search as searches
from gpunet.experiments.cifar_mlp.claims import GRADIENTS
from gpunet.experiments.cifar_mlp.data import Problem, Split
from gpunet.experiments.cifar_mlp.nets import Recipe, measured, train
from gpunet.experiments.framework import Run

MOST_EPOCHS, STEPS = 40, 1570
EARLY = 0.3  # of the epochs
DECAY = 0.9  # after a tenth of the epochs: of ten, after each
# For all batches, chosen by validation; twice the epochs, with FULL_DECAY after a twentieth of them.
FULL, FULL_DECAY = {"learning_rate": 0.025, "l2": 8e-4, "batch_size": 100, "init": "he"}, 0.85
CHECKED = 200  # samples and dimensions of the gradient check


x.load(lambda names, settings: Split.load(names[0], every=settings.has("full")))


@x.run
def body(run: Run) -> None:
    """The parts that are asked for."""
    split = Split.of(run.data)
    whole = split.full() if run.settings.has("full") else None
    problem = Problem.of(split, run.backend)
    run.settings = resolved(run.settings, problem)
    run.note(early=early_epoch(run.settings), samples=problem.counts)
    for part, work in PARTS.items():
        if run.settings.has(part):
            work(run, problem)
    if whole is not None:
        full(run, Problem.of(whole, run.backend))


def resolved(settings: Settings, problem: Problem) -> Settings:
    """With what None stands for on these data."""
    steps = problem.train.batches(settings.batch_size)
    epochs = settings.epochs or max(EPOCHS, min(MOST_EPOCHS, round(STEPS / steps)))
    return replace(settings, epochs=epochs, wide_trials=settings.wide_trials or max(1, settings.trials // 4))


def early_epoch(settings: Settings) -> int:
    """The epoch after which the η table and the search are read."""
    return max(1, round(EARLY * (settings.epochs or EPOCHS)))


def recipe(run: Run, **changes: Any) -> Recipe:
    """The document's final setting with changes."""
    s = run.settings
    return replace(Recipe(s.final_rate, s.final_l2, s.momentum, s.batch_size, s.epochs, s.hidden), **changes)


def row(run: Run, problem: Problem, name: str, trained: Recipe, *, early: bool = False, place: str = "") -> None:
    """Train a net with every seed; early: keep the test accuracy after the early epochs, too."""
    run.bar.start(f"{x.name} {place} {name}".replace("  ", " "), trained.epochs * len(run.seeds))
    outcomes = [train(problem, trained, seed, run.backend, run.bar) for seed in run.seeds]
    run.enter(name, measured(outcomes, trained, 1 / problem.classes, early_epoch(run.settings) if early else 0))
    run.note(recipes={name: asdict(trained)})


def gradient(run: Run, problem: Problem) -> None:
    """Rows "gradient-check W1", "b1", …, a value a seed, which draws the weights."""
    data, labels = (run.backend.to_host(each[:CHECKED]) for each in (problem.train.x, problem.train.labels))
    data = data[:, :CHECKED]
    run.bar.start(f"{x.name} gradient check", len(run.seeds))
    for seed in run.seeds:
        run.bar.seed(seed)
        model = recipe(run).model(problem.classes)
        found = gn.gradient_check(model, "softmax_cross_entropy", data, labels, seed=seed)
        for name, check in found.parameters.items():
            run.result.row(f"gradient-check {GRADIENTS[name][0]}").add(
                relative_error=check.relative_error, elementwise_error=check.elementwise_error,
                corners=check.corners, largest_gradient=check.largest,
            )  # fmt: skip
        run.bar.advance(1, f"largest error {found.relative_error:.1e}")
    run.note(gradient_check={"samples": data.shape[0], "dimensions": data.shape[1], "step": found.step})


def rates(run: Run, problem: Problem) -> None:
    """Rows "eta=0.02" and "eta=0.02 no momentum", …."""
    settings, kinds = run.settings, {"": run.settings.momentum, " no momentum": 0.0}
    planned = [(rate, kind) for kind in kinds for rate in {f"{r:g}": r for r in settings.learning_rates}.values()]
    for index, (rate, kind) in enumerate(planned):
        trained = recipe(run, learning_rate=rate, l2=settings.table_l2, momentum=kinds[kind])
        row(run, problem, f"eta={rate:g}{kind}", trained, early=True, place=f"rates {index + 1}/{len(planned)}")


def search(run: Run, problem: Problem) -> None:
    """The document's search, and the row "searched": its best setting on all seeds."""
    base = recipe(run, epochs=early_epoch(run.settings))
    row(run, problem, "searched", recipe(run, **searches.the_documents(run, problem, base)))


def final(run: Run, problem: Problem) -> None:
    """Rows "final", "final no momentum", and "one layer"."""
    row(run, problem, "final", recipe(run), early=True)
    row(run, problem, "final no momentum", recipe(run, momentum=0.0), early=True)
    row(run, problem, "one layer", recipe(run, hidden=0))


def better(run: Run, problem: Problem) -> None:
    """What the document proposes, one by one and together; and the best of a wider search, "found"."""
    epochs = run.settings.epochs
    decay = DECAY ** (EPOCHS / epochs)
    row(run, problem, "final fixed order", recipe(run, shuffle=False))
    row(run, problem, "final cyclical", recipe(run, cycle=True))
    row(run, problem, "final he", recipe(run, init="he"))
    row(run, problem, "final decay", recipe(run, decay=decay))
    row(run, problem, "final decay early stopping", recipe(run, decay=decay, patience=5, epochs=3 * epochs))
    row(run, problem, "final he decay", recipe(run, init="he", decay=decay, batch_size=100, l2=1e-3))
    base = recipe(run, init="he")
    row(run, problem, "found", replace(base, **searches.wide(run, problem, base)))


def full(run: Run, problem: Problem) -> None:
    """Rows "final full", the document's setting, and "full", our own, trained on all batches but a hold-out."""
    epochs = run.settings.epochs
    run.note(full_samples={part: problem.counts[part] for part in ("train", "validation")})
    row(run, problem, "final full", recipe(run))
    row(run, problem, "full", recipe(run, epochs=2 * epochs, decay=FULL_DECAY ** (EPOCHS / epochs), **FULL))


PARTS: dict[Part, Callable[[Run, Problem], None]] = {
    "gradient": gradient, "rates": rates, "search": search, "final": final, "better": better,
}  # fmt: skip
