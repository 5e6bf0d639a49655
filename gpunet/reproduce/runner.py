"""Running all experiments, one after the other; what is finished already is kept."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpunet.backend import get_backend
from gpunet.errors import DataError, FetchError, GpunetError, OutputError
from gpunet.experiments.framework import Run, RunRequest
from gpunet.experiments.result import Result
from gpunet.files import RESULT, alone, remove, writable_folder, write_atomically
from gpunet.report.claims import here_lines, told_counts
from gpunet.report.claims_json import ClaimsFile, Entry, State, cause
from gpunet.reproduce.display import Display
from gpunet.reproduce.plan import changed, fingerprint, plan, run_spec, select

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


def reproduce(request: Request, progress: bool = False) -> Reproduction:
    """Run what is chosen and write `claims.json` after each, and the report at the end.

    A run whose data is missing and cannot be fetched is skipped, and one that fails does not end the others: `problems`
    has a line of each. Where `claims.json` can no longer be written, all ends, and it says where that is kept. Raises
    InputError and its kin for a request that cannot be, before anything is run.
    """
    backend = get_backend(request.device)
    planned = plan(request.quick, request.seeds)
    chosen = select(planned, request.only)
    specs = {run.folder: run_spec(run, backend) for run in chosen}
    folder = writable_folder(request.folder)
    with alone(folder, "`gpunet reproduce`"):
        made = Reproduction(request, ClaimsFile(folder, planned, request.quick, request.fresh), chosen, specs)
        with Display(made.fetch(progress), len(chosen), progress) as display:
            made.carry_out(display)
    return made


class Reproduction:
    """What becomes of a request: `file` is claims.json, `runs` the chosen ones, `problems` has a line for each.

    specs: what each is asked to do, its data aside, by its folder's name. `page`: the report, None until there is one.
    """

    def __init__(
        self, request: Request, file: ClaimsFile, runs: Sequence[RunRequest], specs: dict[str, dict[str, Any]]
    ) -> None:
        self.device, self.file, self.runs, self.specs = request.device, file, runs, specs
        self.page: Path | None = None
        self.problems: list[str] = []
        self.unfetched: dict[str, str] = {}  # data sets that could not be fetched, and why
        self.expected = {run.folder: self._expected(run) for run in runs}
        if request.fresh:
            for run in runs:
                file.set(run)
        file.write()

    @property
    def entries(self) -> list[Entry]:
        """What claims.json holds of the chosen runs."""
        return [self.file.runs[run.folder] for run in self.runs]

    def _expected(self, run: RunRequest) -> tuple[float, int]:
        """Seconds and pieces: of the run before, else those measured once; for as many seeds as there are."""
        entry, seeds = self.file.runs[run.folder], len(self.specs[run.folder]["seeds"])
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

        needed = [run for run in self.runs if not self._kept(run.folder)]
        for name in dict.fromkeys(name for run in needed for name in run.names):
            if datasets.status(name, check=False).state in ("missing", "incomplete"):
                try:
                    datasets.fetch(name, progress=progress)
                except (FetchError, OutputError) as error:
                    self.unfetched[name] = str(error)
        return {run.folder: self.expected[run.folder] for run in needed}

    def carry_out(self, display: Display) -> None:
        """All runs, and the report."""
        try:
            for place, run in enumerate(self.runs, 1):
                self._one(place, run, display)
        except OutputError as error:  # of claims.json: no run could be kept from now on
            self.problems.append(str(error))
            return
        self.problems += [f"claims of {name} were not judged: {why}" for name, why in self.file.unjudged.items()]
        display.say("report.html: all figures are drawn again")
        try:
            from gpunet.report import page

            self.page = page.write(self.file.folder)
        except Exception as error:
            self.problems.append(f"report.html was not written: {cause(error)}")

    def _one(self, place: int, run: RunRequest, display: Display) -> None:
        """Keep a run, skip it, or carry it out."""
        name = run.folder
        entry, kept = self.file.runs[name], self._kept(name)
        try:
            loaded = run.load()
        except DataError as error:
            line = f"kept, begun {entry.started}; its data is not here to be looked at again"
            display.passed(place, name, line if kept else self._skip(run, error))
            return
        wanted = self.specs[name] | {"data": fingerprint(loaded.data)}
        if kept and wanted == entry.asked:
            if not entry.figures:  # stopped before they were drawn
                self._draw_again(run)
            display.passed(place, name, f"kept, begun {entry.started}; what it depends on is unchanged")
            return
        why = changed(wanted, entry.asked) if entry.asked else ""
        display.begin(place, name, self.expected[name], why or self.file.changed.get(name, ""))
        self.file.set(run)
        display.end(self._run(run, loaded, wanted, display))

    def _skip(self, run: RunRequest, error: DataError) -> str:
        """The run has no data; returns a line that says so."""
        told = next((self.unfetched[name] for name in run.names if name in self.unfetched), None)
        missing = f"{'+'.join(run.names)} is missing and could not be fetched: {told}"
        return self._give_up(run, "skipped", str(error) if told is None else missing)

    def _give_up(self, run: RunRequest, state: State, reason: str) -> str:
        reason = " ".join(reason.split())
        line = f"{state}: {reason}"
        self.problems.append(f"{run.folder} {line}")  # first: claims.json may have no place to be written to
        self.file.set(run, state=state, reason=reason)
        return line

    def _run(self, run: RunRequest, loaded: Run, wanted: dict[str, Any], display: Display) -> str:
        """The run itself; returns a line that says how it ended."""
        folder, file = self.file.folder / run.folder, self.file
        try:
            remove(folder / FAILURE)
            done = loaded.carry_out(
                folder, self.device, display, lambda result: file.finish(run, result, wanted, display.pieces)
            )
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
        entry = file.runs[run.folder]
        told = "; ".join(filter(None, [told_counts(entry.counts), *here_lines([entry])]))
        return f"finished in {entry.seconds:.0f} s{': ' if told else ''}{told}"

    def _draw_again(self, run: RunRequest) -> None:
        """The figures of a run that is finished but for them."""
        from gpunet.report.drawing import drawn

        folder = self.file.folder / run.folder
        with contextlib.suppress(DataError):  # which the report tells
            result = Result.read(folder / RESULT)
            self.file.drawn(run, drawn(lambda: run.experiment.draw(result, folder)))
