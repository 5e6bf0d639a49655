"""Every reader of the library, each with a small valid file, what it may be made of, and what it may not be taken for.

A file whose content is protected (by a checksum, a CRC, a seal) has to be read as what it was or not at all. One that
is not, or whose checksums were mended after the change, has to be read as what stands in it: `expected` reads it in
another way.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import math
import random
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import gpunet as gn
from gpunet.errors import DivergedError
from gpunet.nn.callbacks import Callback
from gpunet.tensorfile import BLANK, SEAL

from . import mutations
from .mutations import BYTES, GZIP, JSON, TENSORS, ZIP, Mutation

Files = dict[str, bytes]


@dataclass(frozen=True)
class Reader:
    """files: by path, of a seed; targets: those that are changed; load: reads a folder; expected: reads it otherwise.

    weight: how often it comes; protected: whether changes that mend no checksum may not be read as other data.
    """

    name: str
    files: Callable[[int], Files]
    load: Callable[[Path], Any]
    targets: tuple[str, ...]
    changes: Sequence[Mutation] = BYTES
    protected: bool = False
    expected: Callable[[Path], Any] | None = None
    weight: int = 10


def same(one: Any, other: Any) -> bool:
    """Whether two results are equal, arrays with dtype and shape, NaN with NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other) or (one != one and other != other)


# -- data sets --------------------------------------------------------------------------------------------------------

PARTS = ("x_train", "y_train", "x_test", "y_test")


