"""The experiments by name; their modules are imported when they run, so that listing them costs nothing."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from gpunet.errors import InputError, shown


@dataclass(frozen=True)
class Entry:
    """One experiment: where it comes from, and the module that holds Settings, CLAIMS, run and figures."""

    name: str
    document: str
    summary: str
    datasets: tuple[str, ...]
    module: str

    def load(self) -> Any:
        """The experiment's module."""
        return importlib.import_module(self.module)


EXPERIMENTS: dict[str, Entry] = {
    entry.name: entry
    for entry in [
        Entry(
            "svd-init",
            "000: H. Gu, Training a 2 layer neural network using SVD-generated weights (poster)",
            "first-layer weights made from the singular vectors of the data",
            ("mnist", "digits"),
            "gpunet.experiments.svd_init",
        ),
        Entry(
            "svd-dnn",
            "001: S. Sarnayak, A. Mohanty, S. Temkar, Deep Neural Networks and Accelerating them using SVD (2020)",
            "pre-train, cut hidden weights by truncated SVD, train the factors, multiply back",
            ("xor", "cats", "mnist", "digits"),
            "gpunet.experiments.svd_dnn",
        ),
        Entry(
            "dmn",
            "002: N. Dehmamy, N. Rohani, A. Katsaggelos, Direct estimation of weights and efficient training of deep "
            "neural networks without SGD",
            "conv layers computed by class-based PCA instead of SGD",
            ("mnist", "cifar10", "cifar100", "digits"),
            "gpunet.experiments.dmn",
        ),
        Entry(
            "toy",
            "003: 鄭余玄, Lab 1",
            "backprop by hand on points in the plane: steps to converge, zero weights, learning rates",
            ("linear", "xor-easy"),
            "gpunet.experiments.toy",
        ),
        Entry(
            "cifar-mlp",
            "004: F. Assarsson, Assignment 2: 2-layer mini batch gradient descent (2018)",
            "ReLU and softmax by mini-batch gradient descent: learning rates, momentum, L2, search",
            ("cifar10", "digits", "mnist"),
            "gpunet.experiments.cifar_mlp",
        ),
    ]
}


def experiment(name: str) -> Entry:
    """The entry of that name; InputError naming those that exist."""
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise InputError(f"unknown experiment {shown(name)}: expected one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
