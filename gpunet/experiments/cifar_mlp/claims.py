"""What document 004 claims, and how each claim is judged."""

from __future__ import annotations

import math
from dataclasses import asdict
from statistics import mean, pstdev

from gpunet.experiments.cifar_mlp import EPOCHS, Settings, x
from gpunet.experiments.claims import Finding, equal, fact, greater, one_run, peak
from gpunet.experiments.result import NotMeasuredError, Result

# Section 1.3: relative errors by parameter, under the document's names.
GRADIENTS = {
    "0.weight": ("W1", 3.4144e-3),
    "0.bias": ("b1", 9.7406e-3),
    "2.weight": ("W2", 1.8925e-7),
    "2.bias": ("b2", 2.1102e-9),
}
# Section 1.5.1: accuracy by learning rate at λ = 1e-6; 10 % is what it calls a random guesser, after NaN.
RATES = {
    0.001: 0.1664, 0.01: 0.4058, 0.02: 0.4131, 0.03: 0.4170, 0.05: 0.4008, 0.09: 0.3626, 0.1: 0.3514, 0.2: 0.2684,
    0.3: 0.1, 0.5: 0.1,
}  # fmt: skip
DIVERGES = 0.3  # and above
KINDS = {"with": "", "without": " no momentum"}  # in the names of its rows
DATA = "cifar10"
FINAL = 0.4255  # section 2.1
GRADIENT = 1e-6
NEAR = 0.03  # of accuracy: between JPEG copies or another draw of the weights, and the document's one run
FINAL_FLOOR = 0.01
CLEARLY = 0.05  # of accuracy: what "drastically" and "poor" have to mean at least
REGION = (0.02, 0.03)
SMALL, LARGE = 1e-3, 1e-2  # λ
STABLE = 0.01  # of accuracy between learning rates
MARK = 0.45  # "results above 45 % where not achieved"


@x.departs
def departs(result: Result) -> str:
    """The document's settings, and ours for what it leaves open; the η table's rates and the searches aside."""
    stated = asdict(Settings(epochs=EPOCHS))
    names = ("hidden", "momentum", "batch_size", "epochs", "table_l2", "final_rate", "final_l2")
    found = [
        f"{name.replace('_', ' ')} {result.settings[name]:g} for {stated[name]:g}"
        for name in names
        if result.settings[name] != stated[name]
    ]
    return f"this run has other settings than the document: {', '.join(found)}" if found else ""


def rates(result: Result) -> list[float]:
    """Those of the η table that was run."""
    return [r for r in dict.fromkeys(result.settings["learning_rates"]) if result.has(f"eta={r:g}", "diverged")]


@x.claim("momentum-faster", "momentum learns faster", "Section 1.4, Figure 1", "faster", on=DATA)
def momentum_faster(result: Result) -> Finding:  # told first of all on other data
    less = {}
    for rate in REGION:
        costs, plain = (_early(result, f"eta={rate:g}{kind}", "train_cost") for kind in KINDS.values())
        if not all(map(math.isfinite, (*costs, *plain))):
            raise NotMeasuredError(f"a net with η {rate:g} diverged")
        less[rate] = [b - a for a, b in zip(costs, plain, strict=True)]
    said, best = " and ".join(f"{mean(each):.3f} at η {rate:g}" for rate, each in less.items()), []
    for told, kind in KINDS.items():
        rate = _best(_by_rate(result, kind))
        best.append(f"{result.mean(f'eta={rate:g}{kind}', 'test_accuracy_early'):.2%} {told} (η {rate:g})")
    measured = (
        f"momentum: training cost lower by {said} after {result.notes['early']} epochs; test accuracy at the best η of "
        f"each: {', '.join(best)}"
    )
    return greater([min(each) for each in zip(*less.values(), strict=True)], measured)


@x.claim(
    "gradient-check", "the gradient agrees with a numeric one, relative error below 1e-6", "Section 1.3", "< 1e-6",
    on=DATA,
)  # fmt: skip
def gradient_check(result: Result) -> Finding:
    rows = {short: f"gradient-check {short}" for short, _ in GRADIENTS.values()}
    errors, by_element = (
        {short: max(result.values(row, metric)) for short, row in rows.items()}
        for metric in ("relative_error", "elementwise_error")
    )
    said, apart = (", ".join(f"{short} {e:.1e}" for short, e in each.items()) for each in (errors, by_element))
    most = max(errors.values())
    return fact(
        most < GRADIENT, f"numeric gradients differ by at most {most:.1e} ({said}); element by element {apart}",
        "judged relative to the parameter's largest gradient: element by element, which is what the document prints, "
        "differences that are nearly zero show their rounding, and corners of ReLU",
    )  # fmt: skip


