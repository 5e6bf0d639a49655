"""`gn.compress` of ONNX graphs."""

from __future__ import annotations

import io
import os
import sys

import numpy as np
import pytest

import gpunet as gn
from gpunet.compression import onnxfile
from gpunet.compression.stored import compress_stored
from gpunet.errors import DataError, InputError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _the_same_numbers_each_time():
    rng.bit_generator.state = np.random.default_rng(0).bit_generator.state


def low_rank(*shape, rank=3, dtype=np.float32):
    """A weight of that rank, as (first, all others)."""
    m, n = shape[0], int(np.prod(shape[1:]))
    w = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n)) / np.sqrt(rank * n)
    return w.reshape(shape).astype(dtype)


def full(*shape, dtype=np.float32):
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(dtype)


def model(nodes, tensors, shapes, *, opset=17, ir=10, dtype=np.float32, outputs=None, integers=()):
    """A graph of nodes (op, inputs, outputs, name, attributes) with initialisers and inputs by name."""
    made = [helper.make_node(op, i, o, name=name, **said) for op, i, o, name, said in nodes]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64 if name in integers else kind, shape)
        for name, shape in shapes.items()
    ]
    held = [numpy_helper.from_array(each, name) for name, each in tensors.items()]
    if ir < 4:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in held]
    graph = helper.make_graph(
        made,
        "g",
        inputs,
        [helper.make_tensor_value_info(y, kind, s) for y, s in (outputs or {"y": None}).items()],
        held,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    proto = onnx.shape_inference.infer_shapes(proto)  # outputs' shapes
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto)
    return proto


def outputs(proto, feed):
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)


said = onnxfile.told


def ranks(proto):
    return {layer["name"]: layer["rank"] for layer in said(proto)["layers"]}


def off(a, b):
    return np.abs(a.astype(float) - b).max() / np.abs(a.astype(float)).max()


# -- one node at a time -----------------------------------------------------------------------------------------------


def one(op, w, x, *rest, given=("x", "w"), **attributes):
    """One node y = op(x, w, …)."""
    inputs, tensors = list(given), {"w": w}
    for i, each in enumerate(rest):
        inputs.append(f"c{i}")
        tensors[f"c{i}"] = each
    return lambda w, **how: model([(op, inputs, ["y"], "fc", attributes)], tensors | {"w": w}, {"x": x}, **how), w, x


def biased(w, x, b, first):
    add = ["b", "z"] if first else ["z", "b"]
    nodes = [("MatMul", ["x", "w"], ["z"], "fc", {}), ("Add", add, ["y"], "", {})]
    return lambda w, **how: model(nodes, {"w": w, "b": b}, {"x": x}, **how), w, x


CASES = {
    "matmul": one("MatMul", full(20, 16), ["n", 20]),
    "matmul in three dimensions": one("MatMul", full(20, 16), ["n", 7, 20]),
    "matmul, weight first": one("MatMul", full(16, 20), ["n", 20, 7], given=("w", "x")),
    "matmul, added": biased(full(20, 16), ["n", 5, 20], full(16), False),
    "matmul, added first": biased(full(20, 16), ["n", 20], full(1, 16), True),
    "gemm": one("Gemm", full(20, 16), ["n", 20]),
    "gemm of torch": one("Gemm", full(16, 20), ["n", 20], full(16), transB=1),
    "gemm of everything": one("Gemm", full(16, 20), ["n", 20], full(1, 16), transB=1, alpha=0.3, beta=-2.0),
    "gemm of a scalar": one("Gemm", full(20, 16), ["n", 20], np.float32(0.5), alpha=2.0),
    "gemm across": one("Gemm", full(20, 16), [20, 64], full(16), transA=1),
    "conv": one("Conv", full(16, 4, 3, 3), ["n", 4, 8, 9], full(16), pads=[1, 1, 1, 1]),
    "conv without": one("Conv", full(16, 4, 3, 2), ["n", 4, 8, 9], kernel_shape=[3, 2]),
    "conv of everything": one(
        "Conv", full(16, 4, 3, 3), ["n", 4, 11, 9], full(16), pads=[0, 1, 2, 3], strides=[2, 1], dilations=[1, 2]
    ),
    "conv, same": one("Conv", full(16, 4, 4, 3), ["n", 4, 9, 8], full(16), auto_pad="SAME_UPPER", strides=[2, 3]),
    "conv, same lower": one("Conv", full(16, 4, 4, 3), ["n", 4, 9, 8], full(16), auto_pad="SAME_LOWER", strides=[2, 3]),
    "conv, valid": one("Conv", full(16, 4, 3, 3), ["n", 4, 9, 8], auto_pad="VALID"),
    "conv, 1 × 1": one("Conv", full(16, 20, 1, 1), ["n", 20, 3, 3], full(16)),
    "conv of sounds": one("Conv", full(16, 8, 5), ["n", 8, 21], full(16), pads=[3, 1], strides=[2], dilations=[2]),
}  # fmt: skip


