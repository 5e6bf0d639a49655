"""Document 000, equations 7 to 9, held against the data themselves and against numpy.linalg.svd."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpunet.errors import InputError
from gpunet.spectral.svd_weights import KINDS, dependency_ratio, mean_square, singular_rows, svd_weights, trace

LABELS = np.repeat([0, 1, 2], [9, 14, 37])  # uneven on purpose


def second_moment(x):
    """XᵀX/N, in one product."""
    x = np.asarray(x, np.float64)
    return x.T @ x / len(x)


@pytest.fixture
def x(rng) -> np.ndarray:
    return rng.normal(size=(len(LABELS), 11)) * np.linspace(0.3, 2, 11) + 0.4


def per_class(x):
    return [x[c == LABELS] for c in range(3)]


def weights(x, kind, units=7, **kwargs):
    rows = singular_rows(x, units, LABELS if kind.endswith("each") else None)
    return svd_weights(rows, kind, second_moment(x), **({"variance": 0.09, "dependency": 0.05} | kwargs)), rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("units", "variance", "dependency"), [(7, 0.09, 0.05), (3, 0.09, 0.0), (8, 1.7, 2.5)])
def test_equations_8_and_9_on_the_data_themselves(x, kind, units, variance, dependency):
    w, _ = weights(x, kind, units, variance=variance, dependency=dependency)
    measured = np.mean([np.sum((w @ sample) ** 2) for sample in x])
    x_square = np.mean([sample @ sample for sample in x])
    assert w.shape == (units, 11)
    assert measured == pytest.approx(units * (1 + 11 * dependency) * variance * x_square, rel=1e-6)


def test_closed_form_for_whole_sets(x):
    """Mean ‖Wx‖² of W = dÛᵀ is d² Σσ²/N over the vectors taken: equation 8 gives d itself."""
    w, _ = weights(x, "orth-whole")
    sigma = np.linalg.svd(x, compute_uv=False)[:7]
    target = 7 * (1 + 11 * 0.05) * 0.09 * np.sum(x * x) / len(x)
    np.testing.assert_allclose(w @ w.T, target / (np.sum(sigma**2) / len(x)) * np.eye(7), rtol=1e-9, atol=1e-12)
    w, _ = weights(x, "scale-whole")  # ‖Σ̂⁻¹Uᵀx‖² is s₁/N on average
    np.testing.assert_allclose(w @ w.T, np.diag(target / (7 / len(x)) / sigma**2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("which", ["whole", "each"])
def test_scale_is_orth_divided_by_the_singular_values(x, which):
    orth, (_, values, _) = weights(x, f"orth-{which}")
    scale, _ = weights(x, f"scale-{which}")
    ratio = scale * values[:, None] / orth
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-9)


def test_whole_against_numpy(x):
    vectors, values, _ = singular_rows(x, 6)
    _, s, vt = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(values, s[:6], rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(vectors * vt[:6], axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(6), atol=1e-12)


@pytest.mark.parametrize(("units", "shares"), [(9, (3, 3, 3)), (7, (3, 2, 2)), (8, (3, 3, 2)), (2, (1, 1, 0))])
def test_each_class_gives_its_own_singular_vectors(x, units, shares):
    vectors, values, _ = singular_rows(x, units, LABELS)
    assert vectors.shape == (units, 11)
    ends = list(itertools.accumulate(shares, initial=0))
    for own, start, end in zip(per_class(x), ends, ends[1:], strict=False):
        _, s, vt = np.linalg.svd(own, full_matrices=False)
        np.testing.assert_allclose(values[start:end], s[: end - start], rtol=1e-10)
        np.testing.assert_allclose(np.abs(np.sum(vectors[start:end] * vt[: end - start], axis=1)), 1, rtol=1e-9)


def test_each_looks_at_its_own_samples_only(x):
    before, _, _ = singular_rows(x, 6, LABELS)
    x[LABELS == 2] *= -17.0
    x[LABELS == 2, 0] += 3
    after, _, _ = singular_rows(x, 6, LABELS)
    np.testing.assert_array_equal(before[:4], after[:4])
    assert not np.allclose(before[4:], after[4:])


def test_the_order_of_samples_does_not_matter(x, rng):
    order = rng.permutation(len(x))
    np.testing.assert_allclose(singular_rows(x, 7, LABELS)[0], singular_rows(x[order], 7, LABELS[order])[0], atol=1e-9)


def test_inputs_are_not_changed(x):
    kept, labels = x.copy(), LABELS.copy()
    rows = singular_rows(x, 6, LABELS)
    again = [part.copy() for part in rows[:2]]
    svd_weights(rows, "scale-each", second_moment(x), variance=0.09, dependency=0.05)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(LABELS, labels)
    for part, copy in zip(rows[:2], again, strict=True):
        np.testing.assert_array_equal(part, copy)


# -- equation 7 -----------------------------------------------------------------------------------------------------


def brute_ratio(w, x):
    z_square = sum(float((w @ sample) @ (w @ sample)) for sample in x) / len(x)
    energy = sum(v * v for v in w.ravel()) * sum(float(sample @ sample) for sample in x) / len(x)
    return (z_square - energy / w.shape[1]) / energy


def test_the_dependency_ratio_by_brute_force(x, rng):
    w = rng.normal(size=(5, 11))
    found = dependency_ratio(mean_square(w, second_moment(x)), w, float(np.mean(np.sum(x * x, axis=1))))
    assert found == pytest.approx(brute_ratio(w, x), rel=1e-10)


@pytest.mark.parametrize("factor", [1e-3, 0.5, 7.0, -40.0])
def test_the_dependency_ratio_does_not_see_the_scale_of_w(x, rng, factor):
    w, moment = rng.normal(size=(5, 11)), second_moment(x)
    one, other = (dependency_ratio(mean_square(v, moment), v, float(np.trace(moment))) for v in (w, factor * w))
    assert one == pytest.approx(other, rel=1e-10)


def test_the_ends_of_the_dependency_ratio(rng):
    """0 where the data look the same in every direction, 1 − 1/s₀ where they are one line and W lies along it."""
    everywhere = np.concatenate([np.eye(8), -np.eye(8)])
    w = rng.normal(size=(5, 8))
    assert dependency_ratio(mean_square(w, second_moment(everywhere)), w) == pytest.approx(0, abs=1e-14)
    line = np.full(8, 8**-0.5)
    along = np.outer([2.0, -3.0], line)
    assert dependency_ratio(mean_square(along, second_moment(np.outer([1, -1, 1], line))), along) == pytest.approx(
        7 / 8
    )


@pytest.mark.parametrize("kind", KINDS)
def test_svd_rows_depend_on_the_data_more_than_random_ones(x, rng, kind):
    moment = second_moment(x)
    x_square = float(np.trace(moment))
    w, _ = weights(x, kind, 3)
    random = [rng.normal(size=w.shape) for _ in range(20)]
    mean = np.mean([dependency_ratio(mean_square(v, moment), v, x_square) for v in random])
    assert dependency_ratio(mean_square(w, moment), w, x_square) > mean


# -- mistakes -------------------------------------------------------------------------------------------------------


def test_unknown_kind(x):
    with pytest.raises(InputError, match=r"'orth': .*orth-whole, orth-each, scale-whole, scale-each"):
        svd_weights(singular_rows(x, 3), "orth", second_moment(x), variance=1.0, dependency=0.1)


@pytest.mark.parametrize(
    ("variance", "dependency"),
    [(0, 0.1), (-1, 0.1), (1, -0.1), (np.nan, 0.1), (1, np.nan), (np.inf, 0.1), (1, np.inf)],
)
def test_variance_and_dependency_out_of_range(x, variance, dependency):
    with pytest.raises(InputError, match="variance > 0 and dependency ≥ 0"):
        weights(x, "orth-whole", variance=variance, dependency=dependency)


def test_more_units_than_the_data_can_give(x):
    with pytest.raises(InputError, match=r"60 samples of 11 features.* 12 are asked for"):
        singular_rows(x, 12)
    with pytest.raises(InputError, match=r"5 samples of 11 features.* 6 are asked for"):
        singular_rows(x[:5], 6)
    with pytest.raises(InputError, match=r"class 0 has 9 samples .* 10 are asked for"):
        singular_rows(x, 30, LABELS)
    assert singular_rows(x, 11)[0].shape == (11, 11)
    assert singular_rows(x, 27, LABELS)[0].shape == (27, 11)


@pytest.mark.parametrize("kind", ["scale-whole", "scale-each"])
def test_scale_needs_singular_values_that_are_not_zero(x, kind):
    flat = x.copy()
    flat[LABELS == 1] = flat[LABELS == 1][:1]  # class 1 is one sample, repeated
    if kind == "scale-whole":
        flat[:, -1] = flat[:, 0]
    units = 11 if kind == "scale-whole" else 6
    with pytest.raises(InputError, match=rf"{kind}: singular value \d+ of {units} is zero.*fewer units"):
        weights(flat, kind, units)
    assert np.isfinite(weights(flat, kind.replace("scale", "orth"), units)[0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_root_of_few_samples_stands_for_their_second_moment(kind, rng):
    x, labels = rng.normal(size=(9, 40)), np.arange(9) % 2
    rows, root = singular_rows(x, 4, labels if kind.endswith("each") else None), x / 3
    one, other = (svd_weights(rows, kind, of, variance=0.3, dependency=0.1) for of in (second_moment(x), root))
    np.testing.assert_allclose(one, other, rtol=1e-12)
    assert mean_square(one, root) == pytest.approx(mean_square(one, second_moment(x)), rel=1e-12)
    assert trace(root) == pytest.approx(trace(second_moment(x)), rel=1e-12)
    assert mean_square(one, root) == pytest.approx(np.mean([np.sum((one @ each) ** 2) for each in x]), rel=1e-12)
