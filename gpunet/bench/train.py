"""Training: nets of documents 001 and 002, ours beside PyTorch and JAX, a step or an epoch at a time.

Everybody starts from our initial weights, on the same batches in the same order, with Adam. Ours stays uint8 and is
scaled in the gather. "products" are the matrix products of such steps with nothing between them, on arrays as they lie
there: the floor for any code on the same BLAS. On a CPU ours are plain "numpy" and "numba"; samples are shuffled anew
at the start of each pass, and its last batch is short. On a GPU ours run operation by operation ("eager") and recorded
("graph"); all take whole batches in one order, drawn beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend, get_backend, why_no_numba
from gpunet.backend.base import Activation
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.bench import data, rivals
from gpunet.bench.counts import allowed_step
from gpunet.bench.harness import Contender, Work, lacking
from gpunet.bench.rivals import Draw, Way, placed
from gpunet.errors import RunError
from gpunet.linalg import BreakEven, DimensionFraction
from gpunet.nn.layers import Conv2D, Dense, Flatten, LowRankDense, Reshape
from gpunet.nn.replay import Switch
from gpunet.nn.samples import Samples
from gpunet.nn.trainer import PRECISIONS, Precision, Trainer
from gpunet.spectral.factorise import speed_up

# A learning rate that hardly moves the weights, for nets timed on one batch: once that is known by heart, gradients are
# so small that their squares are denormal numbers, and Adam takes ten times as long.
STILL = 1e-7
FIRST = 20  # steps before anything is timed, after which all losses are compared
CHANNELS = Way(layout="channels_last")
# PyTorch's ways on a CPU, by what is trained; where it is said nothing, it computes in float32 as it comes.
DENSE = {
    "torch": Way(), "torch flushed": Way(flush=True), "torch one thread": Way(alone=True),
    "torch bf16": Way(flush=True, bf16=True), "torch bf16 one thread": Way(alone=True, bf16=True),
}  # fmt: skip
IMAGES = {
    "torch": Way(), "torch channels_last": CHANNELS, "torch one thread": Way(alone=True, layout="channels_last"),
    "torch bf16": Way(flush=True, bf16=True, layout="channels_last"),
}  # fmt: skip
COMPILED = {
    "torch.compile": Way(compiled=True), "torch.compile, capturable Adam": Way(compiled=True, capturable=True),
    "torch.compile bf16": Way(compiled=True, bf16=True),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A net on data of some kind, in batches; `steps` are timed at a time: of training, or of features alone.

    source: "mnist", "cifar10", or the shape of made pictures; of samples the first so many. whole: its piece of work
    is an epoch with all that `fit` does, loss and accuracy measured, too.
    """

    name: str
    net: Callable[[], list[gn.Layer]]
    batch: int
    steps: int
    samples: int
    source: str | tuple[int, ...] = "mnist"
    classes: int = 10
    rate: float = 3e-4
    trains: bool = True
    whole: bool = False
    notes: dict[str, Any] = field(default_factory=dict)

    def data(self) -> tuple[str, Any, Any]:
        """(where from, x uint8 (samples, features), labels)."""
        if isinstance(self.source, str):
            return data.pictures(self.source, self.samples)
        return "made", *data.made(self.samples, self.source, self.classes)

    def draw(self, device: str, samples: int) -> Draw:
        """Orders of the samples for a pass, the same for everybody."""
        rng = np.random.default_rng(1)
        if not device.startswith("cuda"):
            return lambda: rng.permutation(samples)
        fixed = rng.permutation(samples)[: max(1, samples // self.batch) * self.batch]
        return lambda: fixed

    def model(self) -> gn.Sequential:
        """The net, not yet built."""
        return gn.Sequential(self.net(), scale=1 / 255)

    def built(self, features: int) -> gn.Sequential:
        """The net with its initial weights on the host."""
        model = self.model()
        model.build((features,), get_backend("numpy"))
        return model


def dense(widths: Sequence[int], ranks: Sequence[int | None] = ()) -> list[gn.Layer]:
    """Dense layers, or factored ones where there is a rank, with ReLU between them."""
    layers: list[gn.Layer] = []
    for place, width in enumerate(widths[1:]):
        activation: Activation | None = "relu" if place < len(widths) - 2 else None
        rank = ranks[place] if ranks else None
        layers.append(Dense(width, activation) if rank is None else LowRankDense(width, rank, activation))
    return layers


def convnet(filters: Sequence[int], shape: tuple[int, ...], classes: int = 0) -> list[gn.Layer]:
    """Convolutions 3×3 with ReLU and 2×2 max-pooling; with a classifier they are trained."""
    trains = classes > 0
    layers: list[gn.Layer] = [Reshape(shape), *(Conv2D(n, 3, "relu", pool=2, trainable=trains) for n in filters)]
    return [*layers, Flatten(), *([Dense(classes)] if trains else [])]


NET = (784, 512, 256, 10)
SHAPES = [(out, inner) for inner, out in pairwise(NET)]  # of its weights


def _dense(name: str, widths: tuple[int, ...], batch: int, steps: int, samples: int, source: Any) -> Case:
    return Case(
        name, partial(dense, widths), batch, steps, samples, source, widths[-1], notes={"widths": widths}
    )  # fmt: skip


def _factored(name: str, rule: Callable[[tuple[int, int]], int] | None) -> Case:
    ranks = (*(rule(shape) if rule else None for shape in SHAPES[:-1]), None)
    return Case(name, partial(dense, NET, ranks), 2048, 30, 60_000, notes={"widths": NET, "ranks": ranks})


def _conv(name: str, filters: tuple[int, ...], batch: int, steps: int, trains: bool = True) -> Case:
    shape = data.SHAPES["cifar10"]
    net = partial(convnet, filters, shape, 10 if trains else 0)
    notes = {"filters": filters}
    return Case(name, net, batch, steps, 10_000, "cifar10", rate=1e-3, trains=trains, notes=notes)


def _named(*cases: Case) -> dict[str, Case]:
    return {case.name: case for case in cases}


CASES = _named(
    _dense("mnist-2048", NET, 2048, 30, 60_000, "mnist"),
    _dense("mnist-64", NET, 64, 300, 60_000, "mnist"),
    _dense("wide-128", (1024, 2048, 2048, 10), 128, 10, 4096, (32, 32)),
    _dense("digits-32", (64, 64, 10), 32, 500, 1440, (8, 8)),
    _dense("digits-32-deep", (64, 64, 64, 10), 32, 500, 1440, (8, 8)),
    _dense("points-21", (2, 3, 3, 2), 21, 500, 21, (1, 2)),
)
EPOCHS = {name: replace(CASES[name], whole=True, steps=1) for name in ("mnist-2048", "mnist-64", "digits-32")}
FACTORED = _named(
    _factored("dense", None),
    _factored("dimension 1/2", DimensionFraction(0.5)),
    _factored("break-even 1/2", BreakEven(0.5)),
)
CONV = _named(
    _conv("convnet-8", (8,), 64, 80),
    _conv("convnet-8-30", (8, 30), 64, 50),
    _conv("features-8", (8,), 500, 10, trains=False),
    _conv("features-13-82", (13, 82), 500, 2, trains=False),
)


# -- contenders -------------------------------------------------------------------------------------------------------


def contenders(
    case: Case, device: str | Backend, ways: Mapping[str, Way] | None = None,
    precisions: Sequence[Precision] | None = None,
) -> dict[str, Contender]:  # fmt: skip
    """Everybody who may train a net on a device; a piece of work is a step, a pass of features, or an epoch.

    ways: of PyTorch, by default all but torch.compile. Those that flush denormals, or have one thread, do so on a CPU.
    precisions: of ours, by default all that the device knows. Features, and so no training, are of float32.
    """
    backend = get_backend(device)
    cuda, images = backend.name.startswith("cuda"), isinstance(case.source, str) and case.source == "cifar10"
    ways = {name: way for name, way in (ways if ways is not None else IMAGES if images else DENSE).items()
            if not (cuda and (way.flush or way.alone))}  # fmt: skip
    found: dict[str, Contender] = {}
    if not images:
        floor = backend if cuda else get_backend("numpy")
        found["products"] = Contender(partial(products, case, floor), "floor")
    asked = precisions or (PRECISIONS if cuda else PRECISIONS[:2])
    if "float32" in asked:
        found |= _plain(case, backend)
    fastest = "graph" if cuda and backend.records else "eager" if cuda else backend.kernels
    slow = {"mixed": backend.slow_bfloat16 or too_small(case, backend), "tf32": backend.slow_tf32}
    for precision in asked if case.trains and not images else ():
        if precision != "float32":
            own = partial(ours, case, backend, "auto", precision)
            found[f"{fastest} {precision}"] = Contender(own, missing=slow[precision])
    for name, way in ways.items():
        found[name] = Contender(partial(_rival, case, backend.name, way), "rival", lacking("torch"))
    found["jax"] = Contender(partial(_rival, case, backend.name, None), "rival", lacking("jax"))
    return found


def too_small(case: Case, backend: Backend) -> str:
    """Why a net of so small products does not train in mixed precision; "" of others."""
    shape = data.SHAPES[case.source] if isinstance(case.source, str) else case.source
    small = case.model()._too_small(case.batch, (math.prod(shape),), backend)
    return f"{case.name} is not trained in mixed precision: {small}" if small else ""


def _plain(case: Case, backend: Backend) -> dict[str, Contender]:
    """Ours in float32, each way that there is."""
    found: dict[str, Contender] = {}
    if backend.name.startswith("cuda"):
        found["eager"] = Contender(partial(ours, case, backend, "off"))
        if backend.records and case.trains:
            found["graph"] = Contender(partial(ours, case, backend, "auto"))
        return found
    found["numpy"] = Contender(partial(ours, case, get_backend("numpy")))
    if backend.kernels == "numba" or why_no_numba():
        found["numba"] = Contender(partial(ours, case, backend), missing=why_no_numba() or "")
    return found


def ours(case: Case, backend: Backend, graphs: Switch = "auto", precision: Precision = "float32") -> Work:
    """Through the same `Trainer.step` that `fit` runs; RunError where "auto" cannot record on a GPU."""
    _, x, y = case.data()
    if not case.trains:
        return _our_features(case, backend, x)
    trainer = Trainer(case.model(), optimizer=gn.Adam(case.rate), device=backend, graphs=graphs, precision=precision)
    samples = trainer.samples(x, y)
    batch = min(case.batch, len(x))
    steps = stepping(trainer, samples, batch, case.draw(backend.name, len(x)))

    def run(pieces: int) -> None:
        if case.whole:
            for _ in range(pieces):
                trainer.fit(samples, batch_size=batch)
        else:
            steps(pieces)
        if graphs == "auto" and backend.records and trainer.graphs.reason:
            raise RunError(f"steps were not recorded: {trainer.graphs.reason}")

    return Work(run, lambda: {"loss": trainer.evaluate(samples)["loss"]}, keeps=trainer)


def stepping(trainer: Trainer, samples: Samples, batch: int, draw: Draw) -> Callable[..., None]:
    """run(steps=None): train so many steps, or a pass, on the rows that `draw` returns, int (N,), anew for each pass.

    Each step is one of `Trainer.stepper`, as in `fit`; nothing else of `fit` runs. It waits for the device in the end.
    """
    trainer.prepare(samples.shape)
    trainer._mix(batch)
    trainer._workspace(batch)
    backend = trainer.backend

    def run(steps: int | None = None) -> None:
        order_of = placed(draw, trainer.upload_order)
        with backend.session():
            left, at, length = steps or 1, 0, 0
            while left > 0:
                if at == length:
                    order, step = order_of(), trainer.stepper()
                    trainer.tally.reset()
                    at, length = 0, len(order)
                    left = left if steps else -(-length // batch)
                n = min(batch, length - at)
                taken = step(samples, order, n, max(1, min((length - at) // batch, left)))
                at, left = at + taken * n, left - taken
            backend.synchronize()

    return run


def _our_features(case: Case, backend: Backend, x: Any) -> Work:
    model = case.model()
    model.build((x.shape[1],), backend)
    model.bind(case.batch)
    images = backend.asarray(x[: case.batch].astype(np.float32) / 255)

    def run(times: int) -> None:
        with backend.session():
            for _ in range(times):
                model.forward(images)
            backend.synchronize()

    return Work(run, lambda: {"mean_feature": float(backend.to_host(model.forward(images)).mean())})


def _rival(case: Case, device: str, way: Way | None) -> Work:
    """PyTorch in its `way`, or JAX."""
    _, x, y = case.data()
    layers, weights = case.net(), list(case.built(x.shape[1]).parameters.values())
    about: dict[str, Any] = {
        "batch": min(case.batch, len(x)), "rate": case.rate, "draw": case.draw(device, len(x)), "trains": case.trains,
    }  # fmt: skip
    work = (
        rivals.in_torch(layers, weights, x, y, device=device, way=way, **about)
        if way else rivals.in_jax(layers, weights, x, y, **about)
    )  # fmt: skip
    if not case.whole:
        return work
    epoch = -(-len(x) // about["batch"])
    return replace(work, run=lambda epochs: work.run(epochs * epoch))


# -- the floor --------------------------------------------------------------------------------------------------------


class Recorder(NumpyBackend):
    """Takes down the operands (a, b, out) of each product that it runs, and how they are transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[Any, Any, Any, bool, bool]] = []

    def gemm(self, a: Any, b: Any, out: Any, transpose_a: bool = False, transpose_b: bool = False) -> None:
        """See `Backend`."""
        self.products.append((a, b, out, transpose_a, transpose_b))
        super().gemm(a, b, out, transpose_a, transpose_b)

    def affine(self, x: Any, weight: Any, bias: Any, activation: str, out: Any) -> None:
        """See `Backend`."""
        self.products.append((x, weight, out, False, True))
        super().affine(x, weight, bias, activation, out)


def products_of(case: Case, x: Any, y: Any, sizes: Sequence[int]) -> dict[int, list[tuple[Any, ...]]]:
    """The products of a step on so many samples, by that number: operands as `Backend.gemm` takes them."""
    recorder = Recorder()
    trainer = Trainer(case.model(), optimizer=gn.Adam(case.rate), device=recorder)
    run = None
    found = {}
    for size in sizes:
        samples = Samples.of(recorder, x[:size], y[:size], case.classes)
        run = stepping(trainer, samples, max(sizes), partial(np.arange, size))
        recorder.products.clear()
        run(1)
        found[size] = list(recorder.products)
    return found


def products(case: Case, backend: Backend) -> Work:
    """The matrix products alone, on random numbers, in a graph where the device records; passes as `case.draw` says."""
    _, x, y = case.data()
    batch, length = min(case.batch, len(x)), len(case.draw(backend.name, len(x))())
    sizes = [min(batch, length - start) for start in range(0, length, batch)]
    held: dict[tuple[int, tuple[int, ...]], Any] = {}

    def on_device(a: Any) -> Any:
        """An array of the device for each place in memory that the step works on."""
        key = (a.__array_interface__["data"][0], a.shape)
        if key not in held:
            held[key] = backend.asarray(np.random.default_rng(2).standard_normal(a.shape, dtype=np.float32))
        return held[key]

    def step_of(operands: Sequence[tuple[Any, ...]]) -> Callable[[], None]:
        placed = [(*map(on_device, each[:3]), *each[3:]) for each in operands]

        def step() -> None:
            for each in placed:
                backend.gemm(*each)

        with backend.session():
            step()
            return backend.record(step) if backend.records else step

    steps = {size: step_of(found) for size, found in products_of(case, x, y, sorted({*sizes})).items()}
    order = [steps[size] for size in sizes]

    def run(pieces: int) -> None:
        with backend.session():
            for turn in range(pieces * (len(order) if case.whole else 1)):
                order[turn % len(order)]()
            backend.synchronize()

    return Work(run, keeps=held)  # a recording does not keep what it works on


def counted(case: Case) -> dict[str, float]:
    """What the counts of multiplications allow a factored net: by the document, and by the products of a step."""
    widths, ranks = case.notes["widths"], case.notes["ranks"]
    shapes = [(out, inner) for inner, out in pairwise(widths)]
    return {"allowed": speed_up(shapes, ranks), "allowed_step": allowed_step(shapes, ranks, case.batch)}
