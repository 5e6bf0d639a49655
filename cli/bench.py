"""`gpunet bench`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpunet.cli import completion, options
from gpunet.cli.help import Commands
from gpunet.experiments import experiments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpunet.bench.results import Section

app = Commands()


def _cases() -> Sequence[str]:
    from gpunet.bench.train import CASES

    return [*CASES]


def _precisions() -> Sequence[str]:
    from gpunet.nn.trainer import PRECISIONS

    return PRECISIONS


@app.command()
def train(
    case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default="all",
            autocompletion=completion.among(_cases),
            help="mnist-2048, mnist-64 (784-512-256-10 at these batch sizes), wide-128 (1024-2048-2048-10), digits-32, "
            "digits-32-deep or points-21; may be given several times.",
        ),
    ] = None,
    device: options.Device = "auto",
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rounds of timing; figures are medians over them.")
    ] = 9,
    compiled: Annotated[
        bool, typer.Option("--compile", help="On a GPU also torch.compile(mode=reduce-overhead): half a minute a case.")
    ] = False,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            show_default="all",
            autocompletion=completion.among(_precisions),
            help="Of ours: float32, mixed (bfloat16 products, float32 weights) or, on a GPU, tf32; several may be "
            "given.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Time training steps beside PyTorch and beside the matrix products alone.

    Each contestant trains the same net with Adam, batch after batch, as `fit` does; all run in turn in every round,
    and ratios are taken inside the rounds, so that a machine which others use too does not favour one of them.
    "products" are the matrix products of a step with nothing between them: the floor. The loss at the end shows that
    all have learned the same.

    On a CPU: plain NumPy, numba's element-wise passes, those in mixed precision, PyTorch eager with fused Adam. On a
    GPU: operation by operation ("eager"), the whole step as one CUDA graph ("graph"), that in mixed precision and in
    TF32, PyTorch on the same GPU. "bf16" is PyTorch under autocast.

    For example:

        gpunet bench train --case mnist-64 --case digits-32
    """  # fmt: skip
    from gpunet.backend import get_backend
    from gpunet.bench import record, results
    from gpunet.bench import train as bench
    from gpunet.checks import check_one_of
    from gpunet.errors import InputError
    from gpunet.nn.trainer import PRECISIONS
    from gpunet.progress import progress

    chosen = list(dict.fromkeys(case or bench.CASES))
    for name in chosen:
        if name not in bench.CASES:
            raise InputError(f"unknown case '{name}': expected some of {', '.join(bench.CASES)}")
    words: list[Any] = [check_one_of("--precision", word, PRECISIONS) for word in precision or ()]
    backend = get_backend(device)
    found = results.Section(results.provenance(backend), notes={"device": backend.name}, rounds=rounds)
    with progress(True) as bar:
        cases = {name: bench.CASES[name] for name in chosen}
        missing = record.training(
            cases, found, backend, rounds, bar, compiled=compiled, precisions=words, what="bench train"
        )
    _told(found, "train", json, _training, missing)


def _training(found: Section) -> Any:
    from gpunet.report.bench_tables import time

    heads = ["time", "over\nproducts", "over PyTorch's\nfastest float32", "quartiles", "loss"]
    rows: list[tuple[str, ...]] = []
    breaks: list[int] = []
    for name, case in found.cases.items():
        breaks.append(len(rows))
        rivals = ("products", case.fastest_of_torch())
        for place, (who, entry) in enumerate(case.entries.items()):
            over = [_over(case.entries, who, rival) for rival in rivals]
            loss = entry.notes.get("loss")
            rows.append((
                "" if place else name, who, time(entry.median), *(f"{o[0]:.3f}×" if o else "–" for o in over),
                "–".join(f"{q:.3f}" for q in over[1][1:]) or "–", "–" if loss is None else f"{loss:.4f}",
            ))  # fmt: skip
    title = f"One Adam step on {found.notes['device']}, median of {found.rounds} rounds; quartiles of the ratio"
    return _table(title, ["case", ""], heads, rows, breaks)


