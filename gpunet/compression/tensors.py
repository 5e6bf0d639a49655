"""Tensors of anybody's network, one at a time: of a safetensors file, a folder of shards, or what is in memory."""

from __future__ import annotations

import difflib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpunet.checks import has, on_host
from gpunet.errors import DataError, InputError, OutputError, shown
from gpunet.files import alone, check_path, reason, writable_folder
from gpunet.limits import DAMAGE, read_json
from gpunet.tensorfile import NAMES, Entry, Header, as_dtype, header, refuse_foreign, write_together

INDEX = ".safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # of a shard, as Hugging Face has it
EXPECTED = "a .safetensors file or a folder of them"
# How the names of tensors end that stand where a quantised module had its weight, or beside it.
QUANTISED = {
    ".qweight": "packed integers, of GPTQ or AWQ", ".SCB": "8-bit integers, of bitsandbytes",
    ".weight.absmax": "4-bit numbers, of bitsandbytes", ".weight.quant_map": "4-bit numbers, of bitsandbytes",
    ".weight_packed": "packed integers, of compressed-tensors", ".weight_scale": "scaled integers or float8",
    ".weight_scale_inv": "scaled integers or float8",
}  # fmt: skip


class Tensors(ABC):
    """Names, shapes and dtypes of a network's tensors; each is read when it is asked for.

    names: in the order in which they lie. metadata: of the file; files: those that it is of; sharded: whether they have
    an index. Nothing of these where the tensors are in memory.
    """

    names: Collection[str]
    metadata: dict[str, str]
    files: Sequence[Path] = ()
    sharded: bool = False

    @staticmethod
    def open(source: Any) -> Tensors:
        """Of a path, a mapping name → array (NumPy's, PyTorch's, anything with `__array__`) or a torch.nn.Module.

        A path is that of a safetensors file, of an index of shards, `….safetensors.index.json`, or of a folder with one
        such index, or else one such file, in it. No tensor is read yet.

        Raises DataError for files that are missing, damaged, or pickles, which can run any code when they are read; it
        says how to convert those. InputError for other things.
        """
        if isinstance(source, Tensors):
            return source
        if isinstance(source, Mapping):
            return _Held(dict(source), "the mapping")
        if not isinstance(source, type) and has(source, "state_dict") and has(source, "named_modules"):
            return _Held(dict(source.state_dict()), f"the {type(source).__name__}")
        try:
            return _opened(check_path("source", source))
        except InputError as error:
            if isinstance(source, (str, Path)):
                raise
            raise InputError(
                f"source is {shown(source)}: expected a path, a mapping from names to arrays, or a torch.nn.Module"
            ) from error

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def _look(self, name: str) -> tuple[str, tuple[int, ...]]:
        """The dtype and the shape."""

    @abstractmethod
    def _read(self, name: str) -> Any: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; DataError for a name that there is none of, as below."""
        return self._look(self._known(name))[1]

    def dtype(self, name: str) -> str:
        """NumPy's name of the dtype that is stored, "float32" or "bfloat16"; "F4" and the like for what it has none."""
        return self._look(self._known(name))[0]

    def read(self, name: str) -> Any:
        """The tensor on the host: of a file an array of its own; bfloat16 and float8 are those of ml_dtypes.

        DataError where the file was changed meanwhile, or no array can hold the dtype.
        """
        return self._read(self._known(name))

    def entry(self, name: str) -> Entry:
        """The tensor as it stands, to be written again."""
        dtype, shape = self._look(self._known(name))
        return Entry(name, dtype, shape, lambda: self._read(name))

    def nbytes(self, name: str) -> int:
        """Bytes that a tensor takes."""
        return self.entry(name).nbytes

    def quantised(self) -> dict[str, str]:
        """Modules whose weights are quantised, which nothing here can decompose, and how.

        Told by dtypes of fewer than 16 bits, and by the names that the usual libraries give.
        """
        found: dict[str, str] = {}
        for name in self.names:
            dtype = self._look(name)[0]
            if dtype.startswith("float8") or dtype not in NAMES:
                found.setdefault(name.rpartition(".")[0], dtype)
            for ending, kind in QUANTISED.items():
                if name.endswith(ending):
                    found.setdefault(name.removesuffix(ending), kind)
        return found

    def near(self, name: str) -> str:
        """In words, names that one which there is none of may have meant."""
        parts = difflib.get_close_matches(
            name.strip("!*?.").rpartition(".")[2], {part for each in self.names for part in each.split(".")}, 1
        )
        close = difflib.get_close_matches(name, self.names, 3, 0.5) or [
            each for each in self.names if parts and parts[0] in each.split(".")
        ]
        some = (close or list(self.names))[:3]
        if not some:
            return "it has none at all"
        return f"{'near to it are' if close else 'it has'} {', '.join(some)}{', …' if len(self.names) > 3 else ''}"

    def _known(self, name: str) -> str:
        if name not in self.names:
            raise DataError(f"{self} has no tensor {shown(name)}: {self.near(str(name))}")
        return name


