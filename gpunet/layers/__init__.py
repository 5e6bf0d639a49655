"""Layers: one small file each, forward beside backward."""

from gpunet.layers.activation import Activation
from gpunet.layers.base import Layer, Parameter, Spec
from gpunet.layers.dense import Dense
from gpunet.layers.lowrank import LowRankDense

__all__ = ["Activation", "Dense", "Layer", "LowRankDense", "Parameter", "Spec"]
