"""ONNX graphs, to be cut: a MatMul, Gemm or Conv becomes two; onnxruntime runs them."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.checks import on_host
from gpunet.compression.networks import Network, check_data, hits, patch_rows
from gpunet.compression.weights import Factors, Weight
from gpunet.errors import DataError, GpunetError, InputError, OutputError, first_line, shown
from gpunet.extras import load
from gpunet.files import check_path, check_replaceable, put_in_place, reason, temporary, write_atomically
from gpunet.interrupts import undivided
from gpunet.limits import DAMAGE, check_room, parse_json, physical_memory
from gpunet.nn.predict import EVAL_BATCH

KEY = "gpunet"  # of the metadata that says what was done
WHOLE = 2_000_000_000  # bytes of tensors in a model of one piece: protobuf has no more than 2^31
LARGE = 1024  # bytes of a tensor that may lie beside its model
PAGE = 4096  # at whose multiples such tensors begin: they are mapped into memory
OPSET = 7  # since which Gemm and Add broadcast without being told
FREE = 11  # opset since which a Gemm needs no C
LISTED = 4  # IR version since which initialisers need not be inputs too
DOMAINS = ("", "ai.onnx")
CUT = ("MatMul", "Gemm", "Conv")
PLAIN = ("Identity", "Transpose")  # which a weight may stand behind
QUANTISED = {
    "MatMulInteger", "QLinearMatMul", "ConvInteger", "QLinearConv", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "QGemm",
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention",
}  # fmt: skip
FLOATS = ("float16", "bfloat16", "float32", "float64")
COUNTED = ("float", "bfloat", "int2", "uint2", "int4", "uint4", "int8", "uint8")  # other numbers are indices


def is_graph(model: Any) -> bool:
    """Whether it is an onnx.ModelProto; onnx is not imported for the question."""
    return type(model).__name__ == "ModelProto" and type(model).__module__.startswith("onnx.")


@dataclass(frozen=True)
class Place:
    """Where a weight stands in the graph.

    number: of its node. given: what it is multiplied with. at: which of the node's inputs it is. shape: the tensor's,
    transposed as it comes to the node. chain: the names from there back to what holds the numbers. bias: a constant
    that a shift of the mean can be put into, "" where there is none. added: the number of the node that adds it, where
    that is another.
    """

    number: int
    node: Any
    given: str
    at: int
    shape: tuple[int, ...]
    chain: list[str]
    bias: str
    added: int | None


class Onnx(Network):
    """A graph, from its path or an `onnx.ModelProto`; onnxruntime runs it on the CPU, on as many threads as it may.

    A layer is called by its node's name, or by its output's where it has none of its own. Its factors are the
    initialisers NAME.0 and NAME.1, in the order in which they are multiplied.
    """

    def __init__(self, source: Any) -> None:
        self.model = source if is_graph(source) else read(source)
        self.what = "the model" if is_graph(source) else f"'{source}'"
        self.onnx, self.ort = _library("onnx"), _library("onnxruntime")
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.weights, self.kept = {}, {}
        self.places: dict[str, Place] = {}
        self._sessions: dict[int, tuple[Any, Any]] = {}  # by the model's id
        self._seen: tuple[str, int, Any] = ("", 0, None)  # a layer, a batch's id, and what the layer was given
        try:
            self._check()
            self._read()
        except GpunetError:
            raise
        except (*DAMAGE, self.onnx.checker.ValidationError) as error:
            raise DataError(f"{self.what} is no valid ONNX model: {first_line(error)}") from error

    # -- what stands in it --------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse what is no model, or is not all here."""
        model = self.model
        if not len(model.graph.node):
            raise DataError(f"{self.what} has no nodes: expected an ONNX model")
        if outside := next((t.name for t in _tensors(model) if t.data_location), None):
            raise InputError(f"the numbers of {shown(outside)} lie outside the model: give its path, or onnx.load it")
        self.opset = next((each.version for each in model.opset_import if each.domain in DOMAINS), 0)
        if self.opset < OPSET:
            raise InputError(
                f"{self.what} has opset {self.opset}: expected {OPSET} or later; "
                "onnx.version_converter.convert_version makes it newer"
            )
        self._valid(model)

    def _valid(self, model: Any, *, full: bool = False) -> None:
        """ValidationError where it is no valid model; of too many bytes it is not asked."""
        if _bytes(model) < WHOLE:
            self.onnx.checker.check_model(model, full_check=full)

    def _read(self) -> None:
        """Find the weights."""
        graph = self.model.graph
        self.nodes = list(graph.node)
        self.tensors = {t.name: t for t in graph.initializer}
        self.makers = {name: i for i, node in enumerate(self.nodes) for name in node.output}
        self.uses = _uses(graph)
        self.users: dict[str, list[int]] = defaultdict(list)
        for i, node in enumerate(self.nodes):
            for name in node.input:
                self.users[name].append(i)
        self.inputs = inputs(self.model)
        # An initialiser that is an input too is a default, which whoever runs the model may replace.
        self.defaults = {each.name for each in graph.input if self.model.ir_version >= LISTED} & self.tensors.keys()
        self.fixed = {*self.tensors, *(each.values.name for each in graph.sparse_initializer)}
        for node in self.nodes:  # what depends on no input; a node that holds nodes may, past its own
            inner = any(each.HasField("g") or each.graphs for each in node.attribute)
            from_fixed = node.input and all(name in self.fixed for name in node.input if name)
            if node.op_type == "Constant" or (from_fixed and not inner):
                self.fixed.update(node.output)
        names = Counter(node.name for node in self.nodes)
        for i, node in enumerate(self.nodes):
            own = node.name if names[node.name] == 1 else ""
            name = own or next(filter(None, node.output), f"node {i}")
            if not isinstance(name, str):
                raise ValueError(f"the name {shown(name)} is no UTF-8")
            self._look(i, name if name not in self.weights.keys() | self.kept else f"{name}, node {i}", node)
        for where, body in _bodies(self.model):
            for node in body.node if where else ():
                if node.op_type in CUT or node.op_type in QUANTISED:
                    self.kept.setdefault(node.name or next(iter(node.output), ""), f"it is in {where}")

    def _look(self, number: int, name: str, node: Any) -> None:
        """Take a node as a layer, where it is one."""
        if node.op_type in QUANTISED:
            self.kept[name] = f"its weight is quantised: it is a {node.op_type}"
        if node.op_type not in CUT or node.domain not in DOMAINS:
            return
        fixed = [each in self.fixed for each in node.input[:2]]
        if all(fixed) or not any(fixed) or (node.op_type == "Conv" and fixed[0]):
            return  # a constant, or it has no weight
        at = fixed.index(True)
        chain = [node.input[at]]
        while (maker := self._maker(chain[-1])) and maker.op_type in PLAIN and maker.domain in DOMAINS:
            chain.append(maker.input[0])
        tensor = self._held(chain[-1])
        if tensor is None:
            quantised = "quantised, " if maker and maker.op_type == "DequantizeLinear" else ""
            self.kept[name] = f"its weight is {quantised}made by a {maker.op_type}" if maker else "its weight is sparse"
            return
        array = self._array(tensor, name)
        if array is None or not array.size or (array.ndim < 3 if node.op_type == "Conv" else array.ndim != 2):
            self.kept[name] = f"its weight is {_dtype(tensor.data_type)} of shape {tuple(tensor.dims)}"
            return
        for each in chain[-2::-1]:
            maker = self._maker(each)
            if maker.op_type == "Transpose":
                array = array.transpose(_attributes(maker).get("perm", range(array.ndim)[::-1]))
        matrix = _matrix(node, at, array)
        bias, added = self._bias(node, at, len(matrix))
        self.places[name] = Place(number, node, node.input[1 - at], at, array.shape, chain, bias, added)
        self.weights[name] = Weight(name, matrix, bias=bool(bias))
        if why := self._why_kept(node, at, array, chain):
            self.kept[name] = why

    def _why_kept(self, node: Any, at: int, array: Any, chain: Sequence[str]) -> str:
        """Why a weight cannot be cut; "" where it can."""
        if any(self.uses[name] > 1 for name in chain):
            return "its weight is shared with another node, or given out"
        if chain[-1] in self.defaults:
            return "its weight is an input of the graph too, which may be given another value"
        if node.op_type == "Gemm" and at == 0:
            return "its weight is the first factor of a Gemm"
        if node.op_type == "Conv" and (groups := _attributes(node).get("group", 1)) != 1:
            return f"it has group={groups}"
        return f"it convolves in {array.ndim - 2} dimensions" if array.ndim > 4 else ""

    def _bias(self, node: Any, at: int, out: int) -> tuple[str, int | None]:
        """The constant that is added, by the node or by an Add that alone takes what a MatMul gives; and that Add."""
        added = None
        name = node.input[2] if len(node.input) > 2 else ""
        if node.op_type == "MatMul" and at == 1:
            users = self.users[node.output[0]]
            if len(users) == self.uses[node.output[0]] == 1:
                add = self.nodes[users[0]]
                if add.op_type == "Add" and add.domain in DOMAINS:
                    name, added = next(each for each in add.input if each != node.output[0]), users[0]
        tensor = None if not name or name in self.defaults else self._held(name)
        if tensor is None or self._array(tensor, name) is None:
            return "", None
        if added is not None and not (tensor.dims and tensor.dims[-1] == prod(tensor.dims) == out):
            return "", None
        return name, added

    def _maker(self, name: str) -> Any:
        """The node that gives it; None where none does."""
        return self.nodes[self.makers[name]] if name in self.makers else None

    def _held(self, name: str) -> Any:
        """The tensor of an initialiser, or of a Constant; None where it is neither."""
        if name in self.tensors:
            return self.tensors[name]
        maker = self._maker(name)
        if maker is None or maker.op_type != "Constant":
            return None
        return next((each.t for each in maker.attribute if each.name == "value"), None)

    def _array(self, tensor: Any, name: str) -> Any:
        """Its numbers, floats in their dtype; None where they are others."""
        if _dtype(tensor.data_type) not in FLOATS:
            return None
        try:
            return self.onnx.numpy_helper.to_array(tensor)
        except DAMAGE as error:
            raise DataError(f"the numbers of {shown(name)} cannot be read: {first_line(error)}") from error

    # -- how it is run ------------------------------------------------------------------------------------------------

    def batches(self, data: Any, size: int = EVAL_BATCH) -> Iterator[Any]:
        if isinstance(data, str | Path) or not (isinstance(data, Iterable) or hasattr(data, "shape")):
            raise InputError(
                f"data is {shown(data)}: expected an array, a dict of arrays by the inputs' names, or batches of these"
            )
        if isinstance(data, Mapping | tuple) or hasattr(data, "shape"):
            yield from (feed for feed, samples in self._parts(data, size) if samples == _samples(feed))
        else:
            yield from map(self._feed, data)

    def _parts(self, data: Any, size: int = EVAL_BATCH) -> Iterator[tuple[dict[str, Any], int]]:
        """Batches of what is all there, and the samples in each: for a graph of fixed size the last is filled up."""
        feed = self._feed(data if isinstance(data, Mapping) else check_data(data))
        lengths = {name: len(each) if each.ndim else 0 for name, each in feed.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"data has {lengths} samples: expected as many for each input")
        n = _samples(feed)
        whole = max((dim.dim_value for kind in self.inputs.values() for dim in kind.shape.dim[:1]), default=0)
        step = whole or size
        if n < whole:
            raise InputError(f"data has {n} samples, and {self.what} takes {whole} at a time: give as many or more")
        for start in range(0, n, step):
            rows = np.arange(start, max(start + whole, min(start + step, n)))
            part = {name: each[np.minimum(rows, n - 1)] for name, each in feed.items()}
            yield part, min(step, n - start)

    def _feed(self, given: Any) -> dict[str, Any]:
        """A batch as the graph takes it: by its inputs' names, in their dtypes."""
        given = given[0] if isinstance(given, list | tuple) and len(given) else given
        if not isinstance(given, Mapping):
            if len(self.inputs) != 1:
                raise InputError(
                    f"{self.what} has the inputs {', '.join(map(shown, self.inputs))}: give a dict of arrays by name"
                )
            given = {next(iter(self.inputs)): given}
        feed = {}
        for name, kind in self.inputs.items():
            if name not in given:
                raise InputError(f"the data has no {shown(name)}: expected {', '.join(map(shown, self.inputs))}")
            array = on_host(given[name], f"the input {name!r}")
            wanted = _dtype(kind.elem_type) or array.dtype.name
            if array.dtype != wanted and not np.can_cast(array.dtype, wanted, "same_kind"):
                raise InputError(f"the input {name!r} is given {array.dtype}: expected {wanted}")
            feed[name] = array.astype(wanted, copy=False)
        return feed

    def _session(self, model: Any) -> Any:
        """What runs a model."""
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4  # what goes wrong is raised
        settings = {"sess_options": options, "providers": ["CPUExecutionProvider"]}
        try:
            if _bytes(model) < WHOLE:
                return self.ort.InferenceSession(model.SerializeToString(), **settings)
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                write(Path(folder, "model.onnx"), model)
                return self.ort.InferenceSession(str(Path(folder, "model.onnx")), **settings)
        except GpunetError:
            raise
        except Exception as error:
            raise InputError(f"onnxruntime cannot take {self.what}: {_joined(error)}") from error

    def _ran(self, session: Any, names: list[str] | None, feed: dict[str, Any]) -> list[Any]:
        try:
            return list(session.run(names, feed))
        except Exception as error:
            raise InputError(f"onnxruntime cannot run {self.what}: {_joined(error)}") from error

    def run(self, model: Any, batch: Any) -> Any:
        if id(model) not in self._sessions:
            own = self._sessions.get(id(self.model))  # of others the last one is kept
            self._sessions = ({id(self.model): own} if own else {}) | {id(model): (model, self._session(model))}
        return self._ran(self._sessions[id(model)][1], None, self._feed(batch))

    @cached_property
    def _watched(self) -> Any:
        """What runs the model and gives out what its layers are given."""
        made = self._copy()
        there = {each.name for each in made.graph.output} | self.inputs.keys()
        for name in dict.fromkeys(self.places[name].given for name in self.open):
            if name not in there:
                made.graph.output.add().name = name
        return self._session(made)

    def watching(self, names: Iterable[str], see: Callable[[str, Any], None], batch: Any) -> int:
        feed = self._feed(batch)
        given = {name: self.places[name].given for name in names}
        wanted = list(dict.fromkeys(each for each in given.values() if each not in feed))
        found = feed | dict(zip(wanted, self._ran(self._watched, wanted, feed) if wanted else [], strict=True))
        for name, each in given.items():
            see(name, found[each])
        return _samples(feed)

    def rows(self, name: str, given: Any) -> Iterator[Any]:
        place, numbers = self.places[name], given if given.dtype.itemsize > 2 else given.astype(np.float32)
        said = _attributes(place.node)
        if place.node.op_type != "Conv":
            across = place.at == 0 or said.get("transA")
            numbers = numbers.swapaxes(-1, -2) if across and numbers.ndim > 1 else numbers
            return iter([numbers.reshape(-1, numbers.shape[-1])])
        kernel = place.shape[2:]
        stride, dilation = (tuple(said.get(each, (1,) * len(kernel))) for each in ("strides", "dilations"))
        around = _padding(said, numbers.shape[2:], kernel, stride, dilation)
        numbers = np.pad(numbers, ((0, 0), (0, 0), *around))
        if len(kernel) == 1:  # an image one high
            numbers = numbers[:, :, None]
        (kh, kw), (sh, sw), (dh, dw) = ((1, *each)[-2:] for each in (kernel, stride, dilation))
        return patch_rows(numbers, (kh, kw), (sh, sw), (0, 0), (dh, dw))

    def accuracy(self, model: Any, x: Any, y: Any) -> np.ndarray[Any, Any]:
        labels = []
        for feed, samples in self._parts(x):
            scores = next((each for each in self.run(model, feed) if getattr(each, "ndim", 0) > 1), None)
            if scores is None:
                raise InputError(f"{self.what} gives no scores (n, classes): give evaluate a function of a model")
            labels.append(scores[:samples])
        return hits(np.concatenate(labels), y)

    # -- what becomes of it -------------------------------------------------------------------------------------------

    def rebuilt(self, factors: Mapping[str, Factors]) -> Any:
        made, fresh = self._copy(), _Fresh(self.model)
        replaced: dict[int, list[Any]] = {}
        tensors: list[Any] = []
        for name, cut in factors.items():
            place = self.places[name]
            replaced |= {self.makers[each]: [] for each in place.chain if each in self.makers}
            if place.bias in self.makers and self.uses[place.bias] == 1 and cut.shift is not None:
                replaced[self.makers[place.bias]] = []
            new, held = self._two(name, cut, fresh)
            replaced |= new
            tensors += held
        graph = made.graph
        del graph.node[:]
        for i, node in enumerate(self.nodes):
            graph.node.extend(replaced.get(i, [node]))
        gone = self.uses.keys() - _uses(graph).keys()
        for each in (graph.initializer, graph.value_info, *([graph.input] if made.ir_version < LISTED else [])):
            for i in reversed(range(len(each))):
                if each[i].name in gone and each[i].name not in self.inputs:
                    del each[i]
        graph.initializer.extend(tensors)
        if made.ir_version < LISTED:
            info = self.onnx.helper.make_tensor_value_info
            graph.input.extend(info(each.name, each.data_type, each.dims) for each in tensors)
        return made

    def _copy(self) -> Any:
        made = self.onnx.ModelProto()
        made.CopyFrom(self.model)
        return made

    def _two(self, name: str, cut: Factors, fresh: _Fresh) -> tuple[dict[int, list[Any]], list[Any]]:
        """A layer, cut: the nodes that stand where nodes of these numbers stood, and their tensors."""
        place = self.places[name]
        first, second = (self.onnx.NodeProto() for _ in range(2))
        for which, each in enumerate((first, second)):
            each.CopyFrom(place.node)
            each.name = fresh(f"{name}.{which}", node=True)
        kind, given, bias = place.node.op_type, place.given, place.bias
        w, v, between = (fresh(f"{name}{each}") for each in (".0", ".1", ".0.output"))
        first.output[:] = [between]
        right, left = cut.right, cut.left
        tensors: list[Any] = []
        if cut.shift is not None:
            beta = _attributes(place.node).get("beta", 1.0) if kind == "Gemm" else 1.0
            old = self._array(self._held(bias), bias)
            bias = fresh(f"{name}.bias")
            tensors.append(self._tensor(bias, (beta * old.astype(np.float64) + cut.shift).astype(old.dtype)))
            _set(second, beta=None)
        rest = [each if each != place.bias else bias for each in place.node.input[2:]]
        nodes = {place.number: [first, second]}
        if kind == "MatMul" and place.at == 1:
            right, left = right.T, left.T
            first.input[:], second.input[:] = [given, w], [between, v]
            if place.added is not None:
                add = self.onnx.NodeProto()
                add.CopyFrom(self.nodes[place.added])
                add.input[:] = [each if each != place.bias else bias for each in add.input]
                nodes[place.added] = [add]
        elif kind == "MatMul":
            first.input[:], second.input[:] = [w, given], [v, between]
        elif kind == "Gemm":
            first.input[:], second.input[:] = [given, w], [between, v, *rest]
            _set(first, transB=1, alpha=None, beta=None)
            _set(second, transA=None, transB=1, alpha=None)
            if self.opset < FREE:
                zero = fresh(f"{name}.zero")
                tensors.append(self._tensor(zero, np.zeros(1, cut.right.dtype)))
                first.input.append(zero)
        else:
            right, left = right.reshape(-1, *place.shape[1:]), left.reshape(*left.shape, *(1 for _ in place.shape[2:]))
            first.input[:], second.input[:] = [given, w], [between, v, *rest]
            _set(second, kernel_shape=left.shape[2:], strides=None, pads=None, auto_pad=None, dilations=None)
        return nodes, [self._tensor(w, right), self._tensor(v, left), *tensors]

    def _tensor(self, name: str, array: Any) -> Any:
        return self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)

    def size(self, model: Any) -> int:
        return sum(prod(t.dims) for t in _tensors(model) if _dtype(t.data_type).startswith(COUNTED))

    def layer(self, name: str, factors: Factors | None, batch: Any) -> Callable[[], object]:
        place = self.places[name]
        if self._seen[:2] != (name, id(batch)):  # it is asked for each rank of a layer
            self.watching([name], lambda _, given: setattr(self, "_seen", (name, id(batch), given)), batch)
        given = self._seen[2]
        nodes, tensors = [place.node], list[Any]()
        if factors is not None:
            new, tensors = self._two(name, factors, _Fresh(self.model))
            nodes = new[place.number]
        session = self._session(self._alone(nodes, tensors, place.given, given.dtype))
        return lambda: session.run(None, {place.given: given})

    def _alone(self, nodes: list[Any], tensors: list[Any], given: str, dtype: Any) -> Any:
        """A model of these nodes, with the constants that they need; other terms of a Gemm are left out."""
        helper = self.onnx.helper
        made = self.onnx.ModelProto(ir_version=max(LISTED, self.model.ir_version))
        made.opset_import.extend(self.model.opset_import)
        made.graph.name = "layer"
        made.graph.input.append(helper.make_tensor_value_info(given, helper.np_dtype_to_tensor_dtype(dtype), None))
        made.graph.output.add().name = nodes[-1].output[0]
        known = {"", given, *(each.name for each in tensors), *(name for node in nodes for name in node.output)}
        needed: dict[int, Any] = {}
        want = [name for node in nodes for name in node.input]
        while want:
            if (name := want.pop()) in known:
                continue
            if name in self.tensors:
                made.graph.initializer.append(self.tensors[name])
            elif name in self.fixed and name in self.makers:
                needed[self.makers[name]] = self._maker(name)
                want += self._maker(name).input
            else:
                continue
            known.add(name)
        made.graph.initializer.extend(tensors)
        made.graph.node.extend(needed[i] for i in sorted(needed))
        for node in nodes:
            each = made.graph.node.add()
            each.CopyFrom(node)
            each.input[:] = [name for name in node.input if name in known]
        return made

    def keep(self, model: Any, said: dict[str, Any], batch: Any) -> Any:
        """The model with what was done as JSON in its metadata, once it has passed ONNX's checker.

        said gets how it was run, and the "difference" that its outputs have on the batch, as a share of the largest,
        None where they are not finite.
        """
        try:
            self._valid(self.model, full=True)
        except (*DAMAGE, self.onnx.checker.ValidationError, self.onnx.shape_inference.InferenceError):
            self._valid(model)
        else:
            self._valid(model, full=True)
        if batch is not None:
            said["runtime"] = f"onnxruntime {self.ort.__version__}, CPU, {self.threads} threads"
            pairs = zip(self.run(self.model, batch), self.run(model, batch), strict=True)
            largest = float(np.max([_difference(a, b) for a, b in pairs], initial=0.0))
            said["difference"] = largest if isfinite(largest) else None
        for i in reversed(range(len(model.metadata_props))):
            if model.metadata_props[i].key == KEY:
                del model.metadata_props[i]
        model.metadata_props.add(key=KEY, value=json.dumps(said, ensure_ascii=False))
        return model


