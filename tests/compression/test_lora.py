"""Adapters against NumPy's SVD of the products themselves, and files that are none."""

from __future__ import annotations

import json
import os
import pickle
import re
import time
import warnings

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import gpunet as gn
from gpunet.compression.lora.adapter import PREFIX, settings_of, with_ranks
from gpunet.compression.lora.layers import targets
from gpunet.compression.lora.patterns import compiled
from gpunet.errors import DataError, InputError, OutputError, ShapeError

RNG = np.random.default_rng(7)


def normal(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


BASE = {
    "model.embed_tokens.weight": normal(30, 12),
    "model.layers.0.q_proj.weight": normal(12, 12),
    "model.layers.0.q_proj.bias": normal(12),
    "model.layers.0.up_proj.weight": normal(20, 12),
    "model.layers.1.q_proj.weight": normal(12, 12),
    "model.layers.1.q_proj.bias": normal(12),
    "model.layers.1.up_proj.weight": normal(20, 12),
    "model.norm.weight": normal(12),
    "model.patch.weight": normal(6, 3, 4, 4),
    "lm_head.weight": normal(30, 12),
}


def tuned(*names, base=BASE, share=0.1):
    """The base with these tensors moved, all when none is named."""
    return {
        name: each if names and name not in names else (each + share * normal(*each.shape)).astype(each.dtype)
        for name, each in base.items()
    }


def best(matrix, rank):
    """The nearest matrix of that rank, by NumPy."""
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return u[:, :rank] * s[:rank] @ vt[:rank]


def adapter(rank=2):
    return gn.lora.extract(BASE, tuned(), rank=rank)


# -- extract ----------------------------------------------------------------------------------------------------------


def test_each_pair_is_the_nearest_of_its_rank():
    other = tuned()
    found = gn.lora.extract(BASE, other, rank=3)
    assert set(found.pairs) == {n.removesuffix(".weight") for n in BASE if BASE[n].ndim > 1}
    for name, pair in found.pairs.items():
        change = other[f"{name}.weight"].astype(np.float64) - BASE[f"{name}.weight"]
        flat = change.reshape(len(change), -1)
        want = best(flat, 3)
        np.testing.assert_allclose(found.delta(name).reshape(flat.shape), want, atol=1e-6 * np.linalg.norm(flat, 2))
        assert pair.error == pytest.approx(np.linalg.norm(flat - want) / np.linalg.norm(flat), rel=1e-5)
        s = np.linalg.svd(flat, compute_uv=False)
        low, high = pair.certificate.sigma.T
        assert (low <= s[:3] * (1 + 1e-12)).all()
        assert (s[:3] <= high * (1 + 1e-12)).all()
        assert pair.certificate.complete
        assert pair.scaling == 1
        assert pair.A.dtype == pair.B.dtype == np.float32
        np.testing.assert_allclose(  # of one size
            np.linalg.norm(pair.A.reshape(3, -1), axis=1), np.linalg.norm(pair.B.reshape(-1, 3), axis=0), rtol=1e-5
        )


def test_shapes_are_those_that_peft_gives_each_kind_of_module():
    found = adapter(2).pairs
    embedding, conv = found["model.embed_tokens"], found["model.patch"]
    assert (embedding.A.shape, embedding.B.shape, embedding.embedding) == ((2, 30), (12, 2), True)
    assert (conv.A.shape, conv.B.shape) == ((2, 3, 4, 4), (6, 2, 1, 1))
    assert found["lm_head"].A.shape == (2, 12)


def test_weights_stored_in_by_out():
    base = {"h.0.c_attn.weight": normal(6, 18)}
    other = tuned(base=base)
    found = gn.lora.extract(base, other, rank=6, fan_in_fan_out=True)
    pair = found.pairs["h.0.c_attn"]
    assert (pair.A.shape, pair.B.shape, found.config["fan_in_fan_out"]) == ((6, 6), (18, 6), True)
    np.testing.assert_allclose(
        found.delta("h.0.c_attn"), other["h.0.c_attn.weight"] - base["h.0.c_attn.weight"], atol=1e-6
    )


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_energy_takes_the_fewest_triples_that_hold_it(share):
    spectrum = np.arange(1, 151) ** -0.7
    u, v = (np.linalg.qr(normal(n, 150, dtype="float64"))[0] for n in (160, 200))
    base, other = {"a.weight": np.zeros((160, 200))}, {"a.weight": u * spectrum @ v.T}
    held = np.cumsum(spectrum**2) / (spectrum**2).sum()
    rank = int((held >= share).argmax()) + 1
    assert gn.lora.extract(base, other, energy=share).ranks == {"a": rank}
    assert gn.lora.extract(base, other, rank=5, energy=share).ranks == {"a": min(5, rank)}


def test_all_energy_of_a_change_of_low_rank_takes_no_more_than_that():
    change = normal(80, 4, dtype="float64") @ normal(4, 70, dtype="float64")
    found = gn.lora.extract({"a.weight": np.zeros((80, 70))}, {"a.weight": change}, energy=1.0)
    assert found.ranks == {"a": 4}
    assert found.pairs["a"].A.dtype == np.float64
    np.testing.assert_allclose(found.delta("a"), change, atol=1e-13)


def test_all_energy_is_all_above_rounding():
    for last in (1e-5, 1e-6, 1e-8):
        u, v = (np.linalg.qr(normal(n, 36, dtype="float64"))[0] for n in (36, 73))
        change = ((u * np.geomspace(1, last, 36)) @ v.T).astype("float32")
        pair = gn.lora.extract({"a.weight": 0 * change}, {"a.weight": change}, energy=1.0).pairs["a"]
        s = np.linalg.svd(change.astype("float64"), compute_uv=False)
        noise = 8 * np.finfo("float32").eps * np.linalg.norm(s)
        assert pair.rank == (s > noise).sum()
        assert pair.error < 2 * noise / np.linalg.norm(s)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_halves_are_read_as_they_are(dtype):
    base = {"a.weight": normal(9, 7).astype(dtype)}
    other = {"a.weight": normal(9, 7).astype(dtype)}
    found = gn.lora.extract(base, other, rank=7)
    exact = other["a.weight"].astype(np.float64) - base["a.weight"].astype(np.float64)
    np.testing.assert_allclose(found.delta("a"), exact, atol=1e-6)


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e-30, 1e30, 1e200, 1e306])
def test_weights_of_any_size(size):
    change = size * normal(9, 7, dtype="float64")
    found = gn.lora.extract({"a.weight": np.zeros((9, 7))}, {"a.weight": change}, energy=1.0)
    assert found.ranks == {"a": 7}
    assert found.pairs["a"].error < (0.1 if size < 1e-300 else 1e-14)
    if 1e-30 <= size <= 1e30:
        single = change.astype("float32")
        found = gn.lora.extract({"a.weight": np.zeros((9, 7), "float32")}, {"a.weight": single}, rank=7)
        assert found.pairs["a"].error < 1e-6


