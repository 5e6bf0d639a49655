"""Networks of gpunet's own layers, to be cut: Dense becomes LowRankDense, Conv2D two of them, the second 1×1."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from gpunet.compression.networks import Network, patch_rows
from gpunet.compression.weights import Factors, Weight
from gpunet.errors import InputError
from gpunet.nn.layers import Conv2D, Dense
from gpunet.nn.model import Sequential
from gpunet.nn.serialize import arrays_of
from gpunet.nn.trainer import Trainer
from gpunet.spectral.factorise import own_methods

Described = tuple[dict[str, Any], dict[str, Any]]  # a layer's configuration, and its parameters


class Ours(Network):
    """A built `Sequential`."""

    def __init__(self, model: Sequential) -> None:
        if not model.built:
            raise InputError("the model has no weights yet: fit it, or build it, before compressing")
        self.model = copy.deepcopy(model)  # to be run, in a workspace of its own
        self.arrays = arrays_of(self.model)
        self.weights, self.kept = {}, {}
        for layer in self.model.layers:
            kind = Dense if isinstance(layer, Dense) else Conv2D if isinstance(layer, Conv2D) else None
            if kind:
                w = self.arrays[f"{layer.name}.weight"]
                self.weights[layer.name] = Weight(
                    layer.name, w.reshape(len(w), -1), offset=self.arrays[f"{layer.name}.bias"]
                )
                if own := own_methods(layer, kind):
                    self.kept[layer.name] = f"it has its own {own}, which factors would not run"
        self._trainers: dict[int, tuple[Sequential, Trainer]] = {}  # by the model's id; a workspace is made once

    def run(self, model: Any, batch: Any) -> Any:
        _, trainer = self._trainers.setdefault(
            id(model), (model, Trainer(model, device=model.backend, dtype=model.dtype))
        )
        trainer.eval_batch = len(batch)
        return trainer.outputs(batch)

    def watching(self, names: Iterable[str], see: Callable[[str, Any], None], batch: Any) -> int:
        self.run(self.model, batch)
        for name in names:
            see(name, self.model.backend.to_host(self.model.layer(name).x))
        return len(batch)

    def rows(self, name: str, given: Any) -> Iterator[Any]:
        layer = self.model.layer(name)
        if isinstance(layer, Conv2D):
            return patch_rows(given, (layer.kernel,) * 2, (1, 1), (layer.zeros,) * 2, (1, 1))
        return iter([given])

    def rebuilt(self, factors: Mapping[str, Factors]) -> Sequential:
        described: list[Described] = []
        for layer, config in zip(self.model.layers, self.model.config(), strict=True):
            own = {name: a for name, a in self.arrays.items() if name.rpartition(".")[0] == layer.name}
            arrays = {name.rpartition(".")[2]: a for name, a in own.items()}
            cut = factors.get(layer.name)
            described += [(config, arrays)] if cut is None else _two(config, arrays, cut)
        model = Sequential.from_config([config for config, _ in described])
        model.build(self.model.input_shape, self.model.backend, dtype=self.model.dtype)
        model._sees_as(self.model)
        for layer, (_, arrays) in zip(model.layers, described, strict=True):
            model._write({f"{layer.name}.{name}": array for name, array in arrays.items()})
        return model

    def size(self, model: Any) -> int:
        return int(model.parameter_count())

    def trained(self, model: Sequential, x: Any, y: Any, epochs: int) -> None:
        """Train the model on, by Adam at its usual rate."""
        Trainer(model, device=model.backend, dtype=model.dtype).fit(x, y, epochs=epochs)

    def layer(self, name: str, factors: Factors | None, batch: Any) -> Callable[[], object]:
        self.run(self.model, batch)
        given = self.model.backend.to_host(self.model.layer(name).x).copy()
        config = self.model.config()[self.model.layers.index(self.model.layer(name))]
        arrays = {p: self.arrays[f"{name}.{p}"] for p in ("weight", "bias")}
        described = [(config, arrays)] if factors is None else _two(config, arrays, factors)
        layers = [config for config, _ in described]
        if layers[-1].get("pooling") == "average":  # no activation of a model's last layer comes before the averages
            layers.append({"layer": "Flatten"})
        model = Sequential.from_config(layers)
        model.build(given.shape[1:], self.model.backend, dtype=self.model.dtype)
        x = model.backend.asarray(given)
        model.bind(len(x))
        model.set_batch_size(len(x))

        def run() -> None:
            model.forward(x)
            model.backend.synchronize()

        return run

    def evaluating(self, model: Any) -> AbstractContextManager[Any]:
        return model.evaluating()  # type: ignore[no-any-return]


def _two(config: dict[str, Any], arrays: dict[str, Any], cut: Factors) -> list[Described]:
    """The layer, cut."""
    bias = arrays["bias"] if cut.shift is None else (arrays["bias"] + cut.shift).astype(arrays["bias"].dtype)
    settings = {name: value for name, value in config.items() if name in ("activation", "trainable")}
    if config["layer"] == "Dense":
        dense = {"layer": "LowRankDense", "units": config["units"], "rank": cut.rank, **settings}
        return [(dense, {"left": cut.left, "right": cut.right, "bias": bias})]
    first = config | {"filters": cut.rank, "activation": None, "pool": 1, "pooling": "max", "pool_stride": None}
    second = config | {"kernel": 1, "padding": "valid"}
    kernels = cut.right.reshape(cut.rank, *arrays["weight"].shape[1:])
    zeros = np.zeros(cut.rank, bias.dtype)
    return [
        (first, {"weight": kernels, "bias": zeros}),
        (second, {"weight": cut.left[:, :, None, None], "bias": bias}),
    ]