def given(shape, n=64):
    """Data that are not centred, and not alike in their features."""
    x = rng.standard_normal([n if each == "n" else each for each in shape]) + 0.7
    return (x * np.linspace(0.5, 2, x.shape[1]).reshape(-1, *[1] * (x.ndim - 2))).astype(np.float32)


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (9, 10), (13, 3), (21, 10)])
@pytest.mark.parametrize("case", CASES)
def test_a_rank_that_loses_nothing(case, opset, ir):
    if case == "gemm" and opset < 11:
        pytest.skip("a Gemm has a C there")
    make, w, shape = CASES[case]
    proto, x = make(low_rank(*w.shape), opset=opset, ir=ir), given(shape)
    before = proto.SerializeToString()
    y = outputs(proto, {"x": x})[0]
    for data in (None, x):
        small = gn.compress(proto, data, rank=3)
        onnx.checker.check_model(small, full_check=True)
        assert ranks(small) == {"fc": 3}
        assert off(y, outputs(small, {"x": x})[0]) < 1e-5
        assert small.graph.output == proto.graph.output
        assert (small.ir_version, small.opset_import) == (proto.ir_version, proto.opset_import)
        held = {t.name for t in small.graph.initializer}
        assert {"fc.0", "fc.1"} <= held
        assert "w" not in held
        assert said(small)["parameters"][1] == sum(int(np.prod(t.dims)) for t in small.graph.initializer)
    assert said(small)["difference"] < 1e-5
    assert proto.SerializeToString() == before


