"""Running all experiments, one after the other; what is finished already is kept."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpunet.backend import get_backend
from gpunet.errors import DataError, FetchError, GpunetError, OutputError
from gpunet.experiments.work import Done, Order, Work
from gpunet.files import alone, remove, writable_folder, write_atomically
from gpunet.reproduce.asked import asked, changed, fingerprint
from gpunet.reproduce.claims import Book
from gpunet.reproduce.display import Display, screen
from gpunet.reproduce.forecast import Forecast
from gpunet.reproduce.plan import Run, plan, select

FAILURE = "failure.txt"  # the traceback of what nobody foresaw, in the run's folder


@dataclass(frozen=True)
class Request:
    """What is asked for. `only` names experiments or runs, () all; fresh: what is finished is run again, too."""

    folder: Path
    quick: bool = False
    seeds: int | None = None
    device: str = "auto"
    only: tuple[str, ...] = ()
    fresh: bool = False


@dataclass
class Outcome:
    """What became of it: the book of claims, the chosen runs, the page of the report."""

    book: Book
    runs: list[Run]
    page: Path | None = None
    problems: list[str] = field(default_factory=list)


def reproduce(request: Request, progress: bool = False) -> Outcome:
    """Run what is chosen and write `claims.json` after each, and the report at the end.

    A run whose data is missing and cannot be fetched is skipped, and one that fails does not end the others: `problems`
    has a line of each. Where `claims.json` can no longer be written, all ends, and it says where that is kept. Raises
    InputError and its kin for a request that cannot be, before anything is run.
    """
    get_backend(request.device)
    listed = plan(request.quick)
    chosen = select(listed, request.only)
    orders = [run.order(request.seeds) for run in chosen]
    folder = writable_folder(request.folder)
    with alone(folder, "`gpunet reproduce`"):
        book = Book(folder, listed, request.quick, request.fresh)
        job = _Job(request, book, chosen, orders)
        job.fetch(progress)
        outcome = Outcome(book, chosen, problems=job.problems)
        with job.display(progress) as display:
            try:
                job.run(display)
            except OutputError as error:  # of claims.json: no run could be kept from now on
                outcome.problems.append(str(error))
                return outcome
            display.say("report.html: all figures are drawn again")
            _report(outcome)
    return outcome


class _Job:
    """The chosen runs of a request."""

    def __init__(self, request: Request, book: Book, runs: Sequence[Run], orders: Sequence[Order]) -> None:
        self.request, self.book, self.runs = request, book, list(runs)
        self.orders = dict(zip((run.name for run in runs), orders, strict=True))
        backend = get_backend(request.device)
        self.asked = {name: asked(order, backend) for name, order in self.orders.items()}
        self.unfetched: dict[str, str] = {}  # data sets that could not be fetched, and why
        self.problems: list[str] = []
        self.expected = {run.name: self._expected(run) for run in runs}
        if request.fresh:
            for run in runs:
                book.begin(run)
        book.write()

    def _expected(self, run: Run) -> tuple[float, int]:
        """Seconds and pieces: of the run before, else those measured once; for as many seeds as there are."""
        entry, seeds = self.book.entry(run.name), len(self.orders[run.name].seeds)
        if entry["state"] == "finished":
            return entry["seconds"] * seeds / max(1, len(entry["seeds"])), entry["pieces"]
        return run.seconds * seeds / run.usual_seeds, run.pieces

    def _kept(self, name: str) -> bool:
        """Whether a run is finished as it is asked for now, its data not looked at."""
        return self.book.intact(name) and not changed(self.asked[name], self.book.entry(name)["asked"])

    def fetch(self, progress: bool) -> None:
        """Fetch the data sets that are missing."""
        from gpunet import datasets

        needed = [name for run in self.runs if not self._kept(run.name) for name in self.orders[run.name].names]
        for name in dict.fromkeys(needed):
            if datasets.status(name, check=False).state not in ("missing", "incomplete"):
                continue
            try:
                datasets.fetch(name, progress=progress)
            except (FetchError, OutputError) as error:
                self.unfetched[name] = str(error)

    def display(self, progress: bool) -> Display:
        """The progress of those runs that have to be run."""
        forecast = Forecast({name: e for name, e in self.expected.items() if not self._kept(name)})
        return Display(screen(progress), forecast, len(self.runs))

    def run(self, display: Display) -> None:
        """All runs, in their order."""
        for place, run in enumerate(self.runs, 1):
            self._one(place, run, display)

    def _one(self, place: int, run: Run, display: Display) -> None:
        """Keep a run, skip it, or carry it out."""
        entry, wanted, kept = self.book.entry(run.name), self.asked[run.name], self._kept(run.name)
        try:
            work = self.orders[run.name].load()
        except DataError as error:
            if kept:
                line = f"kept, begun {entry['started']}; its data is not here to be looked at again"
            else:
                line = self._skip(run, error)
            display.passed(place, run.name, line)
            return
        wanted = wanted | {"data": fingerprint(work.data)}
        why = "" if entry["asked"] is None else changed(wanted, entry["asked"]) or "its files changed"
        if kept and wanted == entry["asked"]:
            if not entry["figures"]:  # stopped before they were drawn
                self._draw_again(run, work)
            display.passed(place, run.name, f"kept, begun {entry['started']}; what it depends on is unchanged")
            return
        display.begin(place, run.name, self.expected[run.name], why)
        self.book.begin(run)
        display.end(self._carry_out(run, work, wanted, display))

    def _skip(self, run: Run, error: DataError) -> str:
        """The run has no data; returns a line that says so."""
        names = self.orders[run.name].names
        told = next((self.unfetched[name] for name in names if name in self.unfetched), None)
        reason = str(error) if told is None else f"{'+'.join(names)} is missing and could not be fetched: {told}"
        return self._give_up(run, "skipped", reason)

    def _give_up(self, run: Run, state: str, reason: str) -> str:
        line = f"{state}: {' '.join(reason.split())}"
        self.problems.append(f"{run.name} {line}")  # first: what is known of it may have no place to be written to
        self.book.give_up(run, state, reason)
        return line

    def _carry_out(self, run: Run, work: Work, wanted: dict[str, object], display: Display) -> str:
        """The run itself; returns a line that says how it ended."""
        folder = self.book.folder / run.name

        def finish(done: Done) -> None:
            self.book.finish(run, done, wanted, display.forecast.pieces)

        try:
            remove(folder / FAILURE)
            done = work.carry_out(folder, self.request.device, display, finish)
            if done.problem:
                raise OutputError(done.problem)
            finish(done)
        except Exception as error:
            if self.book.at != self.book.path:  # what could not be written is claims.json
                raise
            reason = str(error)
            if not isinstance(error, GpunetError):
                reason = f"unexpected {type(error).__name__}: {error} (traceback in {folder / FAILURE})"
                with contextlib.suppress(OSError):
                    write_atomically(folder / FAILURE, traceback.format_exc())
            return self._give_up(run, "failed", reason)
        entry = self.book.entry(run.name)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in entry["counts"].items() if count)
        return f"finished in {entry['seconds']:.0f} s: {counts}"

    def _draw_again(self, run: Run, work: Work) -> None:
        """The figures of a run that is finished but for them."""
        from gpunet.report.page.reading import RESULT, read_result

        folder = self.book.folder / run.name
        with contextlib.suppress(DataError):  # which the report tells
            self.book.drawn(run, work.draw(read_result(folder / RESULT), folder))


def _report(outcome: Outcome) -> None:
    """Write the page; a failure there is a problem like the others."""
    from gpunet.report import page

    try:
        outcome.page = page.write(outcome.book.folder)
    except Exception as error:
        told = str(error) if isinstance(error, GpunetError) else f"unexpected {type(error).__name__}: {error}"
        outcome.problems.append(f"report.html was not written: {told}")
