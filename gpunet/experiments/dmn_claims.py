"""What document 002 claims, and how each claim is judged."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from gpunet.experiments.claims import Claim, Finding, ordering, verdict
from gpunet.experiments.result import Result

FAR_LESS = 1 / 3  # of the time: what "far less" has to mean at least
NEAR = 0.002  # of accuracy: what "as good" allows


def _pairs(result: Result, layers: int) -> list[str]:
    """Filter counts of the DMNs with so many layers that have a ConvNet beside them."""
    names = [row.name.removeprefix("dmn ") for row in result.rows if row.name.startswith("dmn ")]
    there = {row.name for row in result.rows}
    return [name for name in names if name.count("+") == layers - 1 and f"convnet {name}" in there]


def _gains(result: Result, layers: int, metric: str = "test_accuracy") -> dict[str, list[float]]:
    """DMN less ConvNet by filter counts, a value a seed."""
    return {
        name: [
            a - b
            for a, b in zip(
                result.values(f"dmn {name}", "test_accuracy"), result.values(f"convnet {name}", metric), strict=True
            )
        ]
        for name in _pairs(result, layers)
        if result.values(f"convnet {name}", metric)
    }


def _said(result: Result, layers: int) -> str:
    """Gains at equal epochs, and against the ConvNets trained for longer."""
    equal, later = _gains(result, layers), _gains(result, layers, "test_accuracy_long")
    parts = []
    for name, gains in equal.items():
        longer = f", {100 * mean(later[name]):+.1f} when the ConvNet trains longer" if name in later else ""
        parts.append(f"{name}: {100 * mean(gains):+.1f} points{longer}")
    return "; ".join(parts)


def _better(layers: int, least: float = 0.0) -> Callable[[Result], Finding | None]:
    def test(result: Result) -> Finding | None:
        gains = _gains(result, layers)
        if not gains:
            return None
        every = [gain > least for each in gains.values() for gain in each]
        found = ordering(every, _said(result, layers))
        return Finding(found.measured, found.verdict, found.note.replace("seeds", "nets and seeds"))

    return test


def _within_a_point(result: Result) -> Finding | None:
    gains = {**_gains(result, 1), **_gains(result, 2)}
    if not gains:
        return None
    every = [gain >= -0.01 for each in gains.values() for gain in each]
    said = "; ".join(said for layers in (1, 2) if (said := _said(result, layers)))
    return Finding(
        said,
        verdict(mean(every) >= 0.75),
        f"within a point, or better, for {sum(every)} of {len(every)} nets and seeds",
    )


def _equal(result: Result) -> Finding | None:
    gains = _gains(result, 2)
    if not gains:
        return None
    return ordering([abs(gain) <= 0.01 for each in gains.values() for gain in each], _said(result, 2))


def _curve(result: Result, symbol: str) -> dict[float, float]:
    """Mean test accuracy by value of a swept setting."""
    rows = [row for row in result.rows if row.name.startswith(f"{symbol}=")]
    return {float(row.name.partition("=")[2]): row.metrics["test_accuracy"].mean for row in rows}


def _peak(symbol: str, low: float, high: float) -> Callable[[Result], Finding | None]:
    def test(result: Result) -> Finding | None:
        curve = _curve(result, symbol)
        if not curve:
            return None
        best = max(curve, key=lambda value: curve[value])
        said = ", ".join(f"{value:g}: {accuracy:.2%}" for value, accuracy in curve.items())
        return Finding(
            f"best at {best:g} ({said})", verdict(low <= best <= high),
            f"a best value from {low:g} to {high:g} counts",
        )  # fmt: skip

    return test


def _hurts_towards_one(result: Result) -> Finding | None:
    curve = _curve(result, "T_PC")
    if 1.0 not in curve:
        return None
    best = max(curve.values())
    said = f"{curve[1.0]:.2%} at 1, {best:.2%} at best"
    return Finding(said, verdict(curve[1.0] < best - NEAR), f"more than {NEAR:.1%} below the best counts")


def _enough_data(result: Result) -> Finding | None:
    curve = _curve(result, "T_frac")
    if not {0.3, 0.4, 1.0} <= set(curve):
        return None
    enough = min(curve[0.3], curve[0.4]) >= curve[1.0] - NEAR
    said = ", ".join(f"{value:g}: {accuracy:.2%}" for value, accuracy in curve.items())
    return Finding(said, verdict(enough), f"at most {NEAR:.1%} below all of the data counts")


def _lower_first(result: Result) -> Finding | None:
    rates = [result.values("convergence", f"early_rate_{i}") for i in (1, 2, 3, 4)]
    if not all(rates):
        return None
    said = ", ".join(f"layer {i + 1}: {mean(values):+.2f}" for i, values in enumerate(rates))
    lower = [(a + b) / 2 > (c + d) / 2 and a > d for a, b, c, d in zip(*rates, strict=True)]
    return ordering(lower, f"early de-trended rates {said}")


def _one_over_n(result: Result) -> Finding | None:
    slopes = result.values("fluctuations", "slope")
    if not slopes:
        return None
    said = f"|δλ|/λ falls as N^{mean(slopes):.2f}"
    return Finding(said, verdict(abs(mean(slopes) + 1) < 0.1), "an exponent within 0.1 of −1 counts")


def _cheap(result: Result) -> Finding | None:
    ratios = {}
    for name in [*_pairs(result, 1), *_pairs(result, 2)]:
        fits, nets = result.timings[f"dmn {name}"], result.timings[f"convnet {name}"]
        epochs = result.settings["epochs"]
        ratios[name] = mean(f["fit"] / sum(n["per_epoch"][:epochs]) for f, n in zip(fits, nets, strict=True))
    if not ratios:
        return None
    said = ", ".join(f"{name}: {ratio:.2f}×" for name, ratio in ratios.items())
    cheap = max(ratios.values()) < FAR_LESS
    return Finding(f"fitting over the ConvNet's training: {said}", verdict(cheap), f"below {FAR_LESS:.2f} counts")


CLAIMS = [
    Claim(
        "mnist-within-1-percent", "MNIST: within 1 % of the ConvNet in almost all cases", "Figure 3, Section 3.1",
        "within 1 point", "mnist", _within_a_point,
    ),
    Claim(
        "cifar10-1-layer", "CIFAR-10: one DMN layer is better than the ConvNet", "Figure 3, Section 3.1", "better",
        "cifar10", _better(1),
    ),
    Claim(
        "cifar10-2-layers", "CIFAR-10: two DMN layers are 5 to 10 points better", "Figure 3, Section 3.1",
        "5 to 10 points", "cifar10", _better(2, 0.05),
    ),
    Claim(
        "cifar100-1-layer", "CIFAR-100: one DMN layer is better than the ConvNet", "Figure 3, Section 3.1", "better",
        "cifar100", _better(1),
    ),
    Claim(
        "cifar100-2-layers", "CIFAR-100: two layers perform equally", "Figure 3, Section 3.1", "equal", "cifar100",
        _equal,
    ),
    Claim(
        "t-pc-peak", "accuracy peaks near T_PC = 0.8", "Figure 3, Section 3", "0.8", "mnist", _peak("T_PC", 0.7, 0.9)
    ),
    Claim(
        "t-pc-one-hurts", "not dropping correlated vectors (T_PC → 1) hurts", "Section 3", "drops", "mnist",
        _hurts_towards_one,
    ),
    Claim(
        "t-v-peak", "accuracy peaks near T_v = 0.98", "Figure 3, Section 3", "0.98", "mnist", _peak("T_v", 0.95, 0.99)
    ),
    Claim(
        "t-frac", "30 to 40 % of the data give what all of it gives", "Figure 3, Section 3", "0.3 to 0.4", "mnist",
        _enough_data,
    ),
    *(
        Claim(
            f"lower-first-{name}", f"{name}: lower layers converge first", "Figure 1", "lower first", name, _lower_first
        )
        for name in ("mnist", "cifar10", "cifar100")
    ),
    Claim(
        "fluctuations", "fluctuations of the density matrix fall as 1/N", "Figure 2, equation 12", "−1", "mnist",
        _one_over_n,
    ),
    *(
        Claim(
            f"cheaper-{name}", f"{name}: fitting the layers takes far less time than training them", "Section 3.2",
            "far less", name, _cheap,
        )
        for name in ("mnist", "cifar10", "cifar100")
    ),
]  # fmt: skip