@pytest.mark.parametrize("case", CASES)
def test_the_error_is_what_the_outputs_have(case):
    """The error that the sums of a layer's inputs foretell is the one between both graphs' outputs."""
    make, w, shape = CASES[case]
    proto, x = make(w), given(shape)
    small = gn.compress(proto, x, rank=4)
    (layer,) = said(small)["layers"]
    assert layer["rank"] == 4
    y, z = (outputs(each, {"x": x})[0].astype(float) for each in (proto, small))
    axis = 1 if "conv" in case or case == "matmul, weight first" else -1
    y, z = (np.moveaxis(each, axis, -1).reshape(-1, each.shape[axis]) for each in (y, z))
    # What has a bias is told of the outputs less their mean, else their second moments.
    adds = "added" in case or (case.startswith(("gemm", "conv")) and len(proto.graph.initializer) > 1)
    base = y - y.mean(axis=0) if adds else y
    assert np.linalg.norm(y - z) / np.linalg.norm(base) == pytest.approx(layer["output_error"], rel=2e-3)
    if adds:
        np.testing.assert_allclose(z.mean(axis=0), y.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_in_their_dtype(dtype, op):
    w = low_rank(20, 16, dtype=dtype)
    proto = model([(op, ["x", "w"], ["y"], "fc", {})], {"w": w}, {"x": ["n", 20]}, dtype=dtype)
    x = given(["n", 20])
    small = gn.compress(proto, None if dtype == "bfloat16" else x, rank=3)
    assert {t.data_type for t in small.graph.initializer} == {t.data_type for t in proto.graph.initializer}
    two = [numpy_helper.to_array(t).astype(float) for t in small.graph.initializer]
    product = two[0] @ two[1] if op == "MatMul" else (two[1] @ two[0]).T
    assert off(w, product) < {"float64": 1e-14, "float16": 3e-3, "bfloat16": 3e-2}[dtype]
    if dtype == "bfloat16":
        with pytest.raises(InputError, match="onnxruntime cannot"):
            gn.compress(proto, x, rank=3)


def test_outputs_that_are_not_finite():
    nodes = [("MatMul", ["x", "w"], ["z"], "fc", {}), ("Log", ["z"], ["y"], "", {})]
    proto = model(nodes, {"w": full(20, 16)}, {"x": ["n", 20]})
    assert said(gn.compress(proto, given(["n", 20]), rank=3))["difference"] is None


def behind(*nodes):
    return [*nodes, ("MatMul", ["x", nodes[-1][2][0]], ["y"], "", {})]


@pytest.mark.parametrize("kind", ["constant", "transposed", "both", "identity"])
def test_weights_behind_plain_nodes(kind):
    w = low_rank(20, 16)
    constant = ("Constant", [], ["v"], "", {"value": numpy_helper.from_array(w if kind == "constant" else w.T.copy())})
    transpose = ("Transpose", ["v"], ["t"], "", {"perm": [1, 0]})
    nodes, held = {
        "constant": (behind(constant), {}), "both": (behind(constant, transpose), {}),
        "transposed": (behind(transpose), {"v": w.T.copy()}),
        "identity": (behind(("Identity", ["v"], ["t"], "", {})), {"v": w}),
    }[kind]  # fmt: skip
    proto, x = model(nodes, held, {"x": ["n", 20]}), given(["n", 20])
    small = gn.compress(proto, x, rank=3)
    assert ranks(small) == {"y": 3}
    assert [node.op_type for node in small.graph.node] == ["MatMul", "MatMul"]
    assert sorted(t.name for t in small.graph.initializer) == ["y.0", "y.1"]
    assert off(outputs(proto, {"x": x})[0], outputs(small, {"x": x})[0]) < 1e-5
    assert said(small)["parameters"] == [320, 108]


# -- whole graphs -----------------------------------------------------------------------------------------------------


def test_what_is_not_cut_stays():
    """Names, descriptions, metadata, unused tensors, a bias that others use, and names that are taken already."""
    b = full(16)
    nodes = [
        ("MatMul", ["x", "w"], ["z"], "fc", {}),
        ("Add", ["z", "b"], ["fc.0"], "add", {}),
        ("Relu", ["fc.0"], ["r"], "relu", {}),
        ("Mul", ["r", "b"], ["y"], "mul", {}),
    ]
    proto = model(nodes, {"w": low_rank(20, 16), "b": b, "unused": full(2, 2)}, {"x": ["n", 20]})
    proto.doc_string, proto.producer_name, proto.graph.node[0].doc_string = "ours", "us", "a product"
    proto.metadata_props.add(key="licence", value="MIT")
    proto.metadata_props.add(key="gpunet", value="of before")
    proto.graph.value_info.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["n", 16]))
    x = given(["n", 20])
    small = gn.compress(proto, x, rank=2)
    assert (small.doc_string, small.producer_name) == ("ours", "us")
    assert [each.key for each in small.metadata_props] == ["licence", "gpunet"]
    assert [node.name for node in small.graph.node] == ["fc.0", "fc.1", "add", "relu", "mul"]
    assert small.graph.node[1].output == ["z"]
    assert small.graph.node[1].doc_string == "a product"
    assert list(small.graph.node[3:]) == list(proto.graph.node[2:])
    assert small.graph.value_info == proto.graph.value_info
    assert [t.name for t in small.graph.initializer] == ["b", "unused", "fc.0_", "fc.1", "fc.bias"]
    again = gn.compress(small, x, budget=0.9)
    assert [each.key for each in again.metadata_props] == ["licence", "gpunet"]
    for broken in (proto, model(nodes, {"w": full(20, 16), "b": b}, {"x": ["n", 20]})):
        with pytest.raises(DataError, match="metadata"):
            said(broken)


