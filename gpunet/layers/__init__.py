"""Layers: one small file each, forward beside backward."""

from gpunet.layers.activation import Activation
from gpunet.layers.base import Layer, Parameter, Spec
from gpunet.layers.conv import Conv2D
from gpunet.layers.dense import Dense
from gpunet.layers.flatten import Flatten, Reshape
from gpunet.layers.lowrank import LowRankDense
from gpunet.layers.pool import MaxPool2D

__all__ = [
    "Activation",
    "Conv2D",
    "Dense",
    "Flatten",
    "Layer",
    "LowRankDense",
    "MaxPool2D",
    "Parameter",
    "Reshape",
    "Spec",
]
