"""What `pip install gpunet` alone can do, and what it says of the rest: plain Python, in a fresh environment.

    python3 -m venv fresh && fresh/bin/pip install dist/gpunet-*.whl && fresh/bin/python tests/smoke.py

With `--hidden` in an environment that has more, which has to hide it (tests/test_extras.py does): nothing is counted.
With `--broken` in one where whatever an extra brings is there and cannot be imported.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

MOST_PACKAGES, MOST_MEGABYTES = 12, 120
PIP = {"pip", "setuptools", "wheel"}
BROKEN = sys.argv[1:] == ["--broken"]
HIDDEN = BROKEN or sys.argv[1:] == ["--hidden"]


def main() -> None:
    began = time.monotonic()
    sys.path.remove(str(Path(__file__).parent))  # the package that is installed, and nothing beside this file
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # several of these may run at once
    told = [] if HIDDEN else [installed()]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["GPUNET_DATA"] = str(Path(folder, "data"))
        for check in (lacks, decomposes, trains, commands, doors, command_doors, described):
            check()
            told.append(check.__name__)
    print(f"{'.'.join(map(str, sys.version_info[:3]))}: {', '.join(told)}; {time.monotonic() - began:.1f} s")


def installed() -> str:
    """At most so many packages and megabytes, this environment's own tools aside."""
    site = Path(sysconfig.get_path("purelib"))
    names = {found.name.lower().replace("_", "-") for found in metadata.distributions(path=[str(site)])} - PIP
    tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "wheel")
    files = [
        each for each in site.rglob("*") if each.is_file() and not each.relative_to(site).parts[0].startswith(tools)
    ]
    megabytes = sum(each.stat().st_size for each in files) / 1e6
    assert "gpunet" in names, names
    assert len(names) <= MOST_PACKAGES, sorted(names)
    assert 20 < megabytes <= MOST_MEGABYTES, f"{megabytes:.0f} MB"
    import gpunet

    assert Path(gpunet.__file__).is_relative_to(site), gpunet.__file__
    return f"{len(names)} packages, {megabytes:.0f} MB"


def lacks() -> None:
    """Nothing of what an extra brings is of use here: else what follows would prove nothing."""
    from gpunet.extras import KNOWN, lacking, optional

    assert lacking(*KNOWN) == [] if BROKEN else list(KNOWN), sorted({*KNOWN} - {*lacking(*KNOWN)})
    assert not any(map(optional, KNOWN))


def decomposes() -> None:
    import numpy as np

    import gpunet as gn

    rng = np.random.default_rng(0)
    for shape, k, method in [((300, 40), None, "full"), ((2000, 60), 5, "auto"), ((1100, 1030), 20, "gram")]:
        x = rng.standard_normal(shape) * np.geomspace(1, 1e-3, shape[1])
        found, s = gn.svd(x, k, method=method, certify=True), np.linalg.svd(x, compute_uv=False)
        kept = len(found.s)
        assert kept == (k or min(shape))
        assert np.abs(found.s - s[:kept]).max() <= 1e-9 * s[0]
        best = np.sqrt((s[kept:] ** 2).sum())
        assert abs(np.linalg.norm(x - found.u * found.s @ found.vt) - best) <= 1e-6 * s[0]
        assert found.certificate is not None
    labels = np.arange(2000) % 3
    pixels = rng.integers(0, 256, (2000, 30), dtype=np.uint8)
    components = gn.class_pca(pixels, labels, variance=0.5).components
    wanted = np.linalg.svd(pixels[labels == 1].astype(float) - pixels[labels == 1].mean(0))[2]
    if not np.allclose(np.abs(components[1][0] @ wanted[0]), 1):  # about 0, not about the mean
        wanted = np.linalg.svd(pixels[labels == 1].astype(float))[2]
    assert abs(abs(components[1][0] @ wanted[0]) - 1) < 1e-6
    sums = gn.StreamingGram(center=True).update(pixels[:700]).update(pixels[700:])
    assert np.allclose(sums.components(3).explained_variance, np.linalg.eigvalsh(np.cov(pixels.T, ddof=0))[::-1][:3])
    assert gn.gram(pixels).features == 30
    weights = np.outer(np.ones(20), np.ones(10)) + 1e-3 * rng.standard_normal((20, 10))
    for rule in (gn.FixedRank(2), gn.Energy(0.9), gn.GavishDonoho(), gn.StableRank(), gn.BreakEven(0.5)):
        assert 1 <= rule((20, 10), np.linalg.svd(weights, compute_uv=False)) <= 10, rule


