"""A network in a file that can be run, one of ours or an ONNX graph, cut: `gpunet compress` with data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from gpunet.compression import onnxfile
from gpunet.compression.checkpoint import ALL_WHOLE, FORMAT, Written, plan_text
from gpunet.compression.compress import compress
from gpunet.compression.tensors import Tensors
from gpunet.errors import InputError, shown
from gpunet.files import check_path, check_replaceable, write_or_keep
from gpunet.limits import plain
from gpunet.nn.model import Sequential
from gpunet.nn.serialize import load, save
from gpunet.progress import Progress
from gpunet.tensorfile import KEY

GRAPH, OURS = ".onnx", ".safetensors"
NO_SMALLER = "no two factors of it are smaller"  # of a weight that a budget counts all the same
Arrays = Mapping[str, Any]


def runs(path: str) -> bool:
    """Whether the file holds a network that can be run, not weights alone. DataError for pickles and damaged files."""
    place = check_path("FILE", path)
    if place.suffix == GRAPH:
        return True
    return place.suffix == OURS and place.is_file() and KEY in Tensors.open(place).metadata


def compress_stored(
    path: str, out: str | Path, *, data: Arrays | None = None, evaluate: Arrays | None = None, device: str = "auto",
    bar: Progress | None = None, begin: Callable[[Path], object] = lambda plan: None, **asked: Any,
) -> Written:  # fmt: skip
    """Cut the network in a file and write it to `out`, a file of the same kind, with a plan in JSON beside it.

    data, evaluate: arrays by their names in an .npz: x and y, or x_train and y_train (x_test and y_test for evaluate);
    for an ONNX graph data may have those of its inputs. asked: budget and what else `gn.compress` takes. begin: as
    `compress_file` calls it. Raises what `gn.compress` does, and OutputError for what cannot be written.
    """
    target, source = check_path("out", out), check_path("FILE", path)
    if target.suffix != source.suffix:
        raise InputError(f"out is {shown(str(target))}: expected a path that ends in {source.suffix}, as what is read")
    plan = target.with_suffix(".json")
    for each in (target, plan):
        check_replaceable(each)
        if each.exists() and each.samefile(source):
            raise InputError(f"out is '{each}', which is what is read: choose another name")
    graph = source.suffix == GRAPH
    model = onnxfile.read(source) if graph else load(source, device)
    given = _pair(data, "train", model, named=graph) if data is not None else None
    if evaluate is not None:
        asked["evaluate"] = _pair(evaluate, "test", model)
    small = compress(model, given, progress=bar or Progress(), **asked)
    told = plain(onnxfile.told(small) if graph else small.compression)
    if all(each["rank"] is None for each in told["layers"]):
        raise InputError(ALL_WHOLE)
    said = {"format": FORMAT, "source": str(source), **told}
    begin(plan)
    if graph:
        onnxfile.write(target, small)
    else:
        save(small, target)
    said["bytes"] = [source.stat().st_size, target.stat().st_size]
    return Written(target, write_or_keep(plan, plan_text(said)), said)


def _pair(arrays: Arrays, part: str, model: Any, *, named: bool = False) -> Any:
    """(x, y), or x alone where there are no labels, or, where they are called as a graph's inputs, the arrays."""
    if named and arrays.keys() >= onnxfile.inputs(model).keys():
        return dict(arrays)
    for x, y in (("x", "y"), (f"x_{part}", f"y_{part}")):
        if x in arrays:
            samples = arrays[x]
            for name in (x, y):
                if name in arrays and not arrays[name].ndim:
                    raise InputError(f"{name} is one number: expected an array whose first axis is that of the samples")
            if isinstance(model, Sequential) and samples.ndim and prod(samples.shape[1:]) == prod(model.input_shape):
                samples = samples.reshape(len(samples), *model.input_shape)
            if y in arrays:
                return samples, arrays[y]
            if part == "test":
                raise InputError(f"the file to evaluate on has {x} and no {y}: expected the labels, too")
            return samples
    if named:
        return dict(arrays)
    raise InputError(
        f"the file has the arrays {', '.join(map(repr, arrays))}: expected x and y, or x_{part} and y_{part}"
    )
