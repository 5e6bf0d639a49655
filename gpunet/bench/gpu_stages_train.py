"""The sections of benchmarks/gpu_check.sh that train: steps of the MNIST net and of ConvNets, 20 epochs factorised."""

from __future__ import annotations

import importlib.util
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.bench import conv, gpu_conv, gpu_data, gpu_floor, gpu_look, gpu_train, torch_rival
from gpunet.bench.gpu_look import BATCHES, mnist_case
from gpunet.bench.gpu_race import Race, race
from gpunet.bench.gpu_setup import Document, Setup, target
from gpunet.bench.train import Case
from gpunet.nn.samples import Samples

OVER_EAGER = {64: 3.0, 256: 3.0, 2048: 1.0}  # a graph's speed over PyTorch's
OVER_COMPILED = {64: 1.2, 256: 1.2, 2048: 1.0}
SAME = 1e-2  # how far apart, relatively, the losses of ours and PyTorch's may be after the same first steps


def training(setup: Setup, batch: int) -> Document:
    """Everybody's steps but the compiled ones, and the floor under them."""
    _torch_tf32(False)
    where, case, x, y = mnist_case(setup, batch, 60_000)
    makers = gpu_train.contestants(case, setup.backend, x, y, compiled=False)
    raced = race(makers, setup.rounds, _first(setup))
    figures: Document = {"race": raced.figures()}
    over = target("graph over PyTorch eager", raced.speed_up("graph", ["torch"]), OVER_EAGER[batch])
    found = {"data": where, "figures": figures, "targets": [over, *_checks(raced, "")]}
    setup.save(found)
    figures["floor"] = _floor(setup, case, raced)
    return found


def compiled(setup: Setup, batch: int, capturable: bool = False) -> Document:
    """The graph beside torch.compile, whose warm-up may take all the time there is; capturable: see `contestants`."""
    _torch_tf32(False)
    where, case, x, y = mnist_case(setup, batch, 60_000)
    rival = gpu_train.RIVALS[2 if capturable else 1]
    made = gpu_train.contestants(case, setup.backend, x, y, setup.compiled, capturable)
    if rival not in made:
        return {"data": "", "figures": {"not measured": f"without {rival}"}, "targets": []}
    raced = race({name: made[name] for name in ("graph", rival) if name in made}, setup.rounds, _first(setup))
    over = target("graph over torch.compile", raced.speed_up("graph", [rival]), OVER_COMPILED[batch])
    return {"data": where, "figures": {"race": raced.figures()}, "targets": [over]}


def on_host(setup: Setup) -> Document:
    """The same steps on the CPU."""
    found: Document = {"data": "", "figures": {}, "targets": []}
    for batch in BATCHES:
        found["data"], case, x, y = mnist_case(setup, batch, 60_000)
        order, net = gpu_train.order_of(x), partial(gpu_train.layers, case)
        host = {
            backend.kernels: partial(gpu_train.ours, net, backend, x, y, order, case.batch, "off")
            for backend in map(get_backend, ("numpy", "cpu"))
        }
        found["figures"][f"batch {batch}"] = race(host, 3, setup.size(20, 2)).figures()
        setup.save(found)
    return found


def in_tf32(setup: Setup) -> Document:
    """Everybody's products in TF32."""
    before = os.environ.get("GPUNET_TF32")
    os.environ["GPUNET_TF32"] = "1"
    _torch_tf32(True)
    try:  # in a thread of its own, which has products of its own: they ask the variable when they are made
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_race_in_tf32, setup).result()
    finally:
        _torch_tf32(False)
        os.environ.pop("GPUNET_TF32") if before is None else os.environ.update(GPUNET_TF32=before)


def _race_in_tf32(setup: Setup) -> Document:
    found: Document = {"data": "", "figures": {}, "targets": []}
    for batch in BATCHES:
        found["data"], case, x, y = mnist_case(setup, batch, 60_000)
        makers = gpu_train.contestants(case, setup.backend, x, y, compiled=False)
        found["figures"][f"batch {batch}"] = race(makers, setup.rounds, _first(setup)).figures()
        setup.save(found)
    return found


