"""An adapter: for some modules of a network a change of low rank, and the files that PEFT keeps of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.checks import MOST, is_number, is_whole
from gpunet.compression.lora.patterns import compiled
from gpunet.compression.tensors import Tensors
from gpunet.errors import DataError, InputError, ShapeError, shown
from gpunet.files import alone, check_path, writable_folder
from gpunet.limits import DAMAGE, read_json
from gpunet.linalg import Certificate
from gpunet.linalg.matrix import Floats
from gpunet.reprs import sizes
from gpunet.tensorfile import Entry, write_together

CONFIG, TENSORS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."  # of every name in PEFT's files
PARTS = {
    ".lora_A.weight": "A", ".lora_B.weight": "B", ".lora_embedding_A": "A", ".lora_embedding_B": "B",
}  # fmt: skip
FLOATS = ("float32", "float64", "float16", "bfloat16")
# Settings under which a change is not scaling · B A alone: DoRA depends on the base's norms, and so on.
VARIANTS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "target_parameters", "layer_replication", "arrow_config",
    "kasa_config", "monteclora_config", "velora_config", "alora_invocation_tokens", "trainable_token_indices",
)  # fmt: skip
ANEW = ("pissa", "olora", "corda", "loftq", "lora_ga")  # PEFT changes the base, too, before it adds one of these


@dataclass(frozen=True, eq=False)
class Pair:
    """The change of one module's weight, scaling · B A.

    A: (r, in), of a convolution (r, in, *kernel); B: (out, r), of a convolution (out, r, 1, …). Of an embedding `in`
    counts its rows, and `out` is their length. scaling: alpha/r, or alpha/√r after use_rslora.
    transposed: the weight is stored (in, out), as those of embeddings and of transformers' Conv1D are.
    error: ‖M − scaling B A‖_F / ‖M‖_F of the matrix M that the pair was made from, A and B as they are stored;
    certificate: what is shown of the leading singular triples of M, rounded to the dtype of A and B. None where the
    pair was read from a file.
    """

    A: Any = field(repr=False)
    B: Any = field(repr=False)
    scaling: float
    transposed: bool = False
    embedding: bool = False
    error: float | None = None
    certificate: Certificate | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        off = "" if self.error is None else f", off by {self.error:.3g}"
        return f"<Pair: {self.scaling:g} · B {sizes(self.B)} A {sizes(self.A)}{off}>"

    @property
    def rank(self) -> int:
        """r."""
        return int(self.A.shape[0])

    @property
    def factors(self) -> tuple[Floats, Floats]:
        """scaling · B, (out, r), and A, (r, in · kernel), in float64."""
        left, right = (np.asarray(each).astype(np.float64) for each in (self.B, self.A))
        return self.scaling * left.reshape(len(left), -1), right.reshape(len(right), -1)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the module's weight."""
        out, inner = self.B.shape[0], self.A.shape[1:]
        return (*inner, out) if self.transposed else (out, *inner)

    def delta(self) -> Floats:
        """scaling · B A in float64, shaped as the module's weight is stored."""
        left, right = self.factors
        found = left @ right
        return found.T if self.transposed else found.reshape(self.shape)


