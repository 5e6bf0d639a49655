"""The kernels compile for real GPUs without warnings or spills, and the table of their resources lists them all."""

from __future__ import annotations

import json
import re

import pytest

from gpunet.backend.cupy_backend import FOLDER, source

from . import kernel_resources as tool
from .host_module import HostModule
from .host_module import why_not as no_host_compiler

TABLE = json.loads((tool.RESULTS / "kernel-resources.json").read_text())
REMAKE = "run: python -m tests.cuda.kernel_resources"


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [pytest.param(each, marks=[pytest.mark.slow] * (each != tool.ARCHITECTURES[-1])) for each in tool.ARCHITECTURES],
)
def test_kernels_compile_without_warnings_and_spills(architecture):
    if reason := tool.why_not():
        pytest.skip(reason)
    for compile_one in tool.compilers():  # CuPy takes the newest NVRTC, which may refuse what nvcc lets pass
        found = tool.compiled(architecture, compile_one)
        assert set(found) == set(TABLE["kernels"][architecture]), REMAKE
        for name, resources in found.items():
            assert resources["registers"] > 0, name
            for key in ("stack_bytes", "spill_store_bytes", "spill_load_bytes"):
                assert resources[key] == 0, (name, key)


def test_a_spill_or_a_warning_would_be_seen():
    report = """ptxas info    : Compiling entry function 'tick' for 'sm_90'
ptxas info    : Function properties for tick
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 8193 bytes smem, 388 bytes cmem[0]
"""
    assert tool.parsed(report) == {
        "tick": {"registers": 255, "shared_bytes": 8193, "stack_bytes": 16, "spill_store_bytes": 4,
                 "spill_load_bytes": 8}
    }  # fmt: skip


def test_the_table_lists_the_kernels_there_are():
    if reason := no_host_compiler():
        pytest.skip(reason)
    names = set(HostModule(code=source()).names)
    for architecture in tool.ARCHITECTURES:
        assert set(TABLE["kernels"][architecture]) == names, REMAKE
    assert TABLE["options"] == list(tool.OPTIONS), REMAKE
    assert "-ftz=true" in TABLE["options"]  # CuPy's own
    text = (tool.RESULTS / "kernel-resources.md").read_text()
    assert tool.table(TABLE["kernels"]) in text, REMAKE


def test_the_source_is_one_text_with_every_file_in_it():
    text = source()
    assert "#include" not in text
    for path in FOLDER.glob("*.cuh"):
        assert path.read_text() in text, f"kernels.cu does not include {path.name}"


def test_numbers_that_python_and_cuda_share_agree():
    from gpunet.backend import base, cupy_backend

    text = source()

    def listed(name):
        return re.search(rf"enum {name} {{ (.*) }};", text)[1].split(", ")

    assert [name.lower() for name in listed("Activation")] == list(base.ACTIVATIONS)
    assert [getattr(base, name) for name in listed("Scalar")] == [*range(base.N_SCALARS), base.N_SCALARS]
    assert [getattr(base, name) for name in listed("Total")] == list(range(base.N_TOTALS))
    assert f"constexpr int BLOCK = {cupy_backend.BLOCK};" in text
    assert f"constexpr int NARROW = {cupy_backend.NARROW};" in text
    assert f"constexpr int FILTERS = {cupy_backend.FILTERS};" in text
