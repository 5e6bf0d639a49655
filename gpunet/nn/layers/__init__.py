"""Layers: one small file each, forward beside backward."""

from gpunet.nn.layers.activation import Activation
from gpunet.nn.layers.base import Layer, Parameter, Spec
from gpunet.nn.layers.batchnorm import BatchNorm
from gpunet.nn.layers.conv import Conv2D
from gpunet.nn.layers.dense import Dense
from gpunet.nn.layers.dropout import Dropout
from gpunet.nn.layers.flatten import Flatten, Reshape
from gpunet.nn.layers.gelu import GELU
from gpunet.nn.layers.lowrank import LowRankDense
from gpunet.nn.layers.pool import AvgPool2D, MaxPool2D

__all__ = [
    "GELU",
    "Activation",
    "AvgPool2D",
    "BatchNorm",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "LowRankDense",
    "MaxPool2D",
    "Parameter",
    "Reshape",
    "Spec",
]
