"""`reproducible=True`: the same bits however the samples come, of sums that are exact once the samples are rounded."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.backend import blas
from gpunet.errors import InputError
from gpunet.linalg import StreamingClassGram, StreamingGram, class_pca, slices
from gpunet.linalg.verify import tolerance
from tests.linalg.far import Far, far  # noqa: F401 (a fixture)
from tests.linalg.matrices import largest_angle


def stream(**options):
    return StreamingGram(reproducible=True, **options)


def bits(sums, k=None):
    """All that can be read of the sums, as bytes."""
    found = [sums._gram(sums._state), sums.density(), sums.mean]
    pca = sums.components(k)
    return [each.tobytes() for each in (*found, pca.components, pca.explained_variance, np.float64(pca.residual))]


# -- what is summed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("exponents", [(0, 0), (-3, 9), (-30, 30), (-140, 140)])
@pytest.mark.parametrize("mean", [0, 1000])
@pytest.mark.parametrize("small", [1e-2, 1e-11, 1e-19])
def test_the_sums_are_exact(small, mean, exponents, dtype, rng):
    if dtype == "float32":
        exponents = tuple(max(-37, min(e, 30)) for e in exponents)
    x = ((mean + rng.standard_normal((40, 5))) * 10.0 ** rng.uniform(*exponents, 5)).astype(dtype)
    x[rng.random(x.shape) < 0.2] *= x.dtype.type(small)
    total = stream().update(x[:11]).update(x[11:])._state.total()
    assert small < 1e-4 or not total.dropped
    columns = [[Fraction(float(v)) for v in column] for column in x.T]
    means = [sum(c) / 40 for c in columns]
    error = np.zeros((5, 5))
    for i, a in enumerate(columns):
        assert close(total.mean[i], total.mean_low[i], means[i], 0 if small == 1e-2 else 80)
        for j, b in enumerate(columns):
            exact = sum((v - means[i]) * (w - means[j]) for v, w in zip(a, b, strict=True))
            if not total.dropped:
                assert close(total.scatter[i, j], total.scatter_low[i, j], exact)
            error[i, j] = Fraction(float(total.scatter[i, j])) + Fraction(float(total.scatter_low[i, j])) - exact
    rounding = 2.0**-100 * np.abs(total.scatter).max() + 1e-300
    assert np.abs(error).max() <= total.dropped + rounding


def close(high, low, exact, bits=0):
    """To 2⁻¹⁰⁰ or so many bits, or where the low part leaves float64, to one rounding."""
    error = abs(Fraction(float(high)) + Fraction(float(low)) - exact)
    return error <= abs(exact) / 2 ** (bits or 100) + Fraction(2) ** -1074 * 4


def test_samples_far_from_0_lose_nothing(rng):
    """Of float32 around 1e6 every bit counts, and columns that are constant have no scatter at all."""
    x = (1e6 + rng.standard_normal((3000, 12)) * np.arange(12)).astype("float32")
    own = x.astype(np.longdouble) - x.astype(np.longdouble).mean(axis=0)
    found = stream(center=True).update(x).gram()
    np.testing.assert_allclose(found, (own.T @ own).astype(float), rtol=1e-13, atol=1e-9)
    assert not found[0].any()


def test_unlimited_numbers_of_samples(rng, monkeypatch):
    x = rng.standard_normal((50, 4)) * [1, 1e3, 1e-9, 0]
    once = stream().update(x)
    for dtype in ("float32", "float64"):
        sums = stream().update(x.astype(dtype))
        one = sums._state.total()
        for _ in range(34):  # 50 · 2³⁴ samples; products of 2⁴⁰ pass 2⁶³ at 2²³
            sums = stream().merge(sums).merge(sums)
        total = sums._state.total()
        assert total.count == 50 << 34
        for name, factor in (("scatter", 2.0**34), ("scatter_low", 2.0**34), ("mean", 1), ("mean_low", 1)):
            np.testing.assert_array_equal(getattr(total, name), getattr(one, name) * factor)
    monkeypatch.setattr(slices, "PENDING", 7)
    split = stream()
    for row in x:
        split.update(row[None])
    assert split._state.sliced.carries
    assert bits(split) == bits(once)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16", "int32", "int64", "bool", "uint8"])
def test_every_dtype(dtype, rng):
    x = (rng.standard_normal((300, 7)) * 100).astype(dtype)
    one, parts = stream().update(x), stream().update(x[200:]).update(x[:1]).update(x[1:200])
    assert bits(one) == bits(parts)
    plain = StreamingGram().update(x)
    np.testing.assert_allclose(one.gram(), plain.gram(), rtol=0, atol=1e-8 * np.abs(plain.gram()).max())
    if dtype in ("uint8", "bool", "int16"):
        exact = x.astype(np.int64)
        np.testing.assert_allclose(one.gram(), exact.T @ exact, rtol=1e-15)


def test_dtypes_side_by_side(rng):
    """Whatever came before."""
    x = rng.standard_normal((90, 5)) * [1, 10, 1e-3, 300, 7]
    parts = [x[:30], x[30:60].astype("float32"), (x[60:] * 9).astype("int16"), x[:7].astype("float16")]
    first, last = stream(), stream()
    for part in parts:
        first.update(part)
    for part in reversed(parts):
        last.merge(stream().update(part))
    assert bits(first) == bits(last)
    counts = rng.integers(0, 256, (40, 5), dtype=np.uint8)
    assert bits(stream().update(counts).update(parts[2])) == bits(stream().update(parts[2]).update(counts))


# -- however they come ------------------------------------------------------------------------------------------------


@st.composite
def hostile(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    n, features, spread = draw(st.integers(1, 40)), draw(st.integers(1, 6)), draw(st.sampled_from([0, 3, 20, 60, 145]))
    spread = min(spread, 18) if dtype == "float32" else spread
    x = rng.standard_normal((n, features)) * 10.0 ** rng.uniform(-spread, spread, (n, features))
    x *= 10.0 ** rng.uniform(-spread, 0, features)
    x[rng.random(x.shape) < 0.1] = draw(st.sampled_from([0.0, 1.0, 2.0**-13, -(2.0**8), 256.00001, 5e-324, 0.5]))
    return x.astype(dtype), rng


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(hostile())
def test_any_order_any_split_and_any_tree_of_merges(problem):
    x, rng = problem
    wanted = stream().update(x)._state.total()
    trees = []
    for part in np.array_split(x[rng.permutation(len(x))], rng.integers(1, 9)):
        one = stream()
        for batch in np.array_split(part, rng.integers(1, 4)):
            one.update(batch)
        trees.append(one)
    while len(trees) > 1:
        other = trees.pop(rng.integers(len(trees)))
        trees[rng.integers(len(trees))].merge(other)
    found = trees[0]._state.total()
    for name in ("scatter", "scatter_low", "mean", "mean_low"):
        assert getattr(found, name).tobytes() == getattr(wanted, name).tobytes(), name
    assert (found.count, found.largest, found.dropped) == (wanted.count, wanted.largest, wanted.dropped)


@pytest.mark.slow
@pytest.mark.parametrize("width", [20, 300])
def test_chunks_and_layouts_leave_no_trace(width, rng, monkeypatch):
    x = rng.standard_normal((9000, width)) * np.geomspace(1, 1e-5, width)
    wanted = bits(stream(center=True).update(x), 3)
    assert bits(stream(center=True).update(np.asfortranarray(x)), 3) == wanted
    assert bits(stream(center=True).update(np.repeat(x, 2, axis=1)[:, ::2]), 3) == wanted
    monkeypatch.setattr(slices, "CUT_BYTES", 1)
    monkeypatch.setattr(slices, "STRIPE", 700)
    assert bits(stream(center=True).update(x[::-1]), 3) == wanted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gpus_bits_are_the_cpus(far, dtype, rng):  # noqa: F811
    x, labels = (rng.standard_normal((3000, 12)) * np.geomspace(1, 1e-6, 12)).astype(dtype), rng.integers(0, 3, 3000)
    wanted = bits(stream().update(x), 3)
    for there in (stream(), stream(device="cuda")):
        assert bits(there.update(Far(x[:9])).update(x[9:2000]).update(Far(x[2000:])), 3) == wanted
    classes = StreamingClassGram(reproducible=True)
    classes.update(Far(x[:1500]), labels[:1500]).update(x[1500:], labels[1500:])
    here = StreamingClassGram(reproducible=True).update(x, labels)
    np.testing.assert_array_equal(classes.components(3).components, here.components(3).components)
    pixels = rng.integers(0, 256, (100, 12), dtype=np.uint8)
    assert bits(stream().update(Far(pixels)), 3) == bits(stream().update(pixels), 3)


def _sums(part):
    return stream().update(part)


@pytest.mark.slow
def test_processes(rng):
    x = (rng.standard_normal((400, 9)) * 3).astype("float32")
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        parts = list(pool.map(_sums, np.array_split(x, 5)))
    merged = stream()
    for part in reversed(parts):
        merged.merge(part)
    assert bits(merged) == bits(stream().update(x))
    assert bits(pickle.loads(pickle.dumps(merged)).update(x)) == bits(merged.update(x))  # noqa: S301


PROGRAM = """
import hashlib, json, numpy as np, gpunet as gn
x = np.random.default_rng(0).standard_normal((5000, 300)) * np.geomspace(1, 1e-4, 300)
sums = gn.StreamingGram(reproducible=True, center=True).update(x)
pca = sums.components(20)
print(json.dumps([hashlib.sha256(each.tobytes()).hexdigest() for each in (sums.gram(), pca.components)]))
"""


@pytest.mark.slow
def test_numbers_of_threads():
    found = []
    for threads in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env={**os.environ, "OPENBLAS_NUM_THREADS": threads}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == found[2]


def test_the_eigensolver_has_one_thread(monkeypatch, rng):
    seen, gram, pca = [], *(sys.modules[f"gpunet.linalg.{name}"] for name in ("gram", "pca"))
    for module, name in ((gram, "decompose_on"), (pca, "of_gram")):
        own = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, own=own: seen.append(blas.current_threads()) or own(*a))
    _ = stream().update(rng.standard_normal((30, 8))).components(2).certificate
    assert seen == [1, 1]


# -- what is read of them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("rank", [20, 7])
def test_exact_sums_show_what_a_root_does(center, rank, rng):
    """σ from 1 to 1e-10 of squares from 1 to 1e-20, as LAPACK finds them of all samples in one piece."""
    x = rng.normal(size=(9000, 20)) * np.logspace(0, -10, 20) @ np.linalg.qr(rng.normal(size=(20, 20)))[0]
    x[:, rank:] = 0
    own = x - x.mean(axis=0) if center else x
    s, vt = np.linalg.svd(own, full_matrices=False)[1:]
    found = stream(center=center).update(x[:4000]).update(x[4000:]).components(rank)
    np.testing.assert_allclose(np.sqrt(found.explained_variance * 9000), s[:rank], rtol=0, atol=1e-14 * s[0])
    assert largest_angle(found.components[:5].T, vt[:5].T) < 1e-9
    assert found.residual < tolerance("float64", 20, rank)
    assert found.route == "root"


def test_class_by_class(rng):
    x, labels = rng.standard_normal((600, 30)), rng.integers(0, 4, 600)
    classes, other = StreamingClassGram(reproducible=True), StreamingClassGram(reproducible=True)
    for start in range(0, 600, 130):
        classes.update(x[start : start + 130], labels[start : start + 130])
    for part in (slice(300, 600), slice(0, 300)):
        other.merge(StreamingClassGram(reproducible=True).update(x[part], labels[part]))
    a, b, whole = classes.components(3), other.components(3), class_pca(x, labels, 3)
    np.testing.assert_array_equal(a.components, b.components)
    np.testing.assert_allclose(a.components, whole.components, atol=1e-9)


def test_sums_of_two_kinds_do_not_merge(rng):
    x, labels = rng.standard_normal((9, 3)), np.zeros(9, int)
    words = r"other StreamingGram was made with reproducible=False, this one with reproducible=True: .*make both alike"
    one = stream().update(x)
    with pytest.raises(InputError, match=words):
        one.merge(StreamingGram().update(x))
    with pytest.raises(InputError, match="reproducible=True, this one with reproducible=False"):
        StreamingGram().merge(one)
    with pytest.raises(InputError, match=words):
        StreamingClassGram(reproducible=True).merge(StreamingClassGram().update(x, labels))
    assert one.merge(StreamingGram()).count == 9
    with pytest.raises(InputError, match="make another one with reproducible="):
        one.reproducible = False
    with pytest.raises(InputError, match="reproducible is 'yes': expected True or False"):
        StreamingGram(reproducible="yes")
    assert one.reset().update(x).reproducible


def test_batches_of_more_samples_than_an_integer_holds_are_taken_in_pieces(rng, monkeypatch):
    x = rng.standard_normal((100, 3))
    wanted = bits(stream().update(x))
    monkeypatch.setattr(slices, "PENDING", 7)
    assert bits(stream().update(x)) == wanted


def test_any_number_of_samples_at_a_time(monkeypatch, rng):
    x = rng.standard_normal((3000, 1))
    whole = stream().update(x).gram()
    monkeypatch.setattr("gpunet.linalg.slices.PENDING", 2)
    assert (stream().update(x).gram() == whole).all()


@pytest.mark.slow
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("k", [1, 5])
def test_few_components_of_a_flat_spectrum(k, center, rng):
    """What the root hides of squares is told of them, not of their roots."""
    x = rng.standard_normal((1500, 300))
    found = StreamingGram(center=center, reproducible=True).update(x).components(k)
    s = np.linalg.svd(x - x.mean(axis=0) * center, compute_uv=False)
    assert found.residual <= tolerance("float64", 300, k)
    assert found.certificate.complete
    np.testing.assert_allclose(np.sqrt(1500 * found.explained_variance), s[:k], rtol=1e-13)
