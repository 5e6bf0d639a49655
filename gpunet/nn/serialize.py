"""Saving and loading models as safetensors: no pickle, names and shapes that PyTorch reads, and a digest of the file.

A model saved here loads into the equal `torch.nn.Sequential` with
`load_state_dict(safetensors.torch.load_file(path))`, and such a network's state, saved there, loads here with
`load_weights`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.backend import Backend, get_backend
from gpunet.checks import DTYPES, MOST_DIMENSIONS, Dtype, as_floats
from gpunet.errors import DataError, InputError, ShapeError
from gpunet.files import check_path, check_replaceable, write_or_keep
from gpunet.limits import DAMAGE, parse_json
from gpunet.nn.model import Learned, Sequential, _checked_scale, check_model
from gpunet.tensorfile import KEY, read, seal

FORMAT, READ = 3, (2, 3)  # 2 had no scale: what its models were trained on is not known
MOST_LAYERS = 10_000  # of a file
COUNT = "num_batches_tracked"  # of PyTorch's BatchNorm, whose outputs do not depend on it


def save(model: Sequential, path: str | Path) -> None:
    """Write the model's parameters and the description of its layers, in one piece; a missing folder is made.

    Raises OutputError where that cannot be: what stands there is no plain file, and then nothing is written; or the
    disk is full, say, and then the model is kept elsewhere, which the message names.

    >>> import gpunet as gn
    >>> model = gn.Sequential([gn.Dense(3, "relu"), gn.Dense(2)])
    >>> model.build((4,), gn.get_backend("cpu"))
    >>> gn.save(model, "model.safetensors")
    >>> {name: value.shape for name, value in gn.load("model.safetensors", device="cpu").parameters.items()}
    {'0.weight': (3, 4), '0.bias': (3,), '2.weight': (2, 3), '2.bias': (2,)}
    """
    target = check_path("path", path)
    if not check_model(model).built:
        raise InputError("the model has no weights yet: fit it, or build it, before saving")
    check_replaceable(target)
    write_or_keep(target, packed(model))


def packed(model: Sequential) -> bytearray:
    """What `save` writes of a built model."""
    return seal(arrays_of(model), {KEY: describe(model)})


def describe(model: Sequential) -> str:
    """The layers, the shape of a sample and the dtype as JSON: what `load` makes the model from."""
    shape = list(model.input_shape)
    learned = None if model.learned is None else asdict(model.learned)
    return json.dumps(
        {"format": FORMAT, "layers": model.config(), "input_shape": shape, "dtype": model.dtype, "scale": model.scale}
        | {"said": model._said, "learned": learned}
    )


def arrays_of(model: Sequential) -> dict[str, Any]:
    """The parameters on the host by name; on the CPU the memory is the model's own."""
    with model.alone():
        return {name: np.ascontiguousarray(model.backend.to_host(p)) for name, p in model.parameters.items()}


def put_back(model: Sequential, config: list[dict[str, Any]], arrays: Mapping[str, Any]) -> None:
    """Make the built model what it was when `config` was its configuration and `arrays` its parameters.

    Layers that differ from it, since one was factored or merged meanwhile, are replaced.
    """
    saved = Sequential.from_config(config).layers
    if len(saved) != len(model.layers):
        raise InputError(
            f"{len(saved)} layers were saved, and the model has {len(model.layers)}: build the one they are of"
        )
    for now, then, layer in zip(model.config(), config, saved, strict=True):
        if now != then:
            model.replace(layer.name, layer)
    own = {name: arrays[name] for name in model.parameters if name in arrays}
    _check_shapes({name: parameter.shape for name, parameter in model.parameters.items()}, own, "what was saved")
    model._write(
        {name: as_floats(arrays[name], name, p.shape, model.dtype, given=False) for name, p in model.parameters.items()}
    )


def load(path: str | Path, device: str | Backend = "auto") -> Sequential:
    """The model saved at `path`, on `device`: by `save`, or in a trainer's checkpoint.

    Raises DataError where the file is missing, differs in a single bit from what was written, or is none of these.
    """
    arrays, metadata = read(check_path("path", path))
    if KEY not in metadata:
        raise DataError(
            f"'{path}' holds weights but no gpunet model: build the model and read them with load_weights(model, path)"
        )
    model, shape, dtype = _described(metadata[KEY], str(path))
    own = {name: array for name, array in arrays.items() if "/" not in name}
    _check_shapes(model.parameter_shapes(shape), own, str(path))  # before memory is taken for what is only said
    learned, scale = model.learned, model.scale
    model.build(shape, get_backend(device), dtype=dtype)
    vars(model).update(learned=learned, _scale=scale)
    _assign(model, own, str(path))
    return model


def _described(text: str, path: str) -> tuple[Sequential, tuple[int, ...], Dtype]:
    """The model that a file describes, the shape of its samples and its dtype; DataError where it describes none."""
    try:
        description = parse_json(text)
        if description["format"] not in READ:
            raise DataError(f"'{path}' has format {description['format']}, this gpunet reads {FORMAT}")
        if len(description["layers"]) > MOST_LAYERS:
            raise ValueError(f"{len(description['layers']):,} layers, more than {MOST_LAYERS:,}")
        model = Sequential.from_config(description["layers"])
        model.scale = description.get("scale")
        model._said = _checked_scale(description.get("said"))
        if description.get("learned") is not None:
            vars(model)["learned"] = Learned.read(description["learned"])
        shape, dtype = tuple(description["input_shape"]), description["dtype"]
        if not 1 <= len(shape) <= MOST_DIMENSIONS or any(type(n) is not int or not 1 <= n < 2**31 for n in shape):
            raise ValueError(f"samples of shape {shape}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype}")
        model.parameter_shapes(shape)
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(
            f"'{path}': its description of the model is damaged ({error}): save it again, or build the model and read "
            "the weights with load_weights(model, path)"
        ) from error
    return model, shape, dtype


def load_weights(model: Sequential, path: str | Path) -> None:
    """Read parameters into a built model, from a file of `save` or of PyTorch; names and shapes must be the model's.

    Of a checkpoint the parameters are read. Raises DataError naming what is missing, unknown or of another shape, and
    for a file of `save` that was changed since; the model is then left as it was.
    """
    if not check_model(model).built:
        raise InputError("the model has no weights yet: build it before loading")
    arrays, metadata = read(check_path("path", path))
    own = {name: array for name, array in arrays.items() if "/" not in name} if KEY in metadata else arrays
    _assign(model, own, str(path))


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any], path: str) -> None:
    """DataError naming what is missing or unknown, ShapeError for the first of another shape."""
    missing, unknown = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
    if missing or unknown:
        raise DataError(
            f"'{path}' does not fit this model: missing {', '.join(missing) or 'nothing'}; "
            f"unknown {', '.join(unknown) or 'nothing'}"
        )
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ShapeError(f"'{path}': {name} has shape {arrays[name].shape}, the model's has {shape}")


def _assign(model: Sequential, arrays: dict[str, Any], path: str) -> None:
    shapes = {name: parameter.shape for name, parameter in model.parameters.items()}
    counts = {name.replace("running_mean", COUNT) for name in shapes if name.endswith(".running_mean")}
    _check_shapes(shapes, {name: array for name, array in arrays.items() if name not in counts}, path)
    model._write(
        {name: as_floats(arrays[name], f"'{path}': {name}", shape, model.dtype) for name, shape in shapes.items()}
    )