def kept(proto, **settings):
    network = onnxfile.Onnx(proto)
    return network.kept


def test_what_cannot_be_cut_is_said():
    w, k = full(20, 20), full(20, 20, 1, 1)
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["x", "own"], ["o"], name="within")], "then",
        [], [helper.make_tensor_value_info("o", 1, w.shape)], [numpy_helper.from_array(w, "own")],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("MatMul", ["x", "captured"], ["p"], name="other")],
        "else", [], [helper.make_tensor_value_info("p", 1, w.shape)],
    )  # fmt: skip
    q = {"q": (w * 100).astype(np.int8), "s": np.float32(0.01), "i": np.array([[0.5]], np.float32)}
    nodes = [
        ("MatMul", ["x", "shared"], ["a"], "first", {}),
        ("MatMul", ["a", "shared"], ["b"], "second", {}),
        ("DequantizeLinear", ["q", "s"], ["d"], "", {}),
        ("MatMul", ["b", "d"], ["c"], "dequantised", {}),
        ("Cast", ["plain"], ["cast"], "", {"to": 1}),
        ("MatMul", ["c", "cast"], ["e"], "cast", {}),
        ("Gemm", ["plain2", "e"], ["f"], "left", {}),
        ("MatMul", ["f", "captured"], ["g"], "captured", {}),
        ("If", ["yes"], ["h"], "choice", {"then_branch": inner, "else_branch": other}),
        ("MatMul", ["g", "h"], ["j"], "dynamic", {}),
        ("MatMul", ["j", "three"], ["l"], "three", {}),
        ("MatMul", ["l", "given"], ["m"], "out", {}),
        ("Reshape", ["m", "to"], ["images"], "", {}),
        ("Conv", ["images", "grouped"], ["o1"], "grouped", {"group": 2}),
        ("Conv", ["o1", "free"], ["y"], "free", {}),
    ]
    held = q | {"shared": w, "plain": w, "plain2": w, "captured": w, "three": w[None], "given": w, "free": k} | {
        "grouped": k[:, :10], "yes": np.array(True), "to": np.array([20, 20, 1, 1]),
    }  # fmt: skip
    proto = model(nodes, held, {"x": [20, 20]}, outputs={"y": None, "given": w.shape})
    proto.graph.input.append(helper.make_tensor_value_info("free", 1, k.shape))
    found = kept(proto)
    for name, why in {
        "first": "shared", "second": "shared", "dequantised": "quantised, made by a DequantizeLinear",
        "cast": "made by a Cast", "left": "first factor of a Gemm", "captured": "shared", "out": "or given out",
        "three": "of shape (1, 20, 20)", "grouped": "group=2", "free": "input of the graph too",
        "within": "in the If 'choice'", "other": "the If 'choice'",
    }.items():  # fmt: skip
        assert why in found.pop(name), name
    assert not found
    with pytest.raises(InputError, match="no layer can be cut: 'first': its weight is shared"):
        gn.compress(proto, rank=2)
    with pytest.raises(InputError, match="the layer 'grouped' cannot be cut: it has group=2"):
        gn.compress(proto, rank=2, layers=["grouped"])


