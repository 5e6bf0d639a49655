"""The stages of benchmarks/gpu_check.sh that measure: what sections each fills, and how they are filled one by one.

A stage is a process. A section is a function of a `Setup`, whose `section` it fills and saves as it goes; in the file
of results it stands as "gpu NAME" with its state: "running", "done" or "failed". What the process did not end is for
the one that started it to say.
"""

from __future__ import annotations

import collections
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend, get_backend
from gpunet.backend.device import cuda_versions, gpu_facts, gpus
from gpunet.bench import data, devices, rivals, svd, train
from gpunet.bench.harness import Contender, Work, enough, filled, lacking, race, speed_up, told
from gpunet.bench.results import Case, Entry, Section, Target
from gpunet.errors import RunError
from gpunet.experiments import experiments
from gpunet.nn.replay import AT_ONCE
from gpunet.nn.samples import Samples
from gpunet.nn.trainer import Precision
from gpunet.progress import Progress

SMALL = (60, 16, 8, 10)  # widths of the net that any CPU trains in a second
BATCHES = (64, 256, 2048)
REPEATS = 5  # timed calls of a look, of which the median counts
OVER_EAGER = {64: 3.0, 256: 3.0, 2048: 1.0}  # a graph's speed over PyTorch's
OVER_COMPILED = {64: 1.2, 256: 1.2, 2048: 1.0}
SAME = 1e-2  # how far apart, relatively, the losses of ours and PyTorch's may be after the same first steps
QUICK, LOOPING = ("gpunet", "torch"), ("gpunet", "cupy")  # how the names begin of those that take a call, or many
# A node as cudaGraphDebugDotPrint writes it: its name in front of a bracket at the start of a line.
NODE = re.compile(r'^"graph_\d+_node_\d+"\s*\[', re.MULTILINE)
KIND = re.compile(r"\b(KERNEL|MEMCPY|MEMSET|[A-Z][A-Z_]{3,})\b")
KERNEL = re.compile(r"(\w+)\\?<\\?<\\?<")


Contenders = Mapping[str, Contender]


@dataclass(frozen=True)
class Setup:
    """Where to run; small: sizes that any CPU does in a second, to find mistakes; compiled: torch.compile, too.

    section: to be filled; save: called when there is more in it, since a stage may be stopped before its end. draw:
    called with the title and the dot text of a recorded graph.
    """

    backend: Backend
    rounds: int = 11
    small: bool = False
    compiled: bool = True
    section: Section = field(default_factory=lambda: Section({}))
    save: Callable[[], None] = lambda: None
    draw: Callable[[str, str], None] = lambda title, dot: None

    def size(self, full: int, small: int) -> int:
        """A size, or the one of a small run."""
        return small if self.small else full

    @property
    def on_gpu(self) -> bool:
        """Whether the device is one."""
        return self.backend.name.startswith("cuda")

    def note(self, **notes: Any) -> None:
        """Add to the section's notes, and save."""
        self.section.notes.update(notes)
        self.save()

    def wants(self, what: str, value: float | None, bound: float, at_least: bool = True) -> None:
        """Add a target."""
        self.section.targets.append(Target.of(what, value, bound, at_least))

    def case(self, batch: int, samples: int = 60_000) -> train.Case:
        """The MNIST net's steps, and in the section where its data is from."""
        batch, samples = self.size(batch, 20), self.size(samples, 200)
        if self.small:
            net, source = partial(train.dense, SMALL), (6, 10)
            case = train.Case("small", net, batch, 1, samples, source, notes={"widths": SMALL})
        else:
            case = replace(train.CASES["mnist-64"], batch=batch, samples=samples)
        self.section.data = case.data()[0]
        return case

    def race(self, label: str, contenders: Contenders, **options: Any) -> dict[str, Entry]:
        """Race them as a case of the section, which is saved."""

        def save(entries: dict[str, Entry]) -> None:
            self.section.cases[label] = Case(entries)
            self.save()

        rounds = options.pop("rounds", self.rounds)
        return race(
            contenders, rounds, pause=0, save=save, log=True, **options
        )  # no threads to wait for, and the clocks stay up


