"""Certificates hold, refuse what they cannot show, and cost next to nothing to carry along."""

import copy
import gc
import sys
import tracemalloc

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.blas import definite_below
from gpunet.linalg import StreamingClassGram, StreamingGram, certificate
from gpunet.linalg.certificate import Certificate, by_cholesky, norms
from gpunet.linalg.matrix import TallMatrix
from gpunet.linalg.svd import leading_triples
from gpunet.testing import StrictBackend
from tests.linalg.far import Far, far  # noqa: F401 (a fixture)


def spectrum(rng, m, n, s):
    u, v = (np.linalg.qr(rng.standard_normal((rows, len(s))))[0] for rows in (m, n))
    return (u * s) @ v.T, u, v


def sine(found, true):
    q = np.linalg.qr(np.asarray(found, np.float64))[0]
    return np.linalg.norm(q - true @ (true.T @ q), 2)


def holds(shown: Certificate, s, k, slack=4e-15):
    assert (shown.sigma[:, 0] <= s[:k] + slack * s[0]).all()
    assert (s[:k] <= shown.sigma[:, 1] + slack * s[0]).all()
    rest = s[k] if k < len(s) else 0.0
    assert rest <= shown.beyond + slack * s[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(16, 16), (40, 30), (30, 40), (600, 200), (3000, 150)])
@pytest.mark.parametrize("compute", ["both", "right"])
def test_holds_and_is_complete_where_there_is_a_gap(shape, dtype, compute, rng):
    r = min(shape)
    s = np.concatenate([np.linspace(9, 5, 6), np.linspace(3, 0.5, r - 6)])
    a, u, v = spectrum(rng, *shape, s)
    found = gn.svd(a.astype(dtype), 6, compute=compute)
    shown = found.certificate
    eps = np.finfo(dtype).eps
    holds(shown, s, 6, slack=4 * eps)
    assert shown.complete is True
    assert shown.beyond == pytest.approx(s[6], rel=0.35)
    assert sine(found.vt.T, v[:, :6]) <= shown.sine + 20 * eps
    if compute == "both":
        assert sine(found.u, u[:, :6]) <= shown.sine + 20 * eps
    assert shown.sine < (1e-2 if dtype == "float32" else 1e-10)


def test_all_triples_leave_nothing_beyond(rng):
    a, _, _ = spectrum(rng, 50, 20, np.linspace(2, 1, 20))
    shown = gn.svd(a).certificate
    holds(shown, np.linspace(2, 1, 20), 20)
    assert shown.complete is True
    assert shown.beyond == 0
    assert shown.sine < 1e-12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(30, 20), (700, 400)])
def test_equal_values_have_no_leading_subspace(shape, dtype, rng):
    a, _, _ = spectrum(rng, *shape, np.repeat([2.0, 1.0], [3, min(shape) - 3]))
    shown = gn.svd(a.astype(dtype), 5).certificate
    assert shown.complete is False
    assert shown.sine == np.inf
    holds(shown, np.repeat([2.0, 1.0], [3, min(shape) - 3]), 5, slack=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(30, 20), (600, 500)])
def test_a_triple_that_was_missed_is_told(shape, dtype, rng):
    """Triples 1, 2 and 4: each is one of the matrix's, with no residual to see, and the third is not there."""
    s = np.linspace(9, 1, min(shape))
    a, u, v = spectrum(rng, *shape, s)
    a, picked = a.astype(dtype), [0, 1, 3]
    triples = (u[:, picked].astype(dtype), s[picked].astype(dtype), v[:, picked].T.astype(dtype))
    shown = certificate.reshaped(certificate.certify(np, a[None], *(each[None] for each in triples), a.dtype))
    assert shown.complete is False
    assert shown.sine == np.inf
    assert shown.beyond >= s[2] * (1 - 1e-6)
    assert shown.sigma[2, 1] >= s[2] * (1 - 1e-6)


def test_a_stack_is_certified_matrix_by_matrix(rng):
    a = rng.standard_normal((2, 3, 8, 5))
    shown = gn.svd(a, 2).certificate
    assert shown.sigma.shape == (2, 3, 2, 2)
    assert shown.sine.shape == shown.complete.shape == shown.beyond.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            holds(gn.svd(a[i, j], 2).certificate, np.linalg.svd(a[i, j])[1], 2)
            one = gn.svd(a[i, j], 2).certificate
            np.testing.assert_allclose(shown.sigma[i, j], one.sigma, rtol=1e-12)
            assert shown.complete[i, j] == one.complete


