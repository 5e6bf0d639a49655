"""Tables, .npy files and .npz files of one set: what is found out about them, what is said, and what is refused."""

from __future__ import annotations

import csv
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gpunet.datasets import disk, load, table
from gpunet.errors import DataError, InputError

IRIS = "5.1,3.5,1.4,0.2,Iris-setosa\n4.9,3.0,1.4,0.2,Iris-setosa\n7.0,3.2,4.7,1.4,Iris-versicolor\n"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def rows(count: int = 20, header: str = "a,b,kind\n", separator: str = ",") -> str:
    lines = (f"{i},{i / 4},{'x' if i % 2 else 'y'}\n" for i in range(count))
    return (header + "".join(lines)).replace(",", separator)


def fails(path: Path, *words: str, **options: object) -> None:
    with pytest.raises(DataError) as error:
        load(path, **options)
    text = str(error.value)
    assert text.isprintable()
    for word in (path.name, *words):
        assert word in text, text


# -- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_with_a_header(tmp_path):
    data = load(write(tmp_path / "t.csv", rows()))
    assert (data.name, data.shape, data.names, data.x_train.dtype) == ("t", (2,), ("x", "y"), np.float32)
    every = {(i, i / 4): i % 2 == 0 for i in range(20)}
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert [every[tuple(row)] for row in x.tolist()] == y.astype(bool).tolist()
    assert (len(data.x_train), len(data.x_test)) == (16, 4)
    assert data.notes[0] == "the label is column kind, the last one; the first row names the columns"


def test_a_table_without_one(tmp_path):
    data = load(write(tmp_path / "iris.data", IRIS * 10))
    assert (data.shape, data.names) == ((4,), ("Iris-setosa", "Iris-versicolor"))
    assert data.notes[0] == "the label is column 5, the last one; no row names the columns"
    assert len(data.x_train) + len(data.x_test) == 30


@pytest.mark.parametrize(("separator", "said"), [(";", "semicolons"), ("\t", "tabs"), (",", "")])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_ends_of_lines_and_marks(tmp_path, separator, said, ends, encoding):
    text = rows(separator=separator, header="größe,b,Art der Blüte\n").replace("\n", ends) + ends
    data = load(write(tmp_path / "t.csv", text, encoding), label="Art der Blüte")
    assert (data.shape, len(data.x_train)) == ((2,), 16)
    assert data.notes[0].startswith("the label is column Art der Blüte, asked for; the first row names the columns")
    assert (f"separated by {said}" in data.notes[0]) == bool(said)


def test_quoted_cells_and_spaces(tmp_path):
    text = 'a, "b, or c" ,kind\n' + "".join(
        f'"{i}", {2 * i} , "small, {"odd" if i % 2 else "even"}"\n' for i in range(12)
    )
    data = load(write(tmp_path / "t.csv", text))
    assert data.names == ("small, even", "small, odd")
    assert data.x_train[1].tolist() == [1, 2]


@pytest.mark.parametrize(("header", "label", "said"), [
    ("label,p0,p1", None, "column label, by its name"), ("p0,Target,p1", None, "column Target, by its name"),
    ("label,class,p1", None, "column p1, the last one"), ("p0,p1,p2", "p1", "column p1, asked for"),
    ("p0,p1,p2", "2", "column p1, asked for"), ("2,1,0x", "1", "column 1, asked for"), ("", "3", "column 3, asked for"),
])  # fmt: skip
def test_which_column_is_the_label(tmp_path, header, label, said):
    place = {"label": 0, "Target": 1, "p1": 1, "1": 1, "3": 2}[said.split(",")[0].removeprefix("column ")]
    place = 2 if header == "label,class,p1" else place
    lines = [header] if header else []
    for i in range(20):
        cells = [str(i + 0.5), str(2 * i + 0.5)]
        cells.insert(place, str(i % 2 + 1))
        lines.append(",".join(cells))
    data = load(write(tmp_path / "t.csv", "\n".join(lines)), label=label)
    assert said in data.notes[0], data.notes
    assert (data.names, data.shape) == (("1", "2"), (2,))


def test_an_index_without_a_name_is_left_out(tmp_path):
    text = ",a,kind\n" + "".join(f"{i},{i / 8},{i % 2}\n" for i in range(20))
    data = load(write(tmp_path / "t.csv", text))
    assert data.shape == (1,)
    assert "the first column, which has no name and numbers the rows, is left out" in data.notes[0]


