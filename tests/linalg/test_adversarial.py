"""Every route on every hard matrix: it meets its tolerance, or says that it does not. Nothing is silently wrong."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.errors import ConvergenceError
from gpunet.linalg import svd
from gpunet.linalg.svd import METHODS
from tests.linalg.matrices import SHAPES, adversarial, check_triples, truth, with_spectrum

NAMES = list(adversarial(9, 9))
CANNOT_FAIL = ("auto", "full", "qr")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_right_or_refused(name, method, dtype):
    for m, n in SHAPES:
        a = adversarial(m, n)[name].astype(dtype)
        for k in (1, 2, 7, min(m, n)):
            try:
                found = svd(a, k, method=method)
            except ConvergenceError as error:
                refusal = str(error)
            else:
                assert found.u.dtype == found.s.dtype == found.vt.dtype == dtype
                assert method == "auto" or found.route.startswith(method)
                check_triples(a, found, k)
                continue
            assert method not in CANNOT_FAIL, f"{m}×{n}, k={k}: {refusal}"
            assert f"{m}×{n}" in refusal
            assert method in refusal


@pytest.mark.parametrize("compute", ["left", "right"])
@pytest.mark.parametrize("method", ["auto", "gram", "qr"])
@pytest.mark.parametrize("name", NAMES)
def test_one_side_has_the_same_singular_values(name, method, compute):
    for m, n in SHAPES:
        a = adversarial(m, n)[name]
        try:
            found = svd(a, 5, method=method, compute=compute)
        except ConvergenceError:
            assert method not in CANNOT_FAIL
            continue
        assert (found.u is None) == (compute == "right")
        assert (found.vt is None) == (compute == "left")
        np.testing.assert_allclose(found.s, truth(a)[:5], rtol=0, atol=2 * found.tol * truth(a)[0])


@pytest.mark.parametrize("method", ["auto", "full", "gram", "qr"])
@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (1, 1), (2, 1000), (1000, 2)])
def test_thin(shape, method, rng):
    a = rng.standard_normal(shape)
    check_triples(a, svd(a, method=method), min(shape))


@pytest.mark.parametrize("method", METHODS)
def test_layouts_give_the_same_and_inputs_stay(method, rng):
    base = with_spectrum(rng, 240, 90, 0.7 ** np.arange(90))
    a = np.ascontiguousarray(base[::2, ::-3])
    expected = svd(a, 3, method=method)
    for same in (np.asfortranarray(a), base[::2, ::-3], np.ascontiguousarray(a.T).T):
        same.flags.writeable = False
        found = svd(same, 3, method=method)
        check_triples(a, found, 3)
        np.testing.assert_allclose(found.u, expected.u, atol=1e-11)
    np.testing.assert_array_equal(a, base[::2, ::-3])


@pytest.mark.parametrize("k", [30, 60])
@pytest.mark.parametrize("compute", ["both", "right", "left"])
def test_graded_spectrum_gives_way_from_the_plain_gram(k, compute):
    """Squaring loses what lies below √ε σ₁: eigenvectors of the Gram matrix alone will not do, those of one level
    after the other do."""
    a = adversarial(300, 60)["graded"]
    found = svd(a, k, compute=compute)
    assert found.route in ("gram-levels", "qr", "full")
    np.testing.assert_allclose(found.s, truth(a)[:k], rtol=0, atol=found.tol * found.s[0])
    forced = svd(a, k, method="gram")
    assert forced.route == "gram-levels"
    assert forced.rejected[0].startswith("gram: ")
    check_triples(a, forced, k)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_forced_route_that_cannot_says_how_far_it_came(dtype):
    a = adversarial(120, 30)["graded"].astype(dtype)
    with pytest.raises(ConvergenceError, match=r"the matrix 120×30 \(k=20.*did not reach tol=.*gram.*method=auto"):
        svd(a, 20, method="gram", tol=1e-16)
