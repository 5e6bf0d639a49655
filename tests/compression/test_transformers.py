"""Checkpoints of Hugging Face's models, small and random, cut and loaded by the lines of the page."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import gpunet as gn
from gpunet.compression import checkpoint
from gpunet.compression.checkpoint import compress_file
from gpunet.linalg import FixedRank

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # of the libraries themselves
]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = torch.arange(24).reshape(2, 12)


def llama(tied):
    config = transformers.LlamaConfig(vocab_size=256, num_key_value_heads=2, tie_word_embeddings=tied, **SIZES)
    return transformers.LlamaForCausalLM(config)


MODELS = {
    "llama": lambda: llama(False),
    "tied": lambda: llama(True),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=256, n_embd=64, n_layer=2, n_head=4, n_positions=64)
    ),
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=256, **SIZES)),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=256, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
    ),
}


OTHERS = {  # whose files' names are not those of their modules
    "moe": lambda: transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(
            vocab_size=256, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
            shared_expert_intermediate_size=64, **SIZES,
        )
    ),
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(image_size=32, patch_size=8, **SIZES)),
}  # fmt: skip


def page():
    """What the page's lines define, with nothing of ours."""
    text = (Path(gn.__file__).parents[1] / "docs" / "compress.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(compile(text.partition("<!-- loading -->\n```py\n")[2].partition("```")[0], "docs/compress.md", "exec"), names)
    return names


def batch(model):
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.arange(2 * 3 * 32 * 32.0).reshape(2, 3, 32, 32).sin()}
    return {"input_ids": IDS} | ({"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {})


def outputs(model):
    with torch.no_grad():
        return model.eval()(**batch(model)).logits


def wanted(model, layers, state):
    """The outputs where each weight is the product of its two factors, and the biases are those that were."""
    own = model.state_dict()
    for each in layers:
        if each["rank"]:
            w = (state[f"{each['name']}.1.weight"].double() @ state[f"{each['name']}.0.weight"].double()).float()
            own[each["tensor"]] = w.T if each["kind"] == "transposed" else w
    model.load_state_dict(own)
    return outputs(model)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sharded", [False, True])
def test_the_lines_of_the_page_load_it(name, sharded, tmp_path, monkeypatch):
    torch.manual_seed(0)
    dense = MODELS[name]().eval()
    dense.save_pretrained(tmp_path / "dense", max_shard_size="100KB" if sharded else "5GB")
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 50_000)
    out = tmp_path / ("small" if sharded else "small.safetensors")
    made = compress_file(tmp_path / "dense", out, rule=FixedRank(12), layers=["!*.wo"] if name == "t5" else ())
    layers = made.said["layers"]
    assert sum(bool(each["rank"]) for each in layers) >= 8
    lines = page()
    state = {n: each for f in sorted(tmp_path.glob("small/*" if sharded else "small.s*"))
             if f.suffix == ".safetensors" for n, each in lines["load_file"](f).items()}  # fmt: skip
    small = lines["load_small"](MODELS[name](), state, layers)
    torch.testing.assert_close(outputs(small), wanted(dense, layers, state), atol=1e-5, rtol=1e-4)
    with pytest.raises(AssertionError):  # what is missing is not tied
        lines["load_small"](MODELS[name](), {n: each for n, each in state.items() if "norm" not in n.lower() and
                                             "ln_" not in n}, layers)  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_the_lines_cannot_load_they_say(name, tmp_path):
    torch.manual_seed(0)
    OTHERS[name]().save_pretrained(tmp_path / "dense")
    made = compress_file(tmp_path / "dense", tmp_path / "small.safetensors", rule=FixedRank(12))
    lines = page()
    with pytest.raises((AttributeError, AssertionError)):
        lines["load_small"](OTHERS[name](), lines["load_file"](made.path), made.said["layers"])


@pytest.mark.parametrize("name", ["tied", "bert", "t5", *OTHERS])
def test_a_module_that_was_cut_is_loaded_by_the_same_lines(name, tmp_path):
    torch.manual_seed(0)
    fresh = (MODELS | OTHERS)[name]
    dense = fresh().eval()
    small = gn.compress(dense, [batch(dense)], rank=12)
    torch.save({"state": small.state_dict(), "layers": small.compression["layers"]}, tmp_path / "small.pt")
    saved = torch.load(tmp_path / "small.pt")
    again = page()["load_small"](fresh(), saved["state"], saved["layers"])
    torch.testing.assert_close(outputs(again), outputs(small))
