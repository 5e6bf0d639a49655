"""Adapters from two checkpoints, from a weight's singular triples, from those of its inputs, and cut anew.

The best change of rank r is the truncated SVD (Eckart & Young 1936). PiSSA (Meng, Wang & Zhang 2024, arXiv:2404.02948)
starts at the r leading triples of the weight, and trains the base without them; EVA (Paischer et al. 2024,
arXiv:2410.07170) at the leading principal components of the layer's inputs.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from gpunet.checks import check_flag, check_one_of, check_range, check_whole
from gpunet.compression.lora.adapter import Adapter, Pair, check_plain
from gpunet.compression.lora.layers import (
    HEADS,
    WEIGHT,
    Layer,
    check_exact,
    check_finite,
    chosen,
    layers_of,
    names_of,
    targets,
    usual,
)
from gpunet.compression.pytorch import evaluating, hooked
from gpunet.compression.tensors import SHARD_BYTES, Tensors, write
from gpunet.errors import DataError, GpunetError, InputError, ShapeError, first_line, shown
from gpunet.files import check_path
from gpunet.linalg import SVD, Certificate, StreamingGram, svd
from gpunet.linalg.certificate import times
from gpunet.linalg.matrix import Floats
from gpunet.linalg.verify import norm
from gpunet.tensorfile import KEY, SEAL, Entry

ROWS = 512  # of a weight that are compared at a time
# How the names of a pair's modules go on in PEFT's network.
WRAPPED = (
    "", ".base_layer", ".lora_A", ".lora_B", ".lora_dropout", ".lora_embedding_A", ".lora_embedding_B",
    ".lora_magnitude_vector", ".lora_A.default", ".lora_B.default", ".lora_dropout.default",
)  # fmt: skip
Init = Literal["pissa", "eva"]
ROUNDING = 8
FIRST = 32  # triples that are looked at for a share of the energy, then four times as many


def _config(source: Any, pairs: Mapping[str, Pair], target_modules: list[str] | str) -> dict[str, Any]:
    """PEFT's settings of a new adapter; its ranks are those of the pairs."""
    transposed = any(pair.transposed and not pair.embedding for pair in pairs.values())
    base = str(source) if isinstance(source, (str, Path)) else getattr(source, "name_or_path", None)
    return {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": base or None, "inference_mode": True,
        "target_modules": target_modules, "modules_to_save": None, "bias": "none", "fan_in_fan_out": transposed,
        "lora_dropout": 0.0, "init_lora_weights": True, "use_rslora": False, "use_dora": False,
        "rank_pattern": {}, "alpha_pattern": {},
    }  # fmt: skip


def _check_rank(rank: Any, energy: Any) -> tuple[int | None, float | None]:
    if rank is None and energy is None:
        raise InputError("rank and energy are both None: expected a rank, a share of the energy in (0, 1], or both")
    share = None if energy is None else check_range("energy", energy, above=0, most=1)
    return None if rank is None else check_whole("rank", rank), share


class Triples(NamedTuple):
    """u (m, k), s (k,) in float64, vt (k, n): the leading triples of a matrix, and what is shown of them."""

    u: Any
    s: Floats
    vt: Any
    certificate: Certificate


def _leading(exact: Floats, dtype: Any, rank: int | None, energy: float | None, certify: bool) -> Triples:
    """The leading triples: `rank` of them, or as many as hold the share `energy` of ‖exact‖_F², at most `rank`.

    Of `exact` rounded to dtype, over a power of two near its largest, so that no square overflows or vanishes.
    """
    top = 2.0 ** max(int(np.frexp(abs(exact).max())[1]) - 1, -1000)
    matrix = np.multiply(exact, 1 / top, out=np.empty(exact.shape, dtype), casting="same_kind")
    most = min(*matrix.shape, rank or min(matrix.shape))
    if energy is None or not matrix.any():
        return _scaled(svd(matrix, most if energy is None else 1, certify=certify), top)
    total, k = norm(matrix.astype(np.float64)), min(most, FIRST)
    while True:
        s = svd(matrix, k, compute="right").s.astype(np.float64)
        enough = np.cumsum((s / total) ** 2) >= energy
        noise = s <= ROUNDING * np.finfo(dtype).eps * total  # which is no energy: rounding alone makes ε/2 of it
        if energy == 1:  # all but that: a share is known to a few ε, and what is left may be less
            enough[:] = False
        stop = enough | np.append(noise[1:], False)
        if stop.any() or k == most:
            return _scaled(svd(matrix, int(stop.argmax()) + 1 if stop.any() else k, certify=certify), top)
        k = min(4 * k, most)


