"""A training step of document 002's ConvNets on a GPU, beside PyTorch in both of its memory formats."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import gpunet as gn
from gpunet.backend import Backend
from gpunet.bench import torch_rival
from gpunet.bench.conv import FORMATS, Case, layers_of, torch_network
from gpunet.bench.gpu_race import Contestant, Race, race
from gpunet.bench.gpu_train import in_torch, order_of, ours
from gpunet.nn.layers import Dense, Flatten


def compare(case: Case, backend: Backend, x: Any, y: Any, rounds: int, first: int = 50) -> Race:
    """Everybody on x uint8 (samples, features), y, whole batches in one order: names as in the figures."""
    order = order_of(x)

    def net() -> list[gn.Layer]:
        return [*layers_of(case), Flatten(), Dense(case.classes)]

    makers: dict[str, Callable[[], Contestant]] = {"eager": lambda: ours(net, backend, x, y, order, case.batch, "off")}
    if backend.records:
        makers["graph"] = lambda: ours(net, backend, x, y, order, case.batch, "auto")
    if importlib.util.find_spec("torch"):
        for name, layout in FORMATS.items():
            makers[name] = _rival(case, backend, layout, x, y, order)
    return race(makers, rounds, first)


def _rival(case: Case, backend: Backend, layout: str, x: Any, y: Any, order: Any) -> Callable[[], Contestant]:
    def make() -> Contestant:
        import torch

        torch.backends.cudnn.benchmark = True
        memory_format, place = getattr(torch, layout), torch_rival.place(backend.name)
        scaled = torch.as_tensor(x, device=place).float() / 255
        images = scaled.reshape(-1, *case.shape).to(memory_format=memory_format)
        return in_torch(torch_network(case, memory_format), images, y, order, case.batch, place)

    return make
