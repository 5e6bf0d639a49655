"""tests/linalg/fuzz.py: a seeded part of it, and that it finds what is put there for it to find."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gpunet.errors import ConvergenceError

from . import fuzz

SLOW = 5_000  # cases: two minutes on one core


def failures(cases, seed, **settings):
    return [str(verdict) for verdict in fuzz.verdicts(cases, seed, **settings) if verdict.failures]


@pytest.mark.slow
def test_a_few_cases_pass():
    assert failures(150, 1) == []


@pytest.mark.slow
def test_two_minutes_of_cases_pass():
    assert failures(SLOW, 2) == []


def test_a_case_is_a_function_of_seed_and_index():
    first, again = (list(fuzz.verdicts(12, 5)) for _ in range(2))
    assert [(v.door, v.what, v.route) for v in first] == [(v.door, v.what, v.route) for v in again]
    assert fuzz.examine(5, 11).what == first[11].what
    assert len({v.what for v in first}) == 12
    assert {v.door for v in fuzz.verdicts(60, 5, door="stack")} == {"stack"}


def off_by(name, size):
    """`svd` whose results are off by a relative `size` in one array."""

    def faulty(a, *args, **kwargs):
        found = svd(a, *args, **kwargs)
        array = getattr(found, name)
        if array is None or not array.size:
            return found
        noise = np.random.default_rng(0).standard_normal(array.shape)
        noise *= size / np.linalg.norm(noise)
        tol = np.finfo(array.dtype).eps * 1000
        return replace(found, **{name: (array * (1 + tol * noise)).astype(array.dtype)})

    return faulty


def without_the_first(a, k=None, **kwargs):
    found = svd(a, **kwargs)
    k = len(found.s) if k is None else k
    u, vt = found.u, found.vt
    return replace(
        found,
        u=u if u is None else np.roll(u, -1, 1)[:, :k],
        s=np.append(found.s[1:], 0).astype(found.s.dtype)[:k],
        vt=vt if vt is None else np.roll(vt, -1, 0)[:k],
    )


def other_signs(a, *args, **kwargs):
    found = svd(a, *args, **kwargs)
    return replace(found, u=None if found.u is None else -found.u, vt=None if found.vt is None else -found.vt)


def input_changed(a, *args, **kwargs):
    found = svd(a, *args, **kwargs)
    if a.flags.writeable:
        a[..., 0, 0] = 1 - a[..., 0, 0] if a.dtype != bool else ~a[..., 0, 0]
    return found


def memory_shared(a, *args, **kwargs):
    return replace(svd(a, *args, **kwargs), s=a[..., 0, :])


def other_bits(a, *args, **kwargs):
    found = svd(a, *args, **kwargs)
    CALLS[0] += 1
    return replace(found, s=found.s * (1 + CALLS[0] * np.finfo(found.s.dtype).eps).astype(found.s.dtype))


def refusing(a, *args, **kwargs):
    svd(a, *args, **kwargs)
    raise ConvergenceError("no route reached tol")


def crashing(a, *args, **kwargs):
    svd(a, *args, **kwargs)
    raise np.linalg.LinAlgError("SVD did not converge")


def other_certificate(**changes):
    """`svd` whose certificate is changed in some parts."""

    def faulty(a, *args, **kwargs):
        found = svd(a, *args, **kwargs)
        if not found.s.size:
            return found
        given = {name: change(getattr(found.certificate, name)) for name, change in changes.items()}
        return replace(found, _proof=replace(found.certificate, **given))

    return faulty


def narrower(sigma):
    """By ten, about the middle."""
    middle = sigma.mean(axis=-1, keepdims=True)
    return middle + (sigma - middle) / 10


def nothing_missed(a, k=None, **kwargs):
    """`without_the_first`, and certified as if nothing was: intervals of the values that are returned."""
    found = without_the_first(a, k, **kwargs)
    bounds = svd(a, **kwargs).certificate.sigma
    bounds = np.append(bounds[1:], np.zeros((1, 2)), axis=0)[: len(found.s)]
    return replace(found, _proof=replace(found.certificate, sigma=bounds, complete=True, beyond=np.inf))


svd, CALLS = fuzz.svd, [0]
FAULTS = {
    "u": (off_by("u", 50), "SILENT", "orthogonality|residual"),
    "s": (off_by("s", 50), "SILENT", "singular values|residual|σ² v"),
    "vt": (off_by("vt", 50), "SILENT", "orthogonality|residual"),
    "leading": (without_the_first, "SILENT", "singular values"),
    "signs": (other_signs, "SILENT", "wrong sign"),
    "input": (input_changed, "SILENT", "input was changed"),
    "memory": (memory_shared, "SILENT", "shares memory"),
    "bits": (other_bits, "SILENT", "two calls differ"),
    "narrow": (other_certificate(sigma=narrower), "SILENT", "certificate: σ_"),
    "sine": (other_certificate(sine=lambda sine: sine / 10), "SILENT", "certificate: sine"),
    "beyond": (other_certificate(beyond=lambda beyond: beyond * 0.9), "SILENT", r"certificate: σ_k\+1"),
    "complete": (other_certificate(complete=lambda complete: True), "SILENT", "certificate: complete"),
    "missed": (nothing_missed, "SILENT", "certificate: complete"),
    "refused": (refusing, "REFUSAL", "no route"),
    "crash": (crashing, "CRASH", "LinAlgError"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(name, monkeypatch):
    """Each fault is put into `svd`, and the cases say its class."""
    fault, kind, words = FAULTS[name]
    monkeypatch.setattr(fuzz, "svd", fault)
    found = [v for v in fuzz.verdicts(80, 3, door="svd") if v.failures]
    said = Counter(k for v in found for k, text in v.failures if re.search(words, text))
    assert said[kind] > 3, [str(v) for v in found]


def test_streams_that_lose_samples_are_found(monkeypatch):
    class Forgetful(fuzz.StreamingGram):
        def update(self, batch):
            return super().update(batch[1:] if len(batch) > 1 else batch)

    monkeypatch.setattr(fuzz, "StreamingGram", Forgetful)
    assert len(failures(100, 3, door="streaming")) > 3


def test_directions_of_another_class_are_found(monkeypatch):
    """Unit vectors, in order and with the right variances, of the wrong subspace."""

    def turned(*args, **kwargs):
        found = pca(*args, **kwargs)
        return replace(found, components=found.components[..., ::-1])

    pca = fuzz.class_pca
    monkeypatch.setattr(fuzz, "class_pca", turned)
    assert any("span of the" in each for each in failures(200, 3, door="class_pca"))


def test_the_command_line_tells_and_writes_what_failed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(fuzz, "svd", crashing)
    path = tmp_path / "found.json"
    assert fuzz.main(["--cases", "20", "--door", "svd", "--json", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("tests.linalg.fuzz --case 0:")]
    assert failed
    assert "CRASH: LinAlgError: SVD did not converge" in failed[0]
    written = json.loads(path.read_text())
    assert written["failures"] == sorted(failed)
    assert written["classes"][0]["class"] == "CRASH svd: LinAlgError: SVD did not converge"
    assert fuzz.main(["--case", failed[0].split()[2]]) == 1
    assert capsys.readouterr().out.startswith(failed[0].split("->")[0])