class _Held(Tensors):
    """Tensors in memory."""

    def __init__(self, tensors: dict[Any, Any], what: str) -> None:
        self._tensors, self._what, self.metadata = tensors, what, {}
        for name, tensor in tensors.items():
            if not isinstance(name, str) or not (has(tensor, "shape") and has(tensor, "dtype")):
                raise InputError(f"{what} holds {shown(tensor)} as {shown(name)}: expected arrays by their names")
            if getattr(tensor, "is_meta", False):
                raise InputError(f"{name} of {what} lies on the meta device and has no numbers: load them first")
            if "strided" not in str(getattr(tensor, "layout", "strided")):
                raise InputError(f"{name} of {what} is sparse: expected dense numbers; convert it with .to_dense()")
        self.names = tensors.keys()

    def __str__(self) -> str:
        return self._what

    def _look(self, name: str) -> tuple[str, tuple[int, ...]]:
        tensor = self._tensors[name]
        dtype = getattr(tensor.dtype, "name", tensor.dtype)  # NumPy's without the order of bytes
        return str(dtype).removeprefix("torch."), tuple(map(int, tensor.shape))

    def _read(self, name: str) -> Any:
        tensor, what = self._tensors[name], f"{name} of {self._what}"
        if has(tensor, "detach"):  # PyTorch's, which has dtypes that its way to NumPy has not
            return from_torch(tensor)
        array = on_host(tensor, what)
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def from_torch(tensor: Any) -> Any:
    """A tensor's numbers on the host; bfloat16 and float8 are those of ml_dtypes."""
    tensor = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
    name = str(tensor.dtype).removeprefix("torch.")
    if name != "bfloat16" and not name.startswith("float8"):
        return tensor.numpy()
    import torch

    bits = torch.int16 if name == "bfloat16" else torch.uint8
    return tensor.view(bits).numpy().view(as_dtype(name))


class _Stored(Tensors):
    """Tensors of files."""

    def __init__(self, path: Path, headers: Sequence[Header]) -> None:
        self.path, self.sharded = path, path.name.endswith(INDEX)
        self.files = [each.path for each in headers]
        self._at: dict[str, Header] = {}
        self.metadata = {}
        for each in headers:
            if twice := sorted(self._at.keys() & each.tensors.keys()):
                raise DataError(
                    f"{twice[0]} is in '{self._at[twice[0]].path.name}' and in '{each.path}': expected once"
                )
            self._at |= dict.fromkeys(each.tensors, each)
            self.metadata = each.metadata | self.metadata
        self.names = self._at.keys()

    def __str__(self) -> str:
        return f"'{self.path}'"

    def _look(self, name: str) -> tuple[str, tuple[int, ...]]:
        stored = self._at[name].tensors[name]
        return stored.dtype, stored.shape

    def _read(self, name: str) -> Any:
        return self._at[name].read(name)

    def entry(self, name: str) -> Entry:
        """As it stands, whatever its dtype."""
        dtype, shape = self._look(self._known(name))
        found = self._at[name]
        if dtype in NAMES:
            return Entry(name, dtype, shape, lambda: found.read(name))
        return Entry(name, dtype, shape, lambda: found.raw(name), found.tensors[name].nbytes)