@pytest.mark.parametrize("header", [
    "0,1,2,label", ",0,1,2,kind", "0,1,2,kind", "400,410,420,kind", "label,0,1,2", ",0,1,2,label", "wave,400,410,label",
])  # fmt: skip
@pytest.mark.parametrize("order", ["in order", "shuffled"])
def test_names_of_columns_that_are_numbers(tmp_path, header, order):
    numbers = np.arange(40) if order == "in order" else np.random.default_rng(0).permutation(40)
    lines = []
    for i in numbers.tolist():
        cells = [str(i + 0.5), str(i / 8), str(-i / 8)]
        cells.insert(0 if header.startswith("label") else 3, "word" if i % 2 else "other")
        lines.append(",".join([str(i), *cells] if header.startswith(",") else cells))
    data = load(write(tmp_path / "t.csv", "\n".join([header, *lines])))
    assert (data.names, data.shape) == (("other", "word"), (3,))
    assert len(data.x_train) + len(data.x_test) == 40
    assert "the first row names the columns" in data.notes[0]
    assert ("has no name and numbers the rows, is left out" in data.notes[0]) == header.startswith(",")


@pytest.mark.parametrize("first", [".1,.2,.3,x", "1,2,3,x", "3,5,9,z", "1,2,z", "5.1,3.5,1.4,z"])
def test_rows_that_name_nothing(tmp_path, first):
    rest = "".join(f"{i}.5,{i},{i * i},{'x' if i % 2 else 'y'}\n" for i in range(40))
    rest = rest if first.count(",") == 3 else rest.replace(".5,", "")
    rest = rest if first.count(",") == 3 else "".join(f"{i}.5,{i},{'x' if i % 2 else 'y'}\n" for i in range(40))
    data = load(write(tmp_path / "t.csv", f"{first}\n{rest}"))
    assert "no row names the columns" in data.notes[0]
    assert len(data.x_train) + len(data.x_test) == 41


def test_two_columns_called_0_and_1(tmp_path):
    data = load(write(tmp_path / "t.csv", rows(header="0,1,kind\n")))
    assert (data.names, len(data.x_train), len(data.x_test)) == (("x", "y"), 16, 4)


def test_the_index_of_two_tables(tmp_path):
    def part(name: str, numbers: range) -> None:
        write(tmp_path / "d" / name, ",a,kind\n" + "".join(f"{i},{i / 8},{'xy'[i % 2]}\n" for i in numbers))

    part("train.csv", range(30))
    part("test.csv", range(30, 40))
    data = load(tmp_path / "d")
    assert (data.shape, len(data.x_train), len(data.x_test)) == ((1,), 30, 10)
    np.testing.assert_array_equal(data.x_test[:, 0], np.arange(30, 40) / 8)


def test_a_first_line_of_excel(tmp_path):
    data = load(write(tmp_path / "t.csv", "sep=;\r\n" + rows(separator=";"), "utf-8-sig"))
    assert (data.shape, data.names) == ((2,), ("x", "y"))
    fails(write(tmp_path / "s.csv", "sep=;\n" + rows(separator=";").replace("2;0.5", "2;red")), "line 5, column b")


def test_whole_numbers_up_to_255_are_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 9))
    pixels[0, 0] = 255
    lines = ["label," + ",".join(f"pixel{i}" for i in range(9))]
    lines += [f"{i % 2}," + ",".join(map(str, row)) for i, row in enumerate(pixels)]
    data = load(write(tmp_path / "t.csv", "\n".join(lines)))
    assert data.x_train.dtype == np.uint8
    np.testing.assert_array_equal(data.x_train[:8], pixels[:8])
    assert "values are whole numbers from 0 to 255: read as pixels, bytes" in data.notes
    small = load(write(tmp_path / "s.csv", "\n".join(lines).replace("255", "254")))
    assert small.x_train.dtype == np.float32


def test_two_tables_of_a_folder(tmp_path):
    write(tmp_path / "my set" / "train.csv", rows(20))
    write(tmp_path / "my set" / "test.csv", rows(3))
    data = load(tmp_path / "my set")
    assert (data.name, len(data.x_train), len(data.x_test), data.y_test.tolist()) == ("my set", 20, 3, [1, 0, 1])
    write(tmp_path / "my set" / "test.csv", "a,b\n1,2\n3,4\n")
    fails(tmp_path / "my set" / "train.csv", "no column", label="nothing")
    with pytest.raises(DataError, match=r"test.csv: its columns are a and b, but those of train.csv are a, b and kind"):
        load(tmp_path / "my set")
    write(tmp_path / "my set" / "test.csv", rows(3).replace("x", "z"))
    with pytest.raises(DataError, match="y_test row 1 is z, not among the 2 classes"):
        load(tmp_path / "my set")


REFUSED = {
    "a value is missing": ("a,b,kind\n1,2,x\n3,,y\n", ["line 3, column b: a value is missing"]),
    "not a number": ("a,b,kind\n1,2,x\n3,NaN,y\n", ["line 3, column b: a value is missing"]),
    "text": ("a,b,kind\n1,2,x\n3,red,y\n4,5,y\n", ["line 3, column b holds text, 'red'", "--label"]),
    "a column of text": ("1,red,x\n3,red,y\n4,blue,y\n", ["line 1, column 2 holds text, 'red'"]),
    "decimal commas": ("1,5;x\n2,5;y\n3,5;y\n", ["holds text, '1,5'; a number has a decimal point"]),
    "beyond float32": ("a,b,kind\n1,1e300,x\n3,1,y\n", ["line 2, column b is 1e300, which float32 does not hold"]),
    "infinite": ("a,b,kind\n1,inf,x\n3,1,y\n", ["line 2, column b is inf"]),
    "the label is missing": ("a,b,kind\n1,2,x\n3,4,?\n5,6,\n", ["line 4, column kind: the label is missing"]),
    "the label is a measurement": (rows().replace(",x", ",0.5").replace(",y", ",1"), ["0.5; expected classes"]),
    "the label is a text": (f"a,kind\n1,{'z' * 300}\n2,b\n", ["300 characters are a text"]),
    "a row is short": ("a,b,kind\n1,2,x\n3,y\n", ["line 3 has 2 columns, the first row 3"]),
    "a column": ("a\nb\nc\n", ["one column only"]),
    "nothing": ("", ["an empty table"]),
    "blank lines": ("\n\n\n", ["an empty table"]),
    "a header alone": ("a,b,kind\n", ["names of columns and no rows"]),
    "decimal commas below names": ("a;b;kind\n1,5;2;x\n2;3;y\n", ["line 2, column a holds text, '1,5'; a number has"]),
    "a line below in a number": ("a,b,kind\n1_000,2,x\n2,3,y\n", ["line 2, column a holds text, '1_000'"]),
    "a control character": ("a,b,kind\n\x1b[1m,2,x\n2,3,y\n", [r"holds text, '\x1b[1m'"]),
    "an empty last column": ("a,b,kind,\n1,2,x,\n3,4,y,\n", ["every row ends in a separator"]),
    "a comment first": ("# of iris\na,b,kind\n1,2,x\n", ["a line is a comment, '# of iris'"]),
    "a comment before semicolons": ("# of iris\na;b;kind\n1;2;x\n", ["a line is a comment, '# of iris'"]),
    "a comment between": ("a,b,kind\n1,2,x\n# more\n3,4,y\n", ["a line is a comment, '# more'"]),
    "a label between": (
        rows().replace("8,2.0,y", "8,2.0,1.5").replace(",x", ",1").replace(",y", ",2"),
        ["line 10, column kind is 1.5; expected classes"],
    ),
    "a label for nothing": (rows().replace("8,2.0,y", "8,2.0,NA"), ["line 10, column kind: the label is missing"]),
    "no class has five": ("a,b,kind\n1,2,x\n3,4,y\n", ["no test samples"]),
    "zeros": ("a,b,kind\n1,2\0,x\n3,4,y\n", ["line 2"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_tables(tmp_path, what):
    text, words = REFUSED[what]
    fails(write(tmp_path / "t.csv", text), *words)


def test_other_encodings(tmp_path):
    fails(write(tmp_path / "t.csv", rows(header="größe,b,kind\n"), "latin-1"), "not a text in UTF-8")
    fails(write(tmp_path / "u.csv", rows(), "utf-16"), "not a text in UTF-8")


@pytest.mark.parametrize("label", ["nothing", "0", "4"])
def test_columns_that_are_not_there(tmp_path, label):
    fails(
        write(tmp_path / "t.csv", rows()),
        f"no column '{label}' for the label; its columns are a, b and kind",
        label=label,
    )
    fails(write(tmp_path / "s.csv", IRIS * 5), "a number from 1 to 5", label="kind")
    fails(write(tmp_path / "d.csv", rows(header="a,a,kind\n")), "several columns are called a", label="a")


def test_a_line_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "LONGEST_LINE", 100)
    fails(write(tmp_path / "t.csv", "1," * 400), "a line of more than 100 characters")


def test_a_table_beyond_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "physical_memory", lambda: 100_000)
    path = write(tmp_path / "t.csv", rows(20_000, header=""))
    fails(path, "the table needs", "100,000 bytes of memory")


@pytest.mark.slow
def test_reading_a_table_takes_little_more_than_its_numbers(tmp_path):
    path = write(
        tmp_path / "t.csv", "".join(f"{','.join(map(str, range(i, i + 40)))},{i % 3}\n" for i in range(30_000))
    )
    tracemalloc.start()
    try:
        data = load(path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    numbers = (data.x_train.nbytes + data.x_test.nbytes) * 2  # while they are put together
    assert most < numbers + 40e6


def test_against_the_csv_module(tmp_path):
    """Another reader of the same file: cells by `csv` alone, floats by NumPy."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(9000, 5)), rng.integers(0, 4, 9000)
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow([*"abcde", "kind"])
        out.writerows([*map(repr, row), f"class {label}"] for row, label in zip(x.tolist(), y.tolist(), strict=True))
    data = load(tmp_path / "t.csv")
    found = np.concatenate([data.x_train, data.x_test])
    test = np.sort(np.concatenate([np.flatnonzero(y == c)[4::5] for c in range(4)]))
    wanted = np.concatenate([np.delete(x, test, axis=0), x[test]])
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_unreadable(tmp_path):
    path = write(tmp_path / "t.csv", rows())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    fails(path, "cannot be read")


# -- arrays -----------------------------------------------------------------------------------------------------------

X = np.random.default_rng(0).integers(0, 256, (30, 4, 3), dtype=np.uint8)
Y = np.array(["b", "a", "c"])[np.arange(30) % 3]


@pytest.mark.parametrize("keys", [("X", "y"), ("x", "y"), ("data", "target"), ("images", "labels"), ("X", "Y")])
def test_an_npz_of_one_set(tmp_path, keys):
    np.savez(tmp_path / "a.npz", **dict(zip(keys, (X, Y), strict=True)), other=np.zeros(2))
    data = load(tmp_path / "a.npz")
    assert (data.shape, data.names, len(data.x_train), len(data.x_test)) == ((4, 3), ("a", "b", "c"), 24, 6)
    test = np.sort(np.concatenate([np.flatnonzero(name == Y)[4::5] for name in "abc"]))
    np.testing.assert_array_equal(data.x_test, X[test].reshape(6, 12))
    assert [data.names[label] for label in data.y_test] == Y[test].tolist()


def test_names_in_capitals(tmp_path):
    np.savez(tmp_path / "a.npz", X_train=X, Y_train=Y, X_test=X[:6], y_test=Y[:6])
    assert load(tmp_path / "a.npz").y_test.tolist() == [1, 0, 2, 1, 0, 2]


def test_an_npz_that_lacks_labels(tmp_path):
    np.savez(tmp_path / "a.npz", X=X)
    fails(tmp_path / "a.npz", "missing x_train, y_train, x_test, y_test; found X", "numpy.savez(path, X=…, y=…)")


def test_text_is_for_labels_alone(tmp_path):
    np.savez(tmp_path / "a.npz", X=Y, y=Y)
    fails(tmp_path / "a.npz", "X is <U1", "expected an array of real numbers")
    np.savez(tmp_path / "b.npz", X=X, y=Y.astype(object))
    fails(tmp_path / "b.npz", "y holds Python objects", "dtype U")


@pytest.mark.parametrize("names", [("X", "y"), ("x", "y"), ("x_train", "y_train"), ("X_train", "Y_train")])
def test_a_folder_of_npy_files(tmp_path, names):
    folder = tmp_path / "my set"
    folder.mkdir()
    for name, array in zip(names, (X, Y), strict=True):
        np.save(folder / f"{name}.npy", array)
        if "train" in name:
            np.save(folder / f"{name.replace('train', 'test')}.npy", array[:6])
    data = load(folder)
    assert (data.name, data.shape, len(data.x_test), data.names) == ("my set", (4, 3), 6, ("a", "b", "c"))


def test_an_npy_file_and_its_labels(tmp_path):
    np.save(tmp_path / "photos.npy", X)
    fails(tmp_path / "photos.npy", "y.npy: no such file, which should hold the labels of photos.npy", "--label")
    np.save(tmp_path / "y.npy", Y)
    assert load(tmp_path / "photos.npy").names == ("a", "b", "c")
    np.save(tmp_path / "sides.npy", np.arange(30) % 2 * 2 - 1)
    assert load(tmp_path / "photos.npy", label=tmp_path / "sides.npy").names == ("-1", "1")


@pytest.mark.parametrize("change", ["cut", "longer", "header", "pickle", "huge"])
def test_damaged_npy_files(tmp_path, change, monkeypatch):
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", np.arange(30) % 3)
    path = tmp_path / "X.npy"
    content = path.read_bytes()
    words = "damaged"
    if change == "pickle":
        np.save(path, np.array([{}], object), allow_pickle=True)
        words = "holds Python objects"
    elif change == "huge":
        monkeypatch.setattr(disk, "physical_memory", lambda: 100)
        words = "bytes of memory"
    elif change == "header":
        path.write_bytes(content.replace(b"NUMPY", b"DUMPY"))
        words = "not a sound .npy"
    else:
        path.write_bytes(content[:-1] if change == "cut" else content + b"0")
    fails(path, words)


# -- options ----------------------------------------------------------------------------------------------------------


def test_standardised_features(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 300)) * 10.0 ** rng.integers(-3, 4, 300) + 100
    x[:, 7] = 3.0
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(50) % 2, x_test=x[:10] + 1, y_test=np.arange(10) % 2)
    data = load(tmp_path / "a.npz", standardize=True)
    given = load(tmp_path / "a.npz")
    mean, deviation = (given.x_train.astype(np.float64).mean(0), given.x_train.astype(np.float64).std(0))
    deviation[7] = np.inf
    np.testing.assert_allclose(data.x_train, (given.x_train - mean) / deviation, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.x_test, (given.x_test - mean) / deviation, rtol=1e-5, atol=1e-6)
    assert data.notes[-1] == "every feature less its mean, over its deviation"


@pytest.mark.parametrize(("options", "words"), [
    ({"label": "a"}, "label is 'a': only a table has a column"),
    ({"resize": 8}, "resize is 8: only images of a folder"),
])  # fmt: skip
def test_options_that_are_for_other_data(tmp_path, options, words):
    np.savez(tmp_path / "a.npz", X=X, y=Y)
    fails(tmp_path / "a.npz", words, **options)
    with pytest.raises(DataError, match="digits: "):
        load("digits", **options)
    if "resize" in options:
        fails(write(tmp_path / "t.csv", rows()), words, **options)


@pytest.mark.parametrize(("label", "words"), [
    ("9" * 5000, "999"), ("~nobody-of-this-name/y.npy", "expected an .npy file with the labels"),
    ("", "label is empty"), ("y\0.npy", "label is"), ("folder", "not a file, which should hold the labels"),
    ("X.npy", "the samples' own file"), ("none.npy", "no such file"),
])  # fmt: skip
def test_labels_that_are_no_file(tmp_path, monkeypatch, label, words):
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", X)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=words) as error:
        load("X.npy", label=label)
    assert str(error.value).isprintable()


def test_a_pipe_is_no_file_of_labels(tmp_path):
    np.save(tmp_path / "X.npy", X)
    os.mkfifo(tmp_path / "y.npy")
    fails(tmp_path / "X.npy", "y.npy: not a file")


def test_a_column_s_number(tmp_path):
    path = write(tmp_path / "t.csv", rows().replace(".25", ".0").replace(".5", ".0").replace(".75", ".0"))
    assert load(path, label=3).names == load(path, label="3").names == ("x", "y")
    fails(path, "no column '999", label="9" * 5000)
    for label in (0, 1.0, True):
        with pytest.raises(InputError):
            load(path, label=label)


@pytest.mark.parametrize("names", [("data", "target"), ("images", "labels"), ("Data", "Y")])
def test_a_folder_of_npy_files_called_as_in_an_npz(tmp_path, names):
    for name, array in zip(names, (X, Y), strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    assert load(tmp_path).names == ("a", "b", "c")
