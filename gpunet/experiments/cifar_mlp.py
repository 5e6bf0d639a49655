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

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import gpunet as gn
from gpunet.backend import Backend, get_backend
from gpunet.checks import check_range, is_whole
from gpunet.errors import InputError, shown
from gpunet.experiments import cifar_mlp_search as searches
from gpunet.experiments.cifar_mlp_claims import GRADIENTS, verdicts
from gpunet.experiments.cifar_mlp_data import Problem, Split
from gpunet.experiments.cifar_mlp_nets import Recipe, enter, train
from gpunet.experiments.provenance import Stopwatch
from gpunet.experiments.result import Result
from gpunet.progress import Progress

PARTS = ("gradient", "rates", "search", "final", "better", "full")
EPOCHS, MOST_EPOCHS, STEPS = 10, 40, 1570
EARLY = 0.3  # of the epochs
DECAY = 0.9  # after a tenth of the epochs: of ten, after each
# For all batches, chosen by validation; twice the epochs, with FULL_DECAY after a twentieth of them.
FULL, FULL_DECAY = {"learning_rate": 0.025, "l2": 8e-4, "batch_size": 100, "init": "he"}, 0.85
CHECKED = 200  # samples and dimensions of the gradient check


@dataclass(frozen=True)
class Settings:
    """Settings of a run. learning_rates and table_l2 are those of the η table, final_rate and final_l2 the final ones.

    trials: in each of the search's two stages; wide_trials: the same of the wider one.
    """

    parts: tuple[str, ...] = PARTS[:-1]
    hidden: int = 50
    momentum: float = 0.9
    batch_size: int = 64
    epochs: int | None = None
    learning_rates: tuple[float, ...] = (0.001, 0.01, 0.02, 0.03, 0.05, 0.09, 0.1, 0.2, 0.3, 0.5)
    table_l2: float = 1e-6
    final_rate: float = 0.020815
    final_l2: float = 0.00012554
    trials: int = 100
    wide_trials: int = 25

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise InputError(f"unknown part {', '.join(unknown) or '(none)'}: expected some of {', '.join(PARTS)}")
        if not self.learning_rates:
            raise InputError("no learning rate is given: expected at least one, say 0.02")
        for rate in (*self.learning_rates, self.final_rate):
            check_range("learning_rate", rate, above=0)
        check_range("momentum", self.momentum, least=0, below=1)
        for name in ("table_l2", "final_l2"):
            check_range(name, getattr(self, name), least=0)
        for name in ("hidden", "batch_size", "epochs", "trials", "wide_trials"):
            value = getattr(self, name)
            if value is not None and not is_whole(value):
                raise InputError(f"{name} is a whole number ≥ 1, got {shown(value)}")

    def of(self, problem: Problem) -> Settings:
        """With the epochs of the data set."""
        steps = problem.train.batches(self.batch_size)
        return replace(self, epochs=self.epochs or max(EPOCHS, min(MOST_EPOCHS, round(STEPS / steps))))

    @property
    def early(self) -> int:
        """The epoch after which the η table and the search are read."""
        return max(1, round(EARLY * (self.epochs or EPOCHS)))

    def recipe(self, **changes: Any) -> Recipe:
        """The document's final setting with changes."""
        epochs = self.epochs or EPOCHS
        final = Recipe(self.final_rate, self.final_l2, self.momentum, self.batch_size, epochs, self.hidden)
        return replace(final, **changes)

    @property
    def as_in_the_document(self) -> bool:
        """Whether the document's settings, and ours for what it leaves open, are as they were; the η table aside."""
        stated = Settings(epochs=EPOCHS)
        names = ("hidden", "momentum", "batch_size", "epochs", "table_l2", "final_rate", "final_l2")
        return all(getattr(self, name) == getattr(stated, name) for name in names)


def load(name: str, parts: Sequence[str], load_data: Callable[[str], Any]) -> Split:
    """The split of a data set by name or path, checked against the parts; `load_data` loads what is not CIFAR-10."""
    if name == "cifar10":
        return Split.batches(every="full" in parts)
    split = Split.of(load_data(name))
    if "full" in parts:
        split.check_full()
    return split


def run(
    data: Any, settings: Settings, seeds: list[int], *, device: str | Backend = "auto", progress: Progress | None = None
) -> Result:
    """The parts that are asked for on one data set, or `Split`; rows, claims, curves, timings as `Result` describes."""
    watch, backend = Stopwatch(), get_backend(device)
    split = Split.of(data)
    whole = split.full() if "full" in settings.parts else None
    problem = Problem.of(split, backend)
    settings = settings.of(problem)
    result = Result("cifar-mlp", split.name, backend.name, asdict(settings) | {"early": settings.early}, list(seeds))
    result.settings["samples"] = {part: len(getattr(problem, part)) for part in ("train", "validation", "test")}
    work = Work(result, problem, settings, seeds, backend, progress or Progress())
    for part in PARTS:
        if part in settings.parts and part != "full":
            getattr(work, part)()
    if whole is not None:
        work.full(whole)
    result.claims = verdicts(result, settings.as_in_the_document)
    result.provenance = watch.provenance(backend)
    return result


