"""Figures show text as it is written, whatever the environment says, and one that fails costs nothing but itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.text import Text

from gpunet.errors import OutputError
from gpunet.experiments.framework import Experiment, Figure
from gpunet.report import drawing, style

from ..experiments.schema import is_png
from .page_folder import made

NAMES = ["a$b_{c", "$x$", r"\frac$", "a\x1b[31m\r\x9b\u202eb", "\udcff"]
SEEN = ["a$b_{c", "$x$", r"\frac$", r"a\x1b[31m\r\x9b\u202eb", r"\udcff"]


def everywhere(axes, names):
    """Each name as a title, a label, a legend, a note and a tick."""
    axes.set(title=names[0], xlabel=names[1], ylabel=names[2], yscale="log")
    for place, name in enumerate(names):
        axes.plot([0, 1], [1e-3, 1e3 + place], label=name)
        axes.annotate(name, (0.5, 10.0**place))
    axes.set_xticks(range(len(names)), names)
    axes.legend()


def test_names_are_shown_as_they_are_written(tmp_path):
    with style.figure(tmp_path / "a.png") as axes:
        everywhere(axes, NAMES)
    axes.figure.draw_without_rendering()
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    shown = [text.get_text() for text in axes.findobj(Text)]
    assert is_png((tmp_path / "a.png").read_bytes())
    assert ticks == SEEN
    assert all(shown.count(name) >= 3 for name in SEEN)
    assert not any(text.get_parse_math() for text in axes.findobj(Text) if text.get_text() in SEEN)
    assert {"10⁻²", "10²"} <= {text.get_text() for text in axes.get_yticklabels()}


def test_names_in_a_figure_for_the_page_are_text():
    with drawing.collected() as held, style.figure(Path("never/written.png")) as axes:
        everywhere(axes, ["a$b_{c", "<script>&", "\x00\x1b"])
    svg = held["written"]
    assert svg.count(">a$b_{c<") == 4
    assert svg.count("&lt;script&gt;&amp;") == 4
    assert svg.count(r"\x00\x1b") == 4
    assert not {"\x00", "\x1b"} & set(svg)


def png(path: Path) -> bytes:
    path.parent.mkdir(exist_ok=True)  # a picture holds its own name
    with style.figure(path) as axes:
        axes.plot([1, 2, 3], label="a")
        axes.set(title="$a$", yscale="log")
        axes.legend()
    return path.read_bytes()


def test_a_letter_that_the_font_lacks_is_no_news(tmp_path):
    with style.figure(tmp_path / "a.png") as axes:
        axes.set_title("漢字")
    assert is_png((tmp_path / "a.png").read_bytes())


def test_what_a_users_settings_say_changes_nothing(tmp_path):
    plain = png(tmp_path / "plain" / "a.png")
    theirs = {"text.usetex": True, "font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20, "savefig.bbox": "tight"}
    with mpl.rc_context(theirs):
        assert png(tmp_path / "theirs" / "a.png") == plain
        assert mpl.rcParams["font.size"] == 30


def test_a_notebooks_backend_is_not_there_while_figures_are_drawn(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert drawing.drawn(lambda: pytest.fail("seen") if "MPLBACKEND" in os.environ else None) == []
    assert os.environ["MPLBACKEND"].endswith("backend_inline")


@pytest.mark.slow
def test_an_environment_that_matplotlib_does_not_like(tmp_path):
    """In a process, since matplotlib looks when it is imported: no backend, no LaTeX, no folder for its fonts."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\nbackend: nonsense\n")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from gpunet.report import page\nfrom gpunet.report.drawing import drawn\n"
        "assert 'matplotlib' not in sys.modules, 'the page imports it when it draws'\n"
        "def draw():\n    from tests.report.test_drawing import png\n    png(Path('there/a.png'))\nprint(drawn(draw))\n"
    )
    root = str(Path(__file__).parents[2])
    environment = os.environ | {
        "PYTHONPATH": root, "MPLBACKEND": "nonsense", "MATPLOTLIBRC": str(tmp_path), "MPLCONFIGDIR": "/proc/nowhere",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "there/a.png" in done.stdout
    assert (tmp_path / "there" / "a.png").read_bytes() == png(tmp_path / "here" / "a.png")


def test_one_that_fails_is_a_warning_and_the_others_are_there(tmp_path):
    (tmp_path / "b.png").mkdir()

    def draw():
        for name in "abcd":
            with style.figure(tmp_path / f"{name}.png") as axes:
                axes.plot([1, 2])
                if name == "c":
                    raise KeyError("orth-each")
        raise ZeroDivisionError("between\nfigures")

    with pytest.warns(RuntimeWarning) as told:
        written = drawing.drawn(draw)
    assert [path.name for path in written] == ["a.png", "d.png"]
    assert all(is_png(path.read_bytes()) for path in written)
    rest = "could not be drawn, all else is there:"
    lines = [str(each.message) for each in told]
    assert [line.partition(":")[0] + ":" for line in lines] == [f"b.png {rest}", f"c.png {rest}", f"figures {rest}"]
    assert "b.png" in lines[0]
    assert lines[1:] == [f"c.png {rest} KeyError: 'orth-each'", f"figures {rest} ZeroDivisionError: between figures"]


def test_pictures_of_an_earlier_run_are_gone_before_there_are_newer_numbers(tmp_path):
    """Those that we drew under the names that they have: what somebody named or drew is theirs."""
    theirs = {"kept.png": png(tmp_path / "old.png"), "text.png": b"no picture", "text.txt": b"gpunet"}
    for name, content in theirs.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("old.png")
    png(tmp_path / "a.png")

    def write() -> Path:
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == sorted([*theirs, "folder.png", "link.png"])
        return tmp_path / "result.json"

    def draw():
        raise ImportError("No module named 'matplotlib'", name="matplotlib")

    with pytest.warns(RuntimeWarning, match="figures could not be drawn"):
        assert drawing.written_and_drawn(tmp_path, write, draw) == (tmp_path / "result.json", [], "")
    assert {name: (tmp_path / name).read_bytes() for name in theirs} == theirs


def test_a_picture_that_cannot_be_removed_costs_no_results(tmp_path, monkeypatch):
    def refused(path):
        raise OutputError(f"cannot remove '{path}': it is open")

    png(tmp_path / "a.png")
    monkeypatch.setattr(drawing, "remove", refused)
    with pytest.warns(RuntimeWarning, match="a.png': it is open; it is of an earlier run"):
        assert drawing.written_and_drawn(tmp_path, lambda: tmp_path / "b", lambda: None) == (tmp_path / "b", [], "")


def test_ctrl_c_is_no_figure_that_fails(tmp_path):
    def draw():
        with style.figure(tmp_path / "a.png"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawing.drawn(draw)
    assert list(tmp_path.iterdir()) == []


def test_alone_they_raise(tmp_path):
    """For who draws without having written anything before."""
    with pytest.raises(ZeroDivisionError), style.figure(tmp_path / "a.png"):
        raise ZeroDivisionError


@pytest.mark.parametrize(("epochs", "ticks"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 3, 4, 5])])
def test_epochs_are_whole_and_a_single_one_is_a_dot(tmp_path, epochs, ticks):
    result = made(curves={"first": {"loss": [[0.5] * epochs, [0.75] * epochs]}})
    with style.figure(tmp_path / "a.png") as axes:
        style.by_epoch(axes, result, "first", "loss", "first", 0)
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == ticks
    assert (axes.lines[0].get_marker() == "o") is (epochs == 1)


def test_a_figure_whose_rows_are_missing_is_left_out_unsaid(tmp_path):
    def draw(result, axes):
        result.metric("none", "loss")

    class Paper:
        def figures(self, result):
            return [Figure("a", "caption", "alt", draw)]

    assert drawing.drawn(lambda: Experiment.draw(Paper(), made(), tmp_path)) == []  # warnings are errors here


@pytest.fixture
def told_anew():
    style._tell_numbers.cache_clear()
    yield
    style._tell_numbers.cache_clear()


@pytest.mark.parametrize(("name", "called"), [
    ("_hidden", "class _hidden"), ("Café", "class Café"), ("x" * 14, f"class {'x' * 14}"),
    ("a name of 36 characters and even more", "class a name of 36 …"), ("3", "class 3"),
])  # fmt: skip
def test_what_pictures_call_a_class(tmp_path, name, called):
    with style.figure(tmp_path / "a.png") as axes:
        axes.plot([0, 1], label=style.class_called(name, 7))
        axes.legend()
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [called]


def test_a_class_whose_name_the_font_lacks_is_its_number_and_that_is_said_once(tmp_path, told_anew):
    with (
        pytest.warns(UserWarning, match="called by their numbers") as told,
        style.figure(tmp_path / "a.png"),
    ):
        assert [style.class_called(name, place) for place, name in enumerate(["犬", "猫", "cat"])] == [
            "class 0", "class 1", "class cat",
        ]  # fmt: skip
    assert len(told) == 1
    with drawing.collected(), style.figure(tmp_path / "a.png"):  # in the reader's font
        assert style.class_called("犬", 0) == "class 犬"
