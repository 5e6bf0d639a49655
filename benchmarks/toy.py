"""Stacked training against one net after the other: python benchmarks/toy.py [--nets N] [--limit N] [--rounds N].

All nets of the document's setting as one stack, beside four ways to train one after the other, in turn in one process.
Of these only the first few nets are trained, for up to --steps steps, and their time a step is counted for all steps of
all nets. `Trainer` trains biases too, which the document's nets do not have, so that it makes as many steps but other
nets; `looking` is what it needs to know the samples' losses after each step, as the stopping rule asks.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.backend.blas import threads
from gpunet.bench.steps import training
from gpunet.experiments.provenance import Stopwatch
from gpunet.experiments.toy_nets import Nets, pose, variants
from gpunet.samples import Samples
from gpunet.stacked import train
from gpunet.timing import interleave

APART = 4  # nets that are trained one after the other


def plain(weights, x, labels, rate, threshold, limit):
    """One net as one would write it down."""
    weights, x, t = [w[0].T.astype("f4") for w in weights], x.astype("f4"), labels[:, None].astype("f4")
    for step in range(limit):
        values = [x]
        for w in weights:
            values.append(1 / (1 + np.exp(-values[-1] @ w)))
        error = values[-1] - t
        if (0.5 * error**2 < threshold).all():
            return step + 1
        for layer in reversed(range(len(weights))):
            y = values[layer + 1]
            delta = error * y * (1 - y)
            error = delta @ weights[layer].T
            weights[layer] -= rate * values[layer].T @ delta
    return limit


def trainer_steps(nets, steps, looking):
    """A call that makes as many full-batch steps of a Trainer on the first net's data."""
    x, labels = nets.problem.of(0)
    layers = [gn.Dense(units, "sigmoid", weight="uniform_sigmoid") for units in (*nets.hidden, 1)]
    trainer = gn.Trainer(
        gn.Sequential(layers), gn.SquaredError("sum"), gn.SGD(0.8), device=get_backend("cpu"), dtype="float32"
    )
    data = Samples.of(trainer.backend, x, labels, 2)
    step = training(trainer, data, len(data), lambda: np.arange(len(data)))

    def run():
        for _ in range(steps):
            step()
            if looking:
                (0.5 * (trainer.outputs(data)[:, 0] - labels) ** 2).max()

    return run


def compare(name, options):
    seeds = list(range(options.nets))
    nets = Nets(pose(gn.datasets.load(name), seeds), (3, 3), seeds, options.limit)
    main = variants([0.8], 0.04)[0]
    weights, steps, made = nets.start(main), {}, {}
    few = min(options.steps, options.limit)

    def stack():
        made["stack"] = train(
            weights, nets.problem.x, nets.problem.labels, learning_rate=0.8, threshold=0.04, limit=options.limit
        )
        steps["one stack"] = int((made["stack"].steps + 1).sum())

    def apart(how, key):
        def run():
            steps[key] = 0
            for net in range(min(APART, options.nets)):
                steps[key] += how([w[net : net + 1] for w in weights], *nets.problem.of(net))

        return run

    def alone(own, x, labels):
        return 1 + int(train(own, x, labels, learning_rate=0.8, threshold=0.04, limit=few).steps[0])

    rivals = {
        "one stack": stack,
        "a stack of one": apart(alone, "a stack of one"),
        "plain NumPy": apart(lambda own, x, labels: plain(own, x, labels, 0.8, 0.04, few), "plain NumPy"),
        "Trainer": trainer_steps(nets, few, looking=False),
        "Trainer, looking": trainer_steps(nets, few, looking=True),
    }
    steps |= {"Trainer": few, "Trainer, looking": few}
    began = time.perf_counter()
    times = interleave(rivals, options.rounds)
    each = {who: np.array(seconds) / steps[who] for who, seconds in times.seconds.items()}
    everything, found = steps["one stack"], {}
    print(
        f"{name}: {options.nets} nets, at most {options.limit} steps, {made['stack'].converged.sum()} stopped, "
        f"{everything:,} steps in all ({time.perf_counter() - began:.0f} s)"
    )
    for who, seconds in each.items():
        low, middle, high = np.percentile(seconds / each["one stack"], (25, 50, 75))
        found[who] = {
            "microseconds_per_step": 1e6 * float(np.median(seconds)),
            "ratio": middle,
            "quartiles": (low, high),
        }
        print(
            f"  {who:17} {1e6 * np.median(seconds):8.2f} µs a step of a net  {np.median(seconds) * everything:8.2f} s "
            f"for all  {middle:6.1f}× ({low:.1f} to {high:.1f})",
            flush=True,
        )
    return {"nets": options.nets, "limit": options.limit, "steps": everything, "rivals": found}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[2], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=300, help="of one net after the other")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    watch = Stopwatch()
    found = {name: compare(name, options) for name in ("xor-easy", "linear")}
    if options.json:
        provenance = watch.provenance(get_backend("cpu")) | {"threads": threads()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"rounds": options.rounds, **found, "provenance": provenance}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