Part = Callable[[Setup], None]


def fill(sections: Mapping[str, Part], path: Path, setup: Setup, made: dict[str, Any]) -> list[str]:
    """Fill sections of the file one by one, each saved as it goes; those that failed, their tracebacks printed.

    made: their provenance. After an error that ends all work of a process on its GPU, it is raised: the sections that
    are left want another process.
    """
    failed = []
    for name, part in sections.items():
        print(f"-- {name}", flush=True)
        section = Section(made)

        def run(save: Callable[[], None], part: Part = part, section: Section = section) -> None:
            part(replace(setup, section=section, save=save))

        if not filled(path, f"gpu {name}", section, run, log=True):
            failed.append(name)
    return failed


# -- look: whether the libraries do as is assumed, what a step's graph holds, and where its time goes ------------------


def facts(setup: Setup) -> None:
    """The device and what runs on it; RunError where products or graphs fell back, which no later figure would say."""
    backend = setup.backend
    setup.note(device=backend.name, records=backend.records, **backend.memory(), **cuda_versions(), gpus=gpus())
    if not setup.on_gpu:
        return
    found = gpu_facts(backend)
    nvrtc: Any = getattr(getattr(getattr(backend, "cp", None), "cuda", None), "nvrtc", None)
    setup.note(nvrtc=".".join(map(str, nvrtc.getVersion())) if nvrtc else None, **found)
    if found["graphs"] != "on" or not found["products"].startswith("cublasLt"):
        raise RunError(f"products: {found['products']}; graphs: {found['graphs']}: all times would be of that")
    with backend.session():  # where the ReLU of cublasLt's epilogue changes NaN, it is a kernel of its own
        products: Any = backend.products  # type: ignore[attr-defined]
        kinds = {"float32": "float32", "float64": "float64", "bfloat16": "uint16"}
        setup.note(**{f"ReLU keeps NaN, {name}": products.keeps_nan(np.dtype(kinds[name])) for name in kinds})
    setup.note(slow_bfloat16=backend.slow_bfloat16, slow_tf32=backend.slow_tf32)


def step(setup: Setup, batch: int) -> None:
    """A training step, recorded, with branches, mixed and operation by operation; what the recordings hold."""
    case, rows = setup.case(batch, 20_000), list[dict[str, Any]]()
    entries = setup.section.cases.setdefault(f"batch {batch}", Case()).entries
    for name in ("graph", "mixed", "forked", "eager") if setup.backend.records else ("eager",):
        backend = setup.backend
        if name == "forked":  # whatever GPUNET_FORK says
            backend = get_backend(backend.name)
            backend.forks = True
        work = train.ours(
            case, backend, "off" if name == "eager" else "auto", "mixed" if name == "mixed" else "float32"
        )
        work.run(3 * AT_ONCE[0])
        recordings = list(work.keeps.graphs.recordings)
        for size, steps, recording in recordings:
            launches = _alone(Work(partial(_launch, backend, recording)), setup.size(500, 3))
            taken = 1e6 * (launches.median or 0) / steps
            rows.append({"name": name, "batch": size, "steps_per_launch": steps, "microseconds_per_step": taken})
            setup.note(recordings=rows)
        entries[name] = _alone(work, setup.size(200 if name == "eager" else 2000, 20))
        setup.save()
        for row, (size, steps, recording) in zip(rows[len(rows) - len(recordings) :], recordings, strict=True):
            try:  # last, since it is the times that count
                dot = recording.dot()
                setup.draw(f"{name}, batch {size}, {steps} to a launch", dot)
                row |= nodes(dot)
            except Exception as error:  # whatever CUDA raises
                row["not_drawn"] = told(error, log=True)
        setup.save()


def _alone(work: Work, pieces: int) -> Entry:
    return race({"": Contender(lambda: work)}, REPEATS, pieces=pieces, pause=0, log=True)[""]