def _over(entries: Any, who: str, rival: str) -> list[float]:
    """Median and quartiles of a ratio, as far as they are known."""
    from gpunet.bench.results import ratio

    return ratio(entries[who], entries[rival], rival) or [] if rival in entries else []


@app.command()
def svd(
    shape: Annotated[
        str | None,
        typer.Option(metavar="MxN", show_default="MNIST, 784x60000", help="A made matrix of this shape."),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", metavar="N", min=1, help="How many singular triples.")] = 100,
    against: Annotated[str, typer.Option(metavar="LIST", help="Rivals, by comma.")] = "numpy,sklearn,torch,scipy",
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rounds; full decompositions of large matrices run once.")
    ] = 5,
    device: options.Device = "cpu",
    json: options.Json = False,
) -> None:
    """Time the leading singular vectors of a matrix: route, time, ratio, errors against a float64 reference.

    Rivals do the work that their users would call them for: numpy.linalg.svd; scikit-learn's PCA (one side, centred)
    and randomized_svd; torch.linalg.svd and svd_lowrank; scipy's svds. "ratio" is their time over gpunet's for the same
    work. "error in σ" is the largest, over the largest σ; randomised results are not checked by themselves, and may be
    far off. numpy needs about 20 s for MNIST.

    For example:

        gpunet bench svd --shape 1000x20000 --k 20 --against numpy,scipy
    """
    from gpunet.backend import get_backend
    from gpunet.bench import record, results
    from gpunet.bench import svd as bench
    from gpunet.progress import Progress

    size, backend = _shape(shape), get_backend(device)
    where, problem = bench.asked(size, k, [name.strip() for name in against.split(",") if name.strip()])
    found = results.Section(results.provenance(backend), {}, {"device": backend.name}, [], where, rounds)
    missing = record.decompositions([problem], found, backend, rounds, Progress())
    _told(found, "svd", json, _decompositions, missing)


def _decompositions(found: Section) -> Any:
    ((name, case),) = found.cases.items()
    rows: list[tuple[str, ...]] = []
    for who, entry in case.entries.items():
        if entry.median:
            beside = "gpunet, one side" if "covariance" in who else "gpunet"
            ratio = entry.median / (case.entries[beside].median or float("nan"))
            errors = [f"{entry.notes[what]:.1e}" for what in ("sigma", "angle", "energy_missed")]
            rows.append((who, entry.notes.get("route", "its own"), f"{entry.median:.3f}", f"{ratio:.2f}", *errors))
    return _table(
        f"{found.data}: {name}, {found.notes['device']}", ["", "route"],
        ["seconds", "ratio", "error in σ", "angle, rad", "energy missed"], rows, keys=1,
        note=f"relative gap of σ at k: {case.notes['gap']:.2g}",
    )  # fmt: skip


def _shape(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})\s*[x×]\s*(\d{1,9})", text.strip())
    if match is None or 0 in (size := (int(match[1]), int(match[2]))):
        from gpunet.errors import InputError

        raise InputError(f"--shape is {text!r}: expected two sizes, say 784x60000")
    return size


