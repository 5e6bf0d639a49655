"""A checkpoint of anybody's network, its weights cut by their singular vectors: what `gpunet compress` does.

The network is not known, so a weight is told by its name and its shape, and its factors get names by one rule:

* `M.weight` (out, in) becomes `M.0.weight` (l, in) and `M.1.weight` (out, l), as those of
  `nn.Sequential(nn.Linear(in, l, bias=False), nn.Linear(l, out))` are called in M's place, and `M.bias` `M.1.bias`;
* of a convolution, (out, in, height, width), `M.0.weight` (l, in, height, width) and `M.1.weight` (out, l, 1, 1);
* of a weight that is stored (in, out), as GPT-2's `Conv1D` does, they are those of two `nn.Linear`, too.

All other tensors are passed on with their bits. One weight is in memory at a time, beside those whose vectors are kept.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from gpunet.compression.budget import Choice, spend
from gpunet.compression.compress import NO_GAIN, WHOLE, Layer, rule_told
from gpunet.compression.tensors import SHARD_BYTES, Tensors, write
from gpunet.compression.weights import Factors, Weight
from gpunet.errors import DataError, InputError, shown
from gpunet.files import check_path, check_replaceable
from gpunet.limits import plain
from gpunet.linalg.rank import FixedRank, RankRule
from gpunet.progress import Progress
from gpunet.tensorfile import KEY, SEAL, Entry

FORMAT = 1
KEPT = 1 << 30  # bytes of weights and their singular vectors that are kept from choosing ranks to cutting
PLAN = "compression.json"  # in a folder of shards
TABLES = {"wte", "wpe", "shared"}  # modules whose rows are looked up, beside those with "emb" in their names
HEADS = {"lm_head"}  # modules that are left out unless they are named
ALL_WHOLE = "all weights stay whole: give a smaller budget, or another rule"


@dataclass(frozen=True)
class Place:
    """Where a weight stands: its tensor's name, its module's, its shape, and how it is stored.

    kind: "linear", (out, in); "conv2d"; "transposed", (in, out).
    """

    name: str
    module: str
    shape: tuple[int, ...]
    kind: str

    def beside(self, last: str) -> str:
        """The name of another tensor of the module."""
        return f"{self.module}.{last}" if self.module else last

    def factors(self, rank: int) -> dict[str, tuple[int, ...]]:
        """The names and shapes of its two factors, by the rule."""
        first, second = self.beside("0.weight"), self.beside("1.weight")
        if self.kind == "conv2d":
            return {first: (rank, *self.shape[1:]), second: (self.shape[0], rank, 1, 1)}
        if self.kind == "transposed":
            return {first: (rank, self.shape[0]), second: (self.shape[1], rank)}
        return {first: (rank, self.shape[1]), second: (self.shape[0], rank)}

    def arrays(self, cut: Factors) -> list[Any]:
        """The two factors as they are stored."""
        pair = (cut.left.T, cut.right.T) if self.kind == "transposed" else (cut.right, cut.left)
        return [each.reshape(shape) for each, shape in zip(pair, self.factors(cut.rank).values(), strict=True)]


# -- which weights ----------------------------------------------------------------------------------------------------


def places(tensors: Tensors) -> tuple[dict[str, Place], dict[str, str]]:
    """The weights that there are by the names of their modules; and which of them cannot be cut, and why."""
    found: dict[str, Place] = {}
    for name in tensors.names:
        if name.rpartition(".")[2] == "weight" and len(tensors.shape(name)) in (2, 4):
            found[name[: -len(".weight")]] = Place(name, name[: -len(".weight")], tensors.shape(name), "linear")
    lengths = {m: _bias(tensors, place) for m, place in found.items()}
    told = {m: _across(found[m].shape, n) for m, n in lengths.items() if n and len(found[m].shape) == 2}
    transposed = True in told.values() and False not in told.values()
    kept: dict[str, str] = {}
    for module, place in found.items():
        out, inner, *kernel = place.shape
        if kernel:
            found[module] = Place(place.name, module, place.shape, "conv2d")
            if _across(place.shape, lengths[module]):
                kept[module] = "it is a transposed convolution by its bias"
            elif inner == 1:
                kept[module] = "it has one channel, or as many groups as channels"
        elif told.get(module) or (transposed and lengths[module]):
            found[module] = Place(place.name, module, place.shape, "transposed")
        if any("emb" in part or part in TABLES for part in module.lower().split(".")):
            kept[module] = "it is an embedding by its name, whose rows are looked up"
        elif _read_past_forward(tensors, module):
            kept[module] = "nn.MultiheadAttention and nn.TransformerEncoderLayer read it past its forward"
        elif (out * inner * prod(kernel) - 1) // max(1, out + inner * prod(kernel)) < 1:
            kept[module] = "no two factors of it are smaller"
    return found, kept


def _read_past_forward(tensors: Tensors, module: str) -> bool:
    """Whether PyTorch's own attention has the weight as its own, and could not do with two modules for it."""
    parent, _, last = module.rpartition(".")
    beside = {
        "out_proj": "in_proj_weight",
        "linear1": "self_attn.in_proj_weight",
        "linear2": "self_attn.in_proj_weight",
    }
    return last in beside and f"{parent}{parent and '.'}{beside[last]}" in tensors.names


