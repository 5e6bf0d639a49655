"""What Thiry et al. claim, and how each claim is judged."""

from __future__ import annotations

from gpunet.experiments.claims import Finding, equal, exceeds, paired, peak, points, rises, swept
from gpunet.experiments.patches import x
from gpunet.experiments.result import Result

DATA, TABLES = "cifar10", "Tables of the repository"
# Test accuracy by dictionary, one run each.
TABLE = {512: 0.784, 1024: 0.803, 2048: 0.826, 4096: 0.835, 16384: 0.855, 65536: 0.859}
FLOOR = 0.01  # of accuracy: JPEG copies, another draw, and twice the binomial deviation of 10,000 images


for _count, _claimed in TABLE.items():
    x.claim(f"{_count}-test-accuracy", f"test accuracy with {_count} patches", TABLES, _claimed)(
        lambda result, row=f"{_count} patches", claimed=_claimed: equal(
            result.values(row, "test_accuracy"), claimed, FLOOR
        )
    )


@x.claim("grows", "accuracy grows with the dictionary", TABLES, "grows")
def grows(result: Result) -> Finding:
    counts = result.settings["dictionaries"]
    found = {count: result.values(f"{count} patches", "test_accuracy") for count in counts}
    return rises(
        found, f"the largest dictionary: {points(paired(found[max(counts)], found[min(counts)]))} over the smallest"
    )


@x.claim("whitening-is-key", "whitening is the key ingredient", "Section 4", "better")
def whitening(result: Result) -> Finding:
    return exceeds(result, f"whitening={result.settings['whitening']:g}", "whitening=none")


@x.claim("best-near-1e-3", "whitening is best with ε near 1e-3", TABLES, "1e-3")
def best_whitening(result: Result) -> Finding:
    return peak(swept(result, "whitening"), 1e-4, 1e-2, "test accuracy by ε")