@app.command()
def scaling(
    width: Annotated[
        str, typer.Option(metavar="LOW..HIGH|LIST", help="The powers of two in a range, or widths by comma.")
    ] = "256..8192",
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Samples a step.")] = 512,
    alpha: Annotated[str, typer.Option(metavar="LIST", help="Shares in (0, 1] that set the rank, by comma.")] = (
        "0.5,0.25,0.125"
    ),
    meaning: Annotated[
        str,
        typer.Option(
            metavar="break-even|dimension",
            help="Of α: rank ⌊α mn/(m + n)⌋, or α min(m, n). A square layer of width w has α w/2, or α w.",
        ),
    ] = "break-even",
    layers: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many wide layers, the last one of 10 classes aside.")
    ] = 2,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rounds of timing; figures are medians over them.")
    ] = 5,
    device: options.Device = "auto",
    out: Annotated[Path, options.out("Folder for result.json and the figure.")] = Path("runs/scaling"),
    json: options.Json = False,
) -> None:
    """Time training steps of wide nets, dense against factored, and say how much of the promised speed-up is realised.

    Forward, loss, backward and Adam of width → width → … → 10, as `fit` runs them, dense and factored in turn.

    "allowed" is the count of document 001: mn multiplications dense against l(m + n) factored, in every product.
    "of a step" counts the products that a step of this net runs, exactly. It is lower where factoring pays:
    the first layer needs no gradient of the data, so its step takes 2mn a sample dense, but l(2 in + 3 out) factored.
    Neither counts what is done to elements: bias, activation, Adam.

    A width that needs more memory than there is gets a row that says so.

    For example:

        gpunet bench scaling --width 256..2048 --alpha 0.5,0.125
    """
    from gpunet.backend import get_backend
    from gpunet.backend.blas import threads
    from gpunet.bench import results
    from gpunet.bench import scaling as bench
    from gpunet.experiments.provenance import Stopwatch
    from gpunet.files import RESULT, writable_folder
    from gpunet.progress import progress

    settings = bench.Settings(_widths(width), _alphas(alpha), meaning, batch, layers, rounds)
    backend, watch, folder = get_backend(device), Stopwatch(), writable_folder(out, RESULT)
    with progress(True) as bar:
        found = bench.compare(settings, backend, bar)
    found.provenance = watch.provenance(backend) | {"threads": threads()}

    def draw() -> None:
        from gpunet.report import scaling_figure

        scaling_figure.draw(found, folder)

    text = results.as_json(found, benchmark="scaling").decode()
    options.finish(folder, text, json, draw, lambda: _scaled(found))


def _widths(text: str) -> tuple[int, ...]:
    """Powers of two in "256..8192", or the numbers of "256,512,1000"; ascending, each once."""
    from gpunet.errors import InputError

    found: list[int] = []
    if between := re.fullmatch(r"\s*(\d{1,9})\s*\.\.\s*(\d{1,9})\s*", text):
        low, high = int(between[1]), int(between[2])
        if low > high:
            raise InputError(f"--width is {text!r}: its end is below its beginning; expected, say, {high}..{low}")
        found = [2**power for power in range(30) if low <= 2**power <= high]
        if not found:
            raise InputError(f"--width is {text!r}: no power of two lies in it; name widths by comma, say {low},{high}")
    elif re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)*", text):
        found = sorted({int(part) for part in text.split(",")})
    else:
        raise InputError(f"--width is {text!r}: expected a range such as 256..8192, or widths such as 256,512,1000")
    return tuple(found)


def _alphas(text: str) -> tuple[float, ...]:
    """The numbers of "0.5,0.25", in that order, each once."""
    from gpunet.errors import InputError

    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < alpha <= 1 for alpha in found):
        raise InputError(f"--alpha is {text!r}: expected shares above 0 and up to 1 by comma, such as 0.5,0.25")
    return tuple(dict.fromkeys(found))


def _scaled(found: Section) -> None:
    from gpunet.report.terminal import console

    of = found.notes
    heads = ["rank", "dense\nms", "factored\nms", "speed-up", "quartiles", "allowed", "of a\nstep"]
    rows: list[tuple[str, ...]] = []
    breaks: list[int] = []
    for case in found.cases.values():
        breaks.append(len(rows))
        for entry in case.entries.values():
            if (noted := entry.notes) and "alpha" in noted:
                times = ["–", "–", "skipped", "–"]
                if speed := _over({**case.entries, "": entry}, "dense", ""):
                    times = [f"{1e3 * each:.4g}" for each in (case.entries["dense"].median or 0, entry.median or 0)]
                    times += [f"{speed[0]:.2f}×", "–".join(f"{ratio:.2f}" for ratio in speed[1:]) or "–"]
                counts = [f"{noted[count]:.2f}×" for count in ("allowed", "allowed_step")]
                cells = [str(case.notes["width"]), f"{noted['alpha']:g}", str(noted["rank"]), *times, *counts]
                rows.append(tuple(cells))
    title = (
        f"Dense step over factored step, {of['meaning']} α: {of['layers']} wide layers, batch {of['batch']}; "
        f"{of['device']} ({of['kernels']}), median and quartiles, rounds: {found.rounds}"
    )
    console().print(_table(title, ["width", "α"], heads, rows, breaks))
    for case in found.cases.values():
        if why := case.notes.get("skipped"):
            options.say(f"width {case.notes['width']} skipped: {why}")