def _bias(tensors: Tensors, place: Place) -> int:
    """The length of the bias; 0 where there is none."""
    name = place.beside("bias")
    shape = tensors.shape(name) if name in tensors.names else ()
    return shape[0] if len(shape) == 1 else 0


def _across(shape: tuple[int, ...], bias: int) -> bool | None:
    """Whether a weight's second dimension is that of its outputs, by its bias; None where that says nothing."""
    return None if shape[0] == shape[1] or bias not in shape[:2] else bias == shape[1]


def chosen(tensors: Tensors, layers: Sequence[str] = ()) -> tuple[dict[str, Place], dict[str, str]]:
    """The weights that are to be cut, by their modules; and why the others are kept.

    layers: names of tensors or modules, or patterns of them; one that begins with "!" leaves out what it fits. By
    default all but the output's. Raises InputError for one that fits nothing, or names what cannot be cut, and
    DataError for quantised weights among them.
    """
    found, kept = places(tensors)
    wanted, heads = dict.fromkeys(found, not layers or layers[0].startswith("!")), list[str]()
    if not layers or layers[0].startswith("!"):
        heads = [module for module in found if module.rpartition(".")[2] in HEADS]
        wanted |= dict.fromkeys(heads, False)
    quantised = tensors.quantised()
    for pattern in layers:
        plain = pattern.removeprefix("!")
        fits = [m for m, each in found.items() if any(fnmatch.fnmatchcase(n, plain) for n in (m, each.name))]
        if not fits:
            _check_quantised(tensors, {m: how for m, how in quantised.items() if fnmatch.fnmatchcase(m, plain)})
            raise InputError(f"the layers {shown(pattern)} fit no weight of {tensors}: {tensors.near(plain)}")
        named = next((m for m in fits if plain in (m, found[m].name)), None)
        if named in kept and plain == pattern:
            raise InputError(f"{found[named].name} cannot be cut: {kept[named]}")
        wanted |= dict.fromkeys(fits, plain == pattern)
    _check_quantised(tensors, {m: how for m, how in quantised.items() if wanted.get(m, not layers)})
    out = dict.fromkeys((m for m in found if not wanted[m]), "it was not chosen")
    kept = out | {m: "it is the output layer, left out unless it is named" for m in heads if m in out} | kept
    open_ = {module: place for module, place in found.items() if module not in kept}
    if not open_:
        some = "; ".join(f"{found[module].name}: {why}" for module, why in list(kept.items())[:3])
        raise InputError(
            f"{tensors} has no weight to cut: {some or 'none of its tensors is NAME.weight of 2 or 4 axes'}"
        )
    return open_, kept


def _check_quantised(tensors: Tensors, found: Mapping[str, str]) -> None:
    if found:
        module, how = next(iter(found.items()))
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise DataError(
            f"{tensors} holds quantised weights, {module or 'one'} ({how}){more}: singular vectors are those of the "
            "numbers before; give the checkpoint that was quantised, cut that, and quantise what comes out"
        )


@dataclass(frozen=True)
class Written:
    """What was written: the file, or the index of shards; the plan's file, and what it says."""

    path: Path
    plan: Path
    said: dict[str, Any]


