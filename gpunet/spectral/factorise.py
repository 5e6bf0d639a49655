"""Factorising in mid-training (document 001, section 3.3.2): pre-train, cut the weights by SVD, train the factors."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast, get_args

import numpy as np

from gpunet.backend.base import Array, Backend
from gpunet.checks import as_floats, as_list, check_flag, check_one_of, check_range, is_one_of, setting
from gpunet.errors import CaptureError, InputError, shown
from gpunet.interrupts import undivided
from gpunet.linalg import SVD, BreakEven, FixedRank, ScaledStableRank, svd
from gpunet.linalg.rank import RankRule, truncated_svd
from gpunet.nn.callbacks import Callback, Training
from gpunet.nn.layers import Dense, Layer, LowRankDense
from gpunet.nn.memory import Parameters
from gpunet.nn.migration import STATES, State
from gpunet.nn.optim import Optimizer
from gpunet.reprs import as_call, settings
from gpunet.rng import DATA, stream
from gpunet.spectral import auto
from gpunet.timing import interleave

Split = Literal["left", "balanced"]
SPLITS: tuple[Split, ...] = get_args(Split)
Policy = Literal["count", "measured", "always"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
Rank = RankRule | int
DEFAULT_RANK = BreakEven(0.5)  # the usual α of document 001, in the meaning of its authors' code
AUTO_RANK = ScaledStableRank(epsilon=None)


def _rule(rank: Rank) -> RankRule:
    return rank if isinstance(rank, RankRule) else FixedRank(rank)


def _rules(name: str, rank: Rank | Mapping[str, Rank]) -> RankRule | dict[str, RankRule]:
    if not isinstance(rank, Mapping):
        return _rule(rank)
    return {layer: _rule(rank[layer]) for layer in _names(name, rank) or ()}


def _when(name: str, pretrain: Any) -> float | Literal["auto"]:
    if is_one_of(pretrain, ("auto",)):
        return "auto"
    if isinstance(pretrain, str):
        raise InputError(f"{name} cannot be {shown(pretrain)}: expected 'auto', or a share of the steps from 0 to 1")
    return check_range(name, pretrain, least=0, most=1)


def _names(name: str, layers: Any) -> list[str] | None:
    return None if layers is None else as_list(name, layers, "names such as '0'", str) or None


def factorise(layer: Layer, rank: Rank, split: Split = "left") -> LowRankDense:
    """A Dense layer with its weight cut to W ≈ U_l S_l V_lᵀ (document 001, section 3.3.1), to train on as two factors.

    rank: l from 1 to min(out, in), or a rule such as `gn.BreakEven(0.5)`. split: "left" is the document's, left = U_l
    and right = S_l V_lᵀ; "balanced" gives each factor √S_l, so that both have gradients of one size.
    `model.replace(layer.name, gn.factorise(layer, l))` puts it in this layer's place.
    Raises InputError for such a rank or split, for another layer, for a subclass that computes something else than
    Dense, where the layer has no weights yet, and where they are not finite.
    """
    check_one_of("split", split, SPLITS)
    if isinstance(layer, LowRankDense):
        raise InputError(
            f"{layer.called} is factored already, at rank {layer.rank}: merge it first, then factorise the result"
        )
    if not isinstance(layer, Dense):
        raise InputError(f"{_called(layer)} cannot be factorised: only a Dense layer can")
    _check_plain(layer, Dense)
    return _factors(layer, _cut(layer, _rule(rank)), split)


def merge(layer: Layer) -> Dense:
    """The Dense layer with weight L R, computed in float64.

    InputError for another layer, a subclass that computes something else, and weights that are missing or not finite.
    """
    if not isinstance(layer, LowRankDense):
        raise InputError(f"{_called(layer)} has no factors to merge: only a LowRankDense layer has")
    _check_plain(layer, LowRankDense)
    left, right, bias = (_on_host(layer, name) for name in ("left", "right", "bias"))
    product = left.astype(np.float64) @ right.astype(np.float64)
    dense = Dense(layer.units, layer.activation, weight=product, bias=bias, trainable=layer.trainable)
    dense.made_from, dense.inherits = layer, {"bias": ("bias", None)}
    return dense


def own_methods(layer: Layer, kind: type[Layer]) -> str:
    """What a layer computes in another way than its base `kind` does, by the names of its methods; "" for nothing."""
    known = [name for name, each in vars(Layer).items() if callable(each) and not name.startswith("_")]
    own = [name for name in known if name in vars(layer) or getattr(type(layer), name) is not getattr(kind, name)]
    return ", ".join(name for name in own if name != "config")


def _check_plain(layer: Layer, kind: type[Layer]) -> None:
    """InputError where what a subclass of `kind` computes would be lost."""
    if own := own_methods(layer, kind):
        raise InputError(
            f"{layer.called} has its own {own}, which the layer in its place would not run: expected a {kind.__name__} "
            "layer that computes as all do; make the other one yourself, and put it there with model.replace"
        )


def _cut(layer: Dense, rule: RankRule) -> SVD[Any]:
    """The truncated decomposition of a layer's weight; an InputError says which layer's."""
    _on_host(layer, "weight")
    return truncated_svd(layer.weight, rule, layer.ops)


def _stable_rank(layer: Dense) -> float:
    """‖W‖_F²/σ₁² of a layer's weight, at least 1, which is that of a weight of zeros."""
    weight = _on_host(layer, "weight").astype(np.float64)
    largest = float(layer.ops.to_host(svd(layer.weight, 1, device=layer.ops).s)[0])
    return max(1.0, float(np.square(weight / largest).sum())) if largest else 1.0


