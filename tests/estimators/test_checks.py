"""scikit-learn's own checks of estimators, all of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sklearn.utils.estimator_checks import (
    check_sample_weight_equivalence_on_dense_data,
    check_sample_weight_equivalence_on_sparse_data,
    parametrize_with_checks,
)

import gpunet as gn

ESTIMATORS = [
    gn.PCA(),
    gn.PCA(2, whiten=True),
    gn.ClassPCA(),
    gn.ClassPCA(1, center=True),
    gn.Classifier(),
    gn.Regressor(),
]
EQUIVALENCE = (
    check_sample_weight_equivalence_on_dense_data,
    check_sample_weight_equivalence_on_sparse_data,
)


def expected_to_fail(estimator):
    """Batches are drawn from the samples as they are: repeated, they fall into others. See the test below."""
    networks = isinstance(estimator, gn.Classifier | gn.Regressor)
    return dict.fromkeys([each.__name__ for each in EQUIVALENCE] if networks else [], expected_to_fail.__doc__)


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_to_fail)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("check", EQUIVALENCE, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", [gn.Classifier, gn.Regressor])
def test_weights_are_as_good_as_repetition_where_all_data_is_one_batch(kind, check):
    """In float64, since it is a matter of rounding; without an early end, since losses count every sample once."""
    check(kind.__name__, kind((16,), batch_size=10_000, learning_rate=0.02, patience=None, dtype="float64"))


@pytest.mark.slow
def test_scikit_learn_is_imported_with_the_first_estimator():
    code = "import sys, gpunet as gn; assert 'sklearn' not in sys.modules; gn.PCA; assert 'sklearn' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