def arrays(seed: int, shape: tuple[int, ...] = (3, 2)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = {part: (np.arange(n) % 3).astype(np.uint8) for part, n in (("y_train", 20), ("y_test", 8))}
    images = {part: rng.integers(0, 256, (n, *shape), dtype=np.uint8) for part, n in (("x_train", 20), ("x_test", 8))}
    return {part: (images | labels)[part] for part in PARTS}


def taken(data: Any) -> dict[str, np.ndarray]:
    """Its arrays, and labels as they stood in its file where they were numbers."""
    numbers = range(data.classes)
    if all(name.removeprefix("-").isdecimal() for name in data.names):
        numbers = [int(name) % 2**64 for name in data.names]
    original = np.array(numbers, np.uint64).view(np.int64)
    return {part: original[getattr(data, part)] if part[0] == "y" else getattr(data, part) for part in PARTS}


def as_taken(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a data set is made of such arrays."""
    out = {}
    for part, array in found.items():
        if part[0] == "y":
            out[part] = array.reshape(-1).astype(np.int64)
        else:
            flat = array.reshape(len(array), -1)
            flat = flat.astype(np.uint8) * np.uint8(255) if flat.dtype == bool else flat
            out[part] = flat if flat.dtype == np.uint8 else flat.astype(np.float32)
    return out


def idx_name(part: str) -> str:
    return f"{'train' if 'train' in part else 't10k'}-{'images-idx3' if part[0] == 'x' else 'labels-idx1'}-ubyte"


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_files(seed: int, packed: bool = False, folder: str = "set") -> Files:
    found = {f"{folder}/{idx_name(part)}": idx_bytes(array) for part, array in arrays(seed).items()}
    return {f"{name}.gz": gzip.compress(each, 1, mtime=0) for name, each in found.items()} if packed else found


def idx_expected(folder: Path, place: str = "set") -> dict[str, np.ndarray]:
    types = {8: "u1", 9: "i1", 0xB: ">i2", 0xC: ">i4", 0xD: ">f4", 0xE: ">f8"}
    found = {}
    for part in PARTS:
        (path,) = (folder / place).glob(f"{idx_name(part)}*")
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        shape = struct.unpack_from(f">{content[3]}I", content, 4)
        found[part] = np.frombuffer(content[4 + 4 * len(shape) :], types[content[2]]).reshape(shape)
    return as_taken(found)


def load(place: str) -> Callable[[Path], Any]:
    from gpunet.datasets import load as read

    return lambda folder: taken(read(folder / place))


def named(name: str) -> Callable[[Path], Any]:
    from gpunet.datasets import load as read

    def call(folder: Path) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "cifar10: only")
            return taken(read(name, data_dir=folder))

    return call


def npz_files(seed: int, save: Callable[..., None]) -> Files:
    out = io.BytesIO()
    save(out, **arrays(seed))
    return {"set.npz": out.getvalue()}


def npz_expected(folder: Path) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = np.load(folder / "set.npz", allow_pickle=False)
        return as_taken({part: found[part] for part in PARTS})


def cifar_files(seed: int) -> Files:
    rng = np.random.default_rng(seed)
    record = lambda n: bytes([n % 10]) + rng.bytes(3072)  # noqa: E731
    batches = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {f"cifar10/cifar-10-batches-bin/{name}.bin": b"".join(map(record, range(3))) for name in batches}


def cifar_expected(folder: Path) -> dict[str, np.ndarray]:
    place = folder / "cifar10" / "cifar-10-batches-bin"
    found = {}
    for split, names in (("train", [f"data_batch_{i}" for i in range(1, 6)]), ("test", ["test_batch"])):
        content = b"".join((place / f"{name}.bin").read_bytes() for name in names)
        records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        found |= {f"x_{split}": records[:, 1:], f"y_{split}": records[:, 0]}
    return as_taken({part: found[part] for part in PARTS})


def image_files(seed: int, suffix: str) -> Files:
    import PIL.Image

    rng, found = np.random.default_rng(seed), {}
    for name in ("cats", "dogs"):
        for i in range(5):
            out = io.BytesIO()
            PIL.Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)).save(out, suffix)
            found[f"set/{name}/{i}.{suffix}"] = out.getvalue()
    return found


def in_png(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A chunk has other content and the right checksum."""
    place, chunks = 8, []
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    i = rng.randrange(len(chunks) - 1)
    kind, body = chunks[i]
    how = rng.randrange(4)
    if how == 0 and kind == b"IDAT":
        body = zlib.compress(rng.choice(BYTES)(rng, zlib.decompress(body), ()))
    elif how == 1:
        chunks.insert(
            i + 1, (rng.choice((b"IDAT", b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"acTL", b"fcTL", kind)), rng.randbytes(9))
        )
    elif how == 2 and kind == b"IHDR":
        body = struct.pack(">IIBBBBB", *(rng.choice((0, 1, 6, 8, 2**15, 2**31 - 1)) for _ in range(2)),
                           *(rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255)) for _ in range(5)))  # fmt: skip
    else:
        body = rng.choice(BYTES)(rng, body, ())
    chunks[i] = kind, body
    whole = ((kind + body, len(body)) for kind, body in chunks)
    return content[:8] + b"".join(
        struct.pack(">I", n) + each + struct.pack(">I", zlib.crc32(each)) for each, n in whole
    )


def shapes_only(folder: Path) -> Any:
    """Of images that are packed with loss, or were put together anew."""
    return {part: (array.shape[1:], str(array.dtype)) for part, array in load("set")(folder).items()}


def cats_files(seed: int, **options: Any) -> Files:
    import h5py

    rng, found = np.random.default_rng(seed), {}
    for split, count in (("train", 3), ("test", 2)):
        out = io.BytesIO()
        with h5py.File(out, "w") as file:
            images = rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
            file.create_dataset(f"{split}_set_x", data=images, **options)
            file.create_dataset(f"{split}_set_y", data=np.arange(count) % 2, **options)
        found[f"cats/{split}_catvnoncat.h5"] = out.getvalue()
    return found


# -- what is fetched --------------------------------------------------------------------------------------------------

CLOSED = "http://127.0.0.1:9/"


def known(name: str, found: Files, archive: str = "") -> None:
    """Let the registry know these files as the data set's own, or the one of them that holds the others."""
    from gpunet.datasets import REGISTRY, RemoteFile

    def inner(content: bytes) -> bytes:
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" and not archive else content

    files, held = [], None
    for path, content in found.items():
        plain, path = inner(content), path.partition("/")[2]
        about = RemoteFile(path, len(plain), hashlib.sha256(plain).hexdigest())
        if path == archive:
            held = about
        else:
            files.append(about)
    entry = REGISTRY.get(name, REGISTRY["mnist"])
    REGISTRY[name] = replace(entry, name=name, files=tuple(files), mirrors=(CLOSED,), archive=held)


