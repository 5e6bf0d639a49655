"""gn.PCA beside scikit-learn's, in float64, and what it takes and keeps."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpunet as gn
from gpunet.errors import InputError
from gpunet.testing import StrictBackend

NAMES = ("explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_", "noise_variance_")


@pytest.fixture
def x(rng):
    return rng.normal(size=(80, 12)) @ rng.normal(size=(12, 12)) + 5.0


def signed(pca, like):
    """Signs that make the components those of `like`."""
    return np.sign(np.einsum("ij,ij->i", pca.components_, like.components_))


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("n_components", [None, 1, 5, 12, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(80, 12), (9, 12)], ids=str)
def test_as_scikit_learns(x, shape, n_components, whiten):
    x = x[: shape[0]]
    if n_components == 12 and len(x) < 12:
        n_components = 9
    ours = gn.PCA(n_components, whiten=whiten).fit(x)
    theirs = PCA(n_components, whiten=whiten, svd_solver="full").fit(x)
    assert ours.n_components_ == theirs.n_components_
    assert ours.n_samples_ == theirs.n_samples_
    real = ours.explained_variance_ > 1e-20  # the last one of few centred samples is any direction
    sign = signed(ours, theirs)[real]
    for name in NAMES:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-10, atol=1e-13, err_msg=name)
    np.testing.assert_allclose(ours.components_[real] * sign[:, None], theirs.components_[real], atol=1e-10)
    np.testing.assert_allclose(ours.transform(x)[:, real] * sign, theirs.transform(x)[:, real], atol=1e-10)
    if real.all():
        scores = theirs.transform(x)
        np.testing.assert_allclose(ours.inverse_transform(scores * sign), theirs.inverse_transform(scores), atol=1e-10)


def test_batches_are_one_piece(x):
    whole, batches = gn.PCA(4).fit(x), gn.PCA(4)
    for part in np.array_split(x, 7):
        assert batches.partial_fit(part) is batches
    assert batches.n_samples_ == 80
    np.testing.assert_allclose(batches.components_, whole.components_, atol=1e-12)
    np.testing.assert_allclose(batches.transform(x), whole.transform(x), atol=1e-11)
    for name in NAMES:
        np.testing.assert_allclose(getattr(batches, name), getattr(whole, name), rtol=1e-12, err_msg=name)


def test_components_are_those_of_all_batches_so_far(x):
    pca = gn.PCA(0.9).partial_fit(x[:40])
    before = pca.components_
    np.testing.assert_allclose(before, gn.PCA(0.9).fit(x[:40]).components_, atol=1e-12)
    pca.partial_fit(x[40:])
    assert not np.array_equal(pca.components_, before)
    np.testing.assert_allclose(pca.components_, gn.PCA(0.9).fit(x).components_, atol=1e-12)


def test_bytes_are_summed_exactly(rng):
    x = rng.integers(0, 256, (100, 6), dtype=np.uint8)
    first, second = gn.PCA().partial_fit(x[:30]).partial_fit(x[30:]), gn.PCA().partial_fit(x[60:]).partial_fit(x[:60])
    np.testing.assert_array_equal(first.components_, second.components_)
    assert gn.PCA().fit(x).components_.dtype == first.components_.dtype == np.float32


def test_one_sample_is_not_enough_and_is_kept(x):
    pca = gn.PCA(2).partial_fit(x[:1])
    with pytest.raises(InputError, match="seen 1 sample: expected at least 2"):
        pca.transform(x)
    np.testing.assert_allclose(pca.partial_fit(x[1:]).components_, gn.PCA(2).fit(x).components_, atol=1e-12)


def test_what_too_few_batches_do_not_have(x):
    for count in (1, 3):
        pca = gn.PCA(5).partial_fit(x[:count])
        assert not any(hasattr(pca, name) for name in (*NAMES, "components_", "certificate_"))
        assert "PCA" in pca._repr_html_()
        with pytest.raises(InputError, match=rf"seen {count} samples?: expected at least 5; call partial_fit again"):
            pca.transform(x)
        with pytest.raises(AttributeError, match="there is no mean_: PCA has seen"):
            _ = pca.mean_
        np.testing.assert_allclose(pca.partial_fit(x[count:]).transform(x), gn.PCA(5).fit(x).transform(x), atol=1e-11)
    assert gn.PCA().partial_fit(x[:3]).components_.shape == (3, 12)


@pytest.mark.parametrize("unit", [1e-30, 1e-8, 1.0, 1e15])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whitened_in_any_unit(x, unit, dtype):
    """A component that varies 1e-5 as much as the first one has variance 1, too; and back they come."""
    x = ((x - x.mean(axis=0)) * unit).astype(dtype)
    x[:, 3] *= 1e-3
    pca = gn.PCA(whiten=True).fit(x)
    scores = pca.transform(x)
    assert scores.dtype == dtype
    np.testing.assert_allclose(scores.std(axis=0, ddof=1), 1, rtol=0.02)
    np.testing.assert_allclose(
        pca.inverse_transform(scores) / unit, x / unit, atol=2e-4 if dtype == "float32" else 1e-10
    )


def test_scores_beyond_the_dtype_are_one_line(rng):
    x = np.float32(3.4e38) * rng.choice([-1, 1], (40, 2)).astype(np.float32)
    for pca in (gn.PCA(2), gn.ClassPCA(2), gn.ClassPCA(2, center=True)):
        with pytest.raises(InputError, match=r"the scores of row \d+ of X are beyond float32: give X as float64"):
            pca.fit(x, np.arange(40) % 2).transform(x)
        assert np.isfinite(pca.fit(x.astype(np.float64), np.arange(40) % 2).transform(x)).all()
    with pytest.raises(InputError, match="the samples of row 0 of X are beyond float32"):
        gn.PCA(2).fit(x).inverse_transform(np.full((1, 2), 3.4e38, np.float32))


def test_fit_begins_anew_and_partial_fit_after_it_says_so(x):
    pca = gn.PCA(2).partial_fit(x).fit(x[:40])
    assert pca.n_samples_ == 40
    with pytest.warns(UserWarning, match="partial_fit begins anew"):
        pca.partial_fit(x[40:70])
    assert pca.n_samples_ == 30
    assert pca.partial_fit(x[70:]).n_samples_ == 40


def test_a_refused_batch_changes_nothing(x):
    pca = gn.PCA(2).partial_fit(x)
    for bad in (x[:, :5], np.full((3, 12), np.nan), x.astype(np.uint8)):
        with pytest.raises(ValueError, match=r"features|NaN|uint8"):
            pca.partial_fit(bad)
    assert pca.n_samples_ == 80
    np.testing.assert_allclose(pca.components_, gn.PCA(2).fit(x).components_, atol=1e-12)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_sparse_is_dense_a_piece_at_a_time(x, kind, monkeypatch):
    x = np.where(np.abs(x) > 5, x, 0)
    monkeypatch.setattr("gpunet.estimators.base.CHUNK_BYTES", 8 * 12 * 7)  # 7 rows
    dense, pca = gn.PCA(3).fit(x), gn.PCA(3).fit(kind(x))
    np.testing.assert_allclose(pca.components_, dense.components_, atol=1e-12)
    np.testing.assert_allclose(pca.transform(kind(x)), dense.transform(x), atol=1e-12)
    np.testing.assert_allclose(gn.PCA(3).partial_fit(kind(x)).components_, dense.components_, atol=1e-12)


def test_sparse_and_wide(rng, monkeypatch):
    x = sparse.csr_array(np.where(rng.random((20, 300)) < 0.1, rng.normal(size=(20, 300)), 0))
    np.testing.assert_array_equal(gn.PCA(3).fit(x).components_, gn.PCA(3).fit(x.toarray()).components_)
    monkeypatch.setattr("gpunet.estimators.base.physical_memory", lambda: 10_000)
    with pytest.raises(
        InputError, match=r"a dense X of shape \(20, 300\) takes 48,000 bytes, and this machine has 10,000"
    ):
        gn.PCA(3).fit(x)
    with pytest.raises(InputError, match="a sum over 300 features takes 1,440,000 bytes"):
        gn.PCA(3).partial_fit(x)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint8", "bool"])
def test_dtypes(x, dtype):
    x = (x > 5 if dtype == "bool" else x.clip(0, 100)).astype(dtype)
    small = np.float32 if dtype not in ("float64", "int64") else np.float64
    pca = gn.PCA(3).fit(x)
    assert pca.components_.dtype == pca.transform(x).dtype == pca.inverse_transform(pca.transform(x)).dtype == small
    like = gn.PCA(3).fit(x.astype(np.float64))
    np.testing.assert_allclose(pca.transform(x), like.transform(x.astype(np.float64)), atol=2e-4 * np.abs(x).max())


def test_a_mean_far_larger_than_the_signal(rng):
    x = (rng.normal(size=(500, 4)) * [4, 3, 2, 1] + 1e4).astype(np.float32)
    pca, exact = gn.PCA(3).fit(x), PCA(3).fit(x.astype(np.float64))
    sign = signed(pca, exact)
    np.testing.assert_allclose(pca.transform(x) * sign, exact.transform(x.astype(np.float64)), atol=2e-5)


def test_tensors(x):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(np.repeat(x, 2, axis=1), requires_grad=True)[:, ::2]
    assert not tensor.is_contiguous()
    np.testing.assert_array_equal(gn.PCA(2).fit_transform(tensor), gn.PCA(2).fit_transform(x))
    assert gn.PCA(2).fit(torch.tensor(x).bfloat16()).components_.dtype == np.float32


def test_what_lies_on_a_gpu(x):
    class OnDevice:
        """As CuPy's arrays are to us."""

        def __init__(self, array):
            self.array, self.device = array, type("Device", (), {"id": 0})()

        def get(self):
            return self.array

        def __array__(self, *args, **kwargs):
            raise TypeError("Implicit conversion to a NumPy array is not allowed")

    np.testing.assert_array_equal(gn.PCA(2).fit_transform(OnDevice(x)), gn.PCA(2).fit_transform(x))


