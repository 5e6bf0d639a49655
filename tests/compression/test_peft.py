"""Adapters beside the real PEFT, on small random models that are made here: nothing is fetched."""

from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest

import gpunet as gn

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
pytestmark = [
    pytest.mark.slow,
    # What these libraries say of themselves and of each other while they are imported and used.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:peft"),
]
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

IDS = np.random.default_rng(5).integers(0, 96, (3, 11))


def llama(**options):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=options.pop("tied", False), **options,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=96, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    return GPT2LMHeadModel(config).eval()


def conv():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, stride=2), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 12, 1), torch.nn.Flatten(), torch.nn.Linear(192, 10),
    ).eval()  # fmt: skip


def moved(model, seed=1, share=0.05, only=None):
    """Another one of the same kind, its parameters moved, and tied ones together."""
    other = copy.deepcopy(model)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, each in other.named_parameters():
            if only is None or only(name):
                each += share * torch.randn(each.shape, generator=rng)
    return other


def outputs(model, ids=IDS):
    with torch.no_grad():
        found = model(torch.as_tensor(ids))
    return (found.logits if hasattr(found, "logits") else found).double().numpy()


def loaded(model, folder, **options):
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), **options).eval()


@pytest.mark.parametrize("make", [llama, lambda: llama(attention_bias=True), gpt2, lambda: llama(tied=True)])
def test_of_full_rank_peft_gives_the_tuned_models_outputs(make, tmp_path):
    base, tuned = make(), moved(make())
    want, before = outputs(tuned), outputs(base)
    assert abs(want - before).max() > 1e-2
    adapter = gn.lora.extract(base, tuned, rank=96)
    assert adapter.left == ()
    adapter.save(tmp_path / "adapter")
    found = outputs(loaded(base, tmp_path / "adapter"))
    assert abs(found - want).max() < 1e-5 * abs(want).max()


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96}
OTHERS = {  # embeddings that are shared, that number places by themselves, that are read and not called; biases; pools
    "Bert": ("ForSequenceClassification", SMALL | {"intermediate_size": 48}),
    "GPTNeoX": ("ForCausalLM", SMALL | {"intermediate_size": 48}),
    "OPT": ("ForCausalLM", SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 16, "max_position_embeddings": 64}),
    "T5": (
        "ForConditionalGeneration",
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 96},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_of_other_architectures_nothing_is_lost(name, tmp_path):
    import transformers

    kind, options = OTHERS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options)
    base = getattr(transformers, name + kind)(config).eval()
    other = moved(base)
    adapter = gn.lora.extract(base, other, rank=96)
    assert adapter.left == ()
    adapter.save(tmp_path)
    given = {"input_ids": torch.as_tensor(IDS)} | ({"decoder_input_ids": torch.as_tensor(IDS)} if name == "T5" else {})
    with torch.no_grad():
        want, before = other(**given).logits, base(**given).logits
        found = loaded(base, tmp_path)(**given).logits
    assert abs(want - before).max() > 1e-2
    assert abs(found - want).max() < 1e-5 * abs(want).max()


def test_what_torchs_attention_reads_itself_is_named_or_saved_whole(tmp_path):
    torch.manual_seed(0)
    base = torch.nn.TransformerEncoderLayer(16, 2, 24, batch_first=True).eval()
    with pytest.warns(UserWarning, match=r"self_attn\.in_proj_weight"):
        adapter = gn.lora.extract(base, moved(base), rank=2)
    assert sorted(adapter.pairs) == ["linear1", "linear2"]
    assert "self_attn.out_proj" in adapter.config["modules_to_save"]


def test_bfloat16_files_are_read_exactly(tmp_path):
    base, other = llama(), moved(llama())
    for model, name in ((base, "base"), (other, "tuned")):
        model.to(torch.bfloat16).save_pretrained(tmp_path / name)
        model.float()  # of the rounded numbers
    adapter = gn.lora.extract(tmp_path / "base", tmp_path / "tuned", rank=96)
    assert {str(pair.A.dtype) for pair in adapter.pairs.values()} == {"float32"}
    adapter.save(tmp_path / "adapter")
    want = outputs(other)
    assert abs(outputs(loaded(base, tmp_path / "adapter")) - want).max() < 1e-5 * abs(want).max()


