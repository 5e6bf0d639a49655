"""What Thiry et al. claim, and how each claim is judged."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean

from gpunet.experiments.claims import Finding, equal, greater, peak
from gpunet.experiments.patches import x
from gpunet.experiments.result import NotMeasuredError, Result

DATA, TABLES = "cifar10", "Tables of the repository"
# Test accuracy by dictionary, one run each.
TABLE = {512: 0.784, 1024: 0.803, 2048: 0.826, 4096: 0.835, 16384: 0.855, 65536: 0.859}
FLOOR = 0.01  # of accuracy: JPEG copies, another draw, and twice the binomial deviation of 10,000 images


def curve(result: Result, kind: str) -> dict[str, list[float]]:
    """Test accuracy of every seed by dictionary ("patches") or by ε ("whitening")."""
    rows = [name for name in result.names if kind in name]
    return {row.replace(kind, "").strip(" ="): result.values(row, "test_accuracy") for row in rows}


for _count, _claimed in TABLE.items():
    x.claim(f"{_count}-test-accuracy", f"test accuracy with {_count} patches", TABLES, _claimed, on=DATA)(
        lambda result, row=f"{_count} patches", claimed=_claimed: equal(
            result.values(row, "test_accuracy"), claimed, FLOOR
        )
    )


@x.claim("grows", "accuracy grows with the dictionary", TABLES, "grows", on=DATA)
def grows(result: Result) -> Finding:
    found = list(curve(result, "patches").values())
    if len(found) < 2:
        raise NotMeasuredError("this run has one dictionary")
    steps = [min(b - a for a, b in pairwise(seed)) for seed in zip(*found, strict=True)]
    gain = 100 * (fmean(found[-1]) - fmean(found[0]))
    return greater(steps, f"the largest dictionary: {gain:+.1f} points over the smallest")


@x.claim("whitening-is-key", "whitening is the key ingredient", "Section 4", "better", on=DATA)
def whitening(result: Result) -> Finding:
    words = f"{result.settings['whitening']:g}", "none"
    pairs = zip(*(result.values(f"whitening={word}", "test_accuracy") for word in words), strict=True)
    gain = [a - b for a, b in pairs]
    return greater(gain, f"whitening: {100 * fmean(gain):+.1f} points over none, with ε {words[0]}")


@x.claim("best-near-1e-3", "whitening is best with ε near 1e-3", TABLES, "1e-3", on=DATA)
def best_whitening(result: Result) -> Finding:
    found = {float(word): values for word, values in curve(result, "whitening").items() if word != "none"}
    said = ", ".join(f"{at:g}: {fmean(values):.2%}" for at, values in found.items())
    return peak(found, 1e-4, 1e-2, f"test accuracy by ε {said}")