def test_quantised_products_functions_and_three_dimensions():
    q, zero = np.ones((20, 20), np.int8), np.int8(0)
    nodes = [("Cast", ["x"], ["i"], "", {"to": 3}), ("MatMulInteger", ["i", "q", "", "z"], ["j"], "int", {}),
             ("Cast", ["j"], ["y"], "", {"to": 1})]  # fmt: skip
    found = kept(model(nodes, {"q": q, "z": zero}, {"x": ["n", 20]}))
    assert found == {"int": "its weight is quantised: it is a MatMulInteger"}
    found = kept(
        model([("Conv", ["x", "w"], ["y"], "video", {})], {"w": full(8, 3, 2, 2, 2)}, {"x": ["n", 3, 4, 4, 4]})
    )
    assert found == {"video": "it convolves in 3 dimensions"}
    proto = model([("MatMul", ["x", "w"], ["y"], "fc", {})], {"w": full(20, 20)}, {"x": ["n", 20]})
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(
        helper.make_function(
            "ours", "f", ["a", "b"], ["c"], [helper.make_node("MatMul", ["a", "b"], ["c"], name="in")], opsets
        )
    )
    proto.opset_import.append(helper.make_opsetid("ours", 1))
    assert kept(proto) == {"in": "it is in the function 'f'"}


def exported(net, x, **settings):
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    try:
        torch.onnx.export(net, (torch.from_numpy(x[:2]),), file, dynamo=False, input_names=["x"], **settings)
    except ImportError as error:
        pytest.skip(f"torch cannot export: {error}")
    return onnx.load_from_string(file.getvalue())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("free", [True, False])
def test_the_same_as_of_torch(free):
    """torch → ONNX → cut is torch → cut: the ranks and, to 1e-5, the outputs."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    images = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2, dilation=2, padding=2, bias=False),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24 * 4, 60), nn.ReLU(), nn.Linear(60, 30), nn.Linear(30, 5),
    )  # fmt: skip
    texts = nn.Sequential(nn.Linear(30, 40), nn.GELU(), nn.Linear(40, 40, bias=False), nn.ReLU(), nn.Linear(40, 6))
    for net, shape in ((images, (120, 3, 8, 8)), (texts, (120, 7, 30))):
        net.eval()
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        proto = exported(net, x, **({"dynamic_axes": {"x": {0: "n"}}} if free else {}))
        small, wanted = gn.compress(proto, x, budget=0.4), gn.compress(net, x, budget=0.4)
        assert list(ranks(small).values()) == [each["rank"] for each in wanted.compression["layers"]]
        assert any(ranks(small).values())
        assert said(small)["parameters"] == wanted.compression["parameters"]
        feed = x if free else x[:2]
        with torch.no_grad():
            y = wanted(torch.from_numpy(feed)).numpy()
        np.testing.assert_allclose(outputs(small, {"x": feed})[0], y, atol=1e-5 * np.abs(y).max())


# -- data -------------------------------------------------------------------------------------------------------------


def pair(n="n"):
    """Two inputs, of which one is token ids."""
    nodes = [
        ("Gather", ["table", "ids"], ["t"], "", {}),
        ("Concat", ["t", "x"], ["c"], "", {"axis": -1}),
        ("Gemm", ["c", "w", "b"], ["y"], "fc", {}),
    ]
    held = {"table": full(50, 12), "w": full(24, 30), "b": full(30)}
    return model(nodes, held, {"ids": [n], "x": [n, 12]}, integers=["ids"])


@pytest.mark.parametrize("kind", ["dict", "npz", "dicts", "pairs", "wide", "fixed"])
def test_data_by_name(kind, tmp_path):
    proto = pair()
    ids, x = rng.integers(0, 50, 64), given(["n", 12])
    np.savez(tmp_path / "data.npz", ids=ids, x=x, labels=ids)
    data = {
        "dict": {"ids": ids, "x": x}, "npz": np.load(tmp_path / "data.npz"),
        "dicts": [{"ids": ids[:30], "x": x[:30]}, {"ids": ids[30:], "x": x[30:]}],
        "pairs": (({"ids": ids[a : a + 32], "x": x[a : a + 32]}, 0) for a in (0, 32)),
        "wide": {"ids": ids.astype(np.uint8), "x": x.astype(np.float64)}, "fixed": {"ids": ids, "x": x},
    }[kind]  # fmt: skip
    if kind == "fixed":
        for each in proto.graph.input:
            each.type.tensor_type.shape.dim[0].dim_value = 16
    small = gn.compress(proto, data, rank=5)
    assert ranks(small) == {"fc": 5}
    assert said(small)["samples"] == 64
    assert said(small)["batch"] == {"dicts": 30, "pairs": 32, "fixed": 16}.get(kind, 64)
    whole = {"ids": ids, "x": x}
    y = outputs(pair_like(proto), {"ids": ids, "x": x.astype(np.float32)})[0].argmax(1)
    wanted = gn.compress(pair_like(proto), whole, rank=5, evaluate=(whole, y))
    assert said(wanted)["metric"][0] == 1
    for a, b in zip(small.graph.initializer, wanted.graph.initializer, strict=True):
        a, b = numpy_helper.to_array(a), numpy_helper.to_array(b)
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_file_of_several_inputs(tmp_path):
    """From one file to another, of which an array has a name that one of samples alone has, too."""
    onnx.save(pair(), tmp_path / "net.onnx")
    arrays = {"ids": rng.integers(0, 50, 64), "x": given(["n", 12]), "y": np.zeros(64)}
    made = compress_stored(str(tmp_path / "net.onnx"), tmp_path / "small.onnx", data=arrays, rank=5)
    assert ranks(onnx.load(made.path)) == {"fc": 5}
    assert made.said["samples"] == 64


def pair_like(proto):
    """The same with any number of samples."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for each in made.graph.input:
        each.type.tensor_type.shape.dim[0].dim_param = "n"
    return made