def tiny_files(seed: int) -> Files:
    contents = {"tiny/a.gz": bytes(range(256)) * 3, "tiny/b.gz": b"b" * 99}
    return {name: gzip.compress(content, mtime=0) for name, content in contents.items()}


def fetched(name: str) -> Callable[[Path], Any]:
    def call(folder: Path) -> Any:
        from gpunet.datasets import fetch, status

        found = status(name, data_dir=folder)
        paths = fetch(name, data_dir=folder, timeout=1.0)
        contents = [path.read_bytes() for path in paths]
        return [gzip.decompress(each) if each[:2] == b"\x1f\x8b" else each for each in contents], found.name

    return call


@cache
def archive_files(seed: int) -> Files:
    import tarfile

    found = {f"tiny-archive/in/{i}.bin": np.random.default_rng(seed + i).bytes(700) for i in range(2)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, content in found.items():
            member = tarfile.TarInfo(path.partition("/")[2])
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return {"tiny-archive/all.tar.gz": out.getvalue()}


def archive_known(found: Files) -> None:
    contents = {f"tiny-archive/in/{i}.bin": np.random.default_rng(i).bytes(700) for i in range(2)}
    known("tiny-archive", contents | found, "all.tar.gz")


# -- models -----------------------------------------------------------------------------------------------------------


def net() -> gn.Sequential:
    layers = [
        gn.Reshape((1, 4, 4)),
        gn.Conv2D(2, 3, "relu", pool=2),
        gn.Flatten(),
        gn.LowRankDense(4, 2, "relu"),
        gn.Dense(3),
    ]
    return gn.Sequential(layers)


def built(seed: int) -> gn.Sequential:
    model = net()
    model.build((16,), gn.get_backend("numpy"), seed=seed)
    return model


def model_files(seed: int) -> Files:
    from gpunet.nn.serialize import arrays_of, describe
    from gpunet.tensorfile import KEY, seal

    model = built(seed)
    return {"model.safetensors": bytes(seal(arrays_of(model), {KEY: describe(model)}))}


def torch_files(seed: int) -> Files:
    from safetensors.numpy import save

    return {"model.safetensors": save({name: np.asarray(a) for name, a in built(seed).parameters.items()})}


def model_load(folder: Path) -> Any:
    model = gn.load(folder / "model.safetensors", device="numpy")
    return {name: np.array(array) for name, array in model.parameters.items()}


def as_model(folder: Path) -> None:
    gn.load(folder / "run" / "checkpoint.safetensors", "numpy")


def torch_load(folder: Path) -> Any:
    from gpunet.nn.serialize import load_weights

    model = built(99)
    load_weights(model, folder / "model.safetensors")
    return {name: np.array(array) for name, array in model.parameters.items()}


def adapter_files(seed: int) -> Files:
    base = {f"layers.{i}.proj.weight": np.zeros((3, 4), np.float32) for i in range(2)} | {"norm.weight": np.zeros(3)}
    rng = np.random.default_rng(seed)
    tuned = {name: rng.standard_normal(each.shape).astype(each.dtype) for name, each in base.items()}
    found = gn.lora.extract(base, tuned, 2 + seed % 2)
    found.config["rank_pattern"] = {"nothing": 3}
    with tempfile.TemporaryDirectory() as place:
        found.save(place)
        return {each.name: each.read_bytes() for each in Path(place).iterdir()}


def adapter_load(folder: Path) -> Any:
    """What stands in the file, after all that can be made of it."""
    found = gn.lora.load(folder)
    for pair in gn.lora.resize(found, energy=0.9).pairs.values():
        pair.delta()
    found.save(folder / "again")
    return tensors(folder / "again", "adapter_model.safetensors")


def checkpoint_load(folder: Path) -> Any:
    from gpunet.compression.tensors import Tensors

    found = Tensors.open(folder / "model.safetensors")
    found.quantised()
    return {name: found.read(name).astype("f4") for name in found.names if "/" not in name}


def sharded_files(seed: int) -> Files:
    from safetensors.numpy import save

    arrays = {name: np.asarray(a) for name, a in built(seed).parameters.items()}
    names = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(arrays)}
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    shards = {file: save({n: a for n, a in arrays.items() if names[n] == file}) for file in set(names.values())}
    return {"s/model.safetensors.index.json": json.dumps(index).encode()} | {f"s/{n}": c for n, c in shards.items()}


