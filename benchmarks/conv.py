"""Convolution beside PyTorch: python benchmarks/conv.py [CASE …] [--rounds N] [--json FILE]."""

from __future__ import annotations

from gpunet.bench.conv import CASES, FORMATS, compare
from gpunet.bench.record import options, write_section


def main() -> None:
    chosen = options(__doc__, CASES)
    results = {}
    for name in chosen.cases:
        case = CASES[name]
        times, reached = compare(case, chosen.rounds)
        rivals = [rival for rival in FORMATS if rival in times.seconds]
        best = min(rivals, key=times.median, default=None)
        results[name] = {
            contestant: {
                "microseconds_per_batch": 1e6 * times.median(contestant) / case.steps,
                "over_best_torch": times.ratio(contestant, best) if best else None,
                "over_best_torch_quartiles": times.spread(contestant, best) if best else None,
                "loss" if case.trains else "mean_feature": reached[contestant],
            }
            for contestant in times.seconds
        }
        for contestant, figures in results[name].items():
            ratio = figures["over_best_torch"]
            print(
                f"{name:15} {contestant:20} {figures['microseconds_per_batch']:9.1f} µs/batch of {case.batch}  "
                + (f"{ratio:6.3f}× the better torch" if ratio else "no torch here")
                + f"  {'loss' if case.trains else 'mean feature'} {reached[contestant]:.4f}",
                flush=True,
            )
    if chosen.json:
        write_section(chosen.json, "conv", {"rounds": chosen.rounds, "cases": results})


if __name__ == "__main__":
    main()