def classifier(n="n"):
    nodes = [("Gemm", ["x", "w", "b"], ["h"], "0", {}), ("Relu", ["h"], ["r"], "", {}),
             ("Gemm", ["r", "v"], ["y"], "1", {})]  # fmt: skip
    return model(nodes, {"w": full(20, 64), "b": full(64), "v": full(64, 4)}, {"x": [n, 20]})


@pytest.mark.parametrize("n", ["n", 1, 16])
def test_accuracy_of_every_sample(n):
    """Also where the graph takes 16 at a time and 16 does not divide them."""
    proto = classifier(n)
    x = given(["n", 20], 75)
    free = pair_like(proto)
    y = outputs(free, {"x": x})[0].argmax(1)
    small = gn.compress(proto, x, budget=0.3, evaluate=(x, y))
    same = outputs(pair_like(small), {"x": x})[0].argmax(1) == y
    assert said(small)["metric"] == [1.0, pytest.approx(same.mean())]
    assert said(small)["samples"] == {"n": 75, 1: 75, 16: 64}[n]


def test_promises():
    proto, x = classifier(), given(["n", 20], 300)
    y = outputs(proto, {"x": x})[0].argmax(1)
    seen = []

    def evaluate(each):
        seen.append(type(each))
        return float((outputs(each, {"x": x})[0].argmax(1) == y).mean())

    small = gn.compress(proto, x, max_drop=0.3, evaluate=evaluate)
    assert said(small)["metric"][1] >= 0.7
    assert set(seen) == {onnx.ModelProto}
    assert f"{len(os.sched_getaffinity(0))} threads" in said(small)["runtime"]
    assert said(small)["time_ratio"][0] > 0
    found = gn.compress(proto, x, budget=1, count="milliseconds")
    assert said(found)["promise"] == {"budget": 1, "count": "milliseconds"}
    assert said(gn.compress(proto, x, budget=0.5, batch_size=50))["batch"] == 50
    with pytest.raises(InputError, match="speed=1000 cannot be met at a batch of 300"):
        gn.compress(proto, x, speed=1000)


