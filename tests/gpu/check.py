"""benchmarks/gpu_check.py on the pretend GPU, for test_script.py: `python check.py FOLDER --small …`, and its children.

It wants the checkout and benchmarks/ on PYTHONPATH. FAULTS in the environment, as `die,lose/hang`, makes a stage of
each part, the first of them `svd`, with sections that die, lose their GPU or hang between one before and one after;
MENDED, that they do not.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpu_check
import gpu_process

from gpunet.bench import harness
from gpunet.bench.gpu import STAGES

NEED_SECONDS = {"hang", "hang_in_c"}  # until they are stopped


def measured(setup):
    Path(os.environ["CUPY_CACHE_DIR"], "kernel.cubin").write_bytes(bytes(1000))
    setup.note(begun=time.time())


def hang(setup):
    setup.note(half=1)
    time.sleep(100)


def hang_in_c(setup):
    """Python has no turn, as in a call that waits for the device: a signal's handler is not run."""
    subprocess.Popen(["sleep", "100"], start_new_session=True)
    setup.note(half=1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    time.sleep(100)


def die(setup):
    setup.note(half=1)
    os.kill(os.getpid(), signal.SIGSEGV)


def shout(setup):
    setup.note(half=1)
    for _ in range(100):
        print("x" * 100_000)


def lose(setup):
    raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")


if faults := os.environ.get("FAULTS"):
    for stage, names in zip(("svd", "experiments"), faults.split("/"), strict=False):
        faulty = {name: measured if "MENDED" in os.environ else globals()[name] for name in names.split(",")}
        STAGES[stage] = {f"before {stage}": measured} | faulty | {f"after {stage}": measured}
        if not NEED_SECONDS.isdisjoint(faulty):
            gpu_check.LIMITS[stage] = 7
    STAGES["rest"] = {"later": measured}
    gpu_check.FILE_BYTES = 5 << 20
    gpu_check.LOG_BYTES = 1 << 20
else:  # what takes the pretend GPU seconds is tested by itself, in test_parts.py and test_experiments.py
    for stage, few in {
        "look": ("facts", "step-64", "kernels"),
        "train": ("train-64", "compile-64"), "svd": ("svd-whole", "svd-stack"), "experiments": ("factorised",),
        "rest": ("train-tf32", "svd-stack-cupy"),
    }.items():  # fmt: skip
        STAGES[stage] = {name: STAGES[stage][name] for name in few}
gpu_check.LEAST, harness.LEAST = 1, 1e-4
gpu_process.POLITE, gpu_process.WORKERS, gpu_process.EXPRESSION = 1.0, 1, "not gpu and not slow"
gpu_process.CHOSEN = {
    stage: [f"cuda/test_on_a_gpu.py::test_{name}[pretend]" for name in names]
    for stage, names in {
        "tests": ("another_stream_is_in_order_too", "facts"), "sanitizer": ("facts",),
        "other-tests": ("facts", "peak_memory_grows_with_what_is_held"),
    }.items()
}  # fmt: skip

if "--fill" in sys.argv:
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "torch" else found(name, *rest)
    from tests.gpu.stand_in import install

    install()

if __name__ == "__main__":
    sys.exit(gpu_check.main())
