"""`gn.compress`: which ranks, under which promise, and what is shown of them."""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np

from gpunet.checks import as_list, check_flag, check_one_of, check_range, check_whole, has
from gpunet.compression.budget import Choice, least, spend
from gpunet.compression.networks import Network, length
from gpunet.compression.onnxfile import Onnx, is_graph
from gpunet.compression.ours import Ours
from gpunet.compression.pytorch import Torch, is_module
from gpunet.compression.weights import Factors
from gpunet.errors import InputError, shown
from gpunet.linalg.rank import FixedRank, RankRule
from gpunet.nn.model import Sequential
from gpunet.nn.predict import EVAL_BATCH
from gpunet.progress import Progress, progress
from gpunet.timing import Times, interleave

Count = Literal["parameters", "multiplications", "milliseconds"]
COUNTS: tuple[Count, ...] = get_args(Count)
LOOKS = 8  # nets that a promise is tried on
STEPS = 8  # ranks of a layer that are timed
ROUNDS, LEAST, SECONDS = 15, 3, 2.0  # of a race: as many as that many seconds have room for
DISTURBED = 1.2  # times as long as asked for, which other work on the machine may be to blame for: once more
SURE = 2.5  # standard errors: nineteen times in twenty, no drop of LOOKS nets exceeds its bound (Bonferroni)
FULL = "budget, max_drop, speed or rank"
WHOLE, NO_GAIN = "the budget keeps it whole", "it is no smaller at the rule's rank"

Evaluate = Callable[[Any], Any] | tuple[Any, Any]
Tune = Callable[[Any], object] | int


@dataclass(frozen=True)
class Layer:
    """What became of a layer: its weight's shape, its rank (None: it was kept as it is) and why.

    parameters, multiplications (a sample's): before and after. weight_error, output_error, least: see `Weight.proof`,
    None of what was kept. route: how its weight was decomposed. seen: the share of its inputs on the data, positions
    or tokens, that were summed, drawn evenly where a batch has more than 16,384; outputs' errors are those of these.
    """

    name: str
    shape: list[int]
    rank: int | None
    why: str
    parameters: list[int]
    multiplications: list[float]
    weight_error: float | None = None
    output_error: float | None = None
    least: float | None = None
    route: str = ""
    seen: float = 1.0