def sharded_load(folder: Path) -> None:
    from gpunet.compression.tensors import Tensors

    found = Tensors.open(folder / "s")
    for name in found.names:
        found.read(name)


def tensors(folder: Path, name: str = "model.safetensors") -> Any:
    """Those of a safetensors file, read by hand."""
    content = (folder / name).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    dtype = json.loads(metadata["gpunet"])["dtype"] if "gpunet" in metadata else "float32"
    found = {}
    for name, about in header.items():
        start, stop = (8 + size + place for place in about["data_offsets"])
        kind = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": ml_dtypes.bfloat16}[about["dtype"]]
        if "/" not in name:
            found[name] = np.frombuffer(content[start:stop], kind).reshape(about["shape"]).astype(dtype)
    return found


@cache
def points() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.normal(size=(24, 16)).astype("float32"), np.arange(24) % 3


class Stop(Callback):
    """Ends the process' training before one step."""

    def __init__(self, at: tuple[int, ...] = ()) -> None:
        self.at = at

    def steps(self, total: int) -> Any:
        return self.at

    def on_step(self, trainer: Any, step: int) -> None:
        raise KeyboardInterrupt


def train(folder: Path, stop: tuple[int, ...] = (), seed: int = 3) -> Any:
    x, y = points()
    trainer = gn.Trainer(net(), optimizer=gn.Adam(0.01), device="numpy", seed=seed)
    callbacks = [gn.ExponentialDecay(0.9), gn.EarlyStopping("train_loss", 9), Stop(stop)]
    history = trainer.fit(x, y, epochs=3, batch_size=8, callbacks=callbacks, checkpoint=folder / "run",
                          checkpoint_every=0.4, resume=not stop)  # fmt: skip
    losses = [each["train_loss"] for each in history.epochs]
    if len(losses) > 3 or not all(math.isfinite(loss) for loss in losses):
        raise AssertionError(f"the losses are {losses}")
    return [{name: np.array(array) for name, array in trainer.model.parameters.items()}, losses]


def sealed_again(folder: Path) -> None:
    with contextlib.suppress(DivergedError), warnings.catch_warnings():  # of weights that are finite, and too large
        warnings.filterwarnings("ignore", ".* was written where other bits are computed")
        train(folder)


@cache
def checkpoint_files(seed: int) -> Files:
    """One in the middle of the second epoch of three."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        try:
            train(Path(name), (5,), 3 + seed)
        except KeyboardInterrupt:
            return {"run/checkpoint.safetensors": (Path(name) / "run" / "checkpoint.safetensors").read_bytes()}
    raise AssertionError("nobody stopped it")


def resealed(content: bytes) -> bytes:
    """The seal made right again, where it still has one."""
    import re

    found = re.search(rb'"%s":"([0-9a-f]{64})"' % SEAL.encode(), content)
    if not found:
        return content
    blank = bytearray(content)
    blank[slice(*found.span(1))] = BLANK.encode()
    blank[slice(*found.span(1))] = hashlib.sha256(blank).hexdigest().encode()
    return bytes(blank)


def in_sealed(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Changed anywhere, and sealed again."""
    change = rng.choice((*[mutations.in_safetensors] * 3, mutations.flip, mutations.extreme))
    return resealed(change(rng, content, others))


