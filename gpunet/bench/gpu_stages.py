"""The stages of benchmarks/gpu_check.sh that measure: what sections each fills, and how they are filled one by one.

A stage is a process. A section takes a `Setup` and returns {"data": where from, "figures": {…}, "targets": [`target`,
…]}; in the file of results it stands as "gpu NAME" with its state: "running", "done" or "failed". What the process
did not end is for the one that started it to say.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from gpunet.bench import devices, gpu_data, gpu_entries, gpu_look, gpu_stages_train, gpu_svd
from gpunet.bench.gpu_look import BATCHES
from gpunet.bench.gpu_race import reason, sticky
from gpunet.bench.gpu_setup import Document, Setup, target
from gpunet.bench.record import read_sections, write_section
from gpunet.experiments import experiments
from gpunet.progress import Progress

Section = Callable[[Setup], Document]


def fill(sections: Mapping[str, Section], path: Path, setup: Setup, made: Document) -> list[str]:
    """Fill sections of the file one by one, each saved as it goes; those that failed, their tracebacks printed.

    made: their provenance. After an error that ends all work of a process on its GPU, it is raised: the sections that
    are left want another process.
    """
    return [name for name, section in sections.items() if not _filled(name, section, path, setup, made)]


def _filled(name: str, section: Section, path: Path, setup: Setup, made: Document) -> bool:
    found: Document = {"data": "", "figures": {}, "targets": []}
    if path.exists():  # figures of an earlier try stay until there are new ones
        found |= read_sections(path).get(f"gpu {name}", {})
        found.pop("provenance", None)
    began = time.perf_counter()

    def save(state: str = "running", why: str = "") -> None:
        about = {"state": state, "seconds": time.perf_counter() - began, "why": why}
        write_section(path, f"gpu {name}", found | about, made)

    def keep(document: Document, whole: bool = False) -> None:
        document = json.loads(json.dumps(document, default=str))  # whatever a library calls a number
        figures = document["figures"] if whole else found["figures"] | document["figures"]
        found.update(document | {"figures": figures})
        save()

    print(f"-- {name}", flush=True)
    save()
    try:
        keep(section(replace(setup, save=keep)), whole=True)
    except KeyboardInterrupt:  # its stage is stopped
        save()  # how long it has had
        raise
    except Exception as error:  # whatever a library raises
        traceback.print_exc()
        save("failed", reason(error))
        if sticky(error):
            raise
        return False
    save("done")
    return True


# -- svd --------------------------------------------------------------------------------------------------------------


def whole(setup: Setup, chosen: Sequence[str] = gpu_entries.QUICK) -> Document:
    """784×60000, top 100."""
    where, x, _ = gpu_data.pictures("mnist", setup.size(60_000, 400), setup.size(784, 60))
    problem = gpu_svd.whole(setup.backend, x, setup.size(100, 10))
    return _decompose(setup, where, problem, chosen, ("over torch.linalg.svd", 20.0))


def classes(setup: Setup, chosen: Sequence[str] = gpu_entries.QUICK) -> Document:
    """The same images' ten classes, top 10 of each."""
    where, x, y = gpu_data.pictures("mnist", setup.size(60_000, 400), setup.size(784, 60))
    problem = gpu_svd.classes(setup.backend, x, y, setup.size(10, 3))
    return _decompose(setup, where, problem, chosen, ("over ten torch.linalg.svd", 5.0))


def stack(setup: Setup, chosen: Sequence[str] = gpu_entries.QUICK) -> Document:
    """100×3072×500, top 50 of each."""
    shape = (3, 60, 20) if setup.small else (100, 3072, 500)
    return _decompose(setup, "made", gpu_svd.stack(setup.backend, shape, setup.size(50, 5)), chosen)


def square(setup: Setup, chosen: Sequence[str] = gpu_entries.QUICK) -> Document:
    """4096×4096 to rank 256."""
    problem = gpu_svd.square(setup.backend, setup.size(4096, 64), setup.size(256, 8))
    return _decompose(setup, "made", problem, chosen)