def test_a_layer_alone_is_what_it_is_in_the_graph():
    """What is timed of a layer: with its constants, also behind other nodes; less what is added from elsewhere."""
    constant = ("Constant", [], ["v"], "", {"value": numpy_helper.from_array(full(16, 16))})
    nodes = [
        constant,
        ("Transpose", ["v"], ["t"], "", {"perm": [1, 0]}),
        ("Relu", ["x"], ["r"], "", {}),
        ("Gemm", ["x", "w", "r"], ["h"], "first", {"alpha": 0.5}),
        ("Gemm", ["h", "t", "b"], ["y"], "second", {}),
    ]
    proto, x = model(nodes, {"w": full(16, 16), "b": full(16)}, {"x": ["n", 16]}), given(["n", 16])
    network = onnxfile.Onnx(proto)
    assert [weight.bias for weight in network.weights.values()] == [False, True]
    network.calibrate(x)
    y = outputs(proto, {"x": x})[0]
    np.testing.assert_allclose(network.layer("second", None, x)()[0], y, atol=1e-6)
    w = network.weights["first"].matrix
    np.testing.assert_allclose(network.layer("first", None, x)()[0], x @ w.T, atol=1e-5)
    for name in ("first", "second"):
        cut = network.weights[name].cut(4)
        shape = network.layer(name, cut, x)()[0].shape
        assert shape == (64, 16)
    whole = said(gn.compress(proto, x, budget=1, count="milliseconds"))
    assert whole["promise"]["count"] == "milliseconds"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("calibration.npz", "data is 'calibration.npz': expected an array, a dict"),
        (5, "data is 5: expected an array, a dict"),
        (np.ones((8, 12), np.float32), "has the inputs 'ids', 'x': give a dict of arrays by name"),
        ({"x": np.ones((8, 12))}, "the data has no 'ids': expected 'ids', 'x'"),
        ({"ids": np.zeros(8, int), "x": np.ones((7, 12))}, "expected as many for each input"),
        ({"ids": np.zeros(8), "x": np.ones((8, 12))}, "the input 'ids' is given float64: expected int64"),
        ({"ids": np.zeros(8, int), "x": np.ones((8, 13))}, "onnxruntime cannot run the model: "),
        ({"ids": np.full(8, 99), "x": np.ones((8, 12))}, "onnxruntime cannot run the model: "),
        ({"ids": np.zeros(8, int), "x": np.full((8, 12), np.nan)}, "gives the layer 'fc' cannot be used"),
        ({"ids": np.zeros(1, int), "x": np.ones((1, 12))}, "data has 1 samples"),
        ([], "data has 0 samples"),
    ],
)
def test_data_that_cannot_be_is_a_line(data, what):
    with pytest.raises(InputError) as raised:
        gn.compress(pair(), data, rank=5)
    assert what in str(raised.value)


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file_and_what_lies_beside_it(tmp_path, monkeypatch):
    proto, x = classifier(), given(["n", 20])
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=16)
    small = gn.compress(path, x, rank=6, layers="0")
    assert small.graph == gn.compress(onnx.load(path), x, rank=6, layers="0").graph
    assert onnxfile.write(tmp_path / "small.onnx", small) == [tmp_path / "small.onnx"]
    assert onnx.load(tmp_path / "small.onnx") == small
    monkeypatch.setattr(onnxfile, "WHOLE", 2000)  # as if they were of gigabytes
    paths = onnxfile.write(tmp_path / "large.onnx", small)
    assert [each.name for each in paths] == ["large.onnx", "large.onnx.data"]
    assert paths[0].stat().st_size < path.stat().st_size + 10_000
    onnx.checker.check_model(str(paths[0]))
    large = onnxfile.read(paths[0])
    assert large.graph.node == small.graph.node
    for a, b in zip(large.graph.initializer, small.graph.initializer, strict=True):
        assert (a.name, a.data_type, a.dims, a.raw_data) == (b.name, b.data_type, b.dims, b.raw_data)
    assert ranks(gn.compress(paths[0], x, rank=1))["0.0"] == 1
    assert gn.compress(str(path), x, rank=6, layers="0").graph == small.graph
    with pytest.raises(InputError, match="there is no folder"):
        onnxfile.write(tmp_path / "none" / "a.onnx", small)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "large.onnx", "large.onnx.data", "model.onnx", "small.onnx", "weights.bin",
    ]  # fmt: skip


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link", "none", "", ".", "a/../../secret"])
def test_numbers_outside_the_folder_are_refused(location, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(10_000))
    (folder / "link").symlink_to(tmp_path / "secret")
    proto = classifier()
    tensor = proto.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(InputError, match="the numbers of 'w' lie outside the model"):
        gn.compress(proto, rank=5)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(DataError):
        gn.compress(folder / "model.onnx", rank=5)