def test_large_stacks_are_certified_at_once(rng):
    a = rng.standard_normal((70, 80, 60))
    found = gn.svd(a, 3)
    assert isinstance(found._proof, Certificate)
    for i in range(0, 70, 23):
        holds(Certificate(found.certificate.sigma[i], 0, True, found.certificate.beyond[i]), np.linalg.svd(a[i])[1], 3)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_on_a_gpu_by_the_same_code(dtype, rng):
    a = rng.standard_normal((3, 40, 25)).astype(dtype)
    there, here = gn.svd(Far(a), 4).certificate, gn.svd(a, 4).certificate
    assert there.complete.all()
    np.testing.assert_allclose(there.sigma, here.sigma, rtol=1e-9)
    for c in range(3):
        holds(Certificate(there.sigma[c], 0, True, there.beyond[c]), np.linalg.svd(a[c].astype(np.float64))[1], 4)


@pytest.mark.usefixtures("far")
def test_classes_on_a_gpu(rng):
    x, y = rng.standard_normal((90, 8)) * np.linspace(4, 1, 8), np.repeat([0, 1, 2], [60, 25, 5])
    there, here = (gn.class_pca(way(x), y, 2).certificate for way in (Far, np.asarray))
    np.testing.assert_allclose(there.sigma, here.sigma, rtol=1e-9)
    assert (there.complete == here.complete).all()


DOORS = {
    "small": lambda x, y: gn.svd(x[:30, :20], 3),
    "large": lambda x, y: gn.svd(x, 3),
    "all": lambda x, y: gn.svd(x),
    "wide": lambda x, y: gn.svd(x.T, 3),
    "one side": lambda x, y: gn.svd(x, 3, compute="right"),
    "iterated": lambda x, y: gn.svd(x, 3, method="randomized"),
    "stack": lambda x, y: gn.svd(np.stack([x, x[::-1]]), 3),
    "classes": lambda x, y: gn.class_pca(x, y, 3),
    "centred": lambda x, y: gn.class_pca(x, y, 3, center=True),
    "few": lambda x, y: gn.class_pca(x[:60], y[:60], 3),
}


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("door", DOORS)
def test_it_is_of_what_was_decomposed_not_of_what_became_of_it(door, dtype, rng):
    x = (rng.standard_normal((600, 500)) * np.geomspace(30, 1, 500) + 90).clip(0, 255).astype(dtype)
    y = np.arange(600) % 2
    found, same = DOORS[door](x, y), DOORS[door](x, y)
    before = same.certificate
    assert same.certificate is before
    x[...] = 0
    for name, each in vars(found).items():
        if isinstance(each, np.ndarray) and name != "_proof":
            each[...] = 7
    for name in ("sigma", "sine", "complete", "beyond"):
        np.testing.assert_array_equal(getattr(found.certificate, name), getattr(before, name))


@pytest.mark.parametrize("center", [False, True])
def test_it_is_of_the_moments_that_were_decomposed(center, rng):
    x, y = rng.standard_normal((300, 40)) * np.geomspace(30, 1, 40), np.arange(300) % 2
    for sums in (StreamingGram(center=center).update(x), StreamingClassGram(center=center).update(x, y)):
        found, same = sums.components(3), sums.components(3)
        before = same.certificate
        sums.update(*((x, y) if isinstance(sums, StreamingClassGram) else (x,)))
        found.components[...] = 7
        np.testing.assert_array_equal(found.certificate.sigma, before.sigma)
        np.testing.assert_array_equal(found.certificate.sine, before.sine)


