"""Factored training: python benchmarks/lowrank.py [--grid [--every N]] [--rounds N] [--device DEVICE] [--json FILE].

Without --grid, the MNIST net 784-512-256-10 dense and factored beside PyTorch and beside its products alone. With it,
whether `Factorise(policy="measured")` ever made training slower, over shapes, batches and ranks.
"""

from __future__ import annotations

import argparse

from gpunet.backend import get_backend
from gpunet.backend.blas import threads
from gpunet.bench import payoff_grid
from gpunet.bench.lowrank import CASE, NETS, compare
from gpunet.bench.record import json_option, torch_version, write_section
from gpunet.experiments.provenance import Stopwatch
from gpunet.progress import progress


def mnist(rounds, backend):
    found = compare(backend, rounds)
    times, nets = found.times, {}
    for net, ranks in NETS.items():
        contestants = {}
        for name in times.seconds:
            who, _, of = name.partition(", ")
            if of == net:
                torch = f"torch, {net}"
                contestants[who] = {
                    "milliseconds_per_step": 1e3 * times.median(name) / found.steps,
                    "speed_up": times.ratio(f"{who}, dense", name),
                    "speed_up_quartiles": times.spread(f"{who}, dense", name),
                    "over_products": times.ratio(name, f"products, {net}"),
                    "over_products_quartiles": times.spread(name, f"products, {net}"),
                    "over_torch": times.ratio(name, torch) if torch in times.seconds else None,
                    "over_torch_quartiles": times.spread(name, torch) if torch in times.seconds else None,
                    "loss": found.losses.get(name),
                }
        allowed, allowed_step = found.allowed[net], found.allowed_step[net]
        nets[net] = {"ranks": ranks, "allowed": allowed, "allowed_step": allowed_step, "contestants": contestants}
        print(
            f"{net}, ranks {ranks[0]}, {ranks[1]}: allowed {allowed:.3f}× by the document, {allowed_step:.3f}× a step"
        )
        for who, figures in contestants.items():
            torch, loss = figures["over_torch"], figures["loss"]
            print(
                f"  {who:9} {figures['milliseconds_per_step']:8.2f} ms/step  {figures['speed_up']:6.3f}× faster than "
                f"dense  {figures['over_products']:6.3f}× products  "
                + (f"{torch:6.3f}× torch" if torch else "no torch here")
                + (f"  loss {loss:.4f}" if loss else ""),
                flush=True,
            )
    return {"batch": CASE.batch, "steps": found.steps, "nets": nets}


def grid(rounds, backend, every):
    chosen = list(payoff_grid.cases())[::every]
    with progress(True) as bar:
        outcomes, verdict = payoff_grid.run(chosen, backend, rounds, bar)
    for name, spread in (("factored over dense", verdict.ratios), ("dense over dense", verdict.noise)):
        print(f"{name}, time of a step: " + ", ".join(f"{at} % {value:.3f}" for at, value in spread.items()))
    print(f"slower than dense, of {verdict.factored} factored: {len(verdict.slower)}")
    print(f"the same, of {verdict.left_dense} left dense (false alarms): {len(verdict.false_alarms)}")
    for each in (*verdict.slower, *verdict.false_alarms):
        print(f"  {told(each)}")
    most = max(outcomes, key=lambda each: each.seconds)
    print(f"deciding and cutting took up to {most.seconds:.2f} s")
    return payoff_grid.as_dict(outcomes, verdict)


def told(outcome):
    case, (low, high) = outcome.case, outcome.quartiles
    out, inner = case.shape
    return (
        f"{'factored' if outcome.converted else 'left dense'} {out}×{inner}, rank {case.rank}, batch {case.batch}: "
        f"{outcome.ratio:.3f}× ({low:.3f}–{high:.3f}), slower in {outcome.slower:.0%} of rounds"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[2], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of the grid's cases, each N-th alone")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    json_option(parser)
    options = parser.parse_args()
    backend, watch = get_backend(options.device), Stopwatch()
    threaded = threads()
    with_torch = None if options.grid else torch_with(threaded)
    found = grid(options.rounds, backend, options.every) if options.grid else mnist(options.rounds, backend)
    provenance = watch.provenance(backend) | {"torch": with_torch, "threads": threaded}
    if options.json:
        name = "lowrank-grid" if options.grid else "lowrank"
        write_section(options.json, name, {"rounds": options.rounds, **found}, provenance)


def torch_with(threads):
    """PyTorch's version, told to use as many threads as our products; None where it is not installed."""
    version = torch_version()
    if version and threads:
        import torch

        torch.set_num_threads(threads)
    return version


if __name__ == "__main__":
    main()