def test_convolutions_batch_norms_and_biases_come_with_it(tmp_path):
    base = conv()
    tuned = moved(base)
    tuned[1].running_mean += 0.3
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype("float32")
    adapter = gn.lora.extract(base, tuned, rank=100)
    assert adapter.ranks == {"0": 8, "3": 8, "5": 10}
    assert adapter.config["modules_to_save"] == ["1"]
    adapter.save(tmp_path / "adapter")
    found = outputs(loaded(conv(), tmp_path / "adapter"), x)
    assert abs(found - outputs(tuned, x)).max() < 1e-5


def test_of_files_as_of_modules(tmp_path):
    from safetensors.torch import load_file

    base, tuned = llama(), moved(llama())
    base.save_pretrained(tmp_path / "base", max_shard_size="20KB")
    tuned.save_pretrained(tmp_path / "tuned")
    assert (tmp_path / "base" / "model.safetensors.index.json").exists()
    of_files = gn.lora.extract(tmp_path / "base", tmp_path / "tuned", rank=4)
    of_modules = gn.lora.extract(base, tuned, rank=4)
    assert of_files.config["base_model_name_or_path"] == str(tmp_path / "base")
    assert of_files.pairs.keys() == of_modules.pairs.keys()
    for name, pair in of_files.pairs.items():
        np.testing.assert_array_equal(pair.A, of_modules.pairs[name].A)
    of_files.save(tmp_path / "adapter")
    merged = tmp_path / "merged.safetensors"
    gn.lora.merge(tmp_path / "base", of_files, merged)
    with_peft = loaded(base, tmp_path / "adapter")
    want = outputs(with_peft)
    fresh = llama()
    fresh.load_state_dict(load_file(merged))
    assert abs(outputs(fresh) - want).max() < 1e-5


def trained(folder, make=llama, **options):
    """An adapter that PEFT has made and saved, its B moved away from zero."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model = get_peft_model(make(), LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for name, each in model.named_parameters():
            if "lora_" in name:
                each += 0.1 * torch.randn(each.shape)
    model.save_pretrained(str(folder))
    return model.eval()


OPTIONS = {
    "plain": {"r": 4, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"]},
    "rslora": {"r": 4, "lora_alpha": 3, "use_rslora": True, "target_modules": "all-linear"},
    "patterns": {
        "r": 4, "target_modules": ["q_proj", "k_proj", "o_proj"], "alpha_pattern": {"k_proj": 5},
        "rank_pattern": {"q_proj": 6, r"layers\.1.*o_proj": 2},
    },
    "saved": {"r": 3, "target_modules": ["v_proj"], "modules_to_save": ["lm_head", "norm"]},
    "embeddings": {"r": 3, "target_modules": ["embed_tokens", "v_proj"]},
    "gaussian": {"r": 3, "init_lora_weights": "gaussian", "target_modules": ["v_proj"]},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_what_peft_saves_is_loaded_saved_and_loaded_by_peft_again(name, tmp_path):
    model = trained(tmp_path / "a", **OPTIONS[name])
    adapter = gn.lora.load(tmp_path / "a")
    for module, pair in adapter.pairs.items():
        layer = model.base_model.model.get_submodule(module)
        np.testing.assert_allclose(pair.delta(), layer.get_delta_weight("default").detach().numpy(), atol=1e-6)
        assert pair.scaling == pytest.approx(layer.scaling["default"], rel=1e-15)
    adapter.save(tmp_path / "b")
    assert (tmp_path / "a/adapter_config.json").read_text() == (tmp_path / "b/adapter_config.json").read_text()
    before, after = (gn.lora.load(tmp_path / each) for each in "ab")
    assert before.saved.keys() == after.saved.keys()
    import safetensors.numpy

    files = [safetensors.numpy.load_file(tmp_path / each / "adapter_model.safetensors") for each in "ab"]
    assert files[0].keys() == files[1].keys()
    assert all(files[0][each].tobytes() == files[1][each].tobytes() for each in files[0])
    assert abs(outputs(loaded(llama(), tmp_path / "b")) - outputs(model)).max() < 1e-6


@pytest.mark.parametrize("name", ["patterns", "saved", "embeddings", "biases"])
def test_merged_by_us_the_base_gives_what_peft_gives(name, tmp_path):
    options = OPTIONS | {"biases": {"r": 3, "bias": "all", "target_modules": ["v_proj"]}}

    def make():
        return llama(attention_bias=True)

    model = trained(tmp_path / "a", make, **options[name])
    merged = make()
    changed = gn.lora.merge(merged, gn.lora.load(tmp_path / "a"))
    merged.load_state_dict({name: torch.as_tensor(each) for name, each in changed.items()}, strict=False)
    assert abs(outputs(merged) - outputs(make())).max() > 1e-3
    assert abs(outputs(merged) - outputs(model)).max() < 1e-5


def test_of_conv1d_the_settings_say_that_weights_are_transposed(tmp_path):
    model = trained(tmp_path / "a", gpt2, r=3, target_modules=["c_attn", "c_proj"])
    adapter = gn.lora.load(tmp_path / "a")
    for module in adapter.pairs:
        want = model.base_model.model.get_submodule(module).get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(adapter.delta(module), want, atol=1e-6)
    merged = gpt2()
    changed = gn.lora.merge(merged, adapter)
    merged.load_state_dict({name: torch.as_tensor(each) for name, each in changed.items()}, strict=False)
    assert abs(outputs(merged) - outputs(model)).max() < 1e-5


def test_of_conv1d_beside_linear_the_classes_say_which_are_transposed(tmp_path):
    model = trained(tmp_path / "a", gpt2, r=3, target_modules=["c_proj", "lm_head"])
    assert gn.lora.load(tmp_path / "a").config["fan_in_fan_out"] is False  # PEFT's last word
    merged = gpt2()
    merged.lm_head.weight = torch.nn.Parameter(merged.lm_head.weight.clone())  # PEFT leaves the embedding as it is
    changed = gn.lora.merge(merged, gn.lora.load(tmp_path / "a"))
    merged.load_state_dict({name: torch.as_tensor(each) for name, each in changed.items()}, strict=False)
    assert abs(outputs(merged) - outputs(model)).max() < 1e-5


def test_gpt2s_files_are_read_as_its_modules_are(tmp_path):
    base, other = gpt2(), moved(gpt2(), only=lambda name: "attn" in name)
    base.save_pretrained(tmp_path / "base")
    other.save_pretrained(tmp_path / "tuned")
    of_modules = gn.lora.extract(base, other, rank=3)
    of_files = gn.lora.extract(tmp_path / "base", tmp_path / "tuned", rank=3, fan_in_fan_out=True)
    assert of_files.config | {"base_model_name_or_path": None} == of_modules.config
    for name, pair in of_modules.pairs.items():
        np.testing.assert_array_equal(pair.A, of_files.pairs[name].A)


def test_resized_to_the_rank_that_the_change_has_peft_gives_the_same_outputs(tmp_path):
    model = trained(tmp_path / "a", **OPTIONS["patterns"])
    adapter = gn.lora.load(tmp_path / "a")
    small = gn.lora.resize(adapter, energy=1.0)
    assert small.ranks == adapter.ranks
    small.save(tmp_path / "b")
    assert abs(outputs(loaded(llama(), tmp_path / "b")) - outputs(model)).max() < 1e-5
    smaller = gn.lora.resize(adapter, rank=2)
    smaller.save(tmp_path / "c")
    peft = loaded(llama(), tmp_path / "c")
    for module, pair in adapter.pairs.items():  # the best of rank 2, as NumPy finds it of the product
        u, s, vt = np.linalg.svd(pair.delta())
        want = u[:, :2] * s[:2] @ vt[:2]
        got = peft.base_model.model.get_submodule(module).get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(got, want, atol=1e-6 * s[0])


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_variants_are_refused(options, tmp_path):
    trained(tmp_path / "a", r=2, target_modules=["q_proj"], make=lambda: llama(attention_bias=True), **options)
    with pytest.raises(gn.errors.DataError, match=next(iter(options))):
        gn.lora.load(tmp_path / "a")


def test_other_methods_of_pefts_are_refused(tmp_path):
    from peft import LoHaConfig, get_peft_model

    get_peft_model(llama(), LoHaConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(tmp_path / "a"))
    with pytest.raises(gn.errors.DataError, match="LOHA"):
        gn.lora.load(tmp_path / "a")


def sine(a, b):
    """The sine of the largest angle between the spans of rows."""
    p, q = (np.linalg.qr(each.T.astype(np.float64))[0] for each in (a, b))
    return float(np.linalg.norm(p - q @ (q.T @ p), 2))


def test_pissa_is_exact_where_pefts_fast_variant_is_far_off(tmp_path):
    from peft import LoraConfig, get_peft_model

    rng = np.random.default_rng(0)
    n, rank = 512, 16
    u, v = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    s = np.arange(1, n + 1) ** -0.5  # falls as trained weights' spectra do
    weight = (u * s @ v.T).astype("float32")
    exact = np.linalg.svd(weight.astype(np.float64))[2][:rank]
    base = torch.nn.Sequential(torch.nn.Linear(n, n, bias=False))
    found = {}
    for method in ("pissa", "pissa_niter_4", "pissa_niter_16"):
        torch.manual_seed(0)
        with torch.no_grad():
            base[0].weight.copy_(torch.as_tensor(weight))
        model = get_peft_model(copy.deepcopy(base), LoraConfig(r=rank, target_modules=["0"], init_lora_weights=method))
        found[method] = sine(model.base_model.model[0].lora_A["default"].weight.detach().numpy(), exact)
    ours = gn.lora.init({"0.weight": weight}, rank)
    found["ours"] = sine(ours.pairs["0"].A, exact)
    assert found["ours"] < 1e-6
    assert min(found["pissa_niter_4"], found["pissa_niter_16"]) > 0.1  # 0.78 and 0.33 as measured
    assert found["ours"] <= ours.pairs["0"].certificate.sine + 1e-5


def test_pissa_starts_where_the_base_was(tmp_path):
    for make in (llama, gpt2):
        base = make()
        want = outputs(base)
        adapter = gn.lora.init(base, 4, alpha=6)
        adapter.save(tmp_path / make.__name__)
        rest = make()
        changed = gn.lora.residual(base, adapter)
        rest.load_state_dict({name: torch.as_tensor(each) for name, each in changed.items()}, strict=False)
        assert abs(outputs(rest) - want).max() > 1e-3
        assert abs(outputs(loaded(rest, tmp_path / make.__name__)) - want).max() < 1e-5


def test_pissa_as_peft_has_it(tmp_path):
    from peft import LoraConfig, get_peft_model

    ours = gn.lora.init(llama(), 4, alpha=6, modules=["q_proj", "up_proj"])
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "up_proj"], init_lora_weights="pissa")
    theirs = get_peft_model(llama(), config)
    rest = gn.lora.residual(llama(), ours)
    for name, pair in ours.pairs.items():
        layer = theirs.base_model.model.get_submodule(name)
        delta = layer.get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(pair.delta(), delta, atol=1e-5)
        np.testing.assert_allclose(rest[f"{name}.weight"], layer.base_layer.weight.detach().numpy(), atol=1e-5)


def test_eva_as_peft_has_it(tmp_path):
    from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights

    rng = np.random.default_rng(2)
    ids = rng.integers(0, 96, (64, 16))
    mask = np.ones_like(ids)
    mask[:32, 10:] = 0
    batch = {"input_ids": torch.as_tensor(ids), "attention_mask": torch.as_tensor(mask)}
    base = llama()
    ours = gn.lora.init(base, 4, "eva", data=[batch], modules=["q_proj", "o_proj", "down_proj"])
    config = LoraConfig(
        r=4, lora_alpha=4, target_modules=["q_proj", "o_proj", "down_proj"], init_lora_weights="eva",
        eva_config=EvaConfig(rho=2.0, tau=0.99),
    )  # fmt: skip
    theirs = get_peft_model(llama(), config)
    initialize_lora_eva_weights(theirs, [batch], show_progress_bar=False)
    for name, pair in ours.pairs.items():
        A = theirs.base_model.model.get_submodule(name).lora_A["default"].weight.detach().numpy()
        assert A.shape == pair.A.shape, name
        assert sine(A, pair.A) < 0.05, name  # theirs by randomised SVDs
        assert theirs.base_model.model.get_submodule(name).scaling["default"] == pytest.approx(pair.scaling)
    ours.save(tmp_path / "eva")
    assert abs(outputs(loaded(llama(), tmp_path / "eva")) - outputs(base)).max() == 0
    assert json.loads((tmp_path / "eva/adapter_config.json").read_text())["init_lora_weights"] is True
