"""gn.ClassPCA beside an SVD a class, and the labels that it takes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import gpunet as gn
from gpunet.errors import InputError


@pytest.fixture
def x(rng):
    return rng.normal(size=(60, 8)) + np.repeat(np.eye(3, 8) * 3, 20, axis=0)


Y = np.repeat(["b", "a", "ç d"], 20)


def by_numpy(x, y, k, center):
    """Projections on the k leading right singular vectors of each class, and the classes' means."""
    found = []
    for label in np.unique(y):
        own = x[y == label]
        mean = own.mean(axis=0) * center
        vt = np.linalg.svd(own - mean, full_matrices=False)[2][:k]
        found.append((x - mean) @ (vt * np.sign(vt[np.arange(k), np.abs(vt).argmax(axis=1)])[:, None]).T)
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("center", [False, True])
def test_projections_on_each_classs_singular_vectors(x, center):
    pca = gn.ClassPCA(3, center=center).fit(x, Y)
    assert pca.classes_.tolist() == ["a", "b", "ç d"]
    assert pca.counts_.tolist() == [20, 20, 20]
    assert pca.components_.shape == (3, 3, 8)
    np.testing.assert_allclose(pca.transform(x), by_numpy(x, Y, 3, center), atol=1e-12)
    np.testing.assert_array_equal(pca.fit_transform(x, Y), pca.transform(x))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_means_far_larger_than_the_signal(x, kind):
    x = (x + 1e6).astype(np.float32)
    pca = gn.ClassPCA(2, center=True).fit(kind(x), Y)
    exact = by_numpy(x.astype(np.float64), Y, 2, True)
    np.testing.assert_allclose(np.abs(pca.transform(kind(x))), np.abs(exact), atol=5e-5)


def test_a_share_gives_each_class_its_own_rank(x):
    x[:20, 1:] *= 0.01
    pca = gn.ClassPCA(0.9).fit(x, Y)
    assert pca.ranks_[1] == 1
    assert pca.transform(x).shape == (60, pca.ranks_.sum()) == (60, pca.n_components_)
    assert (pca.explained_variance_ratio_.sum(axis=1) >= 0.9).all()
    assert len(pca.get_feature_names_out()) == pca.n_components_


def test_all_components(x):
    assert gn.ClassPCA(None).fit(x, Y).components_.shape == (3, 8, 8)
    assert gn.ClassPCA(None).fit(x[::5], Y[::5]).components_.shape == (3, 4, 8)


CODES = np.repeat([1, 0, 2], 20)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (CODES, [0, 1, 2]), (CODES + 1, [1, 2, 3]), (CODES.astype(float), [0, 1, 2]), (Y.tolist(), ["a", "b", "ç d"]),
        (Y.astype(object), ["a", "b", "ç d"]), (np.eye(3)[CODES], [0, 1, 2]),
        (np.eye(3, dtype=int)[CODES].tolist(), [0, 1, 2]), (np.eye(3, dtype=bool)[CODES], [0, 1, 2]),
    ],
    ids=["numbers", "from 1", "floats", "list", "objects", "one-hot", "one-hot list", "one-hot bools"],
)  # fmt: skip
def test_labels(x, y, classes):
    pca = gn.ClassPCA(2).fit(x, y)
    assert pca.classes_.tolist() == classes
    np.testing.assert_array_equal(pca.components_, gn.ClassPCA(2).fit(x, CODES).components_)


def test_two_classes_and_columns(x):
    assert gn.ClassPCA(2).fit(x, CODES == 1).classes_.tolist() == [False, True]
    assert gn.ClassPCA(2).fit(x, np.where(CODES == 1, 1, -1)).classes_.tolist() == [-1, 1]
    with pytest.warns(Warning, match="A column-vector y was passed"):
        assert gn.ClassPCA(2).fit(x, Y[:, None]).classes_.tolist() == ["a", "b", "ç d"]


def test_frames_and_tensors(x):
    pandas = pytest.importorskip("pandas")
    torch = pytest.importorskip("torch")
    like = gn.ClassPCA(2).fit(x, Y)
    one_hot = pandas.get_dummies(pandas.Series(Y))
    assert gn.ClassPCA(2).fit(pandas.DataFrame(x).rename(columns=str), one_hot).classes_.tolist() == ["a", "b", "ç d"]
    assert gn.ClassPCA(2).fit(x, pandas.Series(Y, dtype="category")).classes_.tolist() == ["a", "b", "ç d"]
    found = gn.ClassPCA(2).fit(torch.tensor(x, requires_grad=True), torch.tensor(CODES))
    np.testing.assert_array_equal(found.components_, like.components_)


def test_sparse(x, monkeypatch):
    x = np.where(np.abs(x) > 0.5, x, 0)
    monkeypatch.setattr("gpunet.estimators.base.CHUNK_BYTES", 8 * 8 * 7)
    for center in (False, True):
        dense = gn.ClassPCA(3, center=center).fit(x, Y)
        pca = gn.ClassPCA(3, center=center).fit(sparse.csr_array(x), Y)
        np.testing.assert_allclose(pca.transform(sparse.csr_array(x)), dense.transform(x), atol=1e-12)
    few = slice(None, None, 4)
    wide = gn.ClassPCA(3).fit(sparse.csr_array(x[few]), Y[few])
    np.testing.assert_array_equal(wide.components_, gn.ClassPCA(3).fit(x[few], Y[few]).components_)


def test_mistakes(x):
    several = np.eye(3)[CODES]
    several[7, :2] = 1
    with pytest.raises(InputError, match="y has 2 labels in row 7: expected one label a sample"):
        gn.ClassPCA(2).fit(x, several)
    with pytest.raises(ValueError, match="Unknown label type"):
        gn.ClassPCA(2).fit(x, x[:, 0])
    with pytest.raises(InputError, match="from 1 to 2, the smaller of the features and the samples of class 'ç d'"):
        gn.ClassPCA(3).fit(x[:42], Y[:42])
    with pytest.raises(InputError, match="center is 1: expected True or False"):
        gn.ClassPCA(3, center=1).fit(x, Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        gn.ClassPCA(3).fit(x, Y[:-1])


def test_in_a_search_and_pickled(x):
    pipeline = make_pipeline(gn.ClassPCA(), LogisticRegression())
    search = GridSearchCV(pipeline, {"classpca__n_components": [1, 2, 0.5]}, cv=3).fit(x, Y)
    assert search.best_score_ > 0.6
    pca = search.best_estimator_[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pca)).transform(x), pca.transform(x))  # noqa: S301
    assert pca.certificate_.sigma.shape[0] == 3