def _scaled(found: SVD[Any], top: float) -> Triples:
    return Triples(found.u, found.s.astype(np.float64) * top, found.vt, times(found.certificate, top))


def _pair(layer: Layer, exact: Floats, found: Triples, scaling: float, dtype: Any) -> Pair:
    """B = U √(S/scaling), A = √(S/scaling) Vᵀ, and how far they are from the matrix."""
    root = np.sqrt(found.s / scaling)
    with np.errstate(over="ignore"):
        B, A = layer.halves((found.u * root).astype(dtype), (root[:, None] * found.vt).astype(dtype))
    if not (np.isfinite(A).all() and np.isfinite(B).all()):
        raise DataError(f"{layer.name} has factors beyond float32: expected weights of an ordinary size")
    pair = Pair(A, B, scaling, layer.transposed, layer.embedding)
    (left, right), top = pair.factors, abs(exact).max() or 1.0
    parts = [slice(i, i + ROWS) for i in range(0, len(exact), ROWS)]
    off, whole = (
        norm(np.array([norm(each) for each in some]))
        for some in (((exact[p] - left[p] @ right) / top for p in parts), (exact[p] / top for p in parts))
    )
    return replace(pair, error=off / (whole or 1.0), certificate=found.certificate)


def _dtype(stored: str) -> Any:
    """Of a weight's decomposition and factors: float32, which PEFT trains in, or float64 where the weight is."""
    return np.float64 if stored == "float64" else np.float32


# -- from two checkpoints ---------------------------------------------------------------------------------------------