class _Fresh:
    """Names that nothing in a model has."""

    def __init__(self, model: Any) -> None:
        self.taken = {name for _, body in _bodies(model) for node in body.node for name in (*node.input, *node.output)}
        self.taken |= {each.name for each in (*model.graph.input, *_tensors(model))}
        self.nodes = {node.name for _, body in _bodies(model) for node in body.node}

    def __call__(self, name: str, *, node: bool = False) -> str:
        taken = self.nodes if node else self.taken
        while name in taken:
            name += "_"
        taken.add(name)
        return name


# -- files ------------------------------------------------------------------------------------------------------------


def read(source: Any) -> Any:
    """The `onnx.ModelProto` of a file, with the numbers that lie in others beside it.

    Raises DataError where it is none, or damaged, or where its numbers are said to lie outside its folder.
    """
    path = check_path("model", source)
    if not path.is_file():
        raise DataError(f"there is no file '{path}': expected an ONNX model, a .onnx file")
    onnx = _library("onnx")
    from google.protobuf.message import DecodeError

    try:
        check_room(path)
        model = onnx.ModelProto()
        model.ParseFromString(path.read_bytes())
        outside = [t for t in _tensors(model) if t.data_location]
        size = sum(_stored(path.parent, {each.key: each.value for each in t.external_data}) for t in outside)
        if size > (physical_memory() or size):
            raise ValueError(f"its tensors have {size:,} bytes, and this machine has less memory")
        for tensor in outside:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {reason(error)}") from error
    except (*DAMAGE, DecodeError, onnx.checker.ValidationError) as error:
        raise DataError(f"'{path}' is no readable ONNX model: {first_line(error)}") from error
    return model