def _launch(backend: Backend, recording: Callable[[], None], launches: int) -> None:
    """Beyond the end of the order its steps take the last rows."""
    with backend.session():
        for _ in range(launches):
            recording()
        backend.synchronize()


def nodes(dot: str) -> dict[str, Any]:
    """{"nodes": kernels, copies and fills of a graph's dot text, "kernels": how often each kernel of them}."""
    bodies = NODE.split(dot)[1:]
    kinds = [found[1] if (found := KIND.search(body)) else "" for body in bodies]
    named = [found[1] if (found := KERNEL.search(body)) else "?"
             for kind, body in zip(kinds, bodies, strict=True) if kind == "KERNEL"]  # fmt: skip
    return {
        "nodes": sum(kind in ("KERNEL", "MEMCPY", "MEMSET") for kind in kinds),
        "copies_and_fills": sum(kind in ("MEMCPY", "MEMSET") for kind in kinds),
        "kernels": dict(collections.Counter(named).most_common()),
    }


def kernels(setup: Setup) -> None:
    """Microseconds of every kernel inside the replayed graphs, by PyTorch's profiler, which hears all of CUDA."""
    if why := lacking("torch"):
        setup.note(not_measured=why)
        return
    import torch
    from torch.profiler import ProfilerActivity, profile

    if setup.on_gpu and torch.cuda.is_available():
        torch.zeros(1, device="cuda")  # the profiler listens where PyTorch computes
    turns = setup.size(50, 2)
    precisions: list[Precision] = ["float32", "mixed"] if setup.on_gpu else ["float32"]
    for batch, precision in product(BATCHES, precisions):
        case = setup.case(batch, 20_000)
        work = train.ours(case, setup.backend, "auto" if setup.backend.records else "off", precision)
        work.run(5)
        with profile(activities=[ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU]) as seen:
            work.run(turns)
        rows = [
            {"kernel": each.key, "calls": each.count / turns, "microseconds": taken / turns}
            for each in seen.key_averages()
            if (taken := float(getattr(each, "self_device_time_total", 0) or getattr(each, "self_cuda_time_total", 0)))
        ]  # PyTorch before 2.4 calls it by CUDA's name
        label = f"batch {batch}" + (", mixed" if precision == "mixed" else "")
        setup.note(**{label: sorted(rows, key=lambda row: -row["microseconds"])[:40]})


# -- train ------------------------------------------------------------------------------------------------------------


def everybody(setup: Setup, case: train.Case, jax: bool, ways: Mapping[str, rivals.Way] | None = None) -> Contenders:
    """All in float32 but JAX; jax: it beside ours, in a section that comes last.

    It compiles and takes memory when it starts: where that fails or hangs, nobody else's times are lost.
    """
    them = train.contenders(case, setup.backend, ways, ["float32"])
    return {
        name: each for name, each in them.items() if (name == "jax" or each.role == "ours" if jax else name != "jax")
    }


def training(setup: Setup, batch: int, jax: bool = False) -> None:
    """Everybody's steps but the compiled ones, and the floor under them."""
    rivals.tf32(False)
    case = setup.case(batch)
    raced = setup.race(f"batch {batch}", everybody(setup, case, jax), first=setup.size(100, 3))
    if jax:
        return
    setup.wants("graph over PyTorch eager", speed_up(raced, "graph", ["torch"]), OVER_EAGER[batch])
    _checks(setup, raced, "")
    backend, widths = setup.backend, case.notes["widths"]
    speed, moved = bandwidth(backend, setup.size(1 << 28, 1 << 16)), least_bytes(widths, case.batch)
    setup.note(bytes=moved, bytes_per_second=speed, bytes_microseconds=1e6 * moved / speed)


def beside_jax(setup: Setup, part: Callable[..., None]) -> None:
    """What a part measures, of ours and JAX."""
    if why := lacking("jax"):
        setup.note(not_measured=why)
    else:
        part(setup, jax=True)