def _decompose(
    setup: Setup, data: str, problem: gpu_svd.Problem, chosen: Sequence[str], bound: tuple[str, float] | None = None
) -> Document:
    found: Document = {"data": data, "figures": {}, "targets": []}
    entries = {name: entry for name, entry in problem[0].items() if name.startswith(tuple(chosen))}
    found["figures"] = gpu_entries.measure(
        entries, problem[1], setup.rounds, lambda rows: setup.save(found | {"figures": rows})
    )
    for name, row in found["figures"].items():
        if name.startswith("gpunet") and chosen is gpu_entries.QUICK:
            found["targets"].append(
                target(f"{name}: energy missed beyond the best", row["energy_missed"], 1e-6, at_least=False)
            )
    if bound and "torch.linalg.svd" in entries:
        ours, theirs = (found["figures"][name]["seconds"] for name in ("gpunet", "torch.linalg.svd"))
        found["targets"].append(target(bound[0], theirs / ours if ours and theirs else None, bound[1]))
    return found


# -- experiments ------------------------------------------------------------------------------------------------------


def quick(setup: Setup, experiment: str) -> Document:
    """An experiment's quick run on the device: seconds, and the shares that its rows reach."""
    run = experiments()[experiment].asked({}, quick=True).load()
    began = time.perf_counter()
    result = run.compute(setup.backend, Progress())
    setup.backend.synchronize()
    shares = {
        row.name: {metric: row.metrics[metric].mean for metric in devices.AGREE if metric in row.metrics}
        for row in result.rows
    }
    figures = {"run_seconds": time.perf_counter() - began, "dataset": result.dataset, "rows": shares}
    return {"data": "embedded", "figures": figures, "targets": []}


def on_both(setup: Setup) -> Document:
    """Every experiment's quick run, CPU against this device."""
    found: Document = {"data": "embedded", "figures": {"rows": []}, "targets": []}

    def save(row: devices.Row) -> None:
        found["figures"]["rows"].append(asdict(row))
        setup.save(found)

    pair = ["cpu", setup.backend.name] if setup.on_gpu else ["numpy", "cpu"]
    smallest = min(experiments().values(), key=lambda x: x.quick[0].seconds).name
    report = devices.compare(pair, [smallest] if setup.small else None, save=save)
    failed = sum(len(row.failed) for row in report.rows)
    return found | {
        "figures": report.as_dict(),
        "targets": [target("experiments that failed", failed, 0, at_least=False)],
    }


SVD: dict[str, Callable[..., Document]] = {
    "svd-whole": whole, "svd-classes": classes, "svd-square": square, "svd-stack": stack,
}  # fmt: skip
# In order of worth: a stage that is stopped has had its first sections.
STAGES: dict[str, dict[str, Section]] = {
    "look": {
        "versions": gpu_look.versions, "facts": gpu_look.facts, "relu": gpu_look.relu, "cusolver": gpu_look.batched,
        **{f"step-{batch}": partial(gpu_look.step, batch=batch) for batch in BATCHES},
        "torch": gpu_look.torch_eager, "kernels": gpu_look.kernels, "svd": gpu_look.svd,
    },
    "train": {
        **{f"train-{batch}": partial(gpu_stages_train.training, batch=batch) for batch in BATCHES},
        **{f"compile-{batch}": partial(gpu_stages_train.compiled, batch=batch) for batch in BATCHES},
        "compile-capturable": partial(gpu_stages_train.compiled, batch=BATCHES[0], capturable=True),
    },
    "svd": {**SVD},
    "experiments": {
        "factorised": gpu_stages_train.factorised,
        **{f"quick-{name}": partial(quick, experiment=name) for name in experiments()},
    },
    "rest": {
        "conv": gpu_stages_train.convolution, "train-tf32": gpu_stages_train.in_tf32,
        "train-host": gpu_stages_train.on_host,
        **{f"{name}-cupy": partial(section, chosen=gpu_entries.LOOPING) for name, section in SVD.items()},
        "devices": on_both,
    },
}  # fmt: skip