def convolution(setup: Setup) -> Document:
    """Steps of ConvNets with 8 and 8+30 filters on pictures 3×32×32."""
    _torch_tf32(False)
    where, x, y = gpu_data.pictures("cifar10", setup.size(20_000, 40))
    found: Document = {"data": where, "figures": {}, "targets": []}
    for name in ("convnet-8", "convnet-8-30"):
        for batch in (64, 512):
            case = replace(conv.CASES[name], batch=setup.size(batch, 8))
            raced = gpu_conv.compare(case, setup.backend, x, y, setup.rounds, setup.size(50, 2))
            label = f"{name}, batch {batch}"
            found["figures"][label] = raced.figures()
            found["targets"] += _checks(raced, f"{label}: ")
            setup.save(found)
    return found


def factorised(setup: Setup) -> Document:
    """The MNIST net, 20 epochs at batch 2048: dense, and cut at half rank after 10 %, in either meaning of half."""
    where, data = gpu_data.mnist(setup.size(60_000, 100), setup.size(10_000, 20))
    train, test = (
        Samples.of(setup.backend, x, y, data.classes, "data", copy=False)
        for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test))
    )
    hidden = (12, 9) if setup.small else gpu_look.WIDTHS[1:-1]
    epochs, batch = setup.size(20, 1), setup.size(2048, 50)
    found: Document = {"data": where, "figures": {}, "targets": []}
    for name, rule in {"dense": None, "dimension": gn.DimensionFraction(0.5), "break-even": gn.BreakEven(0.5)}.items():
        cut = gn.Factorise(0.1, rule or 1, policy="always")
        seconds = []
        for _ in range(2):  # the first one loads libraries and plans products
            model = gn.Sequential([*(gn.Dense(width, "relu") for width in hidden), gn.Dense(data.classes)])
            trainer = gn.Trainer(model, optimizer=gn.Adam(3e-4), device=setup.backend)
            began = time.perf_counter()
            history = trainer.fit(
                train, epochs=epochs, batch_size=batch, validation_data=test, callbacks=[cut] if rule else []
            )
            setup.backend.synchronize()
            seconds.append(time.perf_counter() - began)
        found["figures"][name] = {
            "first_seconds": seconds[0], "seconds": seconds[1],
            "seconds_per_epoch": float(np.median(history["seconds"])), "seconds_to_cut": cut.seconds,
            "test_accuracy": history["validation_accuracy"][-1],
        }  # fmt: skip
        found["targets"].append(target(f"{epochs} epochs, {name}: seconds", seconds[1], 3.0, at_least=False))
        setup.save(found)
    return found


def _torch_tf32(wanted: bool) -> None:
    if importlib.util.find_spec("torch"):
        torch_rival.tf32(wanted)


def _first(setup: Setup) -> int:
    return setup.size(gpu_train.FIRST, 3)


def _checks(raced: Race, label: str) -> list[Document]:
    """After the same first steps: the recorded ones to the bit as the eager ones, PyTorch's nearly."""

    def apart(one: str, other: str) -> float | None:
        losses = raced.first_loss.get(one), raced.first_loss.get(other)
        return None if losses[0] is None or losses[1] is None else abs(losses[0] / losses[1] - 1)

    return [
        target(f"{label}loss, graph against eager", apart("graph", "eager"), 0.0, at_least=False),
        target(f"{label}loss, eager against PyTorch", apart("eager", "torch"), SAME, at_least=False),
    ]


def _floor(setup: Setup, case: Case, raced: Race) -> Document:
    """Under a step: its products alone (in the race), and its bytes over the device's bandwidth."""
    speed = gpu_floor.bandwidth(setup.backend, setup.size(1 << 28, 1 << 16))
    moved = gpu_floor.least_bytes(case.widths, case.batch)
    over = raced.speed_up("products", ["graph"])
    return {
        "bytes": moved, "bytes_per_second": speed, "bytes_microseconds": 1e6 * moved / speed,
        "graph_over_products": over,
    }  # fmt: skip
