"""Decompositions: the SVD engine, class-based PCA, streaming Gram matrices, rank rules."""

from gpunet.linalg.any_size import gram
from gpunet.linalg.certificate import Certificate
from gpunet.linalg.classes import ClassPCA, StreamingClassGram, class_pca, deduplicate
from gpunet.linalg.gram import StreamingGram
from gpunet.linalg.pca import PCA
from gpunet.linalg.rank import (
    BreakEven,
    DimensionFraction,
    Energy,
    FixedRank,
    GavishDonoho,
    RankRule,
    ScaledStableRank,
    StableRank,
)
from gpunet.linalg.svd import SVD, svd

__all__ = [
    "PCA",
    "SVD",
    "BreakEven",
    "Certificate",
    "ClassPCA",
    "DimensionFraction",
    "Energy",
    "FixedRank",
    "GavishDonoho",
    "RankRule",
    "ScaledStableRank",
    "StableRank",
    "StreamingClassGram",
    "StreamingGram",
    "class_pca",
    "deduplicate",
    "gram",
    "svd",
]