def extract(
    base: Any, tuned: Any, rank: int | None = None, energy: float | None = None, *, modules: Any = None,
    fan_in_fan_out: bool = False, certify: bool = False,
) -> Adapter:  # fmt: skip
    """The adapter that makes `tuned` of `base` as nearly as its rank allows.

    base, tuned: paths of safetensors files, of folders of shards or of their index; mappings name → array, NumPy's or
    torch's; torch modules. They are read a tensor at a time.
    rank: of every pair, smaller where the weight is. energy: as many triples as hold this share of ‖tuned − base‖_F²,
    at most `rank`; 1 takes all triples above rounding, 8 ε ‖tuned − base‖_F.
    modules: names, ends of names such as "q_proj", or patterns with * and ?: their weights are taken, and nothing else.
    None takes all that differs: weights of linear layers, embeddings and convolutions of one group as pairs; biases
    beside them, and modules without a matrix such as norms, whole, as PEFT's `bias` and `modules_to_save`. What differs
    and is not taken is in `Adapter.left`, and warned of.
    fan_in_fan_out: the 2-D weights of `base` are stored (in, out), as in GPT-2's files; of a module its classes say it.

    certify: show that no larger triple was missed (`Pair.certificate`), which takes three times as long for large
    weights; small ones show it anyway.

    Each pair is the truncated SVD of the difference (no B A of that rank is nearer), with A and B of one size and
    scaling 1. Differences and errors are computed in float64; decompositions and factors are float32, or float64 where
    the base is.

    Raises DataError for tensors that only one has, hold NaN or are unreadable, ShapeError for other shapes, InputError
    for quantised weights, for settings that do not exist, where nothing differs, and where an embedding does of a
    checkpoint without a last layer, which is then likely to be the same tensor.
    """
    rank, energy = _check_rank(rank, energy)
    certify = check_flag("certify", certify)
    before, after = Tensors.open(base), Tensors.open(tuned)
    for each in (before, after):
        check_exact(each)
    layers = layers_of(base, before, fan_in_fan_out)
    wanted = set(layers if modules is None else chosen(layers, modules, before))
    taken = {layers[name].weight for name in wanted}
    odd = _unlike(before, after)
    for name, error in odd.items():
        if modules is None or name in taken:
            raise error
    pairs: dict[str, Pair] = {}
    rest = list(odd)
    for name in before.names:
        if name in odd:
            continue
        old, new = before.read(name), after.read(name)
        if np.array_equal(old, new):
            continue
        if name not in taken:
            rest.append(name)
            continue
        check_finite(old, before, name)
        check_finite(new, after, name)
        layer, dtype = layers[name.removesuffix(WEIGHT)], _dtype(before.dtype(name))
        if layer.embedding and modules is None and not hasattr(base, "named_modules"):
            _check_untied(layer, before)
        change = layer.matrix(new, old)
        del old, new
        pairs[layer.name] = _pair(layer, change, _leading(change, dtype, rank, energy, certify), 1.0, dtype)
    if not pairs:
        same = f"differ in {', '.join(rest[:3])}{', …' * (len(rest) > 3)} alone" if rest else "have the same weights"
        raise InputError(
            f"{before} and {after} {same}: expected some {'chosen ' * (modules is not None)}matrix to differ"
        )
    everything = names_of(base, before)
    adapter = Adapter(pairs, _config(base, pairs, targets(list(pairs), everything)))
    if modules is None:
        adapter, rest = _with_rest(adapter, rest, after, everything)
    if rest:
        some = ", ".join(rest[:3]) + ", …" * (len(rest) > 3)
        warnings.warn(f"{len(rest)} tensors differ and are not in the adapter: {some}", stacklevel=2)
    return replace(adapter, left=tuple(rest))


def _unlike(before: Tensors, after: Tensors) -> dict[str, InputError]:
    """Tensors that only one has, or that have other shapes, and what is said of them."""
    found: dict[str, InputError] = {}
    old, new = set(before.names), set(after.names)
    for name in before.names:
        if name not in new:
            found[name] = DataError(f"{after} has no {name}, which {before} has: expected the same network, trained")
        elif before.shape(name) != after.shape(name):
            found[name] = ShapeError(
                f"{name} has shape {after.shape(name)} in {after}: expected {before.shape(name)}, as in {before}; or "
                "leave it out by modules="
            )
    for name in after.names:
        if name not in old:
            found[name] = DataError(f"{before} has no {name}, which {after} has: expected what that was trained from")
    return found


def _check_untied(layer: Layer, tensors: Tensors) -> None:
    if not any(name.split(".")[-2:-1] in ([head] for head in HEADS) for name in tensors.names):
        raise InputError(
            f"{layer.weight} differs, and {tensors} has no {' or '.join(HEADS)}, which may be that tensor once more: "
            "pass the torch modules, which tell, or name what to take by modules="
        )


def _with_rest(adapter: Adapter, rest: list[str], after: Tensors, everything: set[str]) -> tuple[Adapter, list[str]]:
    """The adapter with what it can hold of other tensors that differ, and the names of those that it cannot."""
    saved: dict[str, Any] = {}
    left, whole = [], set()
    config = dict(adapter.config)
    for name in rest:
        module, _, last = name.rpartition(".")
        if module in adapter.pairs and last == "bias":
            config["bias"] = "lora_only"
        elif (also := _saved_with(module, adapter.pairs, everything, after)) is None:
            left.append(name)
        else:
            whole |= also
    if config["bias"] != "none":
        saved |= {f"{m}.base_layer.bias": after.read(f"{m}.bias") for m in adapter.pairs if f"{m}.bias" in after.names}
    for name in after.names:
        if name.rpartition(".")[0] in whole:
            saved[name] = after.read(name)
    config["modules_to_save"] = sorted(whole) or None
    return replace(adapter, config=config, saved=saved), left