def _opened(path: Path) -> Tensors:
    """A file, an index, or what is in a folder."""
    try:
        if path.is_dir():
            path = _in_folder(path)
        if path.name.endswith(INDEX):
            return _Stored(path, _shards(path))
        _refuse(path)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {reason(error)}") from error
    return _Stored(path, [header(path, expected=EXPECTED)])


def _in_folder(folder: Path) -> Path:
    """The index that is in a folder, or the one safetensors file."""
    there = sorted(folder.iterdir())
    for ending in (INDEX, ".safetensors"):
        found = [each for each in there if each.name.endswith(ending)]
        if len(found) > 1:
            raise DataError(
                f"'{folder}' has {found[0].name}, {found[1].name}{', …' * (len(found) > 2)}: name one of them"
            )
        if found:
            return found[0]
    for each in there:
        _refuse(each)
    raise DataError(f"'{folder}' has no .safetensors file in it: expected {EXPECTED}")


def _shards(index: Path) -> list[Header]:
    try:
        shards: dict[str, list[str]] = {}
        for name, file in read_json(index)["weight_map"].items():
            if Path(file).name != file or not file.endswith(".safetensors"):
                raise ValueError(f"{shown(file)} is no name of a safetensors file beside it")
            shards.setdefault(file, []).append(name)
        if not shards:
            raise ValueError("it names no tensors")
    except FileNotFoundError as error:
        raise DataError(f"there is no file '{index}': expected {EXPECTED}") from error
    except (OSError, *DAMAGE) as error:
        raise DataError(f"'{index}' is no index of shards: {error}; get another copy") from error
    for file in sorted(shards):
        _refuse(index.with_name(file))
    found = [header(index.with_name(file), expected="a shard that the index names") for file in sorted(shards)]
    for each in found:
        if missing := [name for name in shards[each.path.name] if name not in each.tensors]:
            raise DataError(f"'{each.path}' has no {missing[0]}, which the index says it has: get another copy")
    return found


def _refuse(path: Path) -> None:
    if path.is_file():
        refuse_foreign(path, EXPECTED)


# -- writing ----------------------------------------------------------------------------------------------------------


def write(
    path: Path, entries: Sequence[Entry], metadata: Mapping[str, str] | None = None, shard_bytes: int = 0,
    texts: Mapping[Path, Callable[[], str]] | None = None,
) -> list[Path]:  # fmt: skip
    """Write tensors, one in memory at a time, to a file; or, with shard_bytes > 0, to shards in a folder `path`.

    Shards are named and indexed as Hugging Face's are, none larger than that unless one tensor is; what a folder holds
    already must be no checkpoint. texts: files that belong to them. All appear at the end, or none; see
    `gpunet.tensorfile.write`. Returns the paths, that which is to be opened first.
    """
    metadata, texts = metadata or {}, texts or {}
    if not shard_bytes:
        write_together([(path, entries, metadata)], texts)
        return [path]
    groups: list[list[Entry]] = [[]]
    for each in entries:
        if groups[-1] and sum(other.nbytes for other in groups[-1]) + each.nbytes > shard_bytes:
            groups.append([])
        groups[-1].append(each)
    names = [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
    total = sum(each.nbytes for each in entries)
    places = {each.name: name for name, group in zip(names, groups, strict=True) for each in group}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    last = path / f"model{INDEX}"
    files = [(path / name, group, metadata) for name, group in zip(names, groups, strict=True)]
    writable_folder(path)
    with alone(path):  # which removes it again where it was made for nothing
        if old := [each.name for each in sorted(path.iterdir()) if each.name.endswith((".safetensors", INDEX))]:
            raise OutputError(f"'{path}' has {old[0]} in it already: choose another folder with --out")
        write_together(files, {**texts, last: lambda: json.dumps(index, indent=2, ensure_ascii=False) + "\n"})
    return [last, *(path / name for name in names)]
