"""A number, an ordering, and what was not measured."""

from __future__ import annotations

from gpunet.experiments.claims import Finding, fact
from gpunet.experiments.result import NotMeasuredError

from . import stack, x

MARGIN = 1.0


def accuracy(result) -> Finding:
    found = result.mean(result.names[0], "accuracy")
    return Finding(found, "reproduced" if abs(found - 0.75) <= MARGIN else "not reproduced", f"margin {MARGIN}")


def falls(result) -> Finding:
    first, *_, last = result.curves[result.names[0]]["loss"][0]
    return fact(last < first, f"{first:.3f} to {last:.3f}", "lower counts")


def size(result) -> Finding:
    raise NotMeasuredError("not measured")


for each in (x, stack):
    on = "xor" if each is x else "linear+xor-easy"
    each.claim("accuracy", "it reaches 75 % in {epochs} epochs", "Table 1", 0.75, on=on)(accuracy)
    each.claim("falls", "the loss falls", "Figure 1", "falls", on=on)(falls)
    each.claim("size", "it is small", "Table 2", "small", on=on)(size)