def plan_text(said: Mapping[str, Any]) -> str:
    """A plan as JSON, which has no numbers that are not finite."""
    return json.dumps(plain(said), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


# -- the work ---------------------------------------------------------------------------------------------------------


class Checkpoint:
    """A checkpoint whose weights are being cut."""

    def __init__(self, tensors: Tensors, layers: Sequence[str], bar: Progress) -> None:
        self.tensors, self.bar = tensors, bar
        self.places, self.why = chosen(tensors, layers)
        self._held: dict[str, Weight] = {}
        self._bytes = 0

    def weight(self, module: str) -> Weight:
        """A weight, read anew unless it is kept; DataError where it is not finite."""
        if module in self._held:
            return self._held[module]
        place = self.places[module]
        matrix = self.tensors.read(place.name)
        return Weight(place.name, matrix.reshape(len(matrix), -1), bias=False)

    def _keep(self, module: str, weight: Weight) -> None:
        """Keep it with its singular vectors, while there is room."""
        size = weight.matrix.nbytes + weight.found().u.nbytes
        if self._bytes + size <= KEPT:
            self._held[module], self._bytes = weight, self._bytes + size

    def ranks(self, budget: float | None, rule: RankRule | None) -> dict[str, int]:
        """The rank of each weight that is cut, by one budget for all or by a rule for each."""
        self._check_tied()
        self.bar.start("singular values", len(self.places))
        layers: dict[str, list[Choice]] = {}
        ranks: dict[str, int] = {}
        for module in self.places:
            weight = self.weight(module)
            if isinstance(rule, FixedRank):
                ranks |= {module: rule.rank} if rule.rank <= weight.most else {}
            elif rule is not None:
                ranks |= {module: rank} if (rank := weight.rank(rule)) <= weight.most else {}
            else:
                layers[module] = weight.choices()
            if rule is None or rule.needs_spectrum:
                self._keep(module, weight)
            self.bar.advance()
        return ranks if budget is None else spend(layers, budget, "parameters")

    def _check_tied(self) -> None:
        """InputError where a weight that is to be cut is another tensor, too, number by number."""
        shapes = {(self.tensors.dtype(each.name), each.shape) for each in self.places.values()}
        names = {each.name for each in self.places.values()}
        alike = [n for n in self.tensors.names if (self.tensors.dtype(n), self.tensors.shape(n)) in shapes]
        seen: dict[bytes, str] = {}
        self.bar.start("reading", len(alike))
        for name in alike:
            array = self.tensors.read(name)
            digest = hashlib.sha256(
                array.tobytes() if not array.flags.c_contiguous else array.reshape(-1).view("u1")
            ).digest()
            other = seen.setdefault(digest, name)
            if other != name and names & {name, other} and array.astype(bool).any():
                left = " ".join(f"--layers '!{each}'" for each in (other, name) if each in names)
                raise InputError(
                    f"{other} and {name} hold the same numbers: tied, they are one weight, and would be two; leave "
                    f"them out with {left}"
                )
            self.bar.advance()

    def entries(self, ranks: Mapping[str, int], made: dict[str, dict[str, Any]]) -> Iterator[Entry]:
        """What is to be written, in the order of the file; what is shown of a weight is put in `made` as it is cut."""
        tensors = self.tensors
        biases = {self.places[module].beside("bias"): self.places[module].beside("1.bias") for module in ranks}
        weights = {self.places[module].name: module for module in ranks}
        taken = set(tensors.names)
        for name in tensors.names:
            if name in weights:
                yield from self._pair(weights[name], ranks[weights[name]], made, taken)
            else:
                entry = tensors.entry(name)
                yield Entry(biases.get(name, name), entry.dtype, entry.shape, self._passed(entry), entry.packed)

    def _passed(self, entry: Entry) -> Any:
        def make() -> Any:
            self.bar.advance()
            return entry.make()

        return make

    def _pair(self, module: str, rank: int, made: dict[str, dict[str, Any]], taken: set[str]) -> Iterator[Entry]:
        place, held = self.places[module], list[Any]()
        (first, one), (second, other) = place.factors(rank).items()
        if clash := taken & {first, second, place.beside("1.bias")}:
            raise InputError(
                f"{self.tensors} has a tensor {min(clash)} already: {place.name} cannot be cut in its place"
            )

        def cut() -> Any:
            weight = self.weight(module)
            factors = weight.cut(rank)
            found = weight.found(rank)
            last = [float(end) for end in found.certificate.sigma[rank - 1]]
            made[module] = weight.proof(factors) | {"route": found.route, "sigma": last}
            self._held.pop(module, None)
            self.bar.advance()
            held.extend(place.arrays(factors))
            return held[0]

        def rest() -> Any:
            self.bar.advance()
            return held.pop()

        dtype = self.tensors.dtype(place.name)
        yield Entry(first, dtype, one, cut)
        yield Entry(second, dtype, other, rest)

    def told(self, ranks: Mapping[str, int], made: Mapping[str, Any], whole: str) -> Iterator[dict[str, Any]]:
        """What became of each weight, as `Layer` has it; of those that were cut the factors' names and shapes too.

        whole: why one that was chosen was not cut.
        """
        found, _ = places(self.tensors)
        for module, place in found.items():
            out, inner = place.shape[0], prod(place.shape[1:])
            rank = ranks.get(module)
            numbers = [out * inner, out * inner if rank is None else rank * (out + inner)]
            said = dict(made.get(module, {}))
            sigma = said.pop("sigma", None)
            why = "cut" if rank is not None else self.why.get(module, whole)
            layer = asdict(Layer(module, [*place.shape], rank, why, numbers, [*map(float, numbers)], **said))
            layer |= {"tensor": place.name, "kind": place.kind, "dtype": self.tensors.dtype(place.name)}
            yield plain(layer) | (
                {"factors": place.factors(rank), "sigma_at_rank": plain(sigma)} if rank is not None else {}
            )


def compress_file(
    source: Any, out: str | Path, *, budget: float | None = None, rule: RankRule | None = None,
    layers: Sequence[str] = (), bar: Progress | None = None, begin: Callable[[Path], object] = lambda plan: None,
) -> Written:  # fmt: skip
    """Cut the weights of a checkpoint and write it to `out`, with a plan beside it: all of it, or nothing.

    source: as `Tensors.open` takes it. out: a .safetensors file, whose plan is .json; where the source is in shards, a
    folder, whose plan is `PLAN`. One of budget, the share of the numbers of the chosen weights that remains, in (0, 1],
    for all of them together; and rule, for each. layers: see `chosen`.

    The plan's "layers" say of each weight what `Layer` does; "weight_error" and "least" are bounds that rounding to the
    checkpoint's dtype is part of. "took" are the seconds of all that. `begin` is called with the plan's path when
    all is computed, before anything is put in its place. Raises InputError, DataError and OutputError for what cannot
    be used, read and written.
    """
    began = time.perf_counter()
    bar, tensors, target = bar or Progress(), Tensors.open(source), check_path("out", out)
    sharded = tensors.sharded
    plan = target / PLAN if sharded else target.with_suffix(".json")
    _check_target(source, tensors, target, plan)
    work = Checkpoint(tensors, layers, bar)
    if not (ranks := work.ranks(budget, rule)):
        raise InputError(ALL_WHOLE)
    made: dict[str, dict[str, Any]] = {}
    entries = list(work.entries(ranks, made))
    sizes = [sum(prod(tensors.shape(name)) for name in tensors.names), sum(prod(each.shape) for each in entries)]
    said: dict[str, Any] = {
        "format": FORMAT, "source": str(source) if isinstance(source, (str, Path)) else str(tensors),
        "promise": {"rank": rule_told(rule)} if rule is not None else {"budget": budget, "count": "parameters"},
        "patterns": list(layers), "samples": 0, "tuned": False, "parameters": sizes,
        "bytes": [sum(map(tensors.nbytes, tensors.names)), sum(each.nbytes for each in entries)],
    }  # fmt: skip

    def text() -> str:
        begin(plan)
        said["took"] = time.perf_counter() - began
        said["layers"] = list(work.told(ranks, made, WHOLE if rule is None else NO_GAIN))
        chosen = [each["parameters"] for each in said["layers"] if each["name"] in work.places]
        said["chosen"] = [sum(each) for each in zip(*chosen, strict=True)]
        return plan_text(said)

    metadata = {name: value for name, value in tensors.metadata.items() if name not in (KEY, SEAL)}
    bar.start("writing", len(entries))
    path, *_ = write(target, entries, metadata, SHARD_BYTES if sharded else 0, {plan: text})
    return Written(path, plan, said)


def _check_target(source: Any, tensors: Tensors, target: Path, plan: Path) -> None:
    if tensors.sharded:
        return
    if target.suffix != ".safetensors":
        own = next((each.name for each in tensors.files if each != Path(source)), None)
        why = f"; '{source}' holds one file, {own}, and not shards, which a folder would be made of" if own else ""
        raise InputError(f"out is {shown(str(target))}: expected a path that ends in .safetensors{why}")
    for path in (target, plan):
        check_replaceable(path)
        if any(path.exists() and path.samefile(own) for own in tensors.files):
            raise InputError(f"out is '{path}', which is what is read: choose another name")