@dataclass
class Work:
    """A run's parts, each of which adds its rows."""

    result: Result
    problem: Problem
    settings: Settings
    seeds: list[int]
    backend: Backend
    bar: Progress

    def row(
        self, name: str, recipe: Recipe, *, early: int = 0, problem: Problem | None = None, place: str = ""
    ) -> None:
        """Train a net with every seed."""
        problem = problem or self.problem
        self.bar.start(f"cifar-mlp {place} {name}".replace("  ", " "), recipe.epochs * len(self.seeds))
        outcomes = [train(problem, recipe, seed, self.backend, self.bar) for seed in self.seeds]
        enter(self.result, name, recipe, outcomes, problem.classes, early)

    def gradient(self) -> None:
        """Rows "gradient-check W1", "b1", …, a value a seed, which draws the weights."""
        x, labels = (self.backend.to_host(each[:CHECKED]) for each in (self.problem.train.x, self.problem.train.labels))
        x = x[:, :CHECKED]
        self.bar.start("cifar-mlp gradient check", len(self.seeds))
        for seed in self.seeds:
            self.bar.seed(seed)
            model = self.settings.recipe().model(self.problem.classes)
            found = gn.gradient_check(model, "softmax_cross_entropy", x, labels, seed=seed)
            for name, check in found.parameters.items():
                self.result.row(f"gradient-check {GRADIENTS[name][0]}").add(
                    relative_error=check.relative_error, elementwise_error=check.elementwise_error,
                    corners=check.corners, largest_gradient=check.largest,
                )  # fmt: skip
            self.bar.advance(1, f"largest error {found.relative_error:.1e}")
        self.result.settings["gradient_check"] = {"samples": x.shape[0], "dimensions": x.shape[1], "step": found.step}

    def rates(self) -> None:
        """Rows "eta=0.02" and "eta=0.02 no momentum", …."""
        settings, kinds = self.settings, {"": self.settings.momentum, " no momentum": 0.0}
        planned = [(rate, kind) for kind in kinds for rate in {f"{r:g}": r for r in settings.learning_rates}.values()]
        for index, (rate, kind) in enumerate(planned):
            recipe = settings.recipe(learning_rate=rate, l2=settings.table_l2, momentum=kinds[kind])
            self.row(f"eta={rate:g}{kind}", recipe, early=settings.early, place=f"rates {index + 1}/{len(planned)}")

    def search(self) -> None:
        """The document's search, and the row "searched": its best setting on all seeds."""
        base = self._base(self.settings.recipe(epochs=self.settings.early))
        found = searches.the_documents(self.problem, self.backend, base, self.settings.trials, self.seeds[0], self.bar)
        self._found("search", found)
        self.row("searched", self.settings.recipe(**found.best.parameters))

    def final(self) -> None:
        """Rows "final", "final no momentum", and "one layer"."""
        self.row("final", self.settings.recipe(), early=self.settings.early)
        self.row("final no momentum", self.settings.recipe(momentum=0.0), early=self.settings.early)
        self.row("one layer", self.settings.recipe(hidden=0))

    def better(self) -> None:
        """What the document proposes, one by one and together; and the best of a wider search, "found"."""
        recipe, epochs = self.settings.recipe, self.settings.recipe().epochs
        decay = DECAY ** (EPOCHS / epochs)
        planned = {
            "final fixed order": recipe(shuffle=False),
            "final cyclical": recipe(cycle=True),
            "final he": recipe(init="he"),
            "final decay": recipe(decay=decay),
            "final decay early stopping": recipe(decay=decay, patience=5, epochs=3 * epochs),
            "final he decay": recipe(init="he", decay=decay, batch_size=100, l2=1e-3),
        }
        for name, changed in planned.items():
            self.row(name, changed)
        base = self._base(recipe())
        found = searches.wide(self.problem, self.backend, base, self.settings.wide_trials, self.seeds[0], self.bar)
        self._found("wide search", found)
        self.row("found", recipe(init="he", **found.best.parameters))

    def full(self, split: Split) -> None:
        """Rows "final full", the document's setting, and "full", our own, trained on all batches but a hold-out."""
        problem, recipe, epochs = Problem.of(split, self.backend), self.settings.recipe, self.settings.recipe().epochs
        self.result.settings["full_samples"] = {p: len(getattr(problem, p)) for p in ("train", "validation")}
        self.row("final full", recipe(), problem=problem)
        self.row("full", recipe(epochs=2 * epochs, decay=FULL_DECAY ** (EPOCHS / epochs), **FULL), problem=problem)

    def _base(self, recipe: Recipe) -> dict[str, Any]:
        """A recipe as the settings of a search."""
        return {name: value for name, value in asdict(recipe).items() if value is not None}

    def _found(self, name: str, found: searches.Search) -> None:
        self.result.curves[name] = found.curves()
        self.result.settings[name.replace(" ", "_")] = {"best": found.best.parameters, "spaces": found.spaces}
