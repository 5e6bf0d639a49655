"""The stages of benchmarks/gpu_check.sh, one process each: what hangs or crashes costs itself and nothing else."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import gpu_process
from gpu_process import LOST, ROOT, ending, limited

try:
    from gpunet.backend import get_backend
    from gpunet.backend.device import cuda_versions
    from gpunet.bench.gpu import STAGES, Setup, fill
    from gpunet.bench.harness import sticky
    from gpunet.bench.results import Section, provenance, read_sections, write_section, write_sections
    from gpunet.errors import GpunetError
    from gpunet.extras import need
    from gpunet.files import alone, writable_folder, write_atomically
    from gpunet.report.bench_tables import page

    need("this", "sklearn", "scipy", "matplotlib")
except ImportError as missing:  # told so where a package of an extra is
    mend = "PYTHON names another interpreter, WHEELS a folder of wheels for what it lacks"
    print(f"{sys.executable}: {missing}; {mend}", file=sys.stderr)
    sys.exit(2)

# Seconds of each stage on a bare machine, the start of its process and the stop at its limit included, in order of
# worth. With BESIDES, what this process does between them, all of it takes TOTAL at most.
LIMITS = {
    "look": 110, "tests": 100, "train": 90, "svd": 50, "experiments": 40, "sanitizer": 50, "other-tests": 15,
    "rest": 15,
}  # fmt: skip
BESIDES, TOTAL = 10, 480
LAST = ("sanitizer", "other-tests", "rest")
NO_GPU = "its tests need a GPU"
LEAST = 10  # seconds without which nothing is begun
CACHE_BYTES = LOG_BYTES = 15 << 20  # of cupycache.tgz and of log.txt at most
FILE_BYTES = 1 << 30  # of any file that a stage writes, its log above all, and of what an archive unpacks to
ARCHIVE = "cupycache.tgz"
CACHES = {
    "CUPY_CACHE_DIR": "cupy", "XDG_CACHE_HOME": "cache", "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}  # fmt: skip


EPILOG = (
    "In the environment: PYTHON, the interpreter with CuPy and, for the rivals, PyTorch (python3); WHEELS, a folder of "
    "wheels for what it lacks; GPUNET_DATA, the folder with mnist/ and cifar10/; GPUNET_COMMIT, the commit where .git "
    "is not there to say it. Exit code: 0; 1 where something failed or was not run; 2 for a mistake; 3 where all ran "
    "and a target was missed."
)


def main() -> int:
    chosen = options()
    if chosen.fill:
        return child(chosen)
    sys.stdout.reconfigure(errors="replace")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored here, as of a shell's `&`, stages would, too
    for number in (signal.SIGTERM, signal.SIGHUP):  # a stage's processes go with this one
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        check = Check(chosen)
        with alone(check.out, "run", ""):
            return check.run()
    except GpunetError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        if wheels := os.environ.get("GPU_CHECK_WHEELS"):
            shutil.rmtree(wheels, ignore_errors=True)


class Check:
    """One run over the stages: `file` has the sections, `log` what all processes said."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen, self.deadline, self.packed = chosen, time.monotonic() + chosen.seconds, 0
        out = chosen.out or chosen.earlier or os.environ.get("OUT") or ROOT / "benchmarks" / "results"
        self.out = writable_folder(out, hint="").absolute()
        name = device_name(chosen.device)
        self.file = self.out / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'gpu'}.json"
        self.log, self.made = self.out / "log.txt", provenance()  # of the sections that no other process fills
        if chosen.device.startswith("cuda"):
            self.made["gpu"] = name
            with contextlib.suppress(Exception):  # what a CuPy raises that does not fit the driver: `look` says more
                self.made |= cuda_versions()

    def run(self) -> int:
        with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as work:
            self.work, self.environment = Path(work), surroundings(Path(work))
            self.begin()
            try:
                for stage in self.chosen.stages:
                    try:
                        self.stage(stage)
                    finally:
                        self.clear()
                        self.keep_kernels()
            except (KeyboardInterrupt, SystemExit) as stop:
                for name in [name for name, each in self.sections().items() if each.state == "running"]:
                    self.put(name, state="stopped", why="by a signal")
                self.end()
                print(f"stopped: what was measured is in {self.file}; --continue takes it up", flush=True)
                return int(getattr(stop, "code", 128 + signal.SIGINT))
        return self.end()

    def clear(self) -> None:
        """After a process: what it left running is ended, and what it left lying removed, so that there is room."""
        gpu_process.end_all(str(self.work))
        shutil.rmtree(self.environment["TMPDIR"], ignore_errors=True)
        Path(self.environment["TMPDIR"]).mkdir(exist_ok=True)
        shorten(self.log)

    def keep_kernels(self) -> None:
        try:
            self.packed = pack(self.environment, self.out / ARCHIVE, self.packed)
        except (OSError, GpunetError) as error:
            print(f"the kernels are not kept: {error}", flush=True)

    def begin(self) -> None:
        """The folder as the stages find it: what an earlier run ended is kept, what they will make is not there."""
        chosen, outcomes = self.chosen, self.out / "tests.jsonl"
        if chosen.earlier and chosen.earlier.resolve() != self.out.resolve():
            for each in (self.file.name, self.log.name, outcomes.name, "graphs.txt", ARCHIVE):
                if (chosen.earlier / each).exists():
                    shutil.copyfile(chosen.earlier / each, self.out / each)
        if chosen.earlier and not self.file.exists():
            print(f"'{chosen.earlier}' has no {self.file.name}: everything is measured anew", flush=True)
        if not chosen.earlier:
            self.log.unlink(missing_ok=True)
            if "look" in chosen.stages:  # that draws them
                (self.out / "graphs.txt").unlink(missing_ok=True)
            forget(self.file, [name for stage in chosen.stages for name in sections_of(stage)])
        current = chosen.earlier is not None and self.current()
        gpu_process.forget(outcomes, chosen.stages, but_passed=current)
        unpack(self.out / ARCHIVE, self.environment)

    def current(self) -> bool:
        """Whether an earlier run's tests were of this commit, else they are run anew; what it measured stays, told."""
        here, sections = self.made["git"], self.sections()
        others = {name: each for stage in self.chosen.stages for name in sections_of(stage)
                  if (each := sections.get(name)) and each.provenance.get("git") != here}  # fmt: skip
        for name, each in others.items():
            if name not in LIMITS and each.state == "done":
                print(f"{name} is of commit {each.provenance.get('git')}, this is {here}: it stays", flush=True)
        tested = [name for name in others if name in LIMITS]
        if tested:
            print(f"{', '.join(tested)}: of another commit than {here}, and run anew", flush=True)
            forget(self.file, tested)
        return not tested

    def stage(self, stage: str) -> None:
        """Fill the stage's sections that are not done, within its limit and what is left of all seconds."""
        sections = self.sections()
        states = {name: each.state for name, each in sections.items()}
        todo = [name for name in sections_of(stage) if states.get(name) != "done"]
        # Those at which an earlier run was stopped come last: the others need not wait for the same again.
        todo.sort(key=lambda name: states.get(name) == "stopped")
        left = self.deadline - time.monotonic()
        limit = min(LIMITS[stage], left)
        if stage in LAST:  # it may take what those before it have not needed
            later = self.chosen.stages[self.chosen.stages.index(stage) + 1 :]
            limit = max(limit, left - sum(LIMITS[each] for each in later))
        for name in todo:
            why = f"of {self.chosen.seconds:g} s none were left" if limit < LEAST else "its stage did not come so far"
            self.put(name, state="not run", why=why)
        if limit < LEAST:
            self.say(stage, todo)
            return
        until = time.monotonic() + limit
        if stage not in STAGES and todo:
            on_gpu = self.chosen.device.startswith("cuda")
            found = self.tests(stage, limit) if on_gpu else {"state": "not run", "why": NO_GPU}
            self.put(stage, provenance=self.made, **found)
        while stage in STAGES and todo and (left := until - time.monotonic()) >= LEAST:
            code = self.process(stage, todo, left)
            sections = self.sections()
            states = {name: sections[name].state for name in todo}
            for name in todo if set(states.values()) == {"not run"} else [n for n in todo if states[n] == "running"]:
                why = f"after {limit:.0f} s" if code is None else f"{ending(code)}: {self.last_words()}"
                self.put(name, state="stopped" if code is None else "failed", why=why)
                states[name] = ""
            todo = [name for name in todo if states[name] == "not run"]  # in another process, where this one died
        self.say(stage, sections_of(stage))

    def tests(self, stage: str, limit: float) -> dict[str, Any]:
        environment = self.environment | gpu_process.surroundings()
        if stage == "sanitizer":
            found = gpu_process.sanitizer(self.out, self.work, limit, environment, self.sections()[stage].notes)
        else:
            found = gpu_process.tests(stage, self.out, self.work, limit, environment)
        self.clear()
        return found

    def process(self, stage: str, sections: list[str], limit: float) -> int | None:
        """The exit code of a process that fills these sections; None where it was stopped."""
        chosen = self.chosen
        flags = [flag for flag, on in (("--small", chosen.small), ("--no-compile", chosen.no_compile)) if on]
        command = [sys.executable, os.path.abspath(sys.argv[0]), str(self.out)]
        command += ["--fill", ",".join(sections), "--stages", stage]
        command += ["--device", chosen.device, "--rounds", str(chosen.rounds), "--file", str(self.file), *flags]
        code, _ = limited(command, self.log, limit, self.environment)
        self.clear()
        return code

    def say(self, stage: str, names: list[str]) -> None:
        """A line for each section."""
        sections = self.sections()
        for name in names:
            section = sections[name]
            why = f": {section.why}" if section.why else ""
            print(f"{stage} {name}: {section.state}, {section.took or 0:.1f} s{why[:300]}", flush=True)

    def sections(self) -> dict[str, Section]:
        """The file's sections, without the word that stands before their names there."""
        found = read_sections(self.file) if self.file.exists() else {}
        return {name.removeprefix("gpu "): each for name, each in found.items() if name.startswith("gpu ")}

    def put(self, name: str, **changed: Any) -> None:
        section = self.sections().get(name, Section(self.made))
        for key, value in changed.items():
            setattr(section, key, value)
        write_section(self.file, f"gpu {name}", section)

    def last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 10_000))
            said = log.read().decode(errors="replace")
        return ([line.strip() for line in said.splitlines() if line.strip()] or [""])[-1][:300]

    def end(self) -> int:
        sections = self.sections()
        names = [name for stage in self.chosen.stages for name in sections_of(stage) if name in sections]
        print(page({name: sections[name] for name in names}, judged=not self.chosen.small))
        print(f"\nWritten: {self.file}")
        excused = (gpu_process.NO_TOOL, NO_GPU)
        if not all(sections[name].state == "done" or sections[name].why in excused for name in names):
            return 1
        missed = [each for name in names for each in sections[name].targets if not each.met]
        return 3 if missed and not self.chosen.small else 0