def _saved_with(module: str, pairs: Mapping[str, Pair], everything: set[str], after: Tensors) -> set[str] | None:
    """The modules that PEFT takes for modules_to_save where it is told of one; None where that would be wrong.

    PEFT takes all whose names end so, which then need tensors of their own and no modules within; and none as a pair
    whose name has it as a part, a pattern whose dots are any characters.
    """
    found = {name for name in everything if name.endswith(module)}
    if (
        not re.fullmatch(r"[\w.-]+", module)
        or any(re.match(rf"(^|.*\.){module}($|\..*)", name) for name in pairs)
        or any(f"{name}{part}".endswith(module) for name in pairs for part in WRAPPED)
        or any(name.startswith(f"{each}.") for each in found for name in everything)
        or not found <= {name.rpartition(".")[0] for name in after.names}
    ):
        return None
    return found


# -- from a weight or its inputs --------------------------------------------------------------------------------------


def init(
    base: Any, rank: int, method: Init = "pissa", *, data: Any = None, modules: Any = None, alpha: float | None = None,
    rho: float = 2.0, whiten: bool = False, fan_in_fan_out: bool = False, certify: bool = False,
) -> Adapter:  # fmt: skip
    """An adapter to start training from.

    method "pissa": scaling · B A are the weight's `rank` leading singular triples, B = U √(S/scaling) and
    A = √(S/scaling) Vᵀ. It goes with the rest of the weights, `residual(base, adapter)`.
    method "eva": A are the leading principal components of the module's inputs, their mean subtracted, and B = 0. As in
    PEFT all modules together have `rank` components each on average: those that explain the largest shares of their
    inputs' variance, at most rho · rank of one module's; one that gets none is left out. Scaling stays alpha/rank.
    data: what the modules' inputs are: module → array (n, in) or `StreamingGram`; or, where `base` is a torch module, a
    loader of batches that it is called with, dictionaries by their names: what attention_mask hides, or labels −100, is
    left out. Each module's inputs are summed (16 · in² bytes), never kept.
    modules: as of `extract`; None takes linear layers but the last, of "eva" those that `data` has inputs of.
    alpha: scaling is alpha/rank; `rank` by default. whiten: A's rows over √σ of their component, as in PEFT.
    certify: as of `extract`; "eva" has no use for it.

    Raises what `extract` raises, and InputError for data that does not fit.
    """
    rank = check_whole("rank", rank)
    method = check_one_of("method", method, get_args(Init))
    scaling = 1.0 if alpha is None else check_range("alpha", alpha, above=0) / rank
    most = rank * check_range("rho", rho, least=1, most=1e6)
    whiten, certify = check_flag("whiten", whiten), check_flag("certify", certify)
    tensors = Tensors.open(base)
    check_exact(tensors)
    layers = layers_of(base, tensors, fan_in_fan_out)
    if (method == "eva") != (data is not None):
        raise InputError(
            f"method is '{method}' and data {shown(data)}: expected data with 'eva', and none with 'pissa'"
        )
    named = None if modules is None else chosen(layers, modules, tensors)
    if method == "eva":
        pairs = _eva(base, tensors, layers, named, data, rank, round(most), scaling, whiten)
    else:
        pairs = {}
        for name in named or usual(layers):
            matrix = layers[name].matrix(check_finite(tensors.read(layers[name].weight), tensors, layers[name].weight))
            dtype = _dtype(tensors.dtype(layers[name].weight))
            pairs[name] = _pair(layers[name], matrix, _leading(matrix, dtype, rank, None, certify), scaling, dtype)
    if not pairs:
        raise InputError(f"{tensors} has no linear layers: name what to take by modules=")
    return Adapter(pairs, _config(base, pairs, targets(list(pairs), names_of(base, tensors))))


