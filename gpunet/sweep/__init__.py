"""Hyper-parameter search, coarse to fine, on Optuna: its storages, its trials, its importances.

>>> from gpunet.sweep import parse_parameter, search
>>> space = [parse_parameter("x=-1..2"), parse_parameter("y=log:1e-3..1e-1")]
>>> table = search("package.module:function", {}, space, trials=20, stages=2)  # doctest: +SKIP
>>> table.best["parameters"]  # doctest: +SKIP
"""

from __future__ import annotations

from gpunet.extras import need

need("a sweep", "optuna", "sqlalchemy", "threadpoolctl", "msgspec")

from gpunet.sweep.search import join, search
from gpunet.sweep.show import Table
from gpunet.sweep.space import Parameter, parse_parameter
from gpunet.sweep.workers import UnusableError

__all__ = ["Parameter", "Table", "UnusableError", "join", "parse_parameter", "search"]
