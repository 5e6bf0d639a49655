"""What `gn.compress` did to a network, told: a sentence, a table, and a page of both with a figure."""

from __future__ import annotations

from pathlib import Path

from gpunet.compression.told import Said, sentence
from gpunet.extras import need
from gpunet.files import write_atomically
from gpunet.report.drawing import collected
from gpunet.report.table import NOTHING, Column, Table

BARS = 40  # layers that a figure has room for
NAME = 24  # characters of a layer's name that a narrow figure has room for
NOTE = (
    "Off by: the root of the mean square of what changed over that of what was there, rounding included, so no more "
    "than this{}. At least: no two factors of this rank change less."
)
OF_OUTPUTS = "; of outputs on the calibration data, about their mean where the layer has a bias"


def layers_table(said: Said) -> Table:
    """A row a layer."""
    seen = any(each["output_error"] is not None for each in said["layers"])
    errors = {"weight_error": "weights off by"} | ({"output_error": "outputs off by"} if seen else {})
    errors["least"] = "at least"
    columns = (
        Column("weight"), Column("rank"), Column("parameters"), Column("after"),
        *(Column(heading, "%") for heading in errors.values()), Column("why", text=True),
    )  # fmt: skip
    rows = []
    for each in said["layers"]:
        before, after = each["parameters"]
        rank = NOTHING if each["rank"] is None else str(each["rank"])
        shape = "×".join(map(str, each["shape"])) or NOTHING
        rows.append(
            (
                each["name"] or "(all)",
                shape,
                rank,
                f"{before:,}",
                f"{after:,}",
                *(_percent(each[n]) for n in errors),
                each["why"],
            )
        )
    return Table("Layers", columns, tuple(rows), NOTE.format(OF_OUTPUTS if seen else ""), corner="layer")


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.3g}"


def draw(said: Said, path: Path) -> None:
    """A bar a layer, as long as the share of its numbers that remains; beside it by how much it is off."""
    from gpunet.report.style import COLOURS, figure, stacked

    cut = [each for each in said["layers"] if each["rank"] is not None][:BARS]
    if not cut:
        return
    names = [each["name"] or "(all)" for each in cut]
    if stacked():
        names = [name if len(name) <= NAME else f"…{name[1 - NAME :]}" for name in names]
    places = list(range(len(cut)))[::-1]
    error = "weight_error" if any(each["output_error"] is None for each in cut) else "output_error"
    with figure(path, 2, height=1.2 + 0.28 * len(cut)) as (kept, off):
        kept.barh(places, [100 * each["parameters"][1] / each["parameters"][0] for each in cut], color=COLOURS[0])
        kept.set(title="what remains of its numbers, %", xlim=(0, 100))
        kept.set_yticks(places, names)
        off.barh(places, [100 * (each[error] or 0) for each in cut], color=COLOURS[1])
        off.set(title=f"its {error.partition('_')[0]}s are off by at most, %")
        off.set_yticks(places, names if stacked() else [""] * len(places))
        for axes in (kept, off):
            axes.set_ylim(-0.6, len(cut) - 0.4)


def write(said: Said, path: Path, title: str) -> Path:
    """Write the page; returns its path. MissingError where what draws it is not installed."""
    need("the page", "matplotlib", "jinja2", "msgspec")
    from gpunet.report.page import rendered
    from gpunet.report.page.contents import Figure, picture

    drawn = []
    for narrow in (False, True):
        with collected(narrow=narrow) as svg:
            draw(said, Path("layers.png"))
        drawn.append(svg.get("layers"))
    figures = []
    if drawn[0] and drawn[1]:
        caption = "What remains of each layer, and by how much it is off; layers that were kept are left out."
        figures = [Figure(picture(drawn[0]), picture(drawn[1]), caption, caption)]
    promise = {n: f"{100 * v:.3g} %" if n in ("budget", "max_drop") else v for n, v in said["promise"].items()}
    pairs = {
        "asked for": ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in promise.items()),
        "calibration samples": f"{said['samples']:,}",
        "trained on": "yes" if said["tuned"] else "no",
    }
    text = rendered(
        "compression.html", title=title, sentence=sentence(said), sheet=layers_table(said), figures=figures, pairs=pairs
    )
    write_atomically(path, text.encode())
    return path