# -- results ----------------------------------------------------------------------------------------------------------


def made_result(experiment: str = "mine", seed: int = 0) -> bytes:
    from gpunet.experiments.result import Metric, Row
    from tests.report.page_folder import made

    rows = [Row("first", {"test_accuracy": Metric([0.5, 0.75]), "loss": Metric([1.25 + seed, 1.75])})]
    return json.dumps(made(experiment, rows=rows, curves={"first": {"loss": [3.0, 2.0]}}).to_json()).encode()


def page_files(seed: int) -> Files:
    from tests.report.page_folder import claims_json, made
    from tests.reproduce.small import png

    held = claims_json(one=made(), two=made(), three=("mine", "waiting", ""))
    found = {"claims.json": json.dumps(held).encode(), "one/figure.png": png()}
    return found | {"one/result.json": made_result(), "two/result.json": made_result(seed=1)}


def page_load(folder: Path) -> Any:
    from gpunet.report import page

    text = page.write(folder).read_text(encoding="utf-8")
    if "\x1b" in text or "\0" in text:
        raise AssertionError("the page has control characters")
    return None


@cache
def drawn_results() -> dict[str, bytes]:
    from tests.report.page_folder import svd_init, toy

    return {name: json.dumps(result.to_json()).encode() for name, result in (("svd-init", svd_init()), ("toy", toy()))}


def drawn_files(seed: int) -> Files:
    return {"result.json": list(drawn_results().values())[seed % 2]}


def claims_run(folder: Path, fresh: bool = False) -> Any:
    """`reproduce` with three small runs that compute nothing."""
    import pytest

    from gpunet.experiments.framework import Run
    from gpunet.report.claims_json import finished
    from gpunet.report.terminal import runs_table
    from gpunet.reproduce import plan
    from gpunet.reproduce.runner import Request, reproduce
    from tests.reproduce.small import Pretended, use_page, use_small

    pretended = Pretended()
    with pytest.MonkeyPatch.context() as patch:
        use_small(patch)
        use_page(patch, lambda folder: folder / "report.html")
        patch.setattr(plan, "code", lambda package: "the same")
        patch.setattr(Run, "carry_out", lambda *arguments: pretended.carry_out(*arguments))
        outcome = reproduce(Request(folder, quick=True, device="numpy", fresh=fresh))
    if outcome.problems or finished(folder) != (3, 3):
        raise AssertionError(f"{outcome.problems}, {finished(folder)} finished")
    out = io.StringIO()
    screen(out).print(runs_table(outcome.entries))
    if not all(line.isprintable() for line in out.getvalue().splitlines()):
        raise AssertionError(f"printed {out.getvalue()!r}")
    return None


@cache
def claims_files(seed: int) -> Files:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        claims_run(Path(name))
        return {str(path.relative_to(name)): path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}


def claims_load(folder: Path) -> Any:
    from gpunet.errors import GpunetError

    try:
        return claims_run(folder)
    except GpunetError:
        claims_run(folder, fresh=True)  # this always gets out of it
        raise


def bench_files(seed: int) -> Files:
    def entry(who: str, role: str, seconds: list[float]) -> Any:
        info = {"case": "small", "who": who, "role": role, "device": "cpu", "pieces": 10}
        return {"group": "step", "name": who, "stats": {"data": seconds}, "extra_info": info}

    benchmarks = [entry("numba", "ours", [0.01, 0.012, 0.011]), entry("torch", "rival", [0.022, 0.02 + seed])]
    return {"b.json": json.dumps({"machine_info": {"gpunet": {"cpu": "Xeon"}}, "benchmarks": benchmarks}).encode()}