def test_factors_beyond_float32_are_refused():
    with pytest.raises(DataError, match="beyond float32"):
        gn.lora.extract({"a.weight": np.zeros((9, 7), "float32")}, {"a.weight": np.full((9, 7), 1e200)}, rank=7)


def test_norms_and_biases_are_saved_whole():
    other = tuned()
    found = gn.lora.extract(BASE, other, rank=1)
    assert found.left == ()
    assert found.config["modules_to_save"] == ["model.norm"]
    assert found.config["bias"] == "lora_only"
    assert set(found.saved) == {
        "model.norm.weight", "model.layers.0.q_proj.base_layer.bias", "model.layers.1.q_proj.base_layer.bias",
    }  # fmt: skip
    np.testing.assert_array_equal(found.saved["model.norm.weight"], other["model.norm.weight"])
    merged = gn.lora.merge(BASE, found)
    np.testing.assert_array_equal(merged["model.layers.1.q_proj.bias"], other["model.layers.1.q_proj.bias"])


def test_what_no_module_of_pefts_can_hold_is_named():
    base = {**BASE, "cls_token": normal(1, 12), "model.position": normal(1, 12)}
    with pytest.warns(UserWarning, match="2 tensors differ and are not in the adapter: cls_token, model.position"):
        found = gn.lora.extract(base, tuned(base=base), rank=1)
    assert found.left == ("cls_token", "model.position")


def test_a_norm_whose_name_is_the_end_of_a_pairs_is_left():
    base = {"norm.weight": normal(6), "xnorm.weight": normal(6, 6), "other.weight": normal(6)}
    with pytest.warns(UserWarning, match=r"1 tensors differ and are not in the adapter: norm\.weight"):
        found = gn.lora.extract(base, tuned(base=base), rank=1)
    assert found.config["modules_to_save"] == ["other"]


@pytest.mark.parametrize(
    ("names", "wanted", "left"),
    [
        # PEFT takes every module whose name ends so, and wants its tensors
        (["fc", "q_norm-", "norm"], ["norm", "q_norm"], ()),
        # none is a pair where a saved name is a part of its own
        (["blk.head.proj", "head", "up"], None, ("head.weight",)),
        (["q_norm", "q.norm", "up"], None, ("q.norm.weight",)),  # whose dot is any character
        (["up", "layer"], None, ("layer.weight",)),  # which PEFT's own base_layer ends with
        (["up", "(a+)+c"], None, ("(a+)+c.weight",)),
        (["up", "norm", "x_norm.within-"], None, ("norm.weight",)),  # ends so, and holds another
    ],
)
def test_modules_to_save_are_those_that_peft_finds_by_them(names, wanted, left):
    norms = {"norm", "q_norm-", "q.norm", "head", "layer", "(a+)+c", "x_norm.within-"}
    base = {f"{name.strip('-')}.weight": normal(*(6,) if name in norms else (6, 6)) for name in names}
    other = {f"{name.strip('-')}.weight" for name in names if not name.endswith("-")}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = gn.lora.extract(base, tuned(*other, base=base), rank=1)
    assert found.config["modules_to_save"] == wanted
    assert found.left == left
    assert len(told) == bool(left)
    assert set(found.saved) == {f"{name}.weight" for name in wanted or ()}


def test_where_no_matrix_differs_what_does_is_named():
    with pytest.raises(InputError, match=r"differ in model\.norm\.weight alone"):
        gn.lora.extract(BASE, tuned("model.norm.weight"), rank=1)


def test_arrays_of_the_other_order_of_bytes_are_read():
    other = tuned("lm_head.weight")
    swapped = {name: each.astype(">f4") for name, each in other.items()}
    want, found = (gn.lora.extract(BASE, each, rank=2).delta("lm_head") for each in (other, swapped))
    np.testing.assert_array_equal(found, want)


def test_tensors_without_numbers_are_refused():
    torch = pytest.importorskip("torch")
    for base, said in (
        ({"a.weight": torch.empty(3, 4, device="meta")}, "a.weight of the mapping lies on the meta device"),
        ({"a.weight": torch.zeros(3, 4).to_sparse()}, "a.weight of the mapping is sparse"),
        (torch.nn.Linear, "source is the class Linear"),
        ({"a.weight": np.zeros((0, 5), "float32")}, "no linear layers"),
    ):
        with pytest.raises(InputError, match=said):
            gn.lora.init(base, 2)


