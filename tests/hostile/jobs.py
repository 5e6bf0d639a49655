"""What `tests.hostile.kills` kills: each job is a process, `python -m tests.hostile.jobs NAME FOLDER [MIRROR]`."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import numpy as np


def plain() -> dict[str, bytes]:
    """Made files: two that come one by one, two that come in an archive."""
    names = ("a.bin", "b.bin", "inside/c.bin", "inside/d.bin")
    return {name: np.random.Generator(np.random.Philox(seed)).bytes(300_000 + seed) for seed, name in enumerate(names)}


def archive() -> bytes:
    """Of the last two."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as packed:
        for name, content in plain().items():
            if "/" in name:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return made.getvalue()


def sent() -> dict[str, bytes]:
    """What the mirror sends, by name."""
    return {name: content for name, content in plain().items() if "/" not in name} | {"boxed.tar.gz": packed()}


def packed() -> bytes:
    """The archive with a fixed clock in it, so that every process makes the same."""
    import gzip

    return gzip.compress(gzip.decompress(archive()), compresslevel=1, mtime=0)


def register() -> None:
    """The data sets "single" and "boxed"."""
    from gpunet.datasets import REGISTRY, Entry, RemoteFile

    def files(inside: bool) -> tuple[RemoteFile, ...]:
        return tuple(
            RemoteFile(name, len(content), hashlib.sha256(content).hexdigest())
            for name, content in plain().items()
            if ("/" in name) is inside
        )

    content = packed()
    box = RemoteFile("boxed.tar.gz", len(content), hashlib.sha256(content).hexdigest())
    REGISTRY["single"] = Entry("single", "for tests", files(inside=False))
    REGISTRY["boxed"] = Entry("boxed", "for tests", files(inside=True), archive=box)


def fetch(folder: str, mirror: str) -> int:
    """`gpunet data fetch` of both."""
    import os

    register()
    os.environ["GPUNET_DATA"] = folder
    return gpunet("data", "fetch", "single", "boxed", "--mirror", mirror)


def reproduce(folder: str) -> int:
    """`gpunet reproduce` with a small paper's runs in place of ours."""
    from tests.reproduce.driver import small_only

    small_only()
    return gpunet("reproduce", "--quick", "--device", "numpy", "--out", folder)


def gpunet(*arguments: str) -> int:
    """The command line as it is installed, signals and all."""
    from gpunet.cli import main

    sys.argv[1:] = arguments
    main()
    return 0


def fit(folder: str) -> int:
    """A training run with checkpoints; prints a digest of all that it made."""
    import json

    import gpunet as gn

    data = gn.datasets.load("digits")
    model = gn.Sequential([gn.Dense(64, "relu"), gn.Dense(10)])
    trainer = gn.Trainer(model, optimizer=gn.Adam(1e-2), device="numpy", seed=5)
    history = trainer.fit(
        data.x_train, data.y_train, epochs=12, batch_size=32, validation_data=(data.x_test, data.y_test),
        callbacks=[gn.CosineDecay(), gn.Factorise(0.5, {"0": 8}, state="carry", merge=False)],
        checkpoint=folder, checkpoint_every=0.2, resume=True,
    )  # fmt: skip
    kept = [{name: value for name, value in logs.items() if name != "seconds"} for logs in history.epochs]
    digest = hashlib.sha256(json.dumps(kept).encode())
    for name, value in trainer.model.parameters.items():
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    print(digest.hexdigest())
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.exit({"fetch": fetch, "fit": fit, "reproduce": reproduce}[sys.argv[1]](*sys.argv[2:]))