def test_what_keeps_too_much_is_certified_at_once(rng, monkeypatch):
    x, kept, rooms = rng.standard_normal((600, 500)), 500 * 500 * 8, []
    assert isinstance(leading_triples(TallMatrix(x), 3, name="x", room=kept - 1).proof, Certificate)
    assert not isinstance(leading_triples(TallMatrix(x), 3, name="x", room=kept + 3 * 500 * 8).proof, Certificate)

    def noted(*args, room, **options):
        rooms.append(room)
        return leading_triples(*args, room=room, **options)

    monkeypatch.setattr(sys.modules["gpunet.linalg.classes"], "leading_triples", noted)
    gn.class_pca(x, np.arange(600) % 40, 3)
    assert rooms == [certificate.KEPT // 40] * 40


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1, 1e-9], ids=["gram", "root"])
@pytest.mark.parametrize("door", ["classes", "streaming", "gram", "variance"])
def test_results_keep_little_for_their_certificates(door, spread, rng, monkeypatch):
    """Of all classes together: 40 of 200 features would keep 13 MB of Gram matrices."""
    doors = {
        "classes": lambda: gn.class_pca(x, y, 3),
        "streaming": lambda: StreamingClassGram().update(x, y).components(3),
        "gram": lambda: gn.gram(x, y).components(3),
        "variance": lambda: StreamingGram().update(x).components(variance=0.1),
    }
    room = 4 << 20
    for name in ("classes", "gram"):
        monkeypatch.setattr(sys.modules[f"gpunet.linalg.{name}"], "KEPT", room)
    x, y = rng.standard_normal((4000, 200)) * np.geomspace(1, spread, 200), np.arange(4000) % 40
    doors[door]()  # what is made once
    tracemalloc.start()
    found = doors[door]()
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    own = sum(each.nbytes for each in vars(found).values() if isinstance(each, np.ndarray))
    assert kept - own < room + (1 << 20)


def test_it_goes_along_when_a_result_is_sent(rng):
    found = gn.svd(rng.standard_normal((30, 20)), 3)
    sent = copy.deepcopy(found)  # as pickle asks for its state
    np.testing.assert_array_equal(sent.certificate.sigma, found.certificate.sigma)


def test_certify_shows_what_the_route_did_not_need(rng):
    s = 1 / np.arange(1, 901)
    a = spectrum(rng, 1000, 900, s)[0].astype(np.float32)
    plain, sure = gn.svd(a, 8), gn.svd(a, 8, certify=True)
    assert (plain.route, sure.route) == ("randomized", "gram64")  # the Gram matrix is there: it is iterated on
    assert plain.certificate.complete is False
    assert sure.certificate.complete is True
    assert sure.certificate.sine < 1e-5
    holds(plain.certificate, s, 8, 1e-6)
    holds(sure.certificate, s, 8, 1e-6)
    with pytest.raises(gn.errors.InputError, match="certify is 1"):
        gn.svd(a, 8, certify=1)


@pytest.mark.parametrize("n", [1023, 1024, 1300])
def test_a_factorisation_in_place_leaves_its_matrix_as_it_was(rng, n):
    c = rng.standard_normal((n, n))
    c = (c + c.T) / 2
    before, top = c.copy(), float(np.linalg.eigvalsh(c)[-1])
    assert definite_below(c, top * (1 + 1e-9))
    assert np.array_equal(c, before)
    assert not definite_below(c, top * (1 - 1e-9))
    assert np.array_equal(c, before)


def test_no_triples_and_nothing():
    assert gn.svd(np.ones((3, 2)), 0).certificate.sigma.shape == (0, 2)
    shown = gn.svd(np.zeros((30, 20)), 3).certificate
    assert shown.sigma.tolist() == [[0, 0]] * 3
    assert (shown.complete, shown.sine) == (False, np.inf)


@pytest.mark.parametrize("power", [-300, -60, 60, 300])
def test_of_any_size(power, rng):
    a = rng.standard_normal((60, 30))
    one, other = gn.svd(a, 4).certificate, gn.svd(np.ldexp(a, power), 4).certificate
    np.testing.assert_allclose(np.ldexp(other.sigma, -power), one.sigma, rtol=1e-12)
    assert other.complete is True


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_pca_is_certified_at_every_door(center, dtype, rng):
    x = (rng.standard_normal((300, 12)) * np.linspace(20, 5, 12) + 100).astype(dtype)
    y = np.arange(300) % 2
    gram = StreamingGram(center=center).update(x[:100]).update(x[100:])
    every = gn.class_pca(x, y, 3, center=center)

    def check(shown, samples, components):
        samples = samples.astype(np.float64)
        s, v = np.linalg.svd(samples - samples.mean(axis=0) * center, full_matrices=False)[1:]
        holds(shown, s, 3, 1e-6 if dtype == "float32" else 1e-13)
        assert shown.complete
        assert sine(components.T, v[:3].T) <= shown.sine + 1e-12
        assert shown.sine < 1e-3

    check(gram.components(3).certificate, x, gram.components(3).components)
    for c in range(2):
        shown = every.certificate
        one = Certificate(shown.sigma[c], shown.sine[c], bool(shown.complete[c]), shown.beyond[c])
        check(one, x[y == c], every.components[c])