def _factors(dense: Dense, found: SVD[Any], split: Split) -> LowRankDense:
    """As `factorise`, from a truncated decomposition of the layer's weight."""
    u, s, vt = (dense.ops.to_host(part) for part in (found.u, found.s, found.vt))
    left, right = (u, s[:, None] * vt) if split == "left" else (u * np.sqrt(s), np.sqrt(s)[:, None] * vt)
    layer = LowRankDense(
        dense.units, len(s), dense.activation, left=left, right=right, bias=_on_host(dense, "bias"),
        trainable=dense.trainable,
    )  # fmt: skip

    # ∂/∂L of f(L R) = G Rᵀ, ∂/∂R = Lᵀ G; of squares the mean, if the gradients of W's elements were independent
    def to_left(ops: Backend, moment: Array, out: Array, squares: bool) -> None:
        ops.gemm(moment, ops.asarray(right**2 if squares else right, moment.dtype), out, transpose_b=True)

    def to_right(ops: Backend, moment: Array, out: Array, squares: bool) -> None:
        ops.gemm(ops.asarray(left**2 if squares else left, moment.dtype), moment, out, transpose_a=True)

    layer.made_from = dense
    layer.inherits = {"bias": ("bias", None), "left": ("weight", to_left), "right": ("weight", to_right)}
    return layer


def _called(layer: Any) -> str:
    return str(layer.called) if isinstance(layer, Layer) else shown(layer)


def _on_host(layer: Layer, name: str) -> Any:
    """A copy of a layer's parameter as numpy.ndarray; InputError where it has none yet, or one that is not finite."""
    if not (hasattr(layer, name) and hasattr(layer, "ops")):
        raise InputError(f"a {type(layer).__name__} layer has no weights before its model is built: build or fit it")
    return as_floats(np.array(layer.ops.to_host(getattr(layer, name))), f"{layer.called}: its {name}")


@dataclass(frozen=True)
class Conversion:
    """What became of one layer: its weight's shape (out, in), the rank asked for, whether it was cut, and why.

    svd: how the weight was decomposed, see `SVD.summary`; empty where it was not. step: before which step of the fit.
    """

    layer: str
    shape: tuple[int, int]
    rank: int
    converted: bool
    reason: str
    svd: dict[str, Any] = field(default_factory=dict)
    step: int | None = None