def _declare_rate(rate: float, claimed: float) -> None:
    row, diverges = f"eta={rate:g}", rate >= DIVERGES
    statement = f"η = {rate:g}, λ = {{table_l2:g}}: " + ("diverges, 10 %" if diverges else "accuracy")

    @x.claim(f"eta-{rate:g}-test-accuracy", statement, "Section 1.5.1", claimed, on=DATA)
    def test(result: Result) -> Finding:
        after_all = result.values(row, "test_accuracy")
        if diverges:  # a net that did has the accuracy of chance, one that did not a better one
            found, gone = equal(after_all, claimed, NEAR, lower_is_better=True), result.values(row, "diverged")
            return Finding(found.measured, found.verdict, f"{sum(gone):g} of {len(gone)} diverged; {found.note}")
        found = equal(result.values(row, "test_accuracy_early"), claimed, NEAR)
        plain = result.mean(f"{row} no momentum", "test_accuracy_early")
        early, epochs = result.notes["early"], result.settings["epochs"]
        said = f"after {early} epochs ({plain:.2%} without momentum); after {epochs}: {mean(after_all):.2%}"
        return Finding(found.measured, found.verdict, f"{said}; {found.note}")


for _rate, _claimed in RATES.items():
    _declare_rate(_rate, _claimed)


@x.claim(
    "small-rate-slow", "too small a learning rate learns slowly: poor accuracy", "Section 1.5.1", "poor", on=DATA
)  # fmt: skip
def small_rate_slow(result: Result) -> Finding:
    small, good = (result.values(f"eta={rate:g}", "test_accuracy_early") for rate in (0.001, 0.02))
    gain = [b - a for a, b in zip(small, good, strict=True)]
    said = f"η 0.02: {_points(gain)} points over η 0.001 ({mean(good):.2%} against {mean(small):.2%})"
    return greater(gain, said, CLEARLY)


@x.claim("rate-region", "the best learning rates lie in 0.02 … 0.03", "Section 1.5.1", "0.02 … 0.03", on=DATA)
def rate_region(result: Result) -> Finding:
    for rate in RATES:
        result.values(f"eta={rate:g}", "diverged")
    curve = _by_rate(result, "")
    best = _best(curve)
    return peak(curve, *REGION, f"validation accuracy is best at η {best:g}: {mean(curve[best]):.2%}")


def _early(result: Result, row: str, curve: str) -> list[float]:
    """A curve's value after the early epochs, one a seed."""
    result.values(row, "test_accuracy_early")  # NotMeasuredError where the row was not run
    return [run[result.notes["early"] - 1] for run in result.curves[row][curve]]


def _by_rate(result: Result, kind: str) -> dict[float, list[float]]:
    """Validation accuracies after the early epochs by η, of the rates with which no seed diverged."""
    rows = {rate: f"eta={rate:g}{kind}" for rate in rates(result)}
    found = {
        rate: _early(result, row, "validation_accuracy")
        for rate, row in rows.items()
        if not any(result.values(row, "diverged"))
    }
    if not found:
        raise NotMeasuredError("nets diverged with every learning rate")
    return found


def _best(curve: dict[float, list[float]]) -> float:
    return max(curve, key=lambda rate: mean(curve[rate]))


def _points(differences: list[float]) -> str:
    return f"{100 * mean(differences):+.2f}"


# -- the search: one a run, whatever its seeds ------------------------------------------------------------------------


def _trials(result: Result, stage: int) -> list[tuple[float, float, float]]:
    """(η, λ, validation accuracy) of the trials of a stage that did not diverge."""
    curve = result.curves.get("search")
    if curve is None:
        raise NotMeasuredError("this run did not search")
    rows = zip(curve["stage"], curve["learning_rate"], curve["l2"], curve["validation_accuracy"], strict=True)
    return [(rate, l2, value) for at, rate, l2, value in rows if at == stage and math.isfinite(value)]


def _by_its_rate(result: Result, low: float, high: float) -> dict[float, list[float]]:
    """Validation accuracies of the coarse stage by η, of nets with a λ between."""
    found: dict[float, list[float]] = {}
    for rate, l2, value in _trials(result, 1):
        if low < l2 < high:
            found.setdefault(rate, []).append(value)
    return found