def test_modules_that_are_named_are_taken_alone():
    with pytest.warns(UserWarning, match="tensors differ"):
        found = gn.lora.extract(BASE, tuned(), rank=1, modules=["q_proj", "*.1.up*"])
    assert list(found.pairs) == ["model.layers.0.q_proj", "model.layers.1.q_proj", "model.layers.1.up_proj"]
    assert found.config["target_modules"] == ["1.up_proj", "q_proj"]
    assert found.config["modules_to_save"] is None
    assert len(found.left) == len(BASE) - 3
    only = gn.lora.extract(BASE, tuned("model.layers.0.q_proj.weight"), rank=1, modules="model.layers.0.q_proj")
    assert list(only.pairs) == ["model.layers.0.q_proj"]
    assert only.left == ()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda b, t: t.pop("lm_head.weight"), DataError, "has no lm_head.weight"),
        (lambda b, t: b.pop("model.norm.weight"), DataError, "has no model.norm.weight"),
        (lambda b, t: t.update({"lm_head.weight": normal(31, 12)}), ShapeError, r"\(31, 12\).*expected \(30, 12\)"),
        (lambda b, t: t["lm_head.weight"].__setitem__((3, 4), np.nan), DataError, "lm_head.weight holds NaN"),
        (lambda b, t: b["lm_head.weight"].__setitem__((3, 4), np.inf), DataError, "lm_head.weight holds NaN"),
        (lambda b, t: t.update(b), InputError, "have the same weights"),
        (lambda b, t: (b.pop("lm_head.weight"), t.pop("lm_head.weight")), InputError, "has no lm_head or embed_out"),
        (lambda b, t: b.update({"x.qweight": np.zeros((2, 2), "int32"), "x.weight": normal(2, 2)}), InputError, "GPTQ"),
    ],
)  # fmt: skip
def test_checkpoints_that_do_not_fit_are_refused(change, error, said):
    base = {name: each.copy() for name, each in BASE.items()}
    other = tuned()
    change(base, other)
    with pytest.raises(error, match=said) as caught:
        gn.lora.extract(base, other, rank=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "rank and energy are both None"),
        ({"rank": 0}, "rank is 0"),
        ({"rank": 2.0}, "rank is 2.0"),
        ({"energy": 0}, "energy cannot be 0"),
        ({"energy": 1.1}, "energy cannot be 1.1"),
        ({"rank": 1, "modules": ["q_prj"]}, "q_prj.*it has q_proj"),
        ({"rank": 1, "modules": []}, "at least one name"),
        ({"rank": 1, "modules": [3]}, "names such as"),
        ({"rank": 1, "fan_in_fan_out": 1}, "True or False"),
    ],
)
def test_settings_that_are_none_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        gn.lora.extract(BASE, tuned(), **options)


def test_a_pickle_is_refused_with_the_lines_that_convert_it(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="weights_only=True"):
        gn.lora.extract(tmp_path, tuned(), rank=1)


# -- what PEFT is told ------------------------------------------------------------------------------------------------


def taken(said, names):
    """Modules that PEFT takes by its target_modules (`check_target_module_exists`)."""
    if isinstance(said, str):
        return [name for name in names if re.fullmatch(said, name)]
    return [name for name in names if name in said or any(name.endswith(f".{each}") for each in said)]


@pytest.mark.parametrize(
    ("wanted", "others", "expected"),
    [
        (["a.0.q", "a.1.q"], ["a.0.k", "a"], ["q"]),
        (["a.0.q"], ["a.1.q"], ["0.q"]),
        (["0", "3"], ["1", "b.0"], "0|3"),
        (["head"], ["model.head"], "head"),
        (["f.0", "f.2"], ["f.1", "f"], ["f.0", "f.2"]),
    ],
)
def test_target_modules_are_the_shortest_names_that_mean_no_others(wanted, others, expected):
    said = targets(wanted, [*wanted, *others])
    assert said == expected
    assert taken(said, [*wanted, *others]) == wanted


def test_ranks_that_differ_become_patterns_which_fit_whole_names():
    pairs = {
        name: gn.lora.Pair(np.zeros((rank, 3)), np.zeros((3, rank)), scaling)
        for name, rank, scaling in [("q", 4, 1.0), ("x.q", 2, 1.0), ("a.b", 4, 2.5), ("a-b", 3, 1.0)]
    }
    for rslora in (False, True):
        config = with_ranks({"use_rslora": rslora}, pairs)
        for name, pair in pairs.items():
            rank, scaling = settings_of(config, name)
            assert rank == pair.rank
            assert scaling == pytest.approx(pair.scaling, rel=1e-15)
        assert config["r"] == 4
        assert with_ranks(config, pairs) == config