@pytest.mark.parametrize(
    "said_of_it",
    [{"length": "-5"}, {"offset": "99999999"}, {"length": str(1 << 60)}, {"length": "12"}, {"length": "x"}],
)
def test_lengths_that_are_not_there(said_of_it, tmp_path):
    (tmp_path / "data").write_bytes(bytes(20 * 64 * 4))
    proto = classifier()
    tensor = proto.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    for key, value in ({"location": "data"} | said_of_it).items():
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(DataError):
        gn.compress(tmp_path / "model.onnx", rank=5)


def test_damaged_files(tmp_path):
    """Cut short and changed anywhere: a line, or a model that is another."""
    content = bytearray(classifier().SerializeToString())
    path = tmp_path / "model.onnx"
    chance = np.random.default_rng(0)
    structure = [i for i in range(len(content)) if i < 300 or i > len(content) - 400]
    for _ in range(300):
        damaged = content.copy()
        damaged[chance.choice(structure)] = chance.integers(256)
        if chance.random() < 0.3:
            damaged = damaged[: chance.integers(len(damaged))]
        path.write_bytes(damaged)
        try:
            gn.compress(path, rank=5)
        except InputError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_what_is_no_model_is_a_line(tmp_path):
    path = tmp_path / "model.onnx"
    for content in (b"", b"no model at all", bytes(100), b"PK\x03\x04" * 50):
        path.write_bytes(content)
        with pytest.raises(DataError, match="ONNX model"):
            gn.compress(path, rank=5)
    with pytest.raises(DataError, match="there is no file"):
        gn.compress(tmp_path / "other.onnx", rank=5)
    with pytest.raises(DataError, match="there is no file"):
        gn.compress(tmp_path, rank=5)
    old = classifier()
    old.opset_import[0].version = 6
    with pytest.raises(InputError, match="opset 6: expected 7 or later"):
        gn.compress(old, rank=5)
    nan = classifier()
    nan.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((20, 64), np.nan, np.float32), "w"))
    with pytest.raises(DataError, match="the weight of '0' holds nan"):
        gn.compress(nan, rank=5)
    unknown = classifier()
    unknown.graph.output[0].type.tensor_type.elem_type = 55
    assert ranks(gn.compress(unknown, rank=2)) == {"0": 2, "1": 2}
    content = classifier().SerializeToString()
    path.write_bytes(content.replace(b"\x1a\x010", b"\x1a\x01\xf6"))  # the first node's name
    with pytest.raises(DataError, match="is no UTF-8"):
        gn.compress(path, rank=2)
    short = classifier()
    short.graph.initializer[0].raw_data = b"123"
    with pytest.raises(DataError):
        gn.compress(short, rank=5)


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_what_is_not_installed_is_a_line(name, monkeypatch, tmp_path):
    proto = classifier()
    onnx.save(proto, tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"needs {name}, which is not installed: pip install 'gpunet\[onnx\]'"):
        gn.compress(tmp_path / "model.onnx", rank=5)