def _stored(folder: Path, said: Mapping[str, str]) -> int:
    """Bytes that a tensor has outside."""
    return int(said["length"]) if "length" in said else (folder / said["location"]).stat().st_size


def told(model: Any) -> dict[str, Any]:
    """What `gn.compress` did to a model, as it stands in its metadata; DataError where nothing does."""
    for each in model.metadata_props:
        if each.key == KEY:
            try:
                return dict(parse_json(each.value))
            except DAMAGE as error:
                raise DataError(f"the model's metadata {KEY!r} is no JSON: {error}") from error
    raise DataError(f"the model's metadata has no {KEY!r}: expected one that gn.compress returned")


def write(path: Path, model: Any) -> list[Path]:
    """Write a model; one that is too large for one file has its tensors in another, PATH.data, beside it.

    Both appear whole or not at all. Returns the paths, the model's first. Raises OutputError.
    """
    if _bytes(model) < WHOLE:
        write_atomically(path, model.SerializeToString())
        return [path]
    beside = path.with_name(path.name + ".data")
    made = type(model)()
    made.CopyFrom(model)
    for each in (path, beside):
        check_replaceable(each)
    helper = _library("onnx").numpy_helper
    try:
        with undivided() as signals, ExitStack() as stack:
            (name, file), (last, text) = (stack.enter_context(temporary(each)) for each in (beside, path))
            with signals.heard():
                for tensor in made.graph.initializer:
                    numbers = tensor.raw_data or helper.to_array(tensor).tobytes()
                    if len(numbers) < LARGE:
                        continue
                    file.seek(-(-file.tell() // PAGE) * PAGE)
                    said = {"location": beside.name, "offset": file.tell(), "length": file.write(numbers)}
                    slim = type(tensor)(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
                    slim.doc_string, slim.data_location = tensor.doc_string, slim.EXTERNAL
                    for key, value in said.items():
                        slim.external_data.add(key=key, value=str(value))
                    tensor.CopyFrom(slim)
                text.write(made.SerializeToString())
            put_in_place(name, file, beside)
            put_in_place(last, text, path)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write '{path}': {reason(error, path.parent)}") from error
    return [path, beside]


# -- of a graph -------------------------------------------------------------------------------------------------------


def _library(name: str) -> Any:
    """onnx or onnxruntime; MissingError where it is not installed."""
    return load("an ONNX model", name)


def inputs(model: Any) -> dict[str, Any]:
    """The types of what a model has to be given, by name."""
    held = {each.name for each in model.graph.initializer}
    return {each.name: each.type.tensor_type for each in model.graph.input if each.name not in held}


def _bodies(model: Any) -> Iterator[tuple[str, Any]]:
    """All that holds nodes, and where it stands: the graph, "", what lies in its nodes, and functions."""
    yield from _inside(model.graph, "")
    for each in model.functions:
        yield from _inside(each, f"the function {shown(each.name)}")


def _inside(body: Any, where: str) -> Iterator[tuple[str, Any]]:
    yield where, body
    for node in body.node:
        for each in node.attribute:
            for graph in (*([each.g] if each.HasField("g") else ()), *each.graphs):
                yield from _inside(graph, f"the {node.op_type} {shown(node.name or next(iter(node.output), ''))}")


def _tensors(model: Any) -> Iterator[Any]:
    """All tensors that stand in a model."""
    for _, body in _bodies(model):
        yield from getattr(body, "initializer", ())
        for sparse in getattr(body, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for each in itertools.chain.from_iterable(node.attribute for node in body.node):
            yield from (*([each.t] if each.HasField("t") else ()), *each.tensors)


def _bytes(model: Any) -> int:
    """About how many bytes its tensors take; no more than 8 each number."""
    return sum(prod(t.dims) * np.dtype(_dtype(t.data_type) or "int64").itemsize for t in _tensors(model))


def _uses(graph: Any) -> Counter[str]:
    """How often a name is used: by nodes, also by those within nodes, and as an output."""
    found = Counter(name for _, body in _inside(graph, "") for node in body.node for name in node.input)
    found.update(each.name for _, body in _inside(graph, "") for each in body.output)
    return found


def _dtype(kind: int) -> str:
    """NumPy's or ml_dtypes' name of ONNX's; "" where it has none."""
    try:
        return str(_library("onnx").helper.tensor_dtype_to_np_dtype(kind).name)
    except (KeyError, ValueError, TypeError):
        return ""


def _attributes(node: Any) -> dict[str, Any]:
    helper = _library("onnx").helper
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _set(node: Any, **values: Any) -> None:
    """Give a node these attributes; None takes one away."""
    kept = [each for each in node.attribute if each.name not in values]
    helper = _library("onnx").helper
    made = [helper.make_attribute(name, value) for name, value in values.items() if value is not None]
    node.ClearField("attribute")
    node.attribute.extend([*kept, *made])


def _matrix(node: Any, at: int, array: Any) -> Any:
    """A weight as (out, in)."""
    if node.op_type == "Conv":
        return array.reshape(len(array), -1)
    if node.op_type == "MatMul":
        return array.T if at else array
    said = _attributes(node)
    across = bool(said.get("transB")) if at else not said.get("transA")
    matrix, alpha = array if across else array.T, said.get("alpha", 1.0)
    return matrix if alpha == 1 else (alpha * matrix.astype(np.float64)).astype(array.dtype)


def _padding(
    said: Mapping[str, Any], shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """What stands before and after the images in each direction."""
    how = said.get("auto_pad", b"NOTSET").decode()
    if how == "VALID":
        return [(0, 0)] * len(kernel)
    if how == "NOTSET":
        pads = said.get("pads", [0] * (2 * len(kernel)))
        return list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    found = []
    for n, k, s, d in zip(shape, kernel, stride, dilation, strict=True):
        total = max(0, (ceil(n / s) - 1) * s + (k - 1) * d + 1 - n)
        less = total // 2
        found.append((less, total - less) if how == "SAME_UPPER" else (total - less, less))
    return found


def _samples(feed: Mapping[str, Any]) -> int:
    first = next(iter(feed.values()))
    return len(first) if first.ndim else 1


def _difference(a: Any, b: Any) -> float:
    """The largest difference of two outputs, as a share of the largest number; 0 of what is no floats."""
    if getattr(a, "dtype", np.dtype(object)).kind != "f" or a.shape != b.shape:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return float(np.abs(a - b).max(initial=0.0) / max(np.abs(a).max(initial=0.0), np.finfo(np.float64).tiny))


def _joined(error: Exception) -> str:
    """What onnxruntime says, in one line."""
    return " ".join(str(error).split())