def _eva(
    base: Any, tensors: Tensors, layers: Mapping[str, Layer], named: list[str] | None, data: Any, rank: int, most: int,
    scaling: float, whiten: bool,
) -> dict[str, Pair]:  # fmt: skip
    """`init`'s "eva"."""
    if isinstance(data, Mapping):
        sums = {name: _summed(name, each) for name, each in data.items()}
        if odd := [name for name in sums if name not in layers]:
            near = chosen(layers, odd[0], tensors)  # which also says where there is none
            raise InputError(f"data has inputs of {shown(odd[0])}: expected whole names, such as {near[0]}")
        named = [name for name in layers if name in sums] if named is None else named
        if lost := [name for name in named if name not in sums]:
            raise InputError(f"data has no inputs of {lost[0]}: expected those of every module")
    else:
        named = usual(layers) if named is None else named
        sums = _listened(base, data, named)
    if wrong := [name for name in named if layers[name].embedding or len(layers[name].shape) != 2]:
        raise InputError(f"{wrong[0]} is no linear layer: 'eva' expects those alone; name others by modules=")
    found = {}
    for name in named:
        if sums[name].count < 2:
            raise InputError(f"data has {sums[name].count} inputs of {name}: expected at least two")
        if sums[name].features != layers[name].inner:
            raise ShapeError(
                f"the inputs of {name} have {sums[name].features} features: expected its {layers[name].inner} inputs"
            )
        found[name] = sums[name].components(min(most, sums[name].count - 1, layers[name].inner))
    # The largest shares of all; of equal ones, as of modules that have the same inputs, each module's first come first.
    every = [(-each, i, name) for name, pca in found.items() for i, each in enumerate(pca.explained_variance_ratio)]
    shares = sorted((each for each in every if each[0] < 0), key=lambda each: each[:2])
    if found and not shares:
        raise InputError(f"the inputs of {next(iter(found))} are all alike: expected some that differ")
    ranks = Counter(name for _, _, name in shares[: rank * len(found)])
    pairs = {}
    for name in named:
        if not ranks[name]:
            continue
        pca, dtype = found[name], _dtype(tensors.dtype(layers[name].weight))
        A = pca.components[: ranks[name]]
        if whiten:
            A = A / (pca.explained_variance[: ranks[name], None] * pca.count) ** 0.25
        B = np.zeros((layers[name].out, ranks[name]))
        pairs[name] = Pair(A.astype(dtype), B.astype(dtype), scaling, layers[name].transposed)
    return pairs


def _summed(name: str, inputs: Any) -> StreamingGram:
    """The centred sums of a module's inputs."""
    if not isinstance(inputs, StreamingGram):
        try:
            return StreamingGram(center=True).update(_array(inputs))
        except InputError as error:
            raise InputError(f"the inputs of {name}: {error}") from error
    found = copy.copy(inputs)  # whose sums stay what they are, whatever is read from them
    found.center = True
    return found


def _array(x: Any) -> Any:
    """A torch tensor as NumPy's, without its history; bfloat16 as float32."""
    if not hasattr(x, "detach"):
        return x
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() and x.element_size() < 4 else x).numpy()


