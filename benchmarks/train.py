"""Training speed beside PyTorch: python benchmarks/train.py [CASE …] [--rounds N] [--json FILE]."""

from __future__ import annotations

from gpunet.bench.record import options, write_section
from gpunet.bench.train import CASES, compare


def main() -> None:
    chosen = options(__doc__, CASES)
    results = {}
    for name in chosen.cases:
        case = CASES[name]
        times, losses = compare(case, chosen.rounds)
        results[name] = {
            contestant: {
                "microseconds_per_step": 1e6 * times.median(contestant) / case.steps,
                "over_products": times.ratio(contestant, "products"),
                "over_products_quartiles": times.spread(contestant, "products"),
                "over_torch": times.ratio(contestant, "torch") if "torch" in times.seconds else None,
                "over_torch_quartiles": times.spread(contestant, "torch") if "torch" in times.seconds else None,
                "loss": losses.get(contestant),
            }
            for contestant in times.seconds
        }
        for contestant, figures in results[name].items():
            torch = figures["over_torch"]
            print(
                f"{name:15} {contestant:9} {figures['microseconds_per_step']:9.1f} µs/step  "
                f"{figures['over_products']:6.2f}× products  " + (f"{torch:6.3f}× torch" if torch else "no torch here"),
                flush=True,
            )
    if chosen.json:
        write_section(chosen.json, "train", {"rounds": chosen.rounds, "cases": results})


if __name__ == "__main__":
    main()