def sections_of(stage: str) -> list[str]:
    """A stage of pytest is one section."""
    return list(STAGES.get(stage, (stage,)))


def forget(file: Path, names: list[str]) -> None:
    """Remove sections of a file of results."""
    if file.exists():
        left = {name: each for name, each in read_sections(file).items() if name.removeprefix("gpu ") not in names}
        write_sections(file, left)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    parser.add_argument("out", nargs="?", help="folder for the results (that of --continue, $OUT, benchmarks/results)")
    parser.add_argument("--stages", type=stages, default=list(LIMITS), help=f"by comma, of {', '.join(LIMITS)}")
    parser.add_argument("--seconds", type=seconds, default=TOTAL - BESIDES, help="for everything; the rest is not run")
    parser.add_argument(
        "--continue", dest="earlier", type=Path, metavar="FOLDER", help="go on from an earlier run's results"
    )
    parser.add_argument("--device", type=device, default="cuda", help="cuda:1, or cpu to try the stages out (--small)")
    parser.add_argument("--rounds", type=rounds, default=11, help="of a race; its medians count (11)")
    parser.add_argument("--small", action="store_true", help="sizes that any CPU does in seconds; no target is judged")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--fill", help=argparse.SUPPRESS)  # what the parent calls: these sections of the one stage
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.earlier and not chosen.earlier.is_dir():
        parser.error(f"--continue is '{chosen.earlier}': expected the folder of an earlier run")
    return chosen


