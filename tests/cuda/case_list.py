"""The cases of cases.py: shapes that are friendly, ragged, and large enough for several blocks."""

from __future__ import annotations

from dataclasses import replace

from gpunet.backend.base import ACTIVATIONS

from .cases import (  # fmt: skip
    Case,
    activate,
    affine,
    affine_backward,
    affine_loss,
    avgpool,
    backward,
    batch_norm,
    conv,
    conv_average,
    dropout,
    gather,
    gelu,
    gemm,
    halves,
    head,
    loss,
    maxpool,
    normal,
    optimiser,
    pixels,
    scores,
    to_bfloat16,
)

MATRICES = [(1, 1), (1, 31), (33, 10), (64, 128), (1030, 3), (300, 257)]
SOURCES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "bool"]
LOSSES = {
    "softmax": loss("softmax_cross_entropy"), "binary": loss("binary_cross_entropy"),
    **{f"squared {name}": loss("squared_error", name) for name in ACTIVATIONS},
    **{f"values {name}": loss("values", name) for name in ACTIVATIONS},
}  # fmt: skip
HEADS = {
    "softmax": affine_loss("softmax_cross_entropy"), "binary": affine_loss("binary_cross_entropy", bias=False),
    "squared": affine_loss("squared_error", "sigmoid"),
}  # fmt: skip
CONVS = [
    (1, 1, 1, 1, 1, 1, 0, 1, "relu"),
    (3, 2, 7, 9, 9, 3, 1, 1, "identity"),
    (2, 3, 9, 8, 8, 3, 0, 2, "relu"),
    (2, 30, 6, 7, 5, 3, 1, 2, "sigmoid"),  # more taps than are staged at a time
    (2, 9, 8, 11, 3, 5, 2, 3, "relu"),
    (2, 3, 6, 7, 5, 3, 1, 2, "tanh"),
    (2, 3, 6, 7, 5, 3, 1, 1, "leaky_relu"),
    (65, 1, 6, 6, 2, 3, 0, 4, "identity"),  # more images than shares
    (1, 1, 25, 23, 2, 3, 1, 1, "relu"),  # more positions than a block sees at a time
]
AVERAGES = [
    (2, 3, 9, 8, 4, 3, 1, 4, 3, "relu"),
    (3, 1, 7, 9, 5, 4, 0, 2, 2, "identity"),
    (35, 2, 6, 6, 3, 1, 0, 3, 1, "tanh"),  # more images than a block takes
    (1, 3, 32, 32, 9, 6, 0, 14, 13, "leaky_relu"),
    (2, 1, 5, 5, 1030, 2, 0, 1, 2, "sigmoid"),  # more filters than a block takes
]
PLAIN = [
    *(Case(f"activate {f} {s}", normal(s), activate(f)) for f in ACTIVATIONS for s in MATRICES),
    *(
        Case(f"backward {f} {s} bias={b} in_place={i}", normal(s, s), backward(f, b, i), s[0])
        for f, b, i in [("relu", True, True), ("sigmoid", True, False), ("identity", True, True),
                        ("identity", True, False), ("relu", False, False), ("sigmoid", False, True),
                        ("tanh", True, True), ("tanh", False, False), ("leaky_relu", True, True),
                        ("leaky_relu", False, False)]
        for s in MATRICES
    ),
    *(Case(f"gelu {t} {s}", normal(s, s), gelu(t, s[0] % 2 == 0)) for t in (False, True) for s in MATRICES),
    Case("backward wide", normal((600, 512), (600, 512)), backward("relu", True, True), 600),
    *(
        Case(f"affine {f} {s}", normal(s, (7, s[1]), 7), affine(f), s[1])
        for f in ACTIVATIONS for s in MATRICES
    ),
    *(
        Case(f"dropout {rate} {s} in_place={i}", normal(s), dropout(rate, i))
        for rate, i in [(0.5, False), (0.1, True)] for s in MATRICES
    ),
    *(Case(f"gather {d} {s}", pixels(s, d), gather(1 / 255)) for d in SOURCES for s in [(9, 5), (26, 3, 4, 2)]),
    *(Case(f"gather uint8 {s}", pixels(s, "uint8"), gather(1)) for s in [(40, 784), (5, 1300), (600, 1)]),
    *(
        Case(f"{name} {n}x{k}", scores(n, k), run, n * k)
        for name, run in LOSSES.items()
        for n, k in [(1, 2), (2, 1), (64, 10), (33, 100), (300, 1), (1100, 2)] if (name, k) != ("softmax", 1)
    ),
    *(
        Case(f"affine {name} {sizes}", head(*sizes), run, sizes[0] * sizes[2] + sizes[1])
        for name, run in HEADS.items()
        for sizes in [(1, 3, 2), (9, 31, 10), (70, 64, 16), (300, 5, 3), (41, 130, 20), (3, 8, 40)]
    ),
    *(
        Case(f"affine backward {f} {wanted} {sizes}", head(*sizes), affine_backward(f, wanted), max(sizes))
        for f in ACTIVATIONS
        for wanted in ("weight_grad dx bias_grad", "weight_grad", "dx", "dx bias_grad")
        for sizes in [(1, 3, 1), (9, 31, 10), (600, 70, 16), (41, 130, 20)]
    ),
    *(
        Case(f"{name} {size} {decayed}", normal(*[size] * 4), optimiser(name, states, decayed), 10)
        for name, states in (("sgd", 0), ("momentum", 1), ("adam", 2))
        for size, decayed in [(1, 1), (31, 0), (33, 17), (1030, 641), (9000, 9000)]
    ),
    *(
        Case(f"adamw {size} {decayed}", normal(*[size] * 4), optimiser("adam", 2, decayed, True), 10)
        for size, decayed in [(1, 1), (31, 0), (33, 17), (1030, 641), (9000, 9000)]
    ),
    *(
        Case(f"batch norm {s} of_batch={b} {w}", normal(s, s, *[s[1]] * 4), batch_norm(b, *w.split()), s[0] * s[-1])
        for b, w in [(True, "parameters dx"), (True, "parameters"), (True, "dx"), (False, "parameters dx"), (False, "")]
        for s in [(2, 1), (33, 10), (70, 130), (3, 2, 4, 5), (2, 5, 30, 17), (600, 3, 2, 1)]
    ),
    *map(conv, CONVS),
    *map(conv_average, AVERAGES),
    *map(avgpool, [(1, 1, 5, 5), (3, 2, 8, 7), (2, 40, 15, 15), (1, 1, 30, 31)], [1, 2, 3, 15], [2, 2, 1, 14]),
    *map(maxpool, [(1, 1, 5, 5), (3, 2, 8, 7), (2, 40, 15, 15), (1, 1, 30, 31)], [1, 2, 3, 15]),
]  # fmt: skip
SUMS = [  # y, dz or both in bfloat16, of every activation, with the sum over the rows and without
    ("relu", True, "y dz"), ("identity", True, "y dz"), ("sigmoid", False, "y dz"), ("tanh", True, "y"),
    ("leaky_relu", False, "y"), ("identity", False, "y"), ("relu", False, "dz"), ("sigmoid", True, "dz"),
]  # fmt: skip
MIXED = [
    *(Case(f"to_bfloat16 {s}", normal(s), to_bfloat16) for s in MATRICES),
    *(
        Case(f"mixed backward {f} {s} bias={b} {h}", lambda rng, s=s: (*halves(s)(rng), *normal(s)(rng)),
             backward(f, b, False, h), s[0])
        for f, b, h in SUMS for s in MATRICES
    ),
    *(
        Case(f"mixed backward wide {h}", lambda rng: (*halves((600, 512))(rng), *normal((600, 512))(rng)),
             backward("relu", True, False, h), 600)
        for h in ("y dz", "y", "dz")
    ),
    *(
        Case(f"mixed affine {f} {s} bias={b} rounds={r}", halves(s, (7, s[1]), 7), affine(f, b, r), s[1])
        for f, b, r in [("relu", True, True), ("identity", True, True), ("identity", False, True),
                        ("tanh", False, True), ("relu", False, True), ("leaky_relu", True, True),
                        ("relu", True, False), ("sigmoid", True, False), ("identity", True, False),
                        ("tanh", False, False)]
        for s in MATRICES
    ),
    *(
        Case(f"mixed gemm {a} {b} {s} rounds={r}", halves(s, (s[1], 9)), gemm(a, b, r), s[1])
        for a, b, r in [(False, False, True), (True, False, False), (True, True, True), (False, True, False)]
        for s in MATRICES
    ),
    *(
        Case(f"mixed gather {d} {s}", pixels(s, d), gather(1 / 255))
        for d in SOURCES for s in [(9, 5), (26, 3, 4, 2)]
    ),
    *(Case(f"mixed gather uint8 {s}", pixels(s, "uint8"), gather(1)) for s in [(40, 784), (5, 1300), (600, 1)]),
    *(
        Case(f"mixed affine {name} {sizes}", head(*sizes, half=True), run, sizes[0] * sizes[2] + sizes[1])
        for name, run in HEADS.items()
        for sizes in [(1, 3, 2), (9, 31, 10), (70, 64, 16), (300, 5, 3), (41, 130, 20), (3, 8, 40)]
    ),
    *(
        Case(f"mixed affine backward {f} {wanted} to {h} {sizes}", head(*sizes, half=True),
             affine_backward(f, wanted, h), max(sizes))
        for f, wanted, h in [("relu", "weight_grad dx bias_grad", "dx"),
                             ("identity", "weight_grad dx", "weight_grad dx"),
                             ("sigmoid", "weight_grad dx bias_grad", ""), ("tanh", "dx bias_grad", "dx"),
                             ("identity", "weight_grad", ""), ("identity", "weight_grad", "weight_grad"),
                             ("leaky_relu", "dx", "dx"), ("relu", "dx", "")]
        for sizes in [(1, 3, 1), (9, 31, 10), (600, 70, 16), (41, 130, 20)]
    ),
    *(
        Case(f"mixed {name}{'w' * w} {size} {decayed}", normal(*[size] * 4),
             optimiser(name, states, decayed, *[True] * w), 10)
        for name, states, w in (("sgd", 0, False), ("momentum", 1, False), ("adam", 2, False), ("adam", 2, True))
        for size, decayed in [(1, 1), (31, 0), (33, 17), (1030, 641), (9000, 9000)]
    ),
]  # fmt: skip
MIXED = [replace(case, mixed=True) for case in MIXED]
CASES = [*PLAIN, *MIXED]
NAMES = [case.name for case in CASES]
