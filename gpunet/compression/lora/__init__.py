"""Low-rank adapters: from two checkpoints, from a weight or from its inputs, cut anew, and PEFT's files of them."""

from gpunet.compression.lora.adapter import Adapter, Pair, load
from gpunet.compression.lora.methods import extract, init, merge, residual, resize

__all__ = ["Adapter", "Pair", "extract", "init", "load", "merge", "residual", "resize"]