def trains() -> None:
    import numpy as np

    import gpunet as gn

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    x = (rng.standard_normal((600, 1, 8, 8)) + 2 * np.eye(3, 8)[y].reshape(600, 1, 8, 1)).astype(np.float32)

    def run(epochs: int, **how: object) -> gn.Trainer:
        layers = [
            gn.Conv2D(4, 3), gn.BatchNorm(), gn.Activation("relu"), gn.MaxPool2D(2), gn.Flatten(), gn.Dense(24),
            gn.GELU(), gn.Dropout(0.1), gn.Dense(24, "leaky_relu"), gn.LowRankDense(3, 2),
        ]  # fmt: skip
        model = gn.Sequential(layers)
        trainer = gn.Trainer(model, optimizer=gn.AdamW(1e-2), device="cpu", seed=0)
        callbacks = [gn.Factorise(0.3, gn.FixedRank(6), layers=["8"], policy="always"), gn.CosineDecay()]
        trainer.fit(x[:500], y[:500], epochs=epochs, batch_size=50, callbacks=callbacks, **how)
        return trainer

    trainer = run(8, checkpoint="run")
    again = run(8, checkpoint="run", resume=True)
    assert np.array_equal(again.model.predict(x), trainer.model.predict(x))
    score = trainer.evaluate(x[500:], y[500:])["accuracy"]
    assert score > 0.9, score
    gn.save(trainer.model, "model.safetensors")
    loaded = gn.load("model.safetensors", device="cpu")
    assert np.array_equal(loaded.predict(x), trainer.model.predict(x))
    gn.load_weights(loaded, "model.safetensors")
    assert "LowRankDense" in str(trainer.model.summary())


def commands() -> None:
    import numpy as np

    import gpunet

    module = [sys.executable, "-m", "gpunet"]
    script = module if HIDDEN else [str(Path(sysconfig.get_path("scripts"), "gpunet"))]
    for command in (module, script):
        assert output(*command, "--version") == f"gpunet {gpunet.__version__}\n"
    if not HIDDEN:
        assert metadata.version("gpunet") == gpunet.__version__
    assert "reproduce" in output(*script, "--help")
    assert "--dataset" in output(*module, "run", "svd-init", "--help")
    x = np.random.default_rng(0).standard_normal((500, 20)).astype(np.float32)
    np.save("x.npy", x)
    found = json.loads(output(*module, "pca", "x.npy", "--k", "3", "--json"))
    with np.load("runs/pca-x.npy/components.npz") as kept:
        components = next(kept[name] for name in kept.files if kept[name].shape == (3, 20))
    wanted = np.linalg.svd(x.astype(float), full_matrices=False)[2][:3]
    assert np.allclose(np.abs(np.sum(components * wanted, axis=1)), 1, atol=1e-5), found


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (command, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


# What is missing, asked for from Python and on the command line, and the extras that the one line has to name.
PYTHON: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a classifier": (lambda gn: gn.Classifier((5,)), "data"),
    "a regressor": (lambda gn: gn.Regressor((5,)), "data"),
    "an estimator": (lambda gn: gn.PCA(2), "data"),
    "another": (lambda gn: gn.ClassPCA(n_components=2), "data"),
    "digits": (lambda gn: gn.datasets.load("digits"), "data"),
    "photos": (lambda gn: gn.datasets.load("photos"), "data"),
    "fetching": (lambda gn: gn.datasets.fetch("mnist"), "data"),
    "HDF5": (lambda gn: gn.gram("f.h5::x"), "data"),
    "Zarr": (lambda gn: gn.gram("z.zarr"), "dask"),
    "from PyTorch": (lambda gn: gn.from_torch(None), "torch"),
    "to PyTorch": (lambda gn: gn.to_torch(None), "torch"),
    "ONNX": (lambda gn: gn.compress("net.onnx", rank=2), "onnx"),
    "a GPU": (lambda gn: gn.get_backend("cuda"), "cuda13"),
    "a sweep": (lambda gn: import_module("gpunet.sweep"), "sweep"),
    "a benchmark": (lambda gn: import_module("gpunet.bench.svd"), "report"),
    "a result": (lambda gn: import_module("gpunet.experiments.result"), "report"),
    "claims": (lambda gn: import_module("gpunet.experiments.claims"), "report"),
    "an experiment": (lambda gn: gn.experiments.experiment("toy").asked({}).load(), "report"),
    "one on digits": (lambda gn: gn.experiments.experiment("svd-init").asked({}, quick=True).load(), "data,report"),
}
COMMANDS = {
    "run svd-init --dataset digits": "data,report", "run toy": "report", "reproduce --quick": "data,report,sweep",
    "run cifar-mlp --quick": "data,report,sweep",
    "sweep train --dataset digits --param learning_rate=log:1e-4..1e-1": "data,report,sweep",
    "bench svd": "report", "bench train": "report", "bench report x.json": "report", "data fetch mnist": "data",
    "pca f.h5::x": "data", "pca z.zarr": "dask", "pca x.npy --scheduler tcp://a:1": "dask",
    "compress net.onnx --out small.onnx": "onnx", "compress bfloat16.safetensors --out b.safetensors": "data",
}  # fmt: skip
FIGURES = {  # all is there but the figure or the page, and that is said
    "pca x.npy --k 2": "runs/pca-x.npy/result.json",
    "compress model.safetensors --out small.safetensors": "small.safetensors",
}  # fmt: skip