# -- files ------------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_and_what_only_peft_knows_is_kept(tmp_path):
    found = adapter(3)
    found.config |= {"task_type": "CAUSAL_LM", "something_new": {"a": [1, None]}}
    found.save(tmp_path / "a")
    assert sorted(each.name for each in (tmp_path / "a").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    again = gn.lora.load(tmp_path / "a")
    assert again.pairs.keys() == found.pairs.keys()
    for name, pair in found.pairs.items():
        other = again.pairs[name]
        assert (other.A.tobytes(), other.B.tobytes()) == (pair.A.tobytes(), pair.B.tobytes())
        assert (other.scaling, other.transposed, other.embedding) == (pair.scaling, pair.transposed, pair.embedding)
        np.testing.assert_array_equal(again.delta(name), found.delta(name))
    assert {**again.config, **found.config} == again.config
    again.save(tmp_path / "b")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_patterns_keep_their_order_of_which_the_first_that_fits_is_meant(tmp_path):
    pairs = {name: gn.lora.Pair(normal(2, 4), normal(4, 2), 4.0 / (1 + (name != "fc"))) for name in ("fc", "blk.fc")}
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 2, "rank_pattern": {}, "alpha_pattern": {"blk.fc": 4, "fc": 8},
    }  # fmt: skip
    gn.lora.Adapter(pairs, config).save(tmp_path / "a")
    other = {**config, "alpha_pattern": {"fc": 8, "blk.fc": 4}}  # of which the first means both
    pairs["blk.fc"] = pairs["fc"]
    gn.lora.Adapter(pairs, other).save(tmp_path / "b")
    for folder, want in (("a", 2.0), ("b", 4.0)):
        found = gn.lora.load(tmp_path / folder)
        assert {name: pair.scaling for name, pair in found.pairs.items()} == {"fc": 4.0, "blk.fc": want}
    assert list(found.config["alpha_pattern"]) == ["fc", "blk.fc"]


@pytest.mark.parametrize(("rank", "text"), [(6, 10), (2, 6_000)])  # tensors, or the settings, beyond 5,000 bytes
def test_a_disk_that_is_full_at_either_file_leaves_neither(rank, text, tmp_path):
    resource = pytest.importorskip("resource")
    small = {f"a.{i}.weight": normal(40, 40) for i in range(4)}
    gn.lora.init(small, 1).save(tmp_path / "old")
    before = {each.name: each.read_bytes() for each in (tmp_path / "old").iterdir()}
    found = gn.lora.init(small, rank)
    found.config["long"] = "x" * text
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    told = []
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        for folder in ("old", "new"):
            with pytest.raises(OutputError, match="cannot write") as caught:
                found.save(tmp_path / folder)
            told.append(str(caught.value))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert all("\n" not in each for each in told)
    assert {each.name: each.read_bytes() for each in (tmp_path / "old").iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_names_are_pefts(tmp_path):
    adapter().save(tmp_path)
    names = set(safetensors.numpy.load_file(tmp_path / "adapter_model.safetensors"))
    assert f"{PREFIX}model.layers.0.q_proj.lora_A.weight" in names
    assert f"{PREFIX}model.embed_tokens.lora_embedding_B" in names
    assert f"{PREFIX}model.norm.weight" in names


def test_bfloat16_stays_what_it_is(tmp_path):
    pair = gn.lora.Pair(normal(2, 5).astype(ml_dtypes.bfloat16), normal(4, 2).astype(ml_dtypes.bfloat16), 2.0)
    gn.lora.Adapter({"a": pair}, {"peft_type": "LORA", "target_modules": ["a"]}).save(tmp_path)
    found = gn.lora.load(tmp_path).pairs["a"]
    assert found.A.dtype == ml_dtypes.bfloat16
    want = 2 * pair.B.astype(np.float64) @ pair.A.astype(np.float64)
    np.testing.assert_array_equal(found.delta(), want)


def test_what_stands_in_the_way_is_left_alone(tmp_path):
    found = adapter()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="no folder"):
        found.save(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "adapter_config.json").mkdir()
    with pytest.raises(OutputError, match="a folder stands there"):
        found.save(tmp_path / "folder")
    assert [each.name for each in (tmp_path / "folder").iterdir()] == ["adapter_config.json"]
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "adapter_model.safetensors").symlink_to(tmp_path / "file")
    with pytest.raises(OutputError, match="symbolic link"):
        found.save(tmp_path / "link")
    assert (tmp_path / "file").read_text() == "mine"
    found.config["odd"] = object()
    with pytest.raises(InputError, match="config cannot be written"):
        found.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: "no JSON", "not JSON"),
        (lambda c: [1], "not an adapter"),
        (lambda c: c | {"peft_type": "LOHA"}, "kind 'LOHA'"),
        (lambda c: c | {"use_dora": True}, "use_dora"),
        (lambda c: c | {"target_parameters": ["experts"]}, "target_parameters"),
        (lambda c: c | {"r": 5}, "says rank 5"),
        (lambda c: c | {"r": 0}, "no whole number"),
        (lambda c: c | {"r": 10**400}, "no whole number"),
        (lambda c: c | {"lora_alpha": "8"}, "an alpha is no number"),
        (lambda c: c | {"rank_pattern": {"(": 3}}, "not an adapter"),
        (lambda c: c | {"rank_pattern": [1]}, "not an adapter"),
        (lambda c: c | {"rank_pattern": {"(?i)q": 3}}, r"pattern '\(\?i\)q' is more than names"),
        (lambda c: c | {"alpha_pattern": {"q(?=x)": 3}}, "is more than names"),
        (lambda c: c | {"alpha_pattern": {"a++": 3}}, "is more than names"),
        (lambda c: c | {"alpha_pattern": {"((((a)*)*)*)*": 3}}, "is more than names"),
        (lambda c: {k: v for k, v in c.items() if k != "lora_alpha"}, "has no lora_alpha"),
        (lambda c: {k: v for k, v in c.items() if k != "r"}, "it has no r"),
    ],
)
def test_configurations_that_are_none_are_refused(change, said, tmp_path):
    adapter().save(tmp_path)
    path = tmp_path / "adapter_config.json"
    found = change(json.loads(path.read_text()))
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    with pytest.raises(DataError, match=said) as caught:
        gn.lora.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{PREFIX}lm_head.lora_A.weight"), "lora_B of lm_head alone"),
        (lambda t: t.update({f"{PREFIX}lm_head.lora_A.weight": normal(2, 12)[:, ::2].T.copy()}), "expected A"),
        (lambda t: t.update({f"{PREFIX}lm_head.lora_A.weight": normal(24)}), "expected A"),
        (lambda t: t.update({f"{PREFIX}lm_head.lora_A.weight": np.full((2, 12), np.nan, "float32")}), "NaN"),
        (lambda t: t.update({f"{PREFIX}lm_head.lora_A.weight": np.zeros((2, 12), "int8")}), "stored as int8"),
        (lambda t: t.update({f"{PREFIX}model.norm.weight": np.full(12, np.nan, "float32")}), "norm.weight holds NaN"),
        (lambda t: t.update({"lm_head.lora_C": normal(2)}), "begin with"),
        (lambda t: t.update({f"{PREFIX}lm_head.lora_magnitude_vector": normal(30)}), "variant of LoRA"),
        (lambda t: (t.clear(), t.update({f"{PREFIX}norm.weight": normal(3)})), "no lora_A"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, said, tmp_path):
    adapter().save(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(DataError, match=said):
        gn.lora.load(tmp_path)


@pytest.mark.parametrize("pattern", ["(a+)+c", "(a|a)*c", "((a*)*)*c", ".*.*.*.*.*.*c", "(a{0,999}){999}c"])
def test_no_pattern_takes_long(pattern):
    began = time.perf_counter()
    assert not compiled(pattern)("a" * 150 + "b")
    assert time.perf_counter() - began < 5


@pytest.mark.slow
def test_patterns_fit_what_pythons_own_do():
    parts = ["a", "b", r"\.", ".", "[ab]", "[^a]", "(a|b)", "(?:ab|b*)", "^", "$", r"\d", "(a(b|a)?)", "|"]
    names = ["", "a", "ab", "a.b", "b.a.b", "ab.ba", "aab", "b.bb", "a.a.a.b", "a0", "0.ab", "bbb"]
    signs = ["", "", "", "*", "+", "?", "{2}", "{1,}", "{,2}", "{0,2}", "*?", "+?"]
    fits = 0
    for _ in range(2_000):
        chosen = [parts[i] for i in RNG.integers(0, len(parts), 1 + RNG.integers(5))]
        pattern = "".join(p if p in "^$|" else p + signs[RNG.integers(len(signs))] for p in chosen)
        for name in names:
            want = re.match(rf"(.*\.)?({pattern})$", name) is not None
            assert compiled(pattern)(name) is want, (pattern, name)
            fits += want
    assert 1_000 < fits < 20_000


def test_a_pipe_is_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "adapter_config.json")
    with pytest.raises(DataError, match="it is no file"):
        gn.lora.load(tmp_path)


