"""The bar in a notebook: one output, updated in place, in a shell that only pretends to be a kernel's."""

import io
import sys
import types

import numpy as np
import pytest

import gpunet as gn
from gpunet import progress as module
from gpunet.progress import Bar, Lines, NotebookBar, progress


class Cell:
    """A cell's outputs, each as it was shown last, and how often something was sent."""

    def __init__(self):
        self.outputs, self.sent = [], 0

    def display(self, thing, *, display_id):
        assert display_id is True
        place = len(self.outputs)
        self.outputs.append(None)

        def update(thing):
            self.outputs[place] = (repr(thing), thing._repr_html_())
            self.sent += 1

        update(thing)
        return types.SimpleNamespace(update=update)


@pytest.fixture
def cell(monkeypatch):
    found = Cell()
    shell = types.ModuleType("IPython")
    shell.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    shell.display = types.ModuleType("IPython.display")
    shell.display.display = found.display
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", shell.display)
    return found


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_it_is_taken_where_a_kernel_runs(cell, monkeypatch):
    assert isinstance(progress(True), NotebookBar)
    assert type(progress(False)) is module.Progress
    sys.modules["IPython"].get_ipython = lambda: types.SimpleNamespace()  # of a terminal
    assert isinstance(progress(True), Bar | Lines)
    sys.modules["IPython"].get_ipython = lambda: None  # imported, not running
    assert isinstance(progress(True), Bar | Lines)
    monkeypatch.delitem(sys.modules, "IPython")
    assert isinstance(progress(True), Bar | Lines)


def test_one_output_is_updated_now_and_then(cell, clock):
    with NotebookBar() as bar:
        bar.start("training <mnist>", 1000)
        for step in range(1000):
            clock[0] += 0.01
            bar.advance(1, f"loss {step}")
    assert len(cell.outputs) == 1
    assert 10 / module.AGAIN <= 2 + cell.sent <= 4 + 10 / module.AGAIN
    text, html = cell.outputs[0]
    assert text == "training <mnist>: 1000/1000  0:10  loss 999"
    assert '<progress value="1000" max="1000"' in html
    assert "&lt;mnist&gt;" in html


def test_it_says_how_long_it_will_take(cell, clock):
    bar = NotebookBar()
    bar.start("work", 4)
    assert cell.outputs[0][0] == "work: 0/4  0:00 left"
    clock[0] += 90
    bar.advance()
    assert cell.outputs[0][0] == "work: 1/4  4:30 left"
    bar.start("more", 0)
    assert cell.outputs[0][0] == "more: 0  0:00"
    assert 'max="1"' in cell.outputs[0][1]
    assert len(cell.outputs) == 1


def test_a_bar_that_never_began_shows_nothing(cell):
    NotebookBar().close()
    assert cell.outputs == []


def test_a_fit_in_a_notebook(cell, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    gn.Trainer(gn.Sequential([gn.Dense(2)]), device="cpu").fit(np.eye(4), [0, 1, 0, 1], epochs=3, progress=True)
    assert len(cell.outputs) == 1
    assert cell.outputs[0][0].startswith("training: 3/3  0:00  epoch 3  loss ")
    assert sys.stderr.getvalue() == ""
