"""scikit-learn's own checks of estimators, all of them."""

from __future__ import annotations

import subprocess
import sys

from sklearn.utils.estimator_checks import parametrize_with_checks

import gpunet as gn

ESTIMATORS = [gn.PCA(), gn.PCA(2, whiten=True), gn.ClassPCA(), gn.ClassPCA(1, center=True)]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_scikit_learn_is_imported_with_the_first_estimator():
    code = "import sys, gpunet as gn; assert 'sklearn' not in sys.modules; gn.PCA; assert 'sklearn' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