def test_what_is_no_array_is_not_saved(tmp_path):
    found = adapter()
    found.saved["model.norm.weight"] = [1.0]
    for call in (lambda: found.save(tmp_path / "a"), lambda: gn.lora.merge(BASE, found)):
        with pytest.raises(InputError, match=r"model\.norm\.weight: expected a NumPy array"):
            call()
    assert not (tmp_path / "a").exists()


def test_folders_without_an_adapter_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        gn.lora.load(tmp_path / "nowhere")
    adapter().save(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    assert gn.lora.load(tmp_path).pairs  # what a file is, its content says
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(DataError, match="is a pickle"):
        gn.lora.load(tmp_path)
    (tmp_path / "adapter_model.bin").unlink()
    with pytest.raises(DataError, match="there is no file"):
        gn.lora.load(tmp_path)
    with pytest.raises(InputError, match=r"module is 'k_proj'.*model\.embed_tokens"):
        adapter().delta("k_proj")


# -- init -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [None, 5.0])
def test_pissa_is_the_weights_leading_triples_and_the_rest_is_the_others(alpha):
    found = gn.lora.init(BASE, 4, alpha=alpha)
    assert set(found.pairs) == {n.removesuffix(".weight") for n in BASE if n.endswith("proj.weight")}
    rest = gn.lora.residual(BASE, found)
    for name, pair in found.pairs.items():
        weight = BASE[f"{name}.weight"]
        assert pair.scaling == (alpha or 4) / 4
        np.testing.assert_allclose(found.delta(name), best(weight, 4), atol=1e-6 * np.linalg.norm(weight, 2))
        np.testing.assert_allclose(rest[f"{name}.weight"] + found.delta(name), weight, atol=1e-6)
        assert rest[f"{name}.weight"].dtype == weight.dtype
        assert pair.certificate.sine < 1e-5
        assert pair.certificate.complete
    assert found.config["init_lora_weights"] is True  # else PEFT would take the triples out of the rest once more


@pytest.mark.slow
def test_certify_shows_of_a_large_weight_that_no_triple_was_missed():
    spectrum = np.arange(1, 1025) ** -0.5
    u, v = (np.linalg.qr(normal(1024, 1024, dtype="float64"))[0] for _ in range(2))
    weight = (u * spectrum @ v.T).astype("float32")
    plain, sure = (gn.lora.init({"a.weight": weight}, 16, certify=each).pairs["a"] for each in (False, True))
    assert not plain.certificate.complete
    assert sure.certificate.complete
    assert sure.certificate.sine < 1e-2
    q, _ = np.linalg.qr(sure.A.T.astype(np.float64))
    exact = np.linalg.svd(weight.astype(np.float64))[2][:16].T
    assert np.linalg.norm(exact - q @ (q.T @ exact), 2) < min(1e-5, sure.certificate.sine)


def test_pissa_of_other_kinds_of_modules():
    found = gn.lora.init(BASE, 2, modules=["embed_tokens", "patch"])
    want = best(BASE["model.patch.weight"].reshape(6, -1), 2).reshape(6, 3, 4, 4)
    np.testing.assert_allclose(found.delta("model.patch"), want, atol=1e-5)
    np.testing.assert_allclose(found.delta("model.embed_tokens"), best(BASE["model.embed_tokens.weight"], 2), atol=1e-5)
    assert gn.lora.init({"a.weight": np.zeros((4, 3), "float32")}, 2).pairs["a"].error == 0


def inputs():
    """Of modules whose variance lies in few and in many directions, far from zero."""
    names = [name for name in BASE if name.endswith("q_proj.weight")] + ["model.layers.0.up_proj.weight"]
    falls = (0.2, 0.9, 0.6)
    return {
        n.removesuffix(".weight"): normal(200, 12) * f ** np.arange(12) + 3 for n, f in zip(names, falls, strict=True)
    }


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("rho", [1.0, 1.5, 2.0])
def test_eva_shares_ranks_by_the_variance_that_components_explain(rho, whiten):
    data = inputs()
    found = gn.lora.init(BASE, 3, "eva", data=data, rho=rho, whiten=whiten)
    spectra = {}
    for name, x in data.items():
        x = x.astype(np.float64) - x.mean(0, dtype=np.float64)
        spectra[name] = np.linalg.svd(x, full_matrices=False)[1:]
    shares = sorted(
        ((s[i] ** 2 / (s**2).sum(), name) for name, (s, _) in spectra.items() for i in range(round(3 * rho))),
        reverse=True,
    )[:9]
    assert sum(found.ranks.values()) == 9
    for name, pair in found.pairs.items():
        s, vt = spectra[name]
        rank = sum(n == name for _, n in shares)
        assert pair.rank == rank
        rows = pair.A * np.sqrt(s[:rank, None]) if whiten else pair.A
        np.testing.assert_allclose(abs(np.sum(rows * vt[:rank], axis=1)), 1, atol=1e-5)
        assert not pair.B.any()
        assert pair.scaling == 1


def test_eva_of_sums_is_that_of_arrays_and_leaves_the_sums_alone():
    data = inputs()
    sums = {name: gn.StreamingGram().update(x[:80]).update(x[80:]) for name, x in data.items()}
    of_sums, of_arrays = (gn.lora.init(BASE, 2, "eva", data=each) for each in (sums, data))
    assert of_sums.ranks == of_arrays.ranks
    for name, pair in of_sums.pairs.items():
        np.testing.assert_allclose(pair.A, of_arrays.pairs[name].A, atol=1e-5)
    assert not any(each.center for each in sums.values())


def test_a_module_whose_components_explain_less_than_others_is_left_out():
    plane = normal(60, 2) @ np.eye(2, 12, dtype="float32")  # of two components, each with about half of it
    found = gn.lora.init(BASE, 1, "eva", data={"model.layers.0.q_proj": plane, "model.layers.1.q_proj": normal(60, 12)})
    assert found.ranks == {"model.layers.0.q_proj": 2}
    assert found.config["target_modules"] == ["0.q_proj"]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"method": "olora"}, InputError, "expected one of pissa, eva"),
        ({"method": "eva"}, InputError, "expected data with 'eva'"),
        ({"data": {}}, InputError, "none with 'pissa'"),
        ({"method": "eva", "data": {}}, InputError, "no linear layers"),
        ({"method": "eva", "data": {"q": normal(3, 12)}}, InputError, "'q', which fits no module"),
        ({"method": "eva", "data": {"q_proj": normal(3, 12)}}, InputError, r"whole names, such as model\.layers"),
        ({"method": "eva", "data": {3: normal(3, 12)}}, InputError, "names such as 'q_proj'"),
        ({"method": "eva", "data": {"lm_head": normal(3, 11)}}, ShapeError, "11 features: expected its 12"),
        ({"method": "eva", "data": {"lm_head": normal(1, 12)}}, InputError, "at least two"),
        ({"method": "eva", "data": {"lm_head": normal(12)}}, InputError, "the inputs of lm_head"),
        ({"method": "eva", "data": {"model.patch": normal(3, 48)}}, InputError, "no linear layer"),
        ({"method": "eva", "data": {"lm_head": "text"}}, InputError, "the inputs of lm_head"),
        ({"method": "eva", "data": [normal(3, 4)]}, InputError, "no torch.nn.Module"),
        ({"method": "eva", "data": {"lm_head": normal(3, 12)}, "modules": ["q_proj"]}, InputError, "has no inputs of"),
        ({"alpha": 0}, InputError, "alpha cannot be 0"),
        ({"rho": 0.5}, InputError, "rho cannot be 0.5"),
    ],
)  # fmt: skip
def test_settings_of_init_that_are_none_are_refused(options, error, said):
    with pytest.raises(error, match=said):
        gn.lora.init(BASE, 2, **options)


