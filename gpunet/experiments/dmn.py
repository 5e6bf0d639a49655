"""dmn, document 002: convolutional layers computed by class-based PCA, only the classifier is trained.

Figure 3, top: DMN and ConvNets of the same filters, one and two layers, several widths; bottom: accuracy against T_PC,
T_v and T_frac. Figures 1 and 2: convergence of four dense layers, fluctuations of the density matrix. Besides: a head
solved in closed form, time to fit against time to train, time to equal accuracy, and ConvNets trained for longer.

Not stated in the document, our choice: Adam at 1e-3 with 5 epochs of batch 64 for heads and ConvNets, the rate of heads
falling to a sixth and that of ConvNets constant (each what is best for it on a validation split, see
`benchmarks/dmn_settings.py`), He initial weights, the shares T_v (the document shows filter counts), which of two
matching vectors is kept, and how many samples the sweeps use.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from gpunet.backend import Backend, get_backend
from gpunet.checks import check_range
from gpunet.errors import InputError
from gpunet.experiments.claims import judge
from gpunet.experiments.dmn_claims import CLAIMS
from gpunet.experiments.dmn_dynamics import convergence, fluctuations
from gpunet.experiments.dmn_nets import Images, Outcome, Training, train_convnet, train_dmn
from gpunet.experiments.dmn_sweeps import sweeps
from gpunet.experiments.provenance import Stopwatch
from gpunet.experiments.result import Result
from gpunet.layers.fitted import Thresholds
from gpunet.progress import Progress

Shares = tuple[float, ...]  # T_v of each layer

# Chosen for filter counts like those of the document's Figure 3; digits' images are too small for more.
WIDTHS: dict[str, tuple[Shares, ...]] = {
    "mnist": ((0.9,), (0.98,), (0.95, 0.9), (0.98, 0.9)),
    "cifar10": ((0.99,), (0.998,), (0.99, 0.99), (0.998, 0.99)),
    "digits": ((0.95,), (0.95, 0.99)),
}
OTHERS: tuple[Shares, ...] = ((0.98,), (0.99,), (0.98, 0.95), (0.99, 0.98))
EPOCHS, LEAST_STEPS = 5, 1500
FRACTIONS = {"mnist": 0.4, "cifar10": 0.7}  # the document's T_frac; 1 for everything else


@dataclass(frozen=True)
class Settings:
    """Settings of a run; None stands for the data set's own. correlation is T_PC = 0.9, the document's."""

    widths: tuple[Shares, ...] | None = None
    correlation: float = 0.9
    fraction: float | None = None
    center: bool = False
    epochs: int | None = None  # None: 5, or on small data more, towards LEAST_STEPS steps
    long: int = 3  # ConvNets go on for so many times the epochs
    batch_size: int = 64
    learning_rate: float = 1e-3
    head_decay: float = 1 / 6  # of a head's learning rate, from the first epoch to after the last
    sweep_samples: int = 20_000
    sweeps: bool = True
    dynamics: bool = True

    def __post_init__(self) -> None:
        for shares in self.widths or ():
            if not 1 <= len(shares) <= 3:
                raise InputError(f"{list(shares)} names {len(shares)} layers: expected T_v of one to three")
            for share in shares:
                Thresholds(share, self.correlation, 1.0 if self.fraction is None else self.fraction)
        Thresholds(0.9, self.correlation, 1.0 if self.fraction is None else self.fraction)
        check_range("learning_rate", self.learning_rate, above=0)
        check_range("head_decay", self.head_decay, above=0, most=1)
        for name in ("epochs", "long", "batch_size", "sweep_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is a whole number ≥ 1, got {value}")

    def of(self, images: Images) -> Settings:
        """With the data set's own values in place of None."""
        name, fraction = images.name, self.fraction
        steps = -(-len(images.x_train) // self.batch_size)
        return replace(
            self, widths=self.widths or WIDTHS.get(name, OTHERS),
            fraction=FRACTIONS.get(name, 1.0) if fraction is None else fraction,
            epochs=self.epochs or max(EPOCHS, min(60, LEAST_STEPS // steps)),
        )  # fmt: skip

    def thresholds(self, shares: Shares) -> list[Thresholds]:
        """Of the layers of one net."""
        return [Thresholds(share, self.correlation, self.fraction or 1.0, self.center) for share in shares]

    @property
    def training(self) -> Training:
        """Of ConvNets, for as many epochs as heads."""
        return Training(self.epochs or EPOCHS, self.batch_size, self.learning_rate)

    @property
    def head_training(self) -> Training:
        """Of heads."""
        return replace(self.training, decay=self.head_decay ** (1 / self.training.epochs))


def run(
    data: Any, settings: Settings, seeds: list[int], *, device: str | Backend = "auto", progress: Progress | None = None
) -> Result:
    """The whole experiment on one data set; rows, claims, curves and timings as `Result` describes."""
    watch, backend, bar = Stopwatch(), get_backend(device), progress or Progress()
    images = Images.of(data)
    settings = settings.of(images)
    _warm_up(images, settings, backend)
    result = Result("dmn", data.name, backend.name, asdict(settings), list(seeds))
    widths = settings.widths or ()
    steps = -(-len(images.x_train) // settings.batch_size) * settings.training.epochs * len(seeds)
    bar.start("dmn linear", steps)
    for seed in seeds:
        _add(result, "linear", train_convnet(images, [], settings.training, seed, backend, bar), settings)
    for place, shares in enumerate(widths):
        _pair(result, images, settings, shares, seeds, backend, bar, f"{place + 1}/{len(widths)}", steps)
    if settings.sweeps:
        sweeps(result, images.first(settings.sweep_samples, 0), settings, seeds, backend, bar)
    if settings.dynamics:
        convergence(result, images, seeds, backend, bar)
        fluctuations(result, images, seeds)
    own = [claim for claim in CLAIMS if claim.dataset == data.name]
    result.claims = judge(own or CLAIMS, result)
    result.provenance = watch.provenance(backend)
    return result


def _warm_up(images: Images, settings: Settings, backend: Backend) -> None:
    """One step of everything that is timed: what is compiled at the first call is not the method's cost."""
    few, once = images.first(2 * settings.batch_size, 0), replace(settings.training, epochs=1)
    for shares in ((0.9,), (0.9, 0.9)):
        thresholds = [Thresholds(share) for share in shares]
        filters = train_dmn(few, thresholds, once, 0, backend, Progress()).filters
        train_convnet(few, filters, once, 0, backend, Progress())


def _pair(
    result: Result, images: Images, settings: Settings, shares: Shares, seeds: list[int], backend: Backend,
    bar: Progress, place: str, steps: int,
) -> None:  # fmt: skip
    """A DMN, and the ConvNet of the same filters; the first seed's filter counts name the rows."""
    bar.start(f"dmn {place} T_v {', '.join(map(str, shares))}", steps)
    heads = settings.head_training
    fitted = [train_dmn(images, settings.thresholds(shares), heads, seed, backend, bar) for seed in seeds]
    name = "+".join(map(str, fitted[0].filters))
    result.settings.setdefault("shares", {}).setdefault(f"dmn {name}", []).append(list(shares))
    if any(row.name == f"dmn {name}" for row in result.rows):
        return  # another share gave the same filters
    for outcome in fitted:
        _add(result, f"dmn {name}", outcome, settings)
    result.settings.setdefault("classes_without_filter", {})[f"dmn {name}"] = [fit.without for fit in fitted[0].fits]
    training = replace(settings.training, epochs=settings.training.epochs * settings.long)
    bar.start(f"dmn {place} ConvNet {name}", steps * settings.long)
    for seed, outcome in zip(seeds, fitted, strict=True):
        _add(result, f"convnet {name}", train_convnet(images, outcome.filters, training, seed, backend, bar), settings)


def _add(result: Result, row: str, outcome: Outcome, settings: Settings) -> None:
    """One seed's metrics, curve and seconds; accuracies at equal epochs, and at the end where that is later."""
    course, equal = outcome.course, settings.training.epochs
    metrics = {"test_accuracy": course.test_accuracy[equal - 1], "train_loss": course.train_loss[equal - 1]}
    if len(course.test_accuracy) > equal:
        metrics["test_accuracy_long"] = course.test_accuracy[-1]
    else:
        metrics["train_accuracy"] = outcome.train_accuracy
    metrics |= {f"filters_{i + 1}": float(count) for i, count in enumerate(outcome.filters)}
    if outcome.ridge_accuracy is not None:
        metrics["ridge_test_accuracy"] = outcome.ridge_accuracy
    result.row(row).add(**metrics)
    curve = result.curves.setdefault(row, {"test_accuracy": [], "train_loss": []})
    curve["test_accuracy"].append(course.test_accuracy)
    curve["train_loss"].append(course.train_loss)
    times: dict[str, Any] = {"seconds": course.at(), "per_epoch": course.seconds}
    if outcome.fits:
        times |= {"fit": outcome.fit_seconds, "extract": outcome.extract_seconds, "ridge": outcome.ridge_seconds}
    result.timings.setdefault(row, []).append(times)
