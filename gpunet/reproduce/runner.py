"""Running all experiments, one after the other; what is finished already is kept."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpunet.backend import get_backend
from gpunet.errors import DataError, FetchError, GpunetError, OutputError
from gpunet.experiments.framework import Done, Run
from gpunet.experiments.result import RESULT, Result
from gpunet.files import alone, remove, writable_folder, write_atomically
from gpunet.report.claims import here_lines, told_counts
from gpunet.report.claims_json import Entry, State
from gpunet.reproduce.claims_file import ClaimsFile, cause
from gpunet.reproduce.display import Display
from gpunet.reproduce.plan import PlannedRun, changed, fingerprint, plan, run_spec, select

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
    """What became of it: claims.json, the chosen runs, the page of the report, and a line for each problem."""

    file: ClaimsFile
    runs: list[PlannedRun]
    page: Path | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        """What claims.json holds of the chosen runs."""
        return [self.file.runs[run.name] for run in self.runs]


def reproduce(request: Request, progress: bool = False) -> Outcome:
    """Run what is chosen and write `claims.json` after each, and the report at the end.

    A run whose data is missing and cannot be fetched is skipped, and one that fails does not end the others: `problems`
    has a line of each. Where `claims.json` can no longer be written, all ends, and it says where that is kept. Raises
    InputError and its kin for a request that cannot be, before anything is run.
    """
    backend = get_backend(request.device)
    planned = plan(request.quick)
    chosen = select(planned, request.only)
    specs = {run.name: run_spec(run.request(request.seeds), backend) for run in chosen}
    folder = writable_folder(request.folder)
    with alone(folder, "`gpunet reproduce`"):
        file = ClaimsFile(folder, planned, request.quick, request.fresh)
        outcome = Outcome(file, chosen)
        work = _Reproduction(request, outcome, specs)
        with Display(work.fetch(progress), len(chosen), progress) as display:
            try:
                for place, run in enumerate(chosen, 1):
                    work.one(place, run, display)
            except OutputError as error:  # of claims.json: no run could be kept from now on
                outcome.problems.append(str(error))
                return outcome
            outcome.problems += [f"claims of {name} were not judged: {why}" for name, why in file.unjudged.items()]
            display.say("report.html: all figures are drawn again")
            try:
                from gpunet.report import page

                outcome.page = page.write(folder)
            except Exception as error:
                outcome.problems.append(f"report.html was not written: {cause(error)}")
    return outcome


class _Reproduction:
    """The chosen runs of a request, each with what it is asked to do (`specs`, its data aside)."""

    def __init__(self, request: Request, outcome: Outcome, specs: dict[str, dict[str, Any]]) -> None:
        self.request, self.outcome, self.specs, self.file = request, outcome, specs, outcome.file
        self.unfetched: dict[str, str] = {}  # data sets that could not be fetched, and why
        self.expected = {run.name: self._expected(run) for run in outcome.runs}
        if request.fresh:
            for run in outcome.runs:
                self.file.set(run)
        self.file.write()

    def _expected(self, run: PlannedRun) -> tuple[float, int]:
        """Seconds and pieces: of the run before, else those measured once; for as many seeds as there are."""
        entry, seeds = self.file.runs[run.name], len(self.specs[run.name]["seeds"])
        if entry.seconds is not None and entry.pieces is not None:
            return entry.seconds * seeds / max(1, len(entry.seeds)), entry.pieces
        return run.job.seconds * seeds / run.job.seeds, run.job.pieces

    def _kept(self, name: str) -> bool:
        """Whether a run is finished as it is asked for now, its data not looked at."""
        entry = self.file.runs[name]
        return entry.asked is not None and not changed(self.specs[name], entry.asked)

    def fetch(self, progress: bool) -> dict[str, tuple[float, int]]:
        """Fetch the data sets that are missing; what is expected of the runs that have to be run, by name."""
        from gpunet import datasets

        needed = [run for run in self.outcome.runs if not self._kept(run.name)]
        for name in dict.fromkeys(name for run in needed for name in run.job.data):
            if datasets.status(name, check=False).state in ("missing", "incomplete"):
                try:
                    datasets.fetch(name, progress=progress)
                except (FetchError, OutputError) as error:
                    self.unfetched[name] = str(error)
        return {run.name: self.expected[run.name] for run in needed}

    def one(self, place: int, run: PlannedRun, display: Display) -> None:
        """Keep a run, skip it, or carry it out."""
        entry, kept = self.file.runs[run.name], self._kept(run.name)
        try:
            loaded = run.request(self.request.seeds).load()
        except DataError as error:
            if kept:
                line = f"kept, begun {entry.started}; its data is not here to be looked at again"
            else:
                line = self._skip(run, error)
            display.passed(place, run.name, line)
            return
        wanted = self.specs[run.name] | {"data": fingerprint(loaded.data)}
        if kept and wanted == entry.asked:
            if not entry.figures:  # stopped before they were drawn
                self._draw_again(run)
            display.passed(place, run.name, f"kept, begun {entry.started}; what it depends on is unchanged")
            return
        why = changed(wanted, entry.asked) if entry.asked else ""
        display.begin(place, run.name, self.expected[run.name], why or self.file.changed.get(run.name, ""))
        self.file.set(run)
        display.end(self._carry_out(run, loaded, wanted, display))

    def _skip(self, run: PlannedRun, error: DataError) -> str:
        """The run has no data; returns a line that says so."""
        told = next((self.unfetched[name] for name in run.job.data if name in self.unfetched), None)
        missing = f"{'+'.join(run.job.data)} is missing and could not be fetched: {told}"
        return self._give_up(run, "skipped", str(error) if told is None else missing)

    def _give_up(self, run: PlannedRun, state: State, reason: str) -> str:
        reason = " ".join(reason.split())
        line = f"{state}: {reason}"
        self.outcome.problems.append(f"{run.name} {line}")  # first: claims.json may have no place to be written to
        self.file.set(run, state=state, reason=reason)
        return line

    def _carry_out(self, run: PlannedRun, loaded: Run, wanted: dict[str, Any], display: Display) -> str:
        """The run itself; returns a line that says how it ended."""
        folder, file = self.file.folder / run.name, self.file

        def finish(done: Done) -> None:
            file.finish(run, done, wanted, display.pieces)

        try:
            remove(folder / FAILURE)
            done = loaded.carry_out(folder, self.request.device, display, finish)
            if done.problem:
                raise OutputError(done.problem)
            file.drawn(run, done.figures)
        except Exception as error:
            if file.at != file.path:  # what could not be written is claims.json
                raise
            reason = cause(error)
            if not isinstance(error, GpunetError):
                reason += f" (traceback in {folder / FAILURE})"
                with contextlib.suppress(OSError):
                    write_atomically(folder / FAILURE, traceback.format_exc())
            return self._give_up(run, "failed", reason)
        entry = file.runs[run.name]
        told = "; ".join(filter(None, [told_counts(entry.counts), *here_lines([entry])]))
        return f"finished in {entry.seconds:.0f} s{': ' if told else ''}{told}"

    def _draw_again(self, run: PlannedRun) -> None:
        """The figures of a run that is finished but for them."""
        from gpunet.report.drawing import drawn

        folder = self.file.folder / run.name
        with contextlib.suppress(DataError):  # which the report tells
            result = Result.read(folder / RESULT)
            self.file.drawn(run, drawn(lambda: run.x.draw(result, folder)))