def test_frames(x):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(x, columns=[f"f{i}" for i in range(12)])
    pca = gn.PCA(2).fit(frame)
    assert pca.feature_names_in_.tolist() == list(frame.columns)
    assert pca.set_output(transform="pandas").transform(frame).columns.tolist() == ["pca0", "pca1"]
    with pytest.raises(ValueError, match="feature names should match"):
        pca.transform(frame[frame.columns[::-1]])


@pytest.mark.parametrize("bad", [0, -1, 13, 1.0, 1.5, 0.0, float("nan"), "mle", True, [2]])
def test_settings_out_of_range(x, bad):
    with pytest.raises(InputError, match=r"n_components is .*: expected a whole number from 1 to 12"):
        gn.PCA(bad).fit(x)


def test_mistakes_are_one_line(x):
    with pytest.raises(InputError, match="whiten is 'yes': expected True or False"):
        gn.PCA(2, whiten="yes").fit(x).transform(x)
    with pytest.raises(InputError, match="masked array"):
        gn.PCA(2).fit(np.ma.array(x, mask=x > 9))
    with pytest.raises(InputError, match=r"shape \(80, 12\): expected scores \(samples, 2\)"):
        gn.PCA(2).fit(x).inverse_transform(x)
    with pytest.raises(AttributeError, match="'PCA' object has no attribute 'components_'"):
        _ = gn.PCA(2).components_