def network():
    torch = pytest.importorskip("torch")
    return torch, torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)
    )


def test_eva_leaves_each_module_in_its_mode():
    torch, net = network()
    net.train()
    net[1].eval()
    before = [each.training for each in net.modules()]
    gn.lora.init(net, 2, "eva", data=[torch.randn(16, 6)])
    assert [each.training for each in net.modules()] == before == [True, True, False, True, True, True]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda torch: 3, "data is 3, which gives no batches"),
        (lambda torch: "abc", "data is 'abc', which gives no batches"),
        (lambda torch: [None], "cannot be called with batch 0"),
        (lambda torch: [()], "cannot be called with batch 0"),
        (lambda torch: [torch.randn(4, 6), [None]], "cannot be called with batch 1"),
        (lambda torch: [torch.randn(4, 7)], "cannot be called with batch 0"),
        (lambda torch: [{"x": torch.randn(4, 6)}], "cannot be called with batch 0"),
        (lambda torch: [torch.full((4, 6), torch.nan)], "the inputs of 0: batch holds nan"),
        (lambda torch: (1 / 0 for _ in range(3)), "which gives no batches"),
    ],
)
def test_batches_that_a_network_does_not_take_are_refused(data, said):
    torch, net = network()
    with pytest.raises(InputError, match=said) as caught:
        gn.lora.init(net, 2, "eva", data=data(torch))
    assert "\n" not in str(caught.value)
    assert net.training
    assert not net[0]._forward_pre_hooks


