"""What makes a run another one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from gpunet.backend import get_backend
from gpunet.datasets import load
from gpunet.experiments.work import order
from gpunet.reproduce.asked import asked, changed, code, fingerprint, sources

from ..experiments.made import dataset


def test_the_same_data_elsewhere_is_the_same():
    assert fingerprint(dataset()) == fingerprint(replace(dataset(), source="elsewhere.npz"))


def test_any_change_of_the_data_is_seen():
    data = dataset()
    labels, x, test = data.y_train.copy(), data.x_train.copy(), data.x_test.copy()
    labels[-1] ^= 1
    x[3, 2] = np.nextafter(x[3, 2], np.float32(9))
    others = [
        replace(data, y_train=labels), replace(data, x_train=x), replace(data, x_test=test[::-1]),
        replace(data, name="b"), replace(data, shape=(7, 1)), replace(data, x_train=data.x_train.astype("f8")), [data],
        [data, data], load("xor"),
    ]  # fmt: skip
    assert len({fingerprint(each) for each in [data, *others]}) == len(others) + 1


def test_a_column_order_array_is_the_array_it_shows():
    data = dataset()
    assert fingerprint(replace(data, x_train=np.asfortranarray(data.x_train))) == fingerprint(data)


def test_what_changed_in_words():
    cpu = get_backend("numpy")
    first = asked(order("svd-init", {}, quick=True), cpu) | {"data": "1"}
    assert first == json.loads(json.dumps(first))
    assert changed(first, first) == ""
    other = asked(order("svd-init", {"epochs": 3}, quick=True), cpu) | {"data": "1"}
    assert changed(other, first) == "settings epochs is 3 here and null there"
    other = asked(order("svd-init", {}, quick=True, seeds=2), cpu) | {"data": "1"}
    assert changed(other, first) == "seeds is [0, 1] here and [0] there"
    assert changed(first | {"data": "2"}, first) == "its data changed"
    assert changed(first | {"code": "2"}, first) == "its code changed"
    assert changed(first | {"device": "cuda:0 cupy"}, first).startswith("device is")
    del other["data"], other["seeds"]
    assert changed({"code": code()}, first) == ""


def test_kernels_are_part_of_the_device():
    pytest.importorskip("numba")
    plain, compiled = (asked(order("toy", {}), get_backend(name))["device"] for name in ("numpy", "cpu"))
    assert plain != compiled


def test_only_code_that_computes_counts(tmp_path):
    for name in ("train.py", "backend/kernels.cu", "report/page.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    before, seen = sources(tmp_path), set()
    for name in ("report/page.py", "notes.txt"):
        (tmp_path / name).write_text("2")
        assert sources(tmp_path) == before
    for name in ("train.py", "backend/kernels.cu"):
        (tmp_path / name).write_text("2")
        seen.add(sources(tmp_path))
    (tmp_path / "train.py").rename(tmp_path / "fit.py")
    seen.add(sources(tmp_path))
    assert len(seen | {before}) == 4