@dataclass(eq=False)
class Adapter:
    """Changes of low rank by the names of their modules, and what else PEFT's files hold.

    pairs: module → `Pair`. config: PEFT's settings, those that only PEFT knows, too; yours to edit. What it says of
    ranks is written anew when the pairs have others. saved: tensors that take the place of the base's, by their names
    in PEFT's files without "base_model.model.": whole modules of modules_to_save, biases.
    left: what `extract` found to differ and did not take.

    >>> import numpy as np, gpunet as gn
    >>> base = {"mlp.up.weight": np.eye(6, dtype="float32")}
    >>> tuned = {"mlp.up.weight": base["mlp.up.weight"] + np.outer(np.arange(6), np.ones(6)).astype("float32")}
    >>> adapter = gn.lora.extract(base, tuned, rank=1)
    >>> adapter.save("adapter")
    >>> bool(np.allclose(gn.lora.load("adapter").delta("mlp.up"), np.outer(np.arange(6), np.ones(6)), atol=1e-6))
    True
    """

    pairs: dict[str, Pair]
    config: dict[str, Any]
    saved: dict[str, Any] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def __repr__(self) -> str:
        ranks = [f"{name}: {rank}" for name, rank in self.ranks.items()]
        return f"<Adapter, ranks {', '.join(ranks[:3])}{', …' * (len(ranks) > 3)}>"

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each module's pair."""
        return {name: pair.rank for name, pair in self.pairs.items()}

    def delta(self, module: str) -> Floats:
        """How the module's weight changes, in its shape, float64; InputError for a module without a pair."""
        if not isinstance(module, str) or module not in self.pairs:
            known = ", ".join(list(self.pairs)[:3]) + ", …" * (len(self.pairs) > 3)
            raise InputError(f"module is {shown(module)}: expected one that the adapter changes: {known}")
        return self.pairs[module].delta()

    def save(self, folder: str | Path) -> None:
        """Write PEFT's two files into a folder, which is made where there is none; both appear, or neither.

        `peft.PeftModel.from_pretrained(model, folder)` reads them. Tensors keep their dtypes. Raises OutputError where
        they cannot be written, InputError for a `config` that JSON cannot hold.
        """
        place = check_path("folder", folder)
        arrays: dict[str, Any] = {}
        for name, pair in self.pairs.items():
            ends = (
                (".lora_embedding_A", ".lora_embedding_B") if pair.embedding else (".lora_A.weight", ".lora_B.weight")
            )
            arrays |= {f"{PREFIX}{name}{ends[0]}": pair.A, f"{PREFIX}{name}{ends[1]}": pair.B}
        arrays |= {f"{PREFIX}{name}": array for name, array in self.saved.items()}
        _check_arrays(arrays)
        try:
            # Sorted as PEFT's, but not what is within them: of patterns the first that fits is meant.
            text = json.dumps(dict(sorted(with_ranks(self.config, self.pairs).items())), indent=2, allow_nan=False)
        except (re.error, *DAMAGE) as error:
            raise InputError(
                f"config cannot be written ({error}): expected PEFT's settings, of texts, numbers, lists"
            ) from error
        place = writable_folder(place, TENSORS, CONFIG, hint="")
        entries = [Entry(name, a.dtype.name, a.shape, partial(np.asarray, a)) for name, a in arrays.items()]
        with alone(place, hint=""):  # which removes it again where it was made for nothing
            write_together([(place / TENSORS, entries, {"format": "pt"})], {place / CONFIG: lambda: text})


def _check_arrays(arrays: Mapping[str, Any]) -> None:
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"the adapter has {shown(array)} as {name}: expected a NumPy array")


def check_plain(adapter: Any) -> Adapter:
    """An adapter whose pairs are all that it does to the weights; InputError otherwise."""
    if not isinstance(adapter, Adapter) or not adapter.pairs:
        raise InputError(
            f"adapter is {shown(adapter)}: expected an Adapter with pairs, from gpunet.lora.load(folder), say"
        )
    _check_arrays(adapter.saved)
    way = str(adapter.config.get("init_lora_weights")).lower()
    if way.startswith(ANEW):
        raise InputError(
            f"the adapter's init_lora_weights is '{way}': PEFT takes its start out of the base each time it loads it; "
            "have PEFT save it with path_initial_model_for_weight_conversion first"
        )
    return adapter


# -- what PEFT's settings say of ranks --------------------------------------------------------------------------------