def section_files(seed: int) -> Files:
    entries = {
        "numba": {"seconds": [1e-4, 1e-4 * (1 + seed)], "over": {"torch": [0.5, 0.4, 0.6]}, "notes": {"loss": 0.3}},
        "torch": {"role": "rival", "seconds": [2e-4, 3e-4]},
    }
    full = {"gpunet": {"seconds": [0.1]}, "numpy": {"role": "rival", "seconds": [0.3]},
            "scipy": {"role": "rival", "failed": "no"}}  # fmt: skip
    target = {"what": "seconds", "value": 1.0, "target": 2.0, "at_least": False, "met": True}
    sections = {
        "train": {"cases": {"784-10": {"entries": entries}}, "provenance": {"cpu": "Xeon"}, "rounds": 2},
        "svd": {"cases": {"4×4": {"entries": full}}, "provenance": {"gpu": "H"}, "targets": [target]},
    }
    return {"b.json": json.dumps({"sections": sections}).encode()}


def screen(out: io.StringIO) -> Any:
    """The terminal that the command line prints to."""
    from gpunet.report.terminal import Screen

    return Screen(file=out, width=150, markup=False, emoji=False, highlight=False)


def bench_load(folder: Path) -> Any:
    from gpunet.bench.report import report
    from gpunet.bench.results import read_sections
    from gpunet.report import bench_tables
    from gpunet.report.terminal import rich_table

    found = report([folder / "b.json"])
    json.dumps(json.loads(found.text()), allow_nan=False)
    out = io.StringIO()
    for table in bench_tables.tables(found):
        screen(out).print(rich_table(table))
    if not all(line.isprintable() for line in out.getvalue().splitlines()):
        raise AssertionError(f"printed {out.getvalue()!r}")
    if b'"sections"' in (folder / "b.json").read_bytes() and found.groups[0] != "step":
        read_sections(folder / "b.json")
    return None


# -- sweeps -----------------------------------------------------------------------------------------------------------


def sweep_run(storage: Path, seed: int = 0) -> Any:
    from gpunet.sweep import parse_parameter, search

    space = [parse_parameter("x=-1..2"), parse_parameter("kind=a,b")]
    return search("tests.hostile.readers:hill", {"a": 1}, space, trials=4, stages=2, seed=seed, storage=str(storage))


def hill(parameters: Any, settings: Any, report: Any) -> Any:
    return {"value": -abs(parameters["x"]), "size": 2.0}


@cache
def sweep_files(seed: int, name: str = "s.db") -> Files:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        sweep_run(Path(folder) / name, seed)
        return {name: (Path(folder) / name).read_bytes()}


def sweep_load(name: str) -> Callable[[Path], Any]:
    def call(folder: Path) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the journal .* was cut short in its last line")
            table = sweep_run(folder / name)
        if [row["number"] for row in table] != list(range(8)):
            raise AssertionError(f"the trials are {[row['number'] for row in table]}")
        for row in table:
            if row["state"] == "complete" and not math.isfinite(row["value"]):
                raise AssertionError(f"a value is {row['value']}")
        return None

    return call