class Factorise(Callback):
    """Trains dense for a share `pretrain` of the steps, then replaces W by two factors and trains those.

    pretrain: φ of document 001, from 0 (from the first step on) to 1 (never). rank: a rule such as `BreakEven(0.5)`, a
    number, or either by layer name. layers: names of those to cut; by default every Dense layer but the last. split:
    see `gn.factorise`; state, kept as `optimizer_state`: see `Sequential.replace`. merge: multiply the factors back
    when training ends.

    policy says which layers are worth it: "count" those where the factors take fewer multiplications, l < mn/(m + n);
    "measured" those where a step is faster on this device at this batch size, by the clock; "always" all. What was
    done, and why, stands in `conversions`; layers left dense are named in one UserWarning. `seconds` is what deciding
    and cutting took: it is not part of the history's training time.

    pretrain="auto" finds by itself when to cut, which layers and to which rank. Up to 16 times in the first three
    quarters of a fit it looks at each weight's stable rank, by which a `gn.ScaledStableRank` says how much of the
    spectrum training uses; the weight that the fit begins with counts as one that uses all. By default a layer is cut
    as soon as to wait for a smaller rank costs more multiplications than that is expected to save; with
    rank=gn.ScaledStableRank() by the rule of Wang et al. 2023 (arXiv 2305.02538). policy is "measured" then: no layer
    is cut to a rank that is not faster by the clock, and no look is begun unless `seconds` is within a tenth of the
    fit's time and the clock's answer takes less than a tenth of what is left of it. With "count" or "always" the same
    seed cuts the same. What was not cut, and why, stands in `conversions`, too; there is no warning.

    Raises InputError for settings out of range, and when training begins for layers or ranks that the model does not
    have.

    >>> import gpunet as gn
    >>> data = gn.datasets.load("digits")
    >>> model = gn.Sequential([gn.Dense(64, "relu"), gn.Dense(10)], scale=data.scale)
    >>> cut = gn.Factorise(pretrain=0.1, rank=gn.BreakEven(0.5))
    >>> _ = gn.Trainer(model, device="cpu").fit(data.x_train, data.y_train, epochs=2, callbacks=[cut])
    >>> cut.conversions[0].layer, cut.conversions[0].rank, cut.conversions[0].converted
    ('0', 16, True)
    """

    pretrain: float | Literal["auto"] = setting(_when)
    rank: RankRule | dict[str, RankRule] = setting(_rules)
    layers: list[str] | None = setting(_names)
    split: Split = setting(check_one_of, known=SPLITS)
    optimizer_state: State = setting(check_one_of, known=STATES)
    policy: Policy = setting(check_one_of, known=POLICIES)
    merge: bool = setting(check_flag)

    def __init__(
        self,
        pretrain: float | Literal["auto"] = 0.1,
        rank: Rank | Mapping[str, Rank] | None = None,
        *,
        layers: Sequence[str] | None = None,
        split: Split = "left",
        state: State = "restart",
        policy: Policy | None = None,
        merge: bool = True,
    ) -> None:
        self.pretrain = pretrain
        alone = self.pretrain == "auto"
        self.rank = (AUTO_RANK if alone else DEFAULT_RANK) if rank is None else rank  # type: ignore[assignment]
        self.layers, self.split, self.optimizer_state = layers, split, state  # type: ignore[assignment]
        self.policy = ("measured" if alone else "count") if policy is None else policy
        self.merge = merge
        self._forget()

    def _forget(self) -> None:
        self.conversions: list[Conversion] = []
        self.seconds = 0.0
        self._watch = auto.Watch()

    def steps(self, total: int) -> Iterable[int]:
        if self.pretrain == "auto":
            return auto.steps(total)
        at = round(self.pretrain * total)
        return (at,) if at < total else ()

    def on_fit_begin(self, trainer: Training) -> None:
        self._forget()
        for layer in self._chosen(trainer):
            rule = self._rule_of(layer.name)
            if not rule.needs_spectrum:
                rule(layer.weight.shape)  # a rank that is too large is named now, not after pre-training

    def on_step(self, trainer: Training, step: int) -> None:
        began = time.perf_counter()
        if self.pretrain == "auto":
            chosen = self._due(trainer, step)
        else:
            chosen = [(layer, self._rule_of(layer.name)) for layer in self._chosen(trainer)]
        for layer, rule in chosen:
            with undivided():  # a layer that is cut will be merged
                self.conversions.append(self._convert(trainer, layer, rule, step))
                self._watch.waiting.pop(layer.name, None)
        trainer.backend.synchronize()
        self.seconds += time.perf_counter() - began
        kept = [c for c in self.conversions if not c.converted]
        if kept and self.pretrain != "auto":
            said = "; ".join(f"layer {c.layer!r} {c.shape[0]}×{c.shape[1]}: {c.reason}" for c in kept)
            warnings.warn(f"left dense: {said}", stacklevel=2)

    def on_fit_end(self, trainer: Training) -> None:
        for name, (shape, rank, why, step) in self._watch.waiting.items():
            self.conversions.append(Conversion(name, shape, rank, False, why, step=step))
        self._watch.waiting = {}
        if self.merge:
            for done in self.conversions:
                layer = trainer.model.layer(done.layer)
                if isinstance(layer, LowRankDense):  # early stopping may have brought the dense layer back
                    trainer.model.replace(done.layer, merge(layer))

    def __repr__(self) -> str:
        return as_call(self, self.config())

    def config(self) -> dict[str, Any]:
        return settings(self) | {"state": self.optimizer_state}

    def state(self) -> dict[str, Any]:
        kept = [asdict(each) for each in self.conversions]
        return {"conversions": kept, "seconds": self.seconds, "watch": self._watch.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.conversions = [Conversion(**each | {"shape": tuple(each["shape"])}) for each in state["conversions"]]
        self.seconds = float(state["seconds"])
        if "watch" in state:  # which was not kept at first
            self._watch.restore(state["watch"])

    # -- one layer --------------------------------------------------------------------------------------------------

    def _chosen(self, trainer: Training) -> list[Dense]:
        """The layers to cut; InputError for a name that is not there or is no Dense layer."""
        model = trainer.model
        names = self.layers or (list(self.rank) if isinstance(self.rank, dict) else [])
        if not names:
            return [layer for layer in model.layers[:-1] if isinstance(layer, Dense)]
        chosen = [model.layer(name) for name in dict.fromkeys(names)]  # each once
        for layer in chosen:
            if not isinstance(layer, Dense):
                what = "is factored already: merge it first" if isinstance(layer, LowRankDense) else "is no Dense layer"
                raise InputError(f"{layer.called} {what}")
            _check_plain(layer, Dense)
        return chosen  # type: ignore[return-value]

    def _rule_of(self, name: str) -> RankRule:
        if isinstance(self.rank, dict) and name not in self.rank:
            raise InputError(f"no rank for the layer {shown(name)}: ranks are given for {', '.join(self.rank)}")
        rule = _rule(self.rank[name]) if isinstance(self.rank, dict) else self.rank
        scaled = isinstance(rule, ScaledStableRank)
        if self.pretrain == "auto" and not scaled:
            raise InputError(f"Factorise('auto') cannot have rank={rule}: expected gn.ScaledStableRank(), or none")
        if self.pretrain != "auto" and scaled and cast(ScaledStableRank, rule).scale is None:
            raise InputError(f"Factorise({self.pretrain:g}) cannot have rank={rule}: give it a scale, or use 'auto'")
        return rule

    def _due(self, trainer: Training, step: int) -> list[tuple[Dense, RankRule]]:
        """The layers that "auto" would cut before that step, where it pays, and to which ranks."""
        watch, model = self._watch, trainer.model
        if step and self.policy == "measured" and not watch.affords(trainer, step, self.seconds, ROUNDS + 2, 2 * LEAST):
            return []
        layers = [model.layer(name) for name in watch.seen] if step else self._chosen(trainer)
        dense = {layer.name: layer for layer in layers if isinstance(layer, Dense)}
        looked = {
            name: (layer.weight.shape, _stable_rank(layer), cast(ScaledStableRank, self._rule_of(name)))
            for name, layer in dense.items()
        }
        due = watch.due(trainer.plan, step, looked)
        for done in self.conversions:  # whose layer is dense yet: it did not pay
            watch.waiting.pop(done.layer, None)
            if due.get(done.layer, 0) > auto.AGAIN * done.rank:
                del due[done.layer]
        return [(dense[name], FixedRank(rank)) for name, rank in due.items()]

    def _convert(self, trainer: Training, layer: Dense, rule: RankRule, step: int) -> Conversion:
        out, inner = layer.weight.shape
        found = _cut(layer, rule) if rule.needs_spectrum else None
        rank = len(found.s) if found else rule((out, inner))
        worth, reason = self._worth(trainer, layer, rank)
        if worth:
            found = found or _cut(layer, rule)
            trainer.model.replace(layer.name, _factors(layer, found, self.split), state=self.optimizer_state)
        return Conversion(layer.name, (out, inner), rank, worth, reason, found.summary if found else {}, step)

    def _worth(self, trainer: Training, layer: Dense, rank: int) -> tuple[bool, str]:
        """Whether to cut the layer to `rank`, and why."""
        out, inner = layer.weight.shape
        if own := own_methods(layer, Dense):
            return False, f"it has its own {own}, which factors would not run"
        if self.policy == "count":
            limit = out * inner / (out + inner)
            sign = "<" if rank < limit else "≥"
            return rank < limit, f"rank {rank} {sign} mn/(m + n) = {limit:.4g}"
        if self.policy == "measured":
            median, upper = payoff(
                layer, rank, trainer.batch_size, trainer.optimizer, trainer.backend, dtype=trainer.dtype,
                needs_dx=layer.dx is not None,
            )  # fmt: skip
            return upper < 1, f"rank {rank} takes {median:.2f}× the time at batch {trainer.batch_size}"
        return True, f"rank {rank}"


def multiplications(shape: tuple[int, int], rank: int | None = None) -> int:
    """Multiplications a sample through a weight (m, n): mn dense, l(m + n) factored (document 001, section 3.3.4)."""
    m, n = (int(d) for d in shape)
    return m * n if rank is None else rank * (m + n)


def speed_up(shapes: Sequence[tuple[int, int]], ranks: Sequence[int | None]) -> float:
    """What the count of multiplications allows: dense over factored, layers of rank None staying dense."""
    dense = sum(multiplications(shape) for shape in shapes)
    return dense / float(np.sum([multiplications(s, r) for s, r in zip(shapes, ranks, strict=True)]))


# -- whether it pays ----------------------------------------------------------------------------------------------

ROUNDS = 9
LEAST = 0.01  # seconds that one timing lasts at least: many steps of a small layer


def payoff(
    dense: Dense, rank: int, batch: int, optimizer: Optimizer, backend: Backend, *, dtype: str, needs_dx: bool
) -> tuple[float, float]:
    """Time of a step in factored form over its time in dense form: (median, upper quartile) over rounds.

    A step is forward, backward (with the input's gradient where `needs_dx`) and the optimiser's update of the layer
    alone, on `batch` random samples. The layer itself is not touched.
    """
    out, inner = dense.weight.shape
    rivals: dict[str, Layer] = {
        "dense": Dense(out, dense.activation),
        "factored": LowRankDense(out, rank, dense.activation),
    }
    steps = {
        name: _step(layer, inner, batch, copy.copy(optimizer), backend, dtype, needs_dx)
        for name, layer in rivals.items()
    }
    with backend.session():
        count = _repeats(steps["dense"], backend)
        runs = {name: _repeated(step, count, backend) for name, step in steps.items()}
        times = interleave(runs, ROUNDS, pause=0)
    return times.ratio("factored", "dense"), times.spread("factored", "dense")[1]


def _step(
    layer: Layer, inner: int, batch: int, optimizer: Optimizer, backend: Backend, dtype: str, needs_dx: bool
) -> Callable[[], None]:
    """One step of a layer that stands alone, on random numbers."""
    rng = stream(0, DATA)

    def array(*shape: int) -> object:
        return backend.asarray((rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(dtype))

    declared = {f"0.{name}": (layer, parameter) for name, parameter in layer.spec((inner,)).parameters.items()}
    parameters = Parameters([layer], declared, backend, dtype)
    parameters.attach()
    for view in parameters.views.values():
        backend.copy(array(*view.shape), view)
    optimizer.attach(backend, *parameters.flat)
    if isinstance(layer, LowRankDense):  # the factors will be younger than the bias: two ranges to update
        optimizer.age_apart(parameters.n_decayed)
    units = declared["0.bias"][1].shape[0]
    layer.bind(backend.empty((batch, units), dtype), backend.empty((batch, inner), dtype) if needs_dx else None)
    x, dy = array(batch, inner), array(batch, units)

    def step() -> None:
        layer.forward(x)
        layer.backward(dy)
        backend.join()
        optimizer.step()

    return _recorded(step, backend)


def _recorded(step: Callable[[], None], backend: Backend) -> Callable[[], None]:
    """The step as a trainer runs it: recorded and replayed where the device can."""
    if not backend.records:
        return step
    with backend.session():
        step()  # operations may allocate at their first call
        try:
            replay = backend.record(step)
        except CaptureError:
            return step

    def run(_kept: Callable[[], None] = step) -> None:  # a recording knows its arrays by their places alone
        replay()

    return run


def _repeats(step: Callable[[], None], backend: Backend) -> int:
    """How many steps take LEAST seconds."""
    once = _repeated(step, 1, backend)
    once()
    began = time.perf_counter()
    once()
    return max(1, int(LEAST / max(1e-7, time.perf_counter() - began)))


def _repeated(step: Callable[[], None], count: int, backend: Backend) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            step()
        backend.synchronize()

    return run
