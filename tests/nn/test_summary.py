"""A model as a table, and how many numbers it holds."""

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import InputError, ShapeError


def net():
    return gn.Sequential(
        [
            gn.Reshape((1, 12, 12)),
            gn.Conv2D(4, 3, "relu", pool=2),
            gn.Flatten(),
            gn.Dense(20, "relu", trainable=False),
            gn.LowRankDense(16, 3),
            gn.Dense(5),
        ]
    )


def test_it_counts_what_is_there():
    model = net()
    before = model.summary((144,))
    assert not model.built
    model.build((144,), gn.get_backend("cpu"), dtype="float64")
    held = {name: np.asarray(p).size for name, p in model.parameters.items()}
    now = model.summary()
    assert now.lines == before.lines
    assert now.parameters == model.parameter_count() == sum(held.values())
    assert (
        now.trained == model.parameter_count(trained=True) == sum(np.asarray(g).size for g in model.gradients.values())
    )
    assert now.frozen == held["5.weight"] + held["5.bias"] == 20 * 100 + 20
    assert (before.dtype, now.dtype) == ("float32", "float64")
    assert (before.bytes, now.bytes) == (4 * now.parameters, 8 * now.parameters)
    for line in now.lines:
        assert line.parameters == sum(size for name, size in held.items() if name.partition(".")[0] == line.name)
    assert [line.output for line in now.lines] == model.shapes((144,))
    assert [line.dense for line in now.lines] == [None] * 4 + [16 * 21, None]


def test_a_frozen_layer_is_counted_as_it_is_now():
    model = gn.Sequential([gn.Dense(4), gn.Dense(3)])
    model.build((5,), gn.get_backend("cpu"))
    assert model.parameter_count(trained=True) == model.parameter_count() == 39
    model.layers[0].trainable = False
    assert model.parameter_count(trained=True) == 15
    assert model.summary().frozen == 24
    model.replace("0", gn.factorise(model.layers[0], 2))
    assert model.parameter_count() == 2 * 9 + 4 + 15


def test_how_it_is_shown():
    summary = net().summary((144,))
    lines = str(summary).splitlines()
    assert repr(summary) == str(summary)
    assert lines[0].split() == ["name", "layer", "output", "parameters", "of", "dense", "frozen"]
    assert "Conv2D(4, 3, 'relu', pool=2)" in lines[2]
    assert lines[4].split()[-3:] == ["(20,)", "2,020", "2,020"]
    assert lines[5].split()[-2:] == ["124", "36.9%"]
    assert lines[-1] == "2,269 parameters, 249 of them trained, 8.86 KiB in float32, for samples of shape (144,)"
    assert all(line == line.rstrip() for line in lines)
    html = summary._repr_html_()
    assert html.count("<tr>") == 7
    assert "2,269 parameters" in html
    assert gn.Sequential([gn.Flatten()]).summary((2, 2)).bytes == 0
    assert str(gn.Sequential([gn.Dense(1)]).summary((1,))).endswith("8 bytes in float32, for samples of shape (1,)")


def test_a_layer_of_ones_own_stands_in_it():
    class Twice(gn.Layer):
        def spec(self, input_shape):
            return gn.layers.Spec(input_shape, {"scale": gn.layers.Parameter(input_shape, gn.init.zeros)})

    line = gn.Sequential([Twice(), gn.Dense(2)]).summary((3,)).lines[0]
    assert (line.layer, line.parameters) == ("Twice()", 3)


def test_mistakes():
    with pytest.raises(InputError, match=r"give the shape of a sample, say model.summary\(\(784,\)\)"):
        net().summary()
    with pytest.raises(InputError, match="no weights yet"):
        net().parameter_count()
    with pytest.raises(ShapeError, match="input_shape is 144"):
        net().summary(144)
    with pytest.raises(ShapeError, match="do not fit shape"):
        net().summary((145,))
    model = net()
    model.build((144,), gn.get_backend("cpu"))
    with pytest.raises(InputError, match="trained is 'no': expected True or False"):
        model.parameter_count(trained="no")


def test_parameters_show_their_sizes():
    model = gn.Sequential([gn.Dense(300)])
    model.build((400,), gn.get_backend("cpu"))
    assert repr(model.parameters) == "<Views: 0.weight (300, 400), 0.bias (300,)>"