def in_lines(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """One line of JSON is another one, or stands elsewhere."""
    lines = content.decode().splitlines()
    place = rng.randrange(len(lines))
    if rng.random() < 0.2:
        lines.insert(rng.randrange(len(lines)), lines.pop(place))
    else:
        lines[place] = mutations.change_json(rng, lines[place])
    return "\n".join([*lines, ""]).encode("utf-8", "surrogatepass")


# -- all of them ------------------------------------------------------------------------------------------------------


def readers() -> list[Reader]:
    """Every reader; the registry of data sets knows the small files from here on."""
    from gpunet.sweep import study

    study.SILENCE = (
        1.0  # seconds that a trial is left to the worker that a file says runs it, which may be this process
    )
    idx = tuple(idx_files(0))
    packed = tuple(idx_files(0, packed=True))
    kept_size = (mutations.flip, mutations.run_of_bytes, mutations.extreme, mutations.swap)
    pngs, npz = ("set/cats/1.png", "set/dogs/4.png"), "set.npz"
    mnist, cats = idx_files(0, packed=True, folder="mnist"), cats_files(0)
    mnist_of = lambda folder: idx_expected(folder, "mnist")  # noqa: E731
    known("mnist", mnist)
    known("cats", cats)
    known("tiny", tiny_files(0))
    archive_known(archive_files(0))
    weights = ("adapter_model.safetensors",)
    model, run = ("model.safetensors",), ("run/checkpoint.safetensors",)
    page, log = ("claims.json", "one/figure.png"), lambda seed: sweep_files(seed, "s.log")
    pages = (*JSON[4:], mutations.extreme, in_json_or_png)
    chunks = {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True}
    return [
        Reader("IDX", idx_files, load("set"), idx, expected=idx_expected),
        Reader("IDX.gz", lambda seed: idx_files(seed, True), load("set"), packed, GZIP, True, idx_expected),
        Reader(
            "mnist", lambda seed: idx_files(seed, True, "mnist"), named("mnist"), tuple(mnist), GZIP, True, mnist_of
        ),
        Reader("npz", lambda seed: npz_files(seed, np.savez), load(npz), (npz,), ZIP, True, npz_expected),
        Reader("npz packed", lambda s: npz_files(s, np.savez_compressed), load(npz), (npz,), ZIP, True, npz_expected),
        Reader("cifar10", cifar_files, named("cifar10"), tuple(cifar_files(0)), expected=cifar_expected),
        Reader("png", lambda seed: image_files(seed, "png"), load("set"), pngs, (*BYTES, *[in_png] * 5), True),
        Reader("jpeg", lambda seed: image_files(seed, "jpeg"), shapes_only, ("set/cats/1.jpeg",)),
        Reader("cats", cats_files, named("cats"), tuple(cats), kept_size, True, weight=1),
        Reader("cats packed", lambda seed: cats_files(seed, **chunks), named("cats"), tuple(cats), weight=1),
        Reader("fetched", tiny_files, fetched("tiny"), ("tiny/a.gz",), BYTES, True, weight=5),
        Reader("archive", archive_files, fetched("tiny-archive"), tuple(archive_files(0)), BYTES, True, weight=5),
        Reader("model", model_files, model_load, model, TENSORS, True),
        Reader("model, sealed again", model_files, model_load, model, (in_sealed,), expected=tensors),
        Reader("weights", torch_files, torch_load, model, TENSORS, expected=tensors, weight=5),
        Reader("somebody's checkpoint", torch_files, checkpoint_load, model, TENSORS, expected=tensors, weight=5),
        Reader("index of shards", sharded_files, sharded_load, ("s/model.safetensors.index.json",), JSON, weight=5),
        Reader("shards", sharded_files, sharded_load, ("s/model-0.safetensors",), TENSORS, weight=2),
        Reader("checkpoint", checkpoint_files, train, run, TENSORS, True, weight=5),
        Reader("checkpoint, sealed again", checkpoint_files, sealed_again, run, (in_sealed,)),
        Reader("checkpoint as model", checkpoint_files, as_model, run, (*TENSORS, in_sealed), weight=5),
        Reader(
            "adapter", adapter_files, adapter_load, weights, TENSORS, expected=lambda folder: tensors(folder, *weights)
        ),
        Reader("adapter's settings", adapter_files, adapter_load, ("adapter_config.json",), JSON, weight=5),
        Reader("result.json", page_files, page_load, ("one/result.json",), JSON),
        Reader("claims.json of a page", page_files, page_load, page, pages, weight=5),
        Reader("result.json drawn", drawn_files, page_load, ("result.json",), JSON, weight=1),
        Reader("claims.json", claims_files, claims_load, ("claims.json", "stack/result.json"), JSON, weight=5),
        Reader("benchmarks", bench_files, bench_load, ("b.json",), JSON),
        Reader("sections", section_files, bench_load, ("b.json",), JSON),
        Reader("sweep.db", sweep_files, sweep_load("s.db"), ("s.db",), (*BYTES, *[mutations.digits] * 3), weight=2),
        Reader("sweep.log", log, sweep_load("s.log"), ("s.log",), (*BYTES, *[in_lines] * 9), weight=5),
    ]


def in_json_or_png(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    return (in_png if content.startswith(b"\x89PNG") else mutations.in_json)(rng, content, others)
