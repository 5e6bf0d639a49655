"""Group size: Σ x xᵀ of a file, beside the same products of what lies in memory, and beside reading the file alone.

GPUNET_SIZE_MB is its size, 100 by default; of one larger than memory the disk is part of what is timed, not the cache.
"""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest

import gpunet as gn
from gpunet.bench.harness import Contender, Work

MEGABYTES = float(os.environ.get("GPUNET_SIZE_MB", "100"))
FEATURES, PART = 784, 20_000
ROLES = {"gpunet": "ours", "products alone": "floor", "reading alone": "floor"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The file of a dtype, made once, and so many of its rows."""
    folder, made = tmp_path_factory.mktemp("size"), {}

    def of(dtype):
        if dtype not in made:
            rng, path = np.random.default_rng(0), folder / f"{dtype}.npy"
            part = rng.integers(0, 256, (PART, FEATURES)).astype(dtype)
            count = max(1, round(1e6 * MEGABYTES / part.nbytes))
            with path.open("wb") as file:
                shape = (count * PART, FEATURES)
                head = {"descr": part.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, head)
                for _ in range(count):
                    file.write(part)
            made[dtype] = path, part, count
        return made[dtype]

    yield of
    for path, *_ in made.values():
        path.unlink()


def work(found, who):
    path, part, count = found
    if who == "gpunet":
        return Work(lambda pieces: gn.gram(path))
    if who == "products alone":
        return Work(lambda pieces: [gn.StreamingGram().update(part) for _ in range(count)])

    def read(pieces):
        with path.open("rb", buffering=0) as file:
            while file.read(16 << 20):
                pass

    return Work(read)


@pytest.mark.benchmark(group="size")
@pytest.mark.parametrize("who", ROLES)
@pytest.mark.parametrize("case", [pytest.param("uint8", marks=pytest.mark.smallest), "float32"])
def test_sums_of_a_file(timed, files, case, who):
    timed(who, Contender(partial(work, files(case), who), ROLES[who], slow=MEGABYTES > 1000), case)