# -- resize, merge, residual ------------------------------------------------------------------------------------------


def wide(dtype="float32"):
    """An adapter of pairs that are far from balanced, their scaling not 1."""
    kinds = {
        "a": gn.lora.Pair(1e3 * normal(6, 9, dtype=dtype), 1e-3 * normal(14, 6, dtype=dtype), 0.37),
        "b": gn.lora.Pair(normal(6, 4, dtype=dtype), normal(14, 6, dtype=dtype), 2.0),  # of rank 4
        "c": gn.lora.Pair(normal(6, 3, 2, 2, dtype=dtype), normal(8, 6, 1, 1, dtype=dtype), 1.0),
        "e": gn.lora.Pair(normal(6, 20, dtype=dtype), normal(5, 6, dtype=dtype), 0.5, transposed=True, embedding=True),
        "z": gn.lora.Pair(normal(6, 9, dtype=dtype), np.zeros((14, 6), dtype), 1.0),
    }
    return gn.lora.Adapter(kinds, {"peft_type": "LORA", "r": 6, "lora_alpha": 6, "target_modules": list(kinds)})


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_resized_pairs_are_the_nearest_to_the_product(rank, dtype, tolerance):
    before = wide(dtype)
    after = gn.lora.resize(before, rank)
    for name, pair in before.pairs.items():
        product = pair.delta().reshape(pair.shape[0], -1)
        want, size = best(product, rank), np.linalg.norm(product, 2)
        found = after.pairs[name]
        assert found.rank == min(rank, *product.shape)
        np.testing.assert_allclose(found.delta().reshape(product.shape), want, atol=tolerance * size)
        assert found.shape == pair.shape
        assert found.A.dtype == dtype
        off = np.linalg.norm(product - found.delta().reshape(product.shape)) / (np.linalg.norm(product) or 1)
        assert found.error == pytest.approx(off, abs=1e-13 if dtype == "float64" else 1e-9)


def test_resized_by_energy_each_has_the_rank_that_it_needs(tmp_path):
    small = gn.lora.resize(wide(), energy=1.0)
    assert small.ranks == {"a": 6, "b": 4, "c": 6, "e": 5, "z": 1}
    small.save(tmp_path)
    again = gn.lora.load(tmp_path)
    assert again.ranks == small.ranks
    for name in small.pairs:
        np.testing.assert_array_equal(again.delta(name), small.delta(name))


def test_a_higher_rank_and_an_adapter_that_changes_its_base_are_refused():
    with pytest.raises(InputError, match="rank is 7: expected at most 6"):
        gn.lora.resize(wide(), 7)
    for none in (3, gn.lora.Adapter({}, {})):
        with pytest.raises(InputError, match=r"adapter is .*expected an Adapter with pairs"):
            gn.lora.resize(none, 7)
    pissa = wide()
    pissa.config["init_lora_weights"] = "pissa_niter_4"
    for call in (lambda: gn.lora.resize(pissa, 2), lambda: gn.lora.merge(BASE, pissa)):
        with pytest.raises(InputError, match="takes its start out of the base"):
            call()


def assert_nearest(found, exact):
    """What was rounded once is no farther from a float64 than what ml_dtypes rounds to float32 and then to bfloat16."""
    other = exact.astype(found.dtype).astype(np.float64)
    assert (np.abs(found.astype(np.float64) - exact) <= np.abs(other - exact)).all()


@pytest.mark.parametrize("dtype", ["float32", ml_dtypes.bfloat16])
def test_merged_weights_are_written_whole_and_those_that_stay_as_they_are(dtype, tmp_path):
    base = {name: each.astype(dtype) for name, each in BASE.items()} | {"steps": np.arange(3)}
    safetensors.numpy.save_file(base, tmp_path / "base.safetensors", metadata={"format": "pt"})
    found = adapter(2)
    gn.lora.merge(tmp_path / "base.safetensors", found, tmp_path / "merged.safetensors")
    gn.lora.residual(tmp_path / "base.safetensors", found, tmp_path / "rest")
    assert (tmp_path / "rest" / "model.safetensors.index.json").exists()
    from gpunet.compression.tensors import Tensors

    merged, rest = (Tensors.open(tmp_path / each) for each in ("merged.safetensors", "rest"))
    assert sorted(merged.names) == sorted(rest.names) == sorted(base)
    for name, weight in base.items():
        assert merged.read(name).dtype == rest.read(name).dtype == weight.dtype
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module in found.pairs:
            exact = weight.astype(np.float64)
            assert_nearest(merged.read(name), exact + found.delta(module))
            assert_nearest(rest.read(name), exact - found.delta(module))
        else:
            np.testing.assert_array_equal(rest.read(name), weight)
            if name in found.saved:
                np.testing.assert_array_equal(merged.read(name), found.saved[name].astype(weight.dtype))


