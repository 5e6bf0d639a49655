"""One figure."""

from __future__ import annotations

from . import stack, x


@x.figure("loss", "The loss.", "Lines of the loss.")
@stack.figure("loss", "The loss.", "Lines of the loss.")
def loss(result, axes) -> None:
    for name in result.names:
        axes.plot(result.curves[name]["loss"][0], label=name)