@x.claim(
    "large-l2-hurts", "large λ drastically reduces the accuracy", "Section 1.5.2, Figure 3", "drastically", on=DATA
)  # fmt: skip
def large_l2_hurts(result: Result) -> Finding:
    small, large = _by_its_rate(result, 0.0, SMALL), _by_its_rate(result, LARGE, math.inf)
    both = [rate for rate in small if rate in large]
    if not both:
        raise NotMeasuredError("the search tried no η with both a small and a large λ")
    gain = [mean(small[rate]) - mean(large[rate]) for rate in both]
    said = f"λ < {SMALL:g}: {_points(gain)} points of validation accuracy over λ > {LARGE:g}, η by η"
    return greater(gain, said, CLEARLY, "learning rates")


@x.claim(
    "rates-alike", "within 0.02 … 0.03 the learning rate hardly matters", "Section 1.5.2, Figure 3", "stable", on=DATA
)  # fmt: skip
def rates_alike(result: Result) -> Finding:
    means = [mean(values) for values in _by_its_rate(result, 0.0, SMALL).values()]
    if len(means) < 2:
        raise NotMeasuredError(f"the search tried fewer than two η with λ < {SMALL:g}")
    apart = max(means) - min(means)
    said = f"means by η within {100 * apart:.2f} points (λ < {SMALL:g})"
    return fact(apart < STABLE, said, f"of one search; {STABLE:.0%} counts as stable")


@x.claim("small-l2-best", "the search narrows to small λ", "Section 1.5.2", "small λ", on=DATA)
def small_l2_best(result: Result) -> Finding:
    trials = sorted(_trials(result, 1), key=lambda trial: -trial[2])
    best = [l2 for _, l2, _ in trials[: len(trials) // 10]]
    if not best:
        raise NotMeasuredError(f"the search has {len(trials)} nets in its first stage, its best tenth is none")
    said = f"the best tenth has λ from {min(best):.1e} to {max(best):.1e}"
    return fact(max(best) < LARGE, said, f"of one search; λ < {LARGE:g} counts as small")


@x.claim(
    "fine-stabilises", "in the fine stage the results are clearly stabler", "Section 1.5.2, Figure 4", "clearly",
    on=DATA,
)  # fmt: skip
def fine_stabilises(result: Result) -> Finding:
    coarse, fine = ([value for *_, value in _trials(result, stage)] for stage in (1, 2))
    if len(coarse) < 2 or len(fine) < 2:
        raise NotMeasuredError("the search has too few nets in a stage to have a deviation")
    said = f"{pstdev(coarse):.2%} in the coarse stage, {pstdev(fine):.2%} in the fine"
    return fact(
        pstdev(fine) < pstdev(coarse) / 2,
        f"deviation of the validation accuracy {said}",
        "of one search; half counts as clear",
    )


# -- single nets ------------------------------------------------------------------------------------------------------


@x.claim("final-test-accuracy", "final setting: test accuracy", "Section 2.1", FINAL, on=DATA)
def final(result: Result) -> Finding:
    return one_run(result.values("final", "test_accuracy"), FINAL, FINAL_FLOOR)


def _declare_gain(high: str, low: str, name: str, statement: str) -> None:
    @x.claim(name, statement, "Section 3.1", "yes", on=DATA)
    def test(result: Result) -> Finding:
        a, b = result.values(high, "test_accuracy"), result.values(low, "test_accuracy")
        gain = [one - other for one, other in zip(a, b, strict=True)]
        return greater(gain, f"{high}: {_points(gain)} points over {low} ({mean(a):.2%} against {mean(b):.2%})")


_declare_gain("final", "one layer", "better-than-one-layer", "better than a net of one layer")
_declare_gain("final he", "final", "he-helps", "He's initial weights improve it")
_declare_gain(
    "final decay early stopping", "final", "annealing-helps",
    "an annealed learning rate with early stopping improves it",
)  # fmt: skip
_declare_gain("final full", "final", "more-data-helps", "more data improve it")


@x.claim(
    "above-45", "improved so, more than 45 % are within reach (one batch, our search)", "Section 3.1", "> 45 %",
    on=DATA, number=True,
)  # fmt: skip
def above_45(result: Result) -> Finding:
    values = result.values("found", "test_accuracy")
    return greater([value - MARK for value in values], f"found: {mean(values):.2%}")