@app.command()
def devices(
    devices: Annotated[
        str, typer.Option("--devices", metavar="LIST", help="Two or more by comma; the first is the one to beat.")
    ] = "cpu,cuda",
    experiment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default="all",
            autocompletion=completion.experiments,
            help=f"{', '.join(experiments())}; may be given several times.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick/--full", help="Embedded data and few seeds, or the documents' data and seeds."),
    ] = True,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", "-n", metavar="N", min=1, show_default="each experiment's own", help="How many seeds."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Run whole experiments on the CPU and on a GPU: how long each takes, and whether they find the same.

    Every experiment is run on every device, one after the other, as `gpunet run` does. "speed-up" is the first
    device's time over the last one's. "apart" is the largest difference between devices of an accuracy (or of the
    share of nets that converged), mean over seeds: initial weights and batches are the same everywhere, but sums are
    rounded in another order.

    Small nets on small data keep a GPU waiting for the host: `--full` shows what it is for.

    Examples; the second, for which no GPU is needed, compares plain NumPy with numba:

        gpunet bench devices --experiment NAME --experiment NAME --full
        gpunet bench devices --devices numpy,cpu
    """  # fmt: skip
    from gpunet.bench import devices as bench
    from gpunet.progress import progress

    chosen = list(dict.fromkeys(experiment or experiments()))
    with progress(True) as bar:
        found = bench.compare([name.strip() for name in devices.split(",")], chosen, quick, seeds, bar)
    _told(found, "devices", json, _devices)


def _devices(found: Section) -> Any:
    kinds = found.notes["devices"]
    quick = "quick" if found.notes["quick"] else "as in the documents"
    rows: list[tuple[str, ...]] = []
    for name, case in found.cases.items():
        each = [case.entries[device].median for device in kinds]
        speed = f"{each[0] / each[-1]:.2f}×" if each[0] and each[-1] else "–"
        apart = case.notes["apart"]
        rows.append((
            name, case.notes["dataset"], *(f"{seconds:.2f}" if seconds else "failed" for seconds in each), speed,
            "–" if apart is None else f"{apart:.4f}", case.notes["where"],
        ))  # fmt: skip
    title = f"Whole experiments, {quick}: {', '.join(f'{name} is {what}' for name, what in kinds.items())}"
    heads = [*(f"{name}\ns" for name in kinds), "speed-up", "apart"]
    return _table(title, ["experiment", "data"], heads, rows, texts=["where"])


@app.command()
def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", show_default=False, help="What --benchmark-json wrote, or a file of benchmarks/results."
        ),
    ],
    out: Annotated[Path, options.out()] = Path("runs/bench"),
    json: options.Json = False,
) -> None:
    """Turn files of benchmarks into tables and figures of ratios: time of ours over the rival's, smaller is better.

    Several files, say of two machines, stand side by side. Ratios are of medians, with quartiles over rounds.

    For example:

        pytest benchmarks --benchmark-only --benchmark-json here.json
        gpunet bench report here.json
    """
    from gpunet.bench import report as bench
    from gpunet.files import RESULT, writable_folder

    found = bench.report(files)
    folder = writable_folder(out, RESULT)

    def draw() -> None:
        from gpunet.report import bench_figures

        bench_figures.draw(found, folder)

    def show() -> None:
        from gpunet.report import bench_tables
        from gpunet.report.terminal import console, rich_table

        for table in map(rich_table, bench_tables.tables(found)):
            console().print(table)
        for line in [line for each in found.files for line in each.failed]:
            options.say(line)

    options.finish(folder, found.text(), json, draw, show)


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", show_default=False, help="A file as `bench report` takes it.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", show_default=False, help="Another of the same benchmarks.")],
    limit: Annotated[float, typer.Option(min=0, metavar="PERCENT", help="How much a ratio may grow.")] = 15.0,
) -> None:
    """Say whether anything got slower: exit code 1 where a ratio of ours over a rival is worse in NEW than in OLD.

    Ratios are of contestants timed on the same machine, so that a faster or busier one cancels out. A ratio is worse
    when its median grew by more than the limit and, where quartiles are known, the lower one of NEW lies above the
    upper one of OLD: what lies within the noise is shown, but fails nothing.

    For example:

        gpunet bench compare last-week.json today.json --limit 10
    """
    import math

    from gpunet.bench import report as bench
    from gpunet.errors import InputError
    from gpunet.progress import tell
    from gpunet.report import bench_tables
    from gpunet.report.terminal import console, rich_table

    if math.isnan(limit):
        raise InputError("--limit is nan: expected a percentage from 0 on")
    before, after = bench.read(old), bench.read(new)
    found = bench.changes(before, after)
    if before.machine != after.machine:
        tell(f"warning: {before.machine} and {after.machine} are not the same kind of machine")
    verdicts = [each.verdict(limit) for each in found]
    console().print(rich_table(bench_tables.changes(found, verdicts)))
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts))
    options.say(f"{counts}; the limit is {limit:g} %")
    if "worse" in verdicts:
        raise typer.Exit(1)


@app.command()
def record(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="A file of benchmarks/results.")],
    question: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUESTION",
            show_default="those that README shows",
            help="train, epoch, lowrank, conv, svd; svd-grid and payoff take long.",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rounds of timing; figures are medians over them.")
    ] = 9,
    device: options.Device = "cpu",
) -> None:
    """Measure ours beside every rival that is installed, and write each question's section of a file of results.

    The file's other sections stay. README's tables are made from such files, see CONTRIBUTING. Measure on a quiet
    machine: threads of matrix products wait for each other, beside busy processes ten times as long.

    For example:

        gpunet bench record benchmarks/results/my-machine.json train svd
    """
    from gpunet.bench import record as bench
    from gpunet.progress import progress

    with progress(True) as bar:
        failed = bench.record(file, question or bench.SHOWN, device, rounds, bar)
    for line in failed:
        options.say(line)
    options.say(f"Written: {file}")
    if failed:
        raise typer.Exit(1)


# -- what the commands share ------------------------------------------------------------------------------------------


def _told(found: Section, name: str, json: bool, table: Any, missing: Sequence[str] = ()) -> None:
    """A section as JSON or as its table, and what failed or was not there; exit code 1 where something failed."""
    from gpunet.bench.results import as_json, failures
    from gpunet.report.terminal import console

    failed = failures(found, between=" on " if name == "devices" else ", ")
    if json:
        print(as_json(found, benchmark=name).decode(), end="")
    else:
        console().print(table(found))
        for line in (*failed, *missing):
            options.say(line)
    if failed:
        raise typer.Exit(1)


def _table(
    title: str, names: Sequence[str], numbers: Sequence[str], rows: Sequence[tuple[str, ...]],
    breaks: Sequence[int] = (), texts: Sequence[str] = (), keys: int = 2, note: str = "",
) -> Any:  # fmt: skip
    """A table whose first columns are names, then numbers, then words."""
    from gpunet.report.table import Column, Table
    from gpunet.report.terminal import rich_table

    words = [Column(name, text=True) for name in names[1:]], [Column(name, text=True) for name in texts]
    columns = (*words[0], *map(Column, numbers), *words[1])
    return rich_table(Table(title, columns, tuple(rows), note, frozenset(breaks[1:]), names[0], keys))