def least_bytes(widths: tuple[int, ...], batch: int) -> int:
    """Bytes that a step moves at least: Adam's four arrays, weights, activations and their gradients, and the batch.

    Weights are read forward and, above the first layer, backward; gradients written and read once; outputs written
    and read once in each direction; the data is uint8.
    """
    sizes = [a * b + b for a, b in pairwise(widths)]
    weights = 7 * sum(sizes) + sum(sizes) + sum(sizes[1:]) + sum(sizes)
    activations = batch * (2 * widths[0] + 4 * sum(widths[1:]))
    return 4 * (weights + activations) + batch * widths[0]


def bandwidth(backend: Backend, size: int) -> float:
    """Bytes a second, read and written, of copies of `size` floats on the device."""
    source, out = backend.zeros(size), backend.zeros(size)

    def copies(count: int) -> None:
        with backend.session():
            for _ in range(count):
                backend.copy(source, out)
            backend.synchronize()

    count = enough(copies, 2)
    began = time.perf_counter()
    copies(count)
    return count * 8 * size / (time.perf_counter() - began)


def compiled(setup: Setup, batch: int, rival: str = "torch.compile") -> None:
    """The graph beside torch.compile, whose warm-up may take all the time there is."""
    if not setup.compiled or lacking("torch"):
        setup.note(not_measured=f"without {rival}")
        return
    rivals.tf32(False)
    them = train.contenders(setup.case(batch), setup.backend, {rival: train.COMPILED[rival]})
    there = {name: them[name] for name in ("graph", rival) if name in them}
    raced = setup.race(f"batch {batch}", there, first=setup.size(100, 3))
    setup.wants("graph over torch.compile", speed_up(raced, "graph", [rival]), OVER_COMPILED[batch])


def mixed(setup: Setup, batch: int, rival: str | None = None) -> None:
    """The graph in every precision beside PyTorch under autocast; with a rival the mixed one beside that alone."""
    rivals.tf32(False)
    ways = {rival: train.COMPILED[rival]} if rival else {"torch bf16": rivals.Way(bf16=True)}
    if rival and (not setup.compiled or lacking("torch")):
        setup.note(not_measured=f"without {rival}")
        return
    them = train.contenders(setup.case(batch), setup.backend, ways)
    own = ["graph mixed"] if rival else ["graph", "graph mixed", "graph tf32"]
    there = {name: them[name] for name in (*own, *ways) if name in them}
    raced = setup.race(f"batch {batch}", there, first=setup.size(100, 3))
    for who in ways:
        setup.wants(f"mixed graph over {who}", speed_up(raced, "graph mixed", [who]), 1.0)


def on_host(setup: Setup) -> None:
    """The same steps on the CPU."""
    for batch in BATCHES:
        them = train.contenders(setup.case(batch), "cpu", {}, ["float32"])
        host = {name: each for name, each in them.items() if each.role == "ours"}
        setup.race(f"batch {batch}", host, rounds=3, first=setup.size(20, 2))


def in_tf32(setup: Setup, jax: bool = False) -> None:
    """Everybody's products in TF32."""
    before = os.environ.get("GPUNET_TF32")

    def run() -> None:
        for batch in BATCHES:
            setup.race(f"batch {batch}", everybody(setup, setup.case(batch), jax), first=setup.size(100, 3))

    try:  # in a thread of its own, which has products of its own: they ask the variable when they are made
        os.environ["GPUNET_TF32"] = "1"
        rivals.tf32(True)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(run).result()
    finally:
        os.environ.pop("GPUNET_TF32", None) if before is None else os.environ.update(GPUNET_TF32=before)
        rivals.tf32(False)


def convolution(setup: Setup, jax: bool = False) -> None:
    """Steps of ConvNets with 8 and 8+30 filters on pictures 3×32×32."""
    rivals.tf32(False)
    for name in ("convnet-8", "convnet-8-30"):
        for batch in (64, 512):
            case = replace(train.CONV[name], batch=setup.size(batch, 8), samples=setup.size(20_000, 40))
            setup.section.data = case.data()[0]
            label = f"{name}, batch {batch}"
            ways = {name: way for name, way in train.IMAGES.items() if not way.bf16}
            raced = setup.race(label, everybody(setup, case, jax, ways), first=setup.size(50, 2))
            if not jax:
                _checks(setup, raced, f"{label}: ")
            setup.save()


def factorised(setup: Setup) -> None:
    """The MNIST net, 20 epochs at batch 2048: dense, and cut at half rank after 10 %, in either meaning of half."""
    setup.section.data, *train_set = data.pictures("mnist", setup.size(60_000, 100))
    _, *test_set = data.pictures("mnist", setup.size(10_000, 20), test=True)
    samples, tests = (Samples.of(setup.backend, x, y, 10, "data", copy=False) for x, y in (train_set, test_set))
    hidden, batch, epochs = setup.size(512, 12), setup.size(2048, 50), setup.size(20, 1)
    entries = setup.section.cases.setdefault(f"{epochs} epochs", Case()).entries
    for name, rule in {"dense": None, "dimension": gn.DimensionFraction(0.5), "break-even": gn.BreakEven(0.5)}.items():
        cut = gn.Factorise(0.1, rule or 1, policy="always")
        seconds = []
        for _ in range(2):  # the first one loads libraries and plans products
            model = gn.Sequential([gn.Dense(hidden, "relu"), gn.Dense(hidden // 2, "relu"), gn.Dense(10)])
            trainer = gn.Trainer(model, optimizer=gn.Adam(3e-4), device=setup.backend)
            began = time.perf_counter()
            history = trainer.fit(
                samples, epochs=epochs, batch_size=batch, validation_data=tests, callbacks=[cut] if rule else []
            )
            setup.backend.synchronize()
            seconds.append(time.perf_counter() - began)
        notes = {
            "first_seconds": seconds[0], "seconds_per_epoch": float(np.median(history["seconds"])),
            "seconds_to_cut": cut.seconds, "accuracy": history["validation_accuracy"][-1],
        }  # fmt: skip
        entries[name] = Entry("ours", [seconds[1]], notes=notes)
        setup.wants(f"{epochs} epochs, {name}: seconds", seconds[1], 3.0, at_least=False)
        setup.save()


def _checks(setup: Setup, raced: Mapping[str, Entry], label: str) -> None:
    """After the same first steps: the recorded ones to the bit as the others, PyTorch's nearly."""
    losses = {name: each.notes["first_loss"] for name, each in raced.items() if "first_loss" in each.notes}
    ours = next((name for name in losses if raced[name].role == "ours"), "eager")
    for who, what, bound in (("torch", "ours against PyTorch", SAME), ("graph", "graph against eager", 0.0)):
        apart = abs(losses[who] / losses[ours] - 1) if who in losses and ours in losses else None
        setup.wants(f"{label}loss, {what}", apart, bound, at_least=False)


# -- svd --------------------------------------------------------------------------------------------------------------


def _pictures(setup: Setup) -> svd.Problem:
    return svd.pictures(_images(setup)[0], setup.size(100, 10))


def _classes(setup: Setup) -> svd.Problem:
    return svd.classes(*_images(setup), setup.size(10, 3))


def _images(setup: Setup) -> tuple[Any, Any]:
    """MNIST, or made pictures of 60 pixels."""
    if setup.small:
        return data.made(400, (6, 10))
    setup.section.data, x, y = data.pictures("mnist", 60_000)
    return x, y


PROBLEMS: dict[str, Callable[[Setup], svd.Problem]] = {
    "svd-whole": _pictures,
    "svd-classes": _classes,
    "svd-square": lambda setup: svd.square(setup.size(4096, 64), setup.size(256, 8)),
    "svd-stack": lambda setup: svd.stack((3, 60, 20) if setup.small else (100, 3072, 500), setup.size(50, 5)),
}
TIMES_TORCH = {"svd-whole": 20.0, "svd-classes": 5.0}  # as fast as torch.linalg.svd, at least


def decompose(setup: Setup, name: str, chosen: tuple[str, ...] = QUICK) -> None:
    """Ours beside those whose names begin so, one after the other: one that hangs does not take the others with it."""
    problem = PROBLEMS[name](setup)
    them = {who: each for who, each in svd.contenders(problem, setup.backend).items() if who.startswith(chosen)}
    found = setup.race(problem.name, them, apart=True, pieces=1)
    if chosen is not QUICK:
        return
    for who, entry in found.items():
        if entry.role == "ours":
            missed = entry.notes.get("energy_missed")
            setup.wants(f"{who}: energy missed beyond the best", missed, svd.ENERGY, at_least=False)
    if name in TIMES_TORCH and "torch.linalg.svd" in found:
        setup.wants("over torch.linalg.svd", speed_up(found, "gpunet", ["torch.linalg.svd"]), TIMES_TORCH[name])


# -- experiments ------------------------------------------------------------------------------------------------------


def quick(setup: Setup, experiment: str) -> None:
    """An experiment's quick run on the device: seconds, and the shares that its rows reach."""
    run = experiments()[experiment].asked({}, quick=True).load()
    began = time.perf_counter()
    result = run.compute(setup.backend, Progress())
    setup.backend.synchronize()
    setup.section.data = "embedded"
    shares = {
        row.name: {metric: row.metrics[metric].mean for metric in devices.AGREE if metric in row.metrics}
        for row in result.rows
    }
    setup.note(run_seconds=time.perf_counter() - began, dataset=result.dataset, rows=shares)


def on_both(setup: Setup) -> None:
    """Every experiment's quick run, CPU against this device."""
    pair = ["cpu", setup.backend.name] if setup.on_gpu else ["numpy", "cpu"]
    smallest = min(experiments().values(), key=lambda x: x.quick[0].seconds).name

    def save(name: str, case: Case) -> None:
        setup.section.cases[name] = case
        setup.save()

    setup.section.data = "embedded"
    report = devices.compare(pair, [smallest] if setup.small else None, save=save)
    setup.section.notes |= report.notes
    failed = sum(bool(entry.failed) for case in report.cases.values() for entry in case.entries.values())
    setup.wants("experiments that failed", failed, 0, at_least=False)


# In order of worth: a stage that is stopped has had its first sections.
STAGES: dict[str, dict[str, Part]] = {
    "look": {
        "facts": facts,
        **{f"step-{batch}": partial(step, batch=batch) for batch in BATCHES},
        "kernels": kernels,
    },
    "train": {
        **{f"train-{batch}": partial(training, batch=batch) for batch in BATCHES},
        "mixed-2048": partial(mixed, batch=BATCHES[-1]),
        **{f"compile-{batch}": partial(compiled, batch=batch) for batch in BATCHES},
        "mixed-compile-2048": partial(mixed, batch=BATCHES[-1], rival="torch.compile bf16"),
        "mixed-64": partial(mixed, batch=BATCHES[0]),
        "compile-capturable": partial(compiled, batch=BATCHES[0], rival="torch.compile, capturable Adam"),
        **{f"jax-{batch}": partial(beside_jax, part=partial(training, batch=batch)) for batch in BATCHES},
    },
    "svd": {name: partial(decompose, name=name) for name in PROBLEMS},
    "experiments": {
        "factorised": factorised,
        **{f"quick-{name}": partial(quick, experiment=name) for name in experiments()},
    },
    "rest": {
        "conv": convolution, "train-tf32": in_tf32, "train-host": on_host,
        **{f"{name}-cupy": partial(decompose, name=name, chosen=LOOPING) for name in PROBLEMS},
        "devices": on_both,
        "jax-tf32": partial(beside_jax, part=in_tf32), "jax-conv": partial(beside_jax, part=convolution),
    },
}  # fmt: skip