def device(text: str) -> str:
    if not re.fullmatch(r"cuda(:\d+)?|cpu|numpy", text):
        raise argparse.ArgumentTypeError(f"'{text}': expected cuda, cuda:N, cpu or numpy")
    return text


def rounds(text: str) -> int:
    if (found := int(text)) < 1:
        raise ValueError
    return found


def seconds(text: str) -> float:
    found = float(text)
    if math.isnan(found):
        raise ValueError
    return found


def stages(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in LIMITS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown stage {', '.join(unknown)}: expected some of {', '.join(LIMITS)}")
    return [name for name in LIMITS if name in names]


def child(chosen: argparse.Namespace) -> int:
    """Some sections of one stage, in this process."""
    faulthandler.enable()
    faulthandler.register(signal.SIGINT, chain=True)  # says where it hangs, also where Python has no turn
    try:
        backend = get_backend(chosen.device)
    except GpunetError as error:
        print(error)
        return 2

    def draw(title: str, dot: str) -> None:
        with Path(chosen.out, "graphs.txt").open("a") as file:
            file.write(f"// {title}\n{dot}\n")

    setup = Setup(backend, chosen.rounds, chosen.small, not chosen.no_compile, draw=draw)
    sections = {name: STAGES[chosen.stages[0]][name] for name in chosen.fill.split(",")}
    try:
        return 1 if fill(sections, chosen.file, setup, provenance(backend)) else 0
    except Exception as error:
        if sticky(error):
            print("the GPU is lost to this process")
            os._exit(LOST)  # its arrays could not be freed
        raise


# -- the machine ------------------------------------------------------------------------------------------------------


def device_name(device: str) -> str:
    """What the results are called: the GPU's name by its driver, or the device's."""
    name = device
    if device.startswith("cuda"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            query = ["nvidia-smi", "-i", device.partition(":")[2] or "0", "--query-gpu=name", "--format=csv,noheader"]
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
            name = (done.stdout.splitlines() or ["gpu"])[0].strip()
    return name


def surroundings(work: Path) -> dict[str, str]:
    """The environment of all processes; what is set already stays, so that caches may lie elsewhere."""
    for name in ("tmp", "data", "matplotlib", *CACHES.values()):
        (work / name).mkdir()
    made = {variable: str(work / name) for variable, name in CACHES.items()}
    # CuPy's small kernels take a third of a second each instead of one or more; it knows CUDA from 12.8 on.
    made |= {"CUPY_NVRTC_USE_PCH": "1", "GPUNET_DATA": str(work / "data"), "MPLCONFIGDIR": str(work / "matplotlib")}
    return (
        made
        # JAX would take three quarters of the GPU at its start.
        | {"PYTHONUNBUFFERED": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        | {name: value for name, value in os.environ.items() if value}
        | {"TMPDIR": str(work / "tmp")}
    )


def pack(environment: dict[str, str], archive: Path, before: int = 0) -> int:
    """The caches of compiled kernels as one file, each's smallest first, and no more of them than it may hold.

    How many files there are; nothing is done where that is as `before`.
    """
    folders = {name: Path(environment[variable]) for variable, name in CACHES.items()}
    files = [(name, each, each.stat().st_size) for name, folder in folders.items()
             for each in folder.rglob("*") if each.is_file()]  # fmt: skip
    if len(files) == before:
        return before
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=6) as tar:
        for name, each, size in sorted(files, key=lambda file: ([*folders].index(file[0]), file[2])):
            if content.tell() + size < CACHE_BYTES:  # as if it could not be made smaller
                tar.add(each, f"{name}/{each.relative_to(folders[name])}")
    write_atomically(archive, content.getvalue())
    return len(files)


def shorten(log: Path) -> None:
    """A log that is too long keeps its beginning and its end."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        with log.open("r+b") as file:
            file.seek(-LOG_BYTES // 3, os.SEEK_END)
            last = file.read()
            file.truncate(LOG_BYTES // 3)
            file.seek(0, os.SEEK_END)
            file.write(b"\n[...]\n" + last)


def unpack(archive: Path, environment: dict[str, str]) -> None:
    """What an earlier run packed, each cache to where it is now."""
    if not archive.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive) as tar:
                size, members = 0, []
                for member in tar:
                    size += member.size + tarfile.BLOCKSIZE
                    if size > FILE_BYTES:
                        raise tarfile.TarError(f"it holds more than {FILE_BYTES} bytes")
                    members += [member] if member.isfile() else []
                tar.extractall(folder, members, filter="data")
        except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
            print(f"'{archive}' is not taken up: {str(error).splitlines()[0]}")
            return
        for variable, name in CACHES.items():
            if Path(folder, name).is_dir():
                shutil.copytree(Path(folder, name), environment[variable], dirs_exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
