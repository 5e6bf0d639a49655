"""What was done to a network, in words: a sentence, and a line a layer that was cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpunet.reprs import columns, table_html

Said = Mapping[str, Any]  # a network's `compression`
HEAD = ("layer", "weight", "rank", "parameters", "after", "weights off by", "outputs off by")


class Told(dict[str, Any]):
    """A network's `compression`: a dict, which a REPL and a notebook show as a table.

    Copied or pickled it is a plain one, so that a network of PyTorch's needs no gpunet where it is read.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __repr__(self) -> str:
        return "\n".join((columns(HEAD, self._rows()), sentence(self, between=",\n")))

    def _repr_html_(self) -> str:
        return table_html(HEAD, self._rows(), sentence(self))

    def _rows(self) -> list[list[str]]:
        rows = []
        for each in self["layers"]:
            rank = "–" if each["rank"] is None else str(each["rank"])
            errors = ("–" if each[n] is None else f"{each[n]:.3g}" for n in ("weight_error", "output_error"))
            shape, numbers = "×".join(map(str, each["shape"])), (f"{n:,}" for n in each["parameters"])
            rows.append([each["name"] or "(all)", shape, rank, *numbers, *errors])
        return rows


def sentence(said: Said, between: str = ", ") -> str:
    """What became of the whole: parameters, metric, time."""
    before, after = said["parameters"]
    told = [f"Parameters {before:,} → {after:,} ({after / max(1, before):.1%})"]
    if "chosen" in said:
        whole, left = said["chosen"]
        told.append(f"of the chosen weights {whole:,} → {left:,} ({left / max(1, whole):.1%})")
    if "metric" in said:
        was, now = said["metric"]
        share = all(0 <= value <= 1 for value in said["metric"])
        told.append(f"metric {100 * was:.2f} → {100 * now:.2f} %" if share else f"metric {was:.5g} → {now:.5g}")
    if "time_ratio" in said:
        ratio, low, high = said["time_ratio"]
        batch = said["batch"]
        told.append(f"batch-{batch} time 1.0 → {ratio:.2f}× (quartiles {low:.2f} to {high:.2f})")
    return between.join(told)