@overload
def compress(
    model: Sequential, data: Any = None, *, budget: float | None = None, max_drop: float | None = None,
    speed: float | None = None, rank: RankRule | int | None = None, evaluate: Evaluate | None = None,
    layers: str | Sequence[str] | None = None, count: Count = "parameters", batch_size: int = EVAL_BATCH,
    tune: Tune | None = None, progress: bool | Progress = False,
) -> Sequential: ...  # fmt: skip
@overload
def compress(
    model: Any, data: Any = None, *, budget: float | None = None, max_drop: float | None = None,
    speed: float | None = None, rank: RankRule | int | None = None, evaluate: Evaluate | None = None,
    layers: str | Sequence[str] | None = None, count: Count = "parameters", batch_size: int = EVAL_BATCH,
    tune: Tune | None = None, progress: bool | Progress = False,
) -> Any: ...  # fmt: skip
def compress(
    model: Any,
    data: Any = None,
    *,
    budget: float | None = None,
    max_drop: float | None = None,
    speed: float | None = None,
    rank: RankRule | int | None = None,
    evaluate: Evaluate | None = None,
    layers: str | Sequence[str] | None = None,
    count: Count = "parameters",
    batch_size: int = EVAL_BATCH,
    tune: Tune | None = None,
    progress: bool | Progress = False,
) -> Any:
    """A network like `model`, with weights cut to low rank: a `torch.nn.Module`, a built `gn.Sequential`, or ONNX.

    model stays as it is. What comes back is of its kind, on its device, in its dtype: in a module each chosen nn.Linear
    is an `nn.Sequential(nn.Linear(in, l, bias=False), nn.Linear(l, out))`, so that the weight of `fc` is that of
    `fc.0` and `fc.1`; an nn.Conv2d is one with l filters and a 1×1. It is plain PyTorch. A Dense becomes a
    LowRankDense, a Conv2D two. Its attribute `compression` is what was done, as a dict of plain values: {"layers": …}
    with an entry a layer (`Layer`), and sizes, metric and times before and after.

    ONNX is a path or an `onnx.ModelProto`. A ModelProto comes back, whose metadata has the same as JSON, as "gpunet".
    The MatMul, Gemm or Conv NAME has two weights, NAME.0 and NAME.1; what comes in and out is called as before.
    onnxruntime runs it on the CPU; the largest "difference" of its outputs on the data's first batch is told.

    data: some hundred samples or more as the network will see them: an array (n, …), (x, y), or for a module batches as
    a DataLoader has them: tensors, tuples whose first is given to the module, or dicts that are its arguments; for ONNX
    these, or arrays by its inputs' names: a dict, or an .npz as `np.load` opens it. With data a weight is cut where its
    outputs on it change least (`gpunet.compression.weights`); without, by its SVD.

    One of these says how far:

    * budget: the share of the numbers of the chosen layers' weights that remains, in (0, 1]; or with `count` of their
      "multiplications", or of their "milliseconds", by the clock. One budget for all layers: ranks go where an error,
      relative to that layer's outputs, falls most for what it costs.
    * max_drop: the smallest such budget found by bisection at which the metric falls by no more. evaluate(model) gives
      it, larger is better: a number, or a score a sample (0 or 1, say), which is better: the drop is then not that of
      these samples but what it can be of all such, an upper bound of 95 % that holds of all the nets that are tried
      together. evaluate=(x, y): the accuracy on these. Take thousands of samples, none that was trained on.
    * speed: how many times as fast a batch is, by the clock, on this machine: the best net found that is. InputError
      where none is, naming the fastest found.
    * rank: a rule such as `gn.Energy(0.9)`, or a number, for each layer.

    batch_size: of the batch that is timed; where the data comes in batches, it is the first of them.
    layers: names or patterns such as "blocks.*.fc1", and "!head" for all but that; by default all that can be cut and
    that gain by it. tune: trains the new net on before it is evaluated: a function of it, or for a net of ours a number
    of epochs on data=(x, y), by Adam at its usual rate. progress: whether to show it.

    Raises InputError for settings, names, data and metrics that cannot be used, naming what can, DataError for weights
    that are not finite.

    >>> import gpunet as gn
    >>> digits = gn.datasets.load("digits")
    >>> model = gn.Sequential([gn.Dense(64, "relu"), gn.Dense(10)], scale=digits.scale)
    >>> _ = gn.Trainer(model, device="cpu").fit(digits.x_train, digits.y_train, epochs=5)
    >>> small = gn.compress(model, digits.x_train, budget=0.3)
    >>> before, after = small.compression["parameters"]
    >>> after < 0.35 * before
    True
    """
    given = {"budget": budget, "max_drop": max_drop, "speed": speed, "rank": rank}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise InputError(f"got {', '.join(named) or 'none'} of {FULL}: give one of them")
    check_one_of("count", count, COUNTS)
    network = _network(model)
    if not isinstance(progress, Progress):
        check_flag("progress", progress)
    with _shown(progress) as bar, network.untouched():
        work = Compression(network, data, evaluate, layers, count, batch_size, tune, bar)
        return work.find(named[0], given[named[0]])


_shown = progress


def _network(model: Any) -> Network:
    if isinstance(model, Sequential):
        return Ours(model)
    if is_module(model):
        return Torch(model)
    if isinstance(model, str | Path) or is_graph(model):
        return Onnx(model)
    raise InputError(
        f"model is {shown(model)}: expected a torch.nn.Module, a gn.Sequential, an onnx.ModelProto or the path of one"
    )


@dataclass(frozen=True)
class Made:
    """A network that was tried."""

    model: Any
    factors: dict[str, Factors]
    scores: np.ndarray[Any, Any] | None = None