def test_constant_samples_and_features():
    pca = gn.PCA(2, whiten=True).fit(np.full((10, 4), 3.0))
    assert pca.explained_variance_.tolist() == [0, 0]
    assert np.isfinite(pca.transform(np.full((10, 4), 3.0))).all()
    assert pca.noise_variance_ == 0
    x = np.eye(6)[:, [0, 1, 1, 5]] * 1.0
    assert gn.PCA().fit(x).explained_variance_ratio_.sum() == pytest.approx(1)
    batches = gn.PCA().partial_fit(x[:3]).partial_fit(x[3:])
    np.testing.assert_allclose(batches.explained_variance_, gn.PCA().fit(x).explained_variance_, atol=1e-15)


def test_copies_and_pickles(x):
    for pca in (gn.PCA(3, whiten=True).fit(x), gn.PCA(3, whiten=True).partial_fit(x)):
        for other in (copy.deepcopy(pca), pickle.loads(pickle.dumps(pca))):  # noqa: S301  # our own
            np.testing.assert_array_equal(other.transform(x), pca.transform(x))
        assert not hasattr(clone(pca), "components_")


def test_in_a_pipeline_and_certified(x):
    pipeline = make_pipeline(StandardScaler(), gn.PCA(3))
    np.testing.assert_allclose(pipeline.fit_transform(x).std(axis=0, ddof=1) ** 2, pipeline[-1].explained_variance_)
    sigma = pipeline[-1].certificate_.sigma
    s = np.linalg.svd(StandardScaler().fit_transform(x), compute_uv=False)[:3]
    assert (sigma[:, 0] <= s).all()
    assert (s <= sigma[:, 1]).all()


def test_where_it_computes(x):
    assert gn.PCA(2, device="cpu").fit(x).transform(x).shape == (80, 2)
    np.testing.assert_array_equal(gn.PCA(2, device=StrictBackend()).fit_transform(x), gn.PCA(2).fit_transform(x))
    with pytest.raises(gn.errors.DeviceError, match="tpu"):
        gn.PCA(2, device="tpu").fit(x)


def test_a_refused_fit_leaves_what_was_fitted(x):
    pca = gn.PCA(3).fit(x)
    before = vars(pca).copy()
    with pytest.raises(InputError, match="n_components is 13"):
        pca.set_params(n_components=13).fit(x[:, :7])
    with pytest.warns(UserWarning, match="begins anew"), pytest.raises(InputError, match="n_components is 13"):
        pca.partial_fit(x[:, :7])
    pca.set_params(n_components=3)
    assert vars(pca).keys() == before.keys()
    assert all(vars(pca)[name] is before[name] for name in before if name != "n_components")
    assert pca.transform(x).shape == (80, 3)