def _listened(base: Any, loader: Any, names: list[str]) -> dict[str, StreamingGram]:
    """The sums of what goes into the modules while the network is called with each batch of a loader."""
    if not hasattr(base, "named_modules"):
        raise InputError(
            f"data is {shown(loader)}, and base no torch.nn.Module that could be called with it: expected a mapping "
            "from modules to their inputs"
        )
    import torch

    sums = {name: StreamingGram(center=True) for name in names}
    mask: Any = None

    def listener(name: str) -> Any:
        def hear(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            x = given[0] if given else next(iter(named.values()))
            kept = x[mask] if mask is not None and x.shape[:-1] == mask.shape else x
            try:
                sums[name].update(_array(kept.reshape(-1, x.shape[-1])))
            except InputError as error:
                raise InputError(f"the inputs of {name}: {error}") from error

        return hear

    def call(batch: Any) -> None:
        if isinstance(batch, Mapping):
            base(**{name: each.to(device) if hasattr(each, "to") else each for name, each in batch.items()})
        else:
            first = batch[0] if isinstance(batch, (tuple, list)) else batch
            base(torch.as_tensor(first).to(device))

    modules = dict(base.named_modules())
    device = next((each.device for each in base.parameters()), torch.device("cpu"))
    hooks = (partial(modules[name].register_forward_pre_hook, listener(name), with_kwargs=True) for name in names)
    with evaluating(base), hooked(*hooks):
        for i, batch in enumerate(_batches(loader)):
            try:
                mask = _seen(batch) if isinstance(batch, Mapping) else None
                call(batch)
            except GpunetError:
                raise
            except Exception as error:
                raise InputError(
                    f"the network cannot be called with batch {i} of data ({first_line(error)}): expected what it "
                    "takes, a tensor, a list that begins with one, or a dictionary of its forward's arguments"
                ) from error
    return sums


def _batches(loader: Any) -> Iterator[Any]:
    """Those of a loader; InputError for what is none, or fails."""
    try:
        if isinstance(loader, (str, bytes)):
            raise TypeError("it is a text")
        yield from loader
    except GpunetError:
        raise
    except Exception as error:
        raise InputError(
            f"data is {shown(loader)}, which gives no batches ({first_line(error)}): expected a loader"
        ) from error


def _seen(batch: Mapping[str, Any]) -> Any:
    """Which places of a batch of texts count; None for all."""
    mask, labels, ids = (batch.get(name) for name in ("attention_mask", "labels", "input_ids"))
    mask = None if mask is None else mask.bool()
    if labels is not None and ids is not None and labels.shape == ids.shape:
        said = labels != -100
        mask = said if mask is None else mask & said
    return mask


# -- what is done with adapters ---------------------------------------------------------------------------------------


def resize(adapter: Adapter, rank: int | None = None, energy: float | None = None) -> Adapter:
    """The adapter at a lower rank: for each module the nearest to scaling · B A that there is.

    rank: of every pair, where it has more. energy: as many triples as hold this share of ‖scaling · B A‖_F², at most
    `rank`. The truncated SVD from QR factorisations of B and Aᵀ and the SVD of R_B R_Aᵀ (r, r) in float64: B A is never
    formed. Scaling is 1 afterwards. Arrays are float32, or float64 where they were: halves would be rounded once more.

    Raises InputError where no pair has a higher rank, and for an adapter that PEFT takes out of its base (PiSSA).
    """
    adapter = check_plain(adapter)
    rank, energy = _check_rank(rank, energy)
    if rank is not None and rank > (highest := max(adapter.ranks.values())):
        raise InputError(f"rank is {rank}: expected at most {highest}, the adapter's; more would hold nothing more")
    pairs = {}
    for name, pair in adapter.pairs.items():
        left, right = pair.factors
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            raise DataError(f"the pair of {name} holds NaN or infinity: expected finite numbers")
        (q, r), (p, t) = np.linalg.qr(left), np.linalg.qr(right.T)
        with np.errstate(over="ignore", invalid="ignore"):
            core = r @ t.T
        if not np.isfinite(core).all():
            raise DataError(f"the change of {name} is beyond float64: expected one of an ordinary size")
        found = _leading(core, np.float64, rank, energy, certify=True)
        root = np.sqrt(found.s)
        dtype = np.float64 if pair.A.dtype == np.float64 else np.float32
        with np.errstate(over="ignore"):
            new = (q @ (found.u * root)).astype(dtype), (root[:, None] * (found.vt @ p.T)).astype(dtype)
        if not all(np.isfinite(each).all() for each in new):
            raise DataError(f"{name} has factors beyond {np.dtype(dtype)}: expected a change of an ordinary size")
        kept = len(root)
        B, A = new[0].reshape(-1, kept, *pair.B.shape[2:]), new[1].reshape(kept, *pair.A.shape[1:])
        # ‖B A − B'A'‖_F = ‖[B, −B'] [A; A']‖_F, again without a product of all rows and columns
        both = np.hstack([left, -new[0]]), np.vstack([right, new[1]]).T
        b, a = (np.linalg.qr(each).R for each in both)
        error = norm(b @ a.T) / (norm(core) or 1.0)
        pairs[name] = replace(pair, A=A, B=B, scaling=1.0, error=error, certificate=found.certificate)
    return replace(adapter, pairs=pairs, config={**adapter.config, "use_rslora": False})


def merge(base: Any, adapter: Adapter, path: str | Path | None = None) -> Any:
    """The weights of `base` with the adapter's changes added, and its saved tensors in place of the base's.

    path: where they are written, a tensor at a time: a .safetensors file, or a folder for shards of 5 GB with an index.
    None returns those that change as a dictionary name → array instead. Dtypes stay the base's; a sum is rounded once.

    Raises DataError for modules that the base lacks, ShapeError for other shapes, OutputError where nothing can be
    written.
    """
    return _moved(base, check_plain(adapter), 1.0, path)


def residual(base: Any, adapter: Adapter, path: str | Path | None = None) -> Any:
    """The weights of `base` without the adapter's changes: what PiSSA trains beside its adapter; else as `merge`."""
    return _moved(base, check_plain(adapter), -1.0, path)


def _moved(base: Any, adapter: Adapter, sign: float, path: Any) -> Any:
    tensors = Tensors.open(base)
    check_exact(tensors)
    # One setting says of all of an adapter's weights that they are stored (in, out); the classes say it of each.
    known = layers_of(base, tensors, False) if hasattr(base, "named_modules") else {}
    changes = {
        name + WEIGHT: replace(pair, transposed=known[name].transposed if name in known else pair.transposed)
        for name, pair in adapter.pairs.items()
    }
    saved = {name.replace(".base_layer.", "."): each for name, each in adapter.saved.items()} if sign > 0 else {}
    for name, each in {**changes, **saved}.items():
        if tensors.shape(name) != each.shape:  # which also says where it has none
            raise ShapeError(f"{name} has shape {tensors.shape(name)} in {tensors}: the adapter's is {each.shape}")

    def made(name: str) -> Any:
        if name in saved and not np.isfinite(saved[name]).all():
            raise DataError(f"the adapter's saved {name} holds NaN or infinity: expected finite numbers")
        weight = saved[name] if name in saved else check_finite(tensors.read(name), tensors, name)
        with np.errstate(over="ignore", invalid="ignore"):
            if name in changes:
                weight = weight.astype(np.float64) + sign * changes[name].delta()
            found = _rounded(weight, tensors.dtype(name))
        if not np.isfinite(found).all():
            raise DataError(f"{name} as the adapter has it is beyond {found.dtype}: expected a base of a wider dtype")
        return found

    if path is None:
        return {name: made(name) for name in tensors.names if name in changes or name in saved}
    target = check_path("path", path)
    whole = target.suffix == ".safetensors"
    # A model of ours stays one, its digest that of the new file; of shards each would say that it were the model.
    metadata = {key: text for key, text in tensors.metadata.items() if whole or key not in (KEY, SEAL)}
    entries = [
        Entry(name, tensors.dtype(name), tensors.shape(name), partial(made, name))
        if name in changes or name in saved
        else tensors.entry(name)
        for name in tensors.names
    ]
    write(target, entries, {"format": "pt", **metadata}, 0 if whole else SHARD_BYTES)
    return None


def _rounded(exact: Any, dtype: str) -> Any:
    """In another dtype, rounded once: bfloat16 too, to which ml_dtypes comes from float64 over float32.

    There what is not exact is first rounded to the odd neighbour (Boldo & Melquiond 2008), which is no tie.
    """
    if dtype != "bfloat16" or exact.dtype != np.float64:
        return exact.astype(dtype)
    near = exact.astype(np.float32)
    bits = near.view(np.uint32)
    off = (near != exact) & ~np.isnan(exact)
    bits -= off & (abs(near) > abs(exact))
    bits |= off
    return near.astype(dtype)