def doors() -> None:
    import gpunet as gn
    from gpunet.errors import InputError

    for name in ("f.h5", "net.onnx"):
        Path(name).write_bytes(b"something")
    Path("z.zarr").mkdir()
    Path("z.zarr/zarr.json").write_text("{}")
    for kind in ("cats", "dogs"):
        Path("photos", kind).mkdir(parents=True)
        for i in range(5):
            Path("photos", kind, f"{i}.png").write_bytes(b"something")
    about = json.dumps({"a.weight": {"dtype": "BF16", "shape": [32, 32], "data_offsets": [0, 2048]}}).encode()
    Path("bfloat16.safetensors").write_bytes(struct.pack("<Q", len(about)) + about + bytes(2048))
    every: dict[str, Any] = {}
    exec("from gpunet import *", every)
    assert {*gn.__all__} <= {*every}
    assert f"pip install {'--force-reinstall' if BROKEN else chr(39) + 'gpunet[data]'}" in every["PCA"].__doc__
    for what, (ask, extras) in PYTHON.items():
        if BROKEN and what == "a GPU":  # which may be broken in more ways, and is told by its device
            continue
        try:
            ask(gn)
        except InputError as error:
            names(str(error), extras, what)
        else:
            raise AssertionError(f"{what} needs nothing")


def command_doors() -> None:
    for line, extras in COMMANDS.items():
        code, said = ran(line)
        assert code == 2, (line, code, said)
        names(said[-1], extras, line)
    for line, made in FIGURES.items():
        code, said = ran(line)
        assert code == 0, (line, said)
        assert Path(made).is_file(), made
        names(said[-1], "report", line)


def ran(line: str) -> tuple[int, list[str]]:
    from gpunet.cli import execute

    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        code = execute(line.split())
    return code, said.getvalue().splitlines()


def names(said: str, extras: str, what: str) -> None:
    """One line, which names these extras and no other; what is broken names itself."""
    assert "\n" not in said, (what, said)
    if BROKEN:
        package = r" needs (\w+|scikit-learn), which cannot be imported: a library is missing; reinstall it: "
        assert re.search(package + r"pip install --force-reinstall [\w-]+$", said), (what, said)
        return
    assert "not installed" in said, (what, said)
    assert re.findall(r"pip install 'gpunet\[([a-z0-9,]+)\]'", said) == [extras], (what, said, extras)


def described() -> None:
    """What a package index shows: every link of it leads somewhere."""
    if HIDDEN:
        return
    about = metadata.metadata("gpunet")
    text = about.get_payload() or about["Description"]
    links = re.findall(r"""\]\(([^)\s]+)|(?:src|href|srcset)="([^"]+)|^\[[^\]]+\]:\s+(\S+)""", text, re.MULTILINE)
    found = ["".join(each) for each in links]
    assert len(found) > 10, found
    assert not [each for each in found if not each.startswith(("https://", "#"))], found
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= {
        each.partition(",")[0] for each in about.get_all("Project-URL")
    }


if __name__ == "__main__":
    main()