class Compression:
    """A network, what is known of its layers, and the search for their ranks."""

    def __init__(
        self, network: Network, data: Any, evaluate: Evaluate | None, layers: Any, count: Count,
        batch_size: int, tune: Tune | None, bar: Progress,
    ) -> None:  # fmt: skip
        self.network, self.count, self.bar = network, count, bar
        self.tune = self._training(tune, data)
        self.evaluate = self._metric(evaluate)
        self._choose(layers)
        self.batch: Any = None
        self.samples = 0
        if data is not None:
            self.samples, self.batch = network.calibrate(data, check_whole("batch_size", batch_size), bar)
        if not network.open:
            raise InputError(f"no layer can be cut: {_told(network.kept) or 'the model has none with a weight'}")

    def _choose(self, layers: Any) -> None:
        """Keep the layers that were not named; InputError for names that are not there, or cannot be cut."""
        network = self.network
        if layers is None:
            return
        known = list(dict.fromkeys([*network.weights, *network.kept]))
        patterns = [layers] if isinstance(layers, str) else as_list("layers", layers, "names or patterns", str)
        chosen = set(known) if patterns and patterns[0].startswith("!") else set[str]()
        for pattern in patterns:
            plain = pattern.removeprefix("!")
            found = fnmatch.filter(known, plain)
            if not found:
                near = difflib.get_close_matches(plain, known) or known[:3]
                raise InputError(f"no layer is called {shown(plain)}: there are {', '.join(map(repr, near))}, …")
            if pattern in network.kept:
                raise InputError(f"the layer {pattern!r} cannot be cut: {network.kept[pattern]}")
            if plain == pattern:
                chosen.update(found)
            else:
                chosen.difference_update(found)
        network.kept |= dict.fromkeys(network.open.keys() - chosen, "it was not chosen")

    def _metric(self, evaluate: Evaluate | None) -> Callable[[Any], np.ndarray[Any, Any]] | None:
        """What gives a model's score, or its samples', as floats."""
        if evaluate is None:
            return None
        if isinstance(evaluate, tuple):
            x, y = evaluate if len(evaluate) == 2 else (None, None)
            y = y.detach().cpu().numpy() if has(y, "detach") else y
            try:
                alike = length(x) == len(y)
            except TypeError:
                alike = False
            if not alike:
                raise InputError("evaluate is a tuple: expected (x, y) of one length, or a function of a model")
            return lambda model: self.network.accuracy(model, x, y)
        if not callable(evaluate) or isinstance(evaluate, type):
            raise InputError(f"evaluate is {shown(evaluate)}: expected a function of a model, or (x, y)")

        def measure(model: Any) -> np.ndarray[Any, Any]:
            with self.network.evaluating(model):
                found = evaluate(model)
            try:
                given = found.detach().cpu().double() if has(found, "detach") else found
                scores = np.asarray(given, np.float64).reshape(-1)
            except (TypeError, ValueError):
                scores = np.empty(0)
            if not len(scores) or not np.isfinite(scores).all():
                raise InputError(f"evaluate(model) gave {shown(found)}: expected a finite number, or one a sample")
            return scores

        return measure

    def _training(self, tune: Tune | None, data: Any) -> Callable[[Any], object] | None:
        """What trains a model on."""
        if tune is None or (callable(tune) and not isinstance(tune, type)):
            return tune
        epochs = check_whole("tune", tune, of=" of epochs")
        if not isinstance(self.network, Ours):
            raise InputError(f"tune={epochs} epochs trains a gn.Sequential: give a function that trains the module")
        if not (isinstance(data, tuple) and len(data) == 2):
            raise InputError(f"tune={epochs} epochs needs labels: give data=(x, y)")
        return lambda model: self.network.trained(model, *data, epochs)  # type: ignore[attr-defined]

    # -- how far ------------------------------------------------------------------------------------------------------

    def find(self, name: str, value: Any) -> Any:
        """The network that keeps this promise."""
        if name == "budget":
            share = check_range(name, value, above=0, most=1)
            return self.finish(self.build(self.ranks(share)), {name: share, "count": self.count})
        if name == "rank":
            return self.finish(self.build(self.by_rule(value)), {name: rule_told(value)})
        if name == "max_drop":
            return self.keeping(float(check_range(name, value, least=0)))
        return self.faster(float(check_range(name, value, above=1)))

    def by_rule(self, rank: RankRule | int) -> dict[str, int]:
        """The rule's ranks of the layers that gain by them."""
        rule = rank if isinstance(rank, RankRule) else FixedRank(check_whole("rank", rank))
        layers = self.network.open
        ranks = {n: rule.rank if isinstance(rule, FixedRank) else w.rank(rule) for n, w in layers.items()}
        gain = {name: r for name, r in ranks.items() if r <= layers[name].most}
        if not gain:
            most = max(layers, key=lambda name: layers[name].most)
            raise InputError(
                f"no layer has fewer numbers at the rank of {rule!r}: the largest that makes {most!r} smaller is "
                f"{layers[most].most}"
            )
        return gain

    def ranks(self, share: float) -> dict[str, int]:
        """The ranks that this share of what all chosen layers cost buys."""
        return spend(self.choices(), share, self.count)

    def choices(self) -> dict[str, list[Choice]]:
        """What may become of each layer, dense last."""
        if self.count == "milliseconds":
            return self.timed
        found = {}
        spectra = {name: weight for name, weight in self.network.open.items() if "errors" not in vars(weight)}
        if spectra:
            self.bar.start("singular values", len(spectra))
        for name, weight in self.network.open.items():
            uses = weight.uses if self.count == "multiplications" else 1
            found[name] = weight.choices(uses)
            self.bar.advance(name in spectra)
        return found

    @cached_property
    def timed(self) -> dict[str, list[Choice]]:
        """What may become of each layer by the clock: some ranks, and dense, last; costs in milliseconds a batch."""
        self._check_batch("milliseconds are measured on a batch")
        found = {}
        self.bar.start("layers timed", len(self.network.open))
        for name, weight in self.network.open.items():
            ranks = sorted({max(1, weight.most * step // STEPS) for step in range(1, STEPS + 1)}) if weight.most else []
            made: dict[str, Factors | None] = {str(r): weight.cut(r) for r in ranks}
            runs = {key: self.network.layer(name, cut, self.batch) for key, cut in (made | {"": None}).items()}
            times = interleave(runs, ROUNDS, pause=0)
            self.bar.advance()
            # A smaller rank takes no longer than a larger one, whatever disturbed its rounds.
            costs = np.minimum.accumulate([1000 * times.median(str(r)) for r in ranks[::-1]])[::-1]
            cut = [Choice(r, float(cost), weight.loss(r)) for r, cost in zip(ranks, costs, strict=True)]
            found[name] = [*cut, Choice(None, 1000 * times.median(""), 0.0)]
        return found

    @cached_property
    def before(self) -> np.ndarray[Any, Any]:
        """The scores of the network as it came."""
        return self.score(self.network.model)

    def score(self, model: Any) -> np.ndarray[Any, Any]:
        """A network's scores; InputError where nobody said how."""
        if self.evaluate is None:
            raise InputError("max_drop needs a metric: give evaluate=(x, y), or a function of a model")
        return self.evaluate(model)

    def _check_batch(self, why: str) -> None:
        if self.batch is None:
            raise InputError(f"{why}, and there is none: give data")

    def keeping(self, max_drop: float) -> Any:
        """The smallest network found whose metric falls by no more."""
        before = self.before
        if max_drop >= 1 and bool(np.all((before >= 0) & (before <= 1))):
            raise InputError(
                f"max_drop is {max_drop:g}, and the metric lies between 0 and 1, so that all of it might be lost: "
                "expected a share such as 0.02, which is two points of 100"
            )
        if (unseen := fall(before, before)) > max_drop:
            more = f", or evaluate on {math.ceil(len(before) * unseen / max_drop):,}" if max_drop else ""
            raise InputError(
                f"max_drop={max_drop:g} cannot be shown on {len(before):,} samples: where none of them is lost, "
                f"{unseen:.3g} may be of all others; allow that much{more}"
            )
        low, high = least(self.choices()), 1.0
        kept: Any = None
        smallest = math.inf
        self.bar.start("networks tried", LOOKS)
        for _ in range(LOOKS):
            share = (low + high) / 2
            ranks = self.ranks(share)
            made = self.build(ranks)
            scores = self.score(made.model)
            made, drop = replace(made, scores=scores), fall(before, scores)
            smallest = min(smallest, drop)
            self.bar.advance(1, f"{share:.1%} of the {self.count}: {drop:.3g} lost at most")
            if ranks and drop <= max_drop:
                kept, high = made, share
            else:
                low = share
        if kept is None:
            raise InputError(
                f"max_drop={max_drop:g} cannot be kept: the smallest drop found is {smallest:.3g}, at {high:.3g} of "
                f"the {self.count}; allow more, give more samples to evaluate on, or choose other layers"
            )
        return self.finish(kept, {"max_drop": max_drop, "budget": high, "count": self.count})

    def faster(self, speed: float) -> Any:
        """The network of least error found that takes a batch so many times as fast."""
        self._check_batch("speed is measured on a batch")
        self.count = "milliseconds"
        low, high = least(self.choices()), 1.0
        kept: Any = None
        fastest = math.inf
        share = low
        self.bar.start("networks tried", LOOKS)
        for _ in range(LOOKS):
            made = self.build(self.ranks(share))
            times = self.race(made.model)
            ratio = times.ratio("after", "before")
            fastest = min(fastest, ratio)
            self.bar.advance(1, f"{ratio:.2f}× the time")
            if times.spread("after", "before")[1] <= 1 / speed:
                kept, low = (made, times), share
            elif share == low and fastest > DISTURBED / speed:
                break  # the fastest there is
            elif share > low:
                high = share
            share = (low + high) / 2 if kept else low
        if kept is None:
            what = f"ask for less than {1 / fastest:.2f}" if fastest < 1 else "no cut makes it faster here"
            raise InputError(
                f"speed={speed:g} cannot be met at a batch of {length(self.batch)}: the fastest found takes "
                f"{fastest:.2f}× the time in the median, with the smallest ranks, and was to be so fast in three "
                f"rounds of four; {what}, or give other batches"
            )
        return self.finish(kept[0], {"speed": speed}, kept[1])

    def race(self, model: Any) -> Times:
        """The time of a batch through the network "before" and "after"."""
        runs = {"before": self.network.model, "after": model}
        contestants = {name: partial(self.network.run, each, self.batch) for name, each in runs.items()}
        once = sum(interleave(contestants, 1, pause=0).seconds["before"])
        return interleave(contestants, max(LEAST, min(ROUNDS, round(SECONDS / max(1e-6, once)))), warmup=0, pause=0)

    # -- what comes of it ---------------------------------------------------------------------------------------------

    def build(self, ranks: Mapping[str, int]) -> Made:
        """The network with these ranks, trained on where that was asked for."""
        factors = {name: self.network.weights[name].cut(r) for name, r in ranks.items()}
        model = self.network.rebuilt(factors)
        if self.tune is not None:
            self.tune(model)
        return Made(model, factors)

    def finish(self, made: Made, promise: dict[str, Any], times: Times | None = None) -> Any:
        """The network, with what is shown of it; times: of its race, where it was run."""
        network, model = self.network, made.model
        if self.batch is not None:
            network.check(model, made.factors, self.batch)
        said: dict[str, Any] = {
            "promise": promise, "samples": self.samples, "tuned": self.tune is not None,
            "parameters": [network.size(network.model), network.size(model)],
            "layers": [asdict(each) for each in self.layers(made.factors, NO_GAIN if "rank" in promise else WHOLE)],
        }  # fmt: skip
        chosen = [each["parameters"] for each in said["layers"] if each["name"] in network.open]
        said["chosen"] = [sum(numbers) for numbers in zip(*chosen, strict=True)]
        if self.batch is not None:
            times = times or self.race(model)
            said["seconds"] = [times.median("before"), times.median("after")]
            said["time_ratio"] = [times.ratio("after", "before"), *times.spread("after", "before")]
            said["batch"] = length(self.batch)
        if self.evaluate is not None:
            after = self.score(model) if made.scores is None else made.scores
            said["metric"] = [float(np.mean(self.before)), float(np.mean(after))]
        return network.keep(model, said, self.batch)

    def layers(self, factors: Mapping[str, Factors], whole: str) -> list[Layer]:
        """What became of each, in the network's order; whole: why one that was chosen was not cut."""
        found = []
        for name, weight in self.network.weights.items():
            cut = factors.get(name)
            rank = None if cut is None else cut.rank
            numbers = [weight.numbers(None), weight.numbers(rank)]
            uses, shape = [n * weight.uses for n in numbers], list(weight.shape)
            if cut is None:
                why = self.network.kept.get(name, whole if weight.most else "no two factors of it are smaller")
                found.append(Layer(name, shape, None, why, numbers, uses))
            else:
                proof, route = weight.proof(cut), weight.found(cut.rank).route
                found.append(Layer(name, shape, rank, "cut", numbers, uses, **proof, route=route, seen=weight.seen))
        return found


def rule_told(rule: RankRule | int) -> int | str:
    """A rule as a plan has it: a rank, or what the rule is called."""
    rank = rule.rank if isinstance(rule, FixedRank) else rule
    return repr(rank) if isinstance(rank, RankRule) else int(rank)


def fall(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> float:
    """By how much a metric fell: of n scores each an upper bound of the mean of all such differences d, paired.

    It is d̄ + z²r/2n + z √(s²/n + z²r²/4n²), z = SURE, r the range of the scores and 0: Wilson's of 1927 for shares, as
    good where next to none of the samples was lost. None of n lost gives z²r/n.
    """
    if len(before) != len(after):
        raise InputError(f"evaluate(model) gave {len(before)} scores, then {len(after)}: expected as many each time")
    lost, n = before - after, len(before)
    if n == 1:
        return float(lost[0])
    few = SURE**2 * float(np.ptp(np.concatenate([before, after, [0.0]]))) / (2 * n)
    return float(lost.mean() + few + SURE * math.sqrt(lost.var() / n + (few / SURE) ** 2))


def _told(kept: Mapping[str, str]) -> str:
    return "; ".join(f"{name!r}: {why}" for name, why in list(kept.items())[:3])