def test_a_fitted_layer_has_its_classes_certificates(rng):
    x = rng.standard_normal((60, 8)).astype(np.float32) + 3
    fit = gn.fit_class_pca(gn.Dense(4), x, np.arange(60) % 2, variance=0.9)
    assert fit.certificate is fit.pca.certificate
    assert fit.certificate.complete.all()


@pytest.mark.parametrize("n", [5, 64, 65, 150])
def test_norms_are_bounds_and_near(n, rng):
    """Of whatever is symmetric, and positive but for rounding."""
    for s in (np.linspace(1, 0, n), np.full(n, 3.0), np.eye(n)[0], np.logspace(0, -15, n), np.zeros(n)):
        q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        c = (q * s) @ q.T
        top = norms(np, ((c + c.T) / 2)[None], np.array([2.0]))[0]
        assert s[0] * (1 - 1e-14) <= top <= max(s[0] * 2.01, (2.0 + s[0]) / 2 * 1.01)


def test_factorisation_shows_no_less_than_there_is(rng):
    """Where the last of those kept lies just above: the bound is between, or says that it is not."""
    q = np.linalg.qr(rng.standard_normal((100, 100)))[0]
    s = np.linspace(1, 0.2, 100)
    c = (q * s) @ q.T
    for last in (1 + 1e-3, 1 + 1e-6, 1 + 1e-9, 1.0, 0.9):
        top = by_cholesky((c + c.T) / 2, last)
        assert top >= 1 - 1e-14
        if last > 1 + 1e-8:
            assert top < last


def test_backends_agree_on_norms(rng):
    c = rng.standard_normal((4, 12, 12))
    c, xp = c @ c.transpose(0, 2, 1), StrictBackend().xp
    np.testing.assert_allclose(norms(xp, xp.asarray(c), np.full(4, 1e9)), norms(np, c, np.full(4, 1e9)), rtol=1e-12)


def one_way(m, n):
    """(a column 1, c, c, … whose squares all round the same way beside 1, and nothing else; its σ_1)."""
    c = (0.98 * 2.0**-53) ** 0.5
    a = np.zeros((m, n))
    a[:, 0], a[0, 0] = c, 1
    return a, np.sqrt(1 + (m - 1) * np.longdouble(c) ** 2)


@pytest.mark.parametrize("shape", [(400, 17), (902, 2), (2017, 17), (2144, 129), (3019, 20), (16_400, 17), (17, 2017)])
def test_equal_numbers_after_a_large_one_may_all_round_one_way(shape):
    a, true = one_way(max(shape), min(shape))
    for certify in (False, True):
        shown = gn.svd(a if shape[0] > shape[1] else a.T, 1, certify=certify).certificate
        low, high = shown.sigma[0].astype(np.longdouble)
        assert low <= true <= high


@pytest.mark.parametrize("features", [384, 784])
@pytest.mark.parametrize("reproducible", [False, True])
def test_so_they_may_on_the_short_side(features, reproducible):
    a, true = one_way(features, 1)
    x = np.concatenate([a.T, np.zeros((1, features))])
    x[1, :2] = a[1, 0] / 2, -0.5  # orthogonal to the first
    low, high = StreamingGram(reproducible=reproducible).update(x).components(2).certificate.sigma[0]
    assert np.longdouble(low) <= true <= np.longdouble(high)


def test_certificates_that_disagree_allow_what_both_allow():
    one, other = (
        Certificate(np.array([[ends]]), np.ones(1), np.ones(1, bool), np.ones(1)) for ends in ([1, 2], [3, 4])
    )
    assert certificate._both(one, other).sigma.tolist() == [[[2, 3]]]


def test_nobody_writes_into_a_certificate(rng):
    with pytest.raises(ValueError, match="read-only"):
        gn.svd(rng.standard_normal((9, 4)), 2).certificate.sigma[...] = 0