def _matching(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """As PEFT looks a module up in rank_pattern and alpha_pattern: the first that fits its name, or its name's end."""
    for pattern, value in patterns.items():
        if compiled(pattern)(module):
            return value
    return default


def settings_of(config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """The rank and the scaling that the settings give a module."""
    rank = _matching(config.get("rank_pattern") or {}, module, config["r"])
    alpha = _matching(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def with_ranks(config: Mapping[str, Any], pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """The settings, as they are where they give each module its pair's rank and scaling, else with those of the pairs.

    r is then the largest rank, by which programs that serve adapters take memory; others are patterns, which begin
    with ^ since PEFT looks for them at the ends of names, too.
    """
    wanted = {name: (pair.rank, float(pair.scaling)) for name, pair in pairs.items()}
    if not wanted or (
        {"r", "lora_alpha"} <= config.keys() and all(settings_of(config, name) == each for name, each in wanted.items())
    ):
        return dict(config)

    def alpha(rank: int, scaling: float) -> float:
        found = scaling * (math.sqrt(rank) if config.get("use_rslora") else rank)
        return int(found) if found.is_integer() else found

    rank, scaling = max(wanted.values())
    most = alpha(rank, scaling)
    ranks = {f"^{re.escape(name)}": each for name, (each, _) in wanted.items() if each != rank}
    alphas = {f"^{re.escape(name)}": alpha(*each) for name, each in wanted.items() if alpha(*each) != most}
    return {**config, "r": rank, "lora_alpha": most, "rank_pattern": ranks, "alpha_pattern": alphas}


# -- reading ----------------------------------------------------------------------------------------------------------


def load(folder: str | Path) -> Adapter:
    """The adapter in a folder that PEFT has saved, or `Adapter.save`; arrays have the dtypes that are stored.

    Raises DataError where its files are missing, damaged or a pickle, do not fit each other or hold NaN, and for what
    is not scaling · B A: another of PEFT's methods, DoRA and other variants of LoRA.
    """
    place = check_path("folder", folder)
    config = _config(place / CONFIG)
    there = place / TENSORS
    tensors = Tensors.open(place / PICKLE if not there.exists() and (place / PICKLE).exists() else there)
    halves: dict[str, dict[str, str]] = {}
    saved, embeddings = {}, set()
    for name in tensors.names:
        module, part = _split(name, str(there))
        if part is None:
            saved[module] = _finite(tensors.read(name), name, str(there))
        else:
            halves.setdefault(module, {})[part] = name
            embeddings |= {module} if "embedding" in name.removeprefix(PREFIX + module) else set()
    if not halves:
        raise DataError(f"'{there}' holds no lora_A: expected an adapter of PEFT's")
    pairs = {}
    for module, names in halves.items():
        if len(names) < 2:
            raise DataError(
                f"'{there}' has a lora_{next(iter(names))} of {module} alone: expected A and B; get another copy"
            )
        A, B = (_floats(tensors, names[part], str(there)) for part in "AB")
        rank, scaling = settings_of(config, module)
        if A.ndim < 2 or B.ndim != A.ndim or B.shape[2:] != (1,) * (A.ndim - 2) or not A.shape[0] == B.shape[1] == rank:
            raise DataError(
                f"'{there}': {module} has A {A.shape} and B {B.shape}, and {CONFIG} says rank {rank}: "
                "expected A (r, in) and B (out, r); get another copy"
            )
        embedding = module in embeddings
        transposed = embedding or (A.ndim == 2 and bool(config.get("fan_in_fan_out")))
        pairs[module] = Pair(A, B, scaling, transposed, embedding)
    return Adapter(pairs, config, saved)


def _split(name: str, where: str) -> tuple[str, str | None]:
    """The module and "A" or "B"; of what is no part of a pair its name, and None."""
    if not name.startswith(PREFIX):
        raise DataError(f"{where!r} has {shown(name)}: expected names that begin with '{PREFIX}', as PEFT's do")
    own = name.removeprefix(PREFIX)
    for ending, part in PARTS.items():
        if own.endswith(ending):
            return own.removesuffix(ending), part
    if re.search(r"(^|\.)(lora_|token_adapter\.)", own):
        raise DataError(f"{where!r} has {shown(own)}, of a variant of LoRA: expected lora_A and lora_B alone")
    return own, None


def _floats(tensors: Tensors, name: str, where: str) -> Any:
    if tensors.dtype(name) not in FLOATS:
        raise DataError(f"'{where}': {name} is stored as {tensors.dtype(name)}: expected floats of 16 bits or more")
    return _finite(tensors.read(name), name, where)


def _finite(found: Any, name: str, where: str) -> Any:
    if not np.isfinite(found).all():
        raise DataError(f"'{where}': {name} holds NaN or infinity: expected finite numbers; get another copy")
    return found


def _config(path: Path) -> dict[str, Any]:
    """PEFT's settings, those that matter here checked."""
    try:
        if path.exists() and not path.is_file():  # a named pipe would be waited for
            raise ValueError("it is no file")
        found = read_json(path)
        kind = found.get("peft_type")
        if kind != "LORA":
            raise DataError(f"'{path}' is of an adapter of kind {shown(kind)}: expected 'LORA'")
        if wrong := [name for name in VARIANTS if found.get(name)]:
            raise DataError(
                f"'{path}' has {wrong[0]} = {shown(found[wrong[0]])}: expected a change that is scaling · B A; "
                "merge this one with PEFT"
            )
        ranks, alphas = found.get("rank_pattern") or {}, found.get("alpha_pattern") or {}
        for pattern in (*ranks, *alphas):
            compiled(pattern)
        if lacking := [name for name in ("r", "lora_alpha") if found.get(name) is None]:
            raise ValueError(f"it has no {lacking[0]}")
        if not all(is_whole(each, 1, MOST) for each in (found["r"], *ranks.values())):
            raise ValueError("a rank is no whole number ≥ 1")
        if not all(is_number(each) and math.isfinite(each) for each in (found["lora_alpha"], *alphas.values())):
            raise ValueError("an alpha is no number")
    except (DataError, ShapeError):
        raise
    except FileNotFoundError as error:
        raise DataError(f"there is no file '{path}': expected the folder of an adapter that PEFT has saved") from error
    except (OSError, re.error, *DAMAGE) as error:
        raise DataError(f"'{path}' is not an adapter's configuration: {error}; get another copy") from error
    return dict(found)