def test_a_sum_beyond_the_bases_dtype_is_refused():
    base = {"a.weight": np.full((3, 3), 65000, "float16")}
    found = gn.lora.extract(base, {"a.weight": np.full((3, 3), 66000, "float32")}, rank=1)
    with pytest.raises(DataError, match="beyond float16"):
        gn.lora.merge(base, found)
    assert gn.lora.residual(base, found)["a.weight"].dtype == np.float16


def test_what_is_beyond_a_dtype_is_never_infinity():
    huge = {"a": gn.lora.Pair(np.full((2, 3), 3e38, "float32"), np.full((4, 2), 3e38, "float32"), 1e6)}
    with pytest.raises(DataError, match="a has factors beyond float32"):
        gn.lora.resize(gn.lora.Adapter(huge, {}), 1)
    for bad, said in ((np.nan, "holds NaN"), (1e200, "beyond float64")):
        pair = gn.lora.Pair(np.full((2, 3), bad), np.full((4, 2), bad), 1.0)
        with pytest.raises(DataError, match=said):
            gn.lora.resize(gn.lora.Adapter({"a": pair}, {}), 1)
    base = {"a.weight": np.zeros((4, 3), "float16"), "n.weight": np.ones(4, "float16")}
    for bad, said in ((1e10, "n.weight .* beyond float16"), (np.nan, "saved n.weight holds NaN")):
        pair = gn.lora.Pair(normal(2, 3), normal(4, 2), 1.0)
        found = gn.lora.Adapter({"a": pair}, {}, {"n.weight": np.full(4, bad, "float32")})
        with pytest.raises(DataError, match=said):
            gn.lora.merge(base, found)


def test_bfloat16_is_rounded_once():
    exact = np.concatenate([
        RNG.standard_normal(500) * 2.0 ** RNG.integers(-140, 127, 500),
        (1 + 2.0**-8 * RNG.integers(0, 256, 500)) * (1 + RNG.choice([-1, 0, 1], 500) * 2.0**-40),  # near ties
        [0.0, 2.0**-150, 2.0**-134, 2.0**-134 + 2.0**-170, -(2.0**-133) * 1.5, 3.38953e38, 3.396e38, -1e300],
    ])  # fmt: skip
    every = (
        np.arange(0x7F80, dtype="uint16").view(ml_dtypes.bfloat16).astype(np.float64)
    )  # all that are finite, in order
    for value in exact:
        pair = gn.lora.Pair(np.array([[value]]), np.ones((1, 1)), 1.0)
        found = gn.lora.Adapter({"a": pair}, {})
        base = {"a.weight": np.zeros((1, 1), ml_dtypes.bfloat16)}
        if abs(value) >= every[-1] + (every[-1] - every[-2]) / 2:
            with pytest.raises(DataError, match="beyond bfloat16"):
                gn.lora.merge(base, found)
            continue
        got = gn.lora.merge(base, found)["a.weight"]
        at = np.abs(every - abs(value))
        near = np.flatnonzero(at == at.min())
        want = near[0] if len(near) == 1 or near[0] % 2 == 0 else near[1]  # of two the even one
        assert float(got[0, 0]) == np.copysign(every[want], value)


def test_a_model_of_ours_stays_one(tmp_path):
    model = gn.Sequential([gn.Dense(8, "relu"), gn.Dense(3)])
    model.build((5,), gn.get_backend("cpu"))
    gn.save(model, tmp_path / "a.safetensors")
    found = gn.lora.init(tmp_path / "a.safetensors", 1)
    rest = gn.lora.residual(tmp_path / "a.safetensors", found)
    gn.lora.residual(tmp_path / "a.safetensors", found, tmp_path / "b.safetensors")
    again = gn.load(tmp_path / "b.safetensors", device="cpu")
    for name, weight in again.parameters.items():
        np.testing.assert_array_equal(weight, rest.get(name, model.parameters[name]))
    content = bytearray((tmp_path / "b.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "b.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="digest"):
        gn.load(tmp_path / "b.safetensors")
    gn.lora.residual(tmp_path / "a.safetensors", found, tmp_path / "shards")
    from gpunet.compression.tensors import Tensors

    assert Tensors.open(tmp_path / "shards").metadata == {"format": "pt"}


def test_no_tensor_is_written_under_a_name_that_the_header_has_itself(tmp_path):
    base = {**BASE, "__metadata__": normal(3)}
    with pytest.raises(InputError, match="called '__metadata__'"):
        gn.lora.merge(base, adapter(), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_base_of_other_shapes_is_refused_and_nothing_is_written(tmp_path):
    found = adapter()
    with pytest.raises(ShapeError, match=r"lm_head.weight has shape \(31, 12\)"):
        gn.lora.merge(BASE | {"lm_head.weight": normal(31, 12)}, found, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"no tensor 'lm_head\.weight'"):
        gn.lora.merge({n: a for n, a in BASE.items() if n != "lm_head.weight"}, found, tmp_path / "a.safetensors")
    bad = BASE | {"lm_head.weight": np.full((30, 12), np.nan, "float32")}
    with pytest.raises(DataError, match="holds NaN"):
        gn.lora.merge(bad, found, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []
