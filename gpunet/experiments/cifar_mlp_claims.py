"""What document 004 claims, and how each claim is judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, pstdev

from gpunet.experiments.claims import Claim, Finding, compare, judge, one_run, ordering, verdict
from gpunet.experiments.result import ClaimResult, Result

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
DATASET = "cifar10"
FINAL = 0.4255  # section 2.1
GRADIENT = 1e-6
NEAR = 0.03  # of accuracy: between JPEG copies or another draw of the weights, and the document's one run
FINAL_FLOOR = 0.01
CLEARLY = 0.05  # of accuracy: what "drastically" and "poor" have to mean at least
REGION = (0.02, 0.03)
SMALL, LARGE = 1e-3, 1e-2  # λ
STABLE = 0.01  # of accuracy between learning rates
MARK = 0.45  # "results above 45 % where not achieved"


def verdicts(result: Result, as_in_the_document: bool) -> list[ClaimResult]:
    """All claims; with other settings than the document's what was found, and no verdict."""
    found = judge(CLAIMS, result)
    if as_in_the_document or result.dataset != DATASET:
        return found
    note = (
        "the document has a hidden layer (of 50 units, by our reading), momentum (0.9), batches of 64, 10 epochs, "
        "η 0.020815 and λ 0.00012554 at the end; this run has other settings"
    )
    return [replace(each, verdict="not tested", note=note) for each in found]


def _gradient(result: Result) -> Finding | None:
    errors = {short: result.values(f"gradient-check {short}", "relative_error") for short, _ in GRADIENTS.values()}
    if not all(errors.values()):
        return None
    by_element = {s: max(result.values(f"gradient-check {s}", "elementwise_error")) for s in errors}
    said = ", ".join(
        f"{short} {max(values):.1e} (by element {by_element[short]:.1e})" for short, values in errors.items()
    )
    found = ordering([max(each) < GRADIENT for each in zip(*errors.values(), strict=True)], said)
    note = (
        "; judged relative to the parameter's largest gradient: element by element, which is what the document prints, "
        "differences that are nearly zero show their rounding, and corners of ReLU"
    )
    return Finding(found.measured, found.verdict, found.note + note)


def _rate_claim(rate: float, claimed: float) -> Claim:
    row, diverges = f"eta={rate:g}", rate >= 0.3

    def test(result: Result) -> Finding | None:
        values, diverged = result.values(row, "test_accuracy_early"), result.values(row, "diverged")
        if not values:
            return None
        if diverges:
            share = [value == 1 for value in diverged]
            said = f"{sum(share)} of {len(share)} diverged, accuracy {mean(result.values(row, 'test_accuracy')):.2%}"
            return ordering(share, said)
        found = compare(values, claimed, NEAR)
        early, epochs = result.settings["early"], result.settings["epochs"]
        plain = result.mean(f"{row} no momentum", "test_accuracy_early") or math.nan
        said = f"after {early} epochs ({plain:.2%} without momentum)"
        later = f"after {epochs}: {result.mean(row, 'test_accuracy'):.2%}"
        return Finding(found.measured, found.verdict, f"{said}; {later}; {found.note}")

    return Claim(
        f"eta-{rate:g}-test-accuracy", f"η = {rate:g}, λ = 1e-6: " + ("diverges, 10 %" if diverges else "accuracy"),
        "Section 1.5.1", claimed, DATASET, test,
    )  # fmt: skip


def _momentum(result: Result) -> Finding | None:
    costs = {}
    for rate in REGION:
        costs[rate] = [_costs(result, f"eta={rate:g}{kind}", result.settings["early"]) for kind in ("", " no momentum")]
    if not all(there for pair in costs.values() for there in pair):
        return None
    said = "; ".join(f"η {rate:g}: cost {mean(a):.3f} with, {mean(b):.3f} without" for rate, (a, b) in costs.items())
    best = [each for kind in ("", " no momentum") if (each := _best(result, kind))]
    said += "; test at the best η of each: " + ", ".join(f"{accuracy:.2%} (η {rate:g})" for rate, accuracy in best)
    holds = [x < y for a, b in costs.values() for x, y in zip(a, b, strict=True)]
    found = ordering(holds, f"training {said}")
    return Finding(found.measured, found.verdict, found.note.replace("seeds", "rates and seeds"))


def _costs(result: Result, row: str, epoch: int) -> list[float]:
    """Training cost of each seed after an epoch; empty where it was not measured, or diverged."""
    runs = result.curves.get(row, {}).get("train_cost", [])
    found = [run[epoch - 1] for run in runs]
    return found if all(math.isfinite(cost) for cost in found) else []


def _best(result: Result, kind: str) -> tuple[float, float] | None:
    """The η with the best validation accuracy, and its test accuracy, after the early epochs; None if all diverged."""
    early, rates = result.settings["early"], result.settings["learning_rates"]
    looked = {
        rate: mean(run[early - 1] for run in result.curves[f"eta={rate:g}{kind}"]["validation_accuracy"])
        for rate in rates
        if not any(result.values(f"eta={rate:g}{kind}", "diverged"))
    }
    if not looked:
        return None
    best = max(looked, key=lambda rate: looked[rate])
    return best, mean(result.values(f"eta={best:g}{kind}", "test_accuracy_early"))


def _small_rate(result: Result) -> Finding | None:
    small, good = (result.values(f"eta={rate:g}", "test_accuracy_early") for rate in (0.001, 0.02))
    if not small or not good:
        return None
    said = f"{mean(small):.2%} at 0.001, {mean(good):.2%} at 0.02"
    return ordering([b > a + CLEARLY for a, b in zip(small, good, strict=True)], said)


def _region(result: Result) -> Finding | None:
    if not all(result.values(f"eta={rate:g}", "diverged") for rate in RATES):
        return None
    found = _best(result, "")
    if found is None:
        return None
    rate, _ = found
    return Finding(f"best at {rate:g}", verdict(REGION[0] <= rate <= REGION[1]), "by mean validation accuracy")


def _trials(result: Result, stage: int) -> list[tuple[float, float, float]]:
    """(η, λ, validation accuracy) of the trials of a stage that did not diverge."""
    curve = result.curves.get("search")
    if curve is None:
        return []
    rows = zip(curve["stage"], curve["learning_rate"], curve["l2"], curve["validation_accuracy"], strict=True)
    return [(rate, l2, value) for at, rate, l2, value in rows if at == stage and math.isfinite(value)]


def _large_l2(result: Result) -> Finding | None:
    trials = _trials(result, 1)
    small, large = [v for _, l2, v in trials if l2 < SMALL], [v for _, l2, v in trials if l2 > LARGE]
    if not small or not large:
        return None
    said = f"validation {mean(large):.2%} for λ > {LARGE:g}, {mean(small):.2%} for λ < {SMALL:g}"
    return Finding(said, verdict(mean(large) < mean(small) - CLEARLY), f"{CLEARLY:.0%} counts as drastic")


def _rates_alike(result: Result) -> Finding | None:
    trials = [(rate, value) for rate, l2, value in _trials(result, 1) if l2 < SMALL]
    means = [mean(v for r, v in trials if r == rate) for rate in sorted({rate for rate, _ in trials})]
    if len(means) < 2:
        return None
    apart = max(means) - min(means)
    said = f"means by η within {100 * apart:.2f} points (λ < {SMALL:g})"
    return Finding(said, verdict(apart < STABLE), f"{STABLE:.0%} counts as stable")


def _small_l2_is_best(result: Result) -> Finding | None:
    trials = sorted(_trials(result, 1), key=lambda trial: -trial[2])
    if len(trials) < 10:
        return None
    best = [l2 for _, l2, _ in trials[: len(trials) // 10]]
    said = f"the best tenth has λ from {min(best):.1e} to {max(best):.1e}"
    return Finding(said, verdict(max(best) < LARGE), f"λ < {LARGE:g} counts as small")


def _stabilises(result: Result) -> Finding | None:
    coarse, fine = ([value for *_, value in _trials(result, stage)] for stage in (1, 2))
    if len(coarse) < 2 or len(fine) < 2:
        return None
    said = (
        f"deviation of the validation accuracy {pstdev(coarse):.2%} in the coarse stage, {pstdev(fine):.2%} in the fine"
    )
    return Finding(said, verdict(pstdev(fine) < pstdev(coarse) / 2), "half counts as clear")


def _final(result: Result) -> Finding | None:
    values = result.values("final", "test_accuracy")
    return one_run(values, FINAL, FINAL_FLOOR) if values else None


def _more(rows: Sequence[str]) -> Claim:
    """Whether the first row has the higher test accuracy than the second, seed by seed."""
    high, low, id_, text, where = rows

    def test(result: Result) -> Finding | None:
        a, b = result.values(high, "test_accuracy"), result.values(low, "test_accuracy")
        if not a or not b:
            return None
        return ordering([x > y for x, y in zip(a, b, strict=True)], f"{high}: {mean(a):.2%}, {low}: {mean(b):.2%}")

    return Claim(id_, text, where, "yes", DATASET, test)


def _above(result: Result) -> Finding | None:
    values = result.values("found", "test_accuracy")
    return ordering([v > MARK for v in values], f"found: {mean(values):.2%}") if values else None


CLAIMS = [
    Claim(
        "gradient-check", "the gradient agrees with a numeric one, relative error below 1e-6", "Section 1.3", "< 1e-6",
        DATASET, _gradient,
    ),
    *(_rate_claim(rate, claimed) for rate, claimed in RATES.items()),
    Claim("small-rate-slow", "too small a learning rate learns slowly: poor accuracy", "Section 1.5.1", "poor",
          DATASET, _small_rate),
    Claim("rate-region", "the best learning rates lie in 0.02 … 0.03", "Section 1.5.1", "0.02 … 0.03", DATASET,
          _region),
    Claim("momentum-faster", "momentum learns faster", "Section 1.4, Figure 1", "faster", DATASET, _momentum),
    Claim("large-l2-hurts", "large λ drastically reduces the accuracy", "Section 1.5.2, Figure 3", "drastically",
          DATASET, _large_l2),
    Claim("rates-alike", "within 0.02 … 0.03 the learning rate hardly matters", "Section 1.5.2, Figure 3", "stable",
          DATASET, _rates_alike),
    Claim("small-l2-best", "the search narrows to small λ", "Section 1.5.2", "small λ", DATASET, _small_l2_is_best),
    Claim("fine-stabilises", "in the fine stage the results are clearly stabler", "Section 1.5.2, Figure 4", "clearly",
          DATASET, _stabilises),
    Claim("final-test-accuracy", "final setting: test accuracy", "Section 2.1", FINAL, DATASET, _final),
    *map(_more, (
        ("final", "one layer", "better-than-one-layer", "better than a net of one layer", "Section 3.1"),
        ("final he", "final", "he-helps", "He's initial weights improve it", "Section 3.1"),
        ("final decay early stopping", "final", "annealing-helps",
         "an annealed learning rate with early stopping improves it", "Section 3.1"),
        ("final full", "final", "more-data-helps", "more data improve it", "Section 3.1"),
    )),
    Claim("above-45", "improved so, more than 45 % are within reach (one batch, our search)", "Section 3.1", "> 45 %",
          DATASET, _above),
]  # fmt: skip
