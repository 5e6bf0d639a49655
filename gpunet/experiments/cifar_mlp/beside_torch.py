"""A net of cifar-mlp beside PyTorch.

    python -m gpunet.experiments.cifar_mlp.beside_torch [--rounds N] [--epochs N] [--threads N] [--json FILE]

3072-50-10, ReLU and softmax, momentum SGD with L2, batches of 64 of 10,000 images of CIFAR-10 (where it is at hand,
else noisy pictures of ten kinds). Everyone trains on the same float32 images, resident and centred, from the same
weights in the same order of samples; epochs are timed in turn in one process, and the losses reached are compared.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from gpunet.backend import get_backend, why_no_numba
from gpunet.bench.harness import Contender, Work, lacking, race
from gpunet.bench.results import Case, Section, provenance, write_section
from gpunet.bench.rivals import flushed
from gpunet.errors import DataError
from gpunet.experiments.cifar_mlp.data import Problem, Split
from gpunet.experiments.cifar_mlp.nets import Recipe
from gpunet.extras import optional
from gpunet.report.bench_tables import page

FINAL = Recipe()
RUN = 10  # epochs of a run as the experiment's
ROW = "cifar-mlp, ten epochs of 10,000 images"


def split() -> Split:
    """The document's, or made data of the same size."""
    try:
        return Split.batches()
    except DataError:
        rng = np.random.default_rng(0)
        kinds = rng.integers(0, 64, (10, 3072), dtype=np.uint8)
        labels = np.arange(10_000) % 10
        x = kinds[labels] + rng.integers(0, 192, (len(labels), 3072), dtype=np.uint8)
        few = x[:100], labels[:100]
        return Split("made", (x, labels), few, few, 10)


def ours(problem: Problem, device: str) -> Work:
    """`Trainer.fit`, as the experiment calls it, without its callbacks."""
    trainer = FINAL.trainer(problem.classes, 0, get_backend(device))

    def run(epochs: int) -> None:
        trainer.fit(problem.train, epochs=epochs, batch_size=FINAL.batch_size)

    return Work(run, lambda: {"loss": trainer.evaluate(problem.train)["loss"]})


def torch_eager(problem: Problem, fused: bool) -> Work:
    """The same in PyTorch: λ‖W‖² is a weight decay of 2λ on the weights alone."""
    import torch

    from gpunet.rng import BATCHES, stream

    drawn = FINAL.trainer(problem.classes, 0, get_backend("numpy"))
    drawn.prepare(problem.train.shape)
    network = torch.nn.Sequential(
        torch.nn.Linear(3072, FINAL.hidden), torch.nn.ReLU(), torch.nn.Linear(FINAL.hidden, 10)
    )
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), drawn.model.parameters.values(), strict=True):
            parameter.copy_(torch.tensor(value))
    groups: Any = [
        {"params": [p for p in network.parameters() if p.ndim == 2], "weight_decay": 2 * FINAL.l2},
        {"params": [p for p in network.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, FINAL.learning_rate, momentum=FINAL.momentum, fused=fused)
    x, y = torch.tensor(problem.train.x), torch.tensor(problem.train.labels)
    entropy, done = torch.nn.functional.cross_entropy, [0]

    def run(epochs: int) -> None:
        for _ in range(epochs):
            order = torch.tensor(stream(0, BATCHES, done[0]).permutation(len(x)))
            done[0] += 1
            for start in range(0, len(x), FINAL.batch_size):
                rows = order[start : start + FINAL.batch_size]
                optimiser.zero_grad(set_to_none=True)
                loss: Any = entropy(network(x[rows]), y[rows])
                loss.backward()
                optimiser.step()

    def reached() -> dict[str, float]:
        with torch.no_grad():
            return {"loss": float(entropy(network(x), y))}

    return Work(run, reached)


def main() -> None:
    """Read the options, and see to it that everyone has as many threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=1, help="timed at a time")
    parser.add_argument("--threads", type=int, default=2, help="for everyone's matrix products")
    parser.add_argument("--json", type=Path, metavar="FILE", help="its section of this file is written")
    options = parser.parse_args()
    if (torch := optional("torch")) is not None:
        torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Time everyone in turn, print, and write the section that README's table of nets has a row of."""

    def alone() -> Work:
        return flushed(torch_eager(problem, fused=True), alone=True)

    data = split()
    problem = Problem.of(data, get_backend("numpy"))
    without, epochs = lacking("torch"), options.epochs
    found = race(
        {
            "numpy": Contender(partial(ours, problem, "numpy")),
            "numba": Contender(partial(ours, problem, "cpu"), missing=why_no_numba() or ""),
            "torch": Contender(partial(torch_eager, problem, fused=False), "rival", without),
            "torch fused": Contender(partial(torch_eager, problem, fused=True), "rival", without),
            "torch one thread": Contender(alone, "rival", without),
        },
        options.rounds, pieces=epochs,
    )  # fmt: skip
    for entry in found.values():
        entry.seconds = [RUN * each for each in entry.seconds]
    notes = {"row": ROW, "epochs": epochs, "threads": options.threads}
    section = Section(provenance(), {ROW: Case(found)}, notes, data=data.name, rounds=options.rounds)
    print(page({"cifar-mlp": section}))
    if options.json:
        write_section(options.json, "cifar-mlp", section)


if __name__ == "__main__":
    main()
