"""Floors predict what their formula says, stay factored, and choose their settings inside the training rows."""

import numpy as np
import pytest
import scipy.sparse as sp

from histoweft.errors import HistoweftError
from histoweft.floors import Factored, Ridge, average, components, library_size, mean_floor, nearest
from histoweft.splits import Fold, blocks, random_folds


@pytest.fixture
def random():
    return np.random.default_rng(0)


def sparse(random, n, genes, density=0.3):
    return sp.random(n, genes, density, format="csr", random_state=random, dtype=np.float32)


def test_factored_multiplies_out_only_what_is_asked_for(random):
    left, right, offset = random.random((6, 3)), random.random((3, 8)), random.random(8)
    whole = left @ right + offset
    which = np.array([5, 0, 7])
    for a in (left, sp.csr_matrix(left)):
        for b in (right, sp.csr_matrix(right), sp.csc_matrix(right)):
            one = Factored(a, b, offset)
            found = one.genes(which)
            assert type(found) is np.ndarray
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, whole[:, which], rtol=1e-6)
            np.testing.assert_allclose(one.rows(np.array([4, 1])).genes(slice(2, 5)), whole[[4, 1], 2:5], rtol=1e-6)
    assert Factored(left, right, offset).shape == (6, 8)
    with pytest.raises(ValueError, match=r"factors of shapes \(6, 3\), \(3, 8\) and \(7,\)"):
        Factored(left, right, offset[:7])


def test_average_of_dense_sparse_and_shared_factors(random):
    dense = Factored(random.random((5, 2)), random.random((2, 4)), random.random(4))
    thin = Factored(
        sp.random(5, 3, 0.5, "csr", random_state=1), sp.random(3, 4, 0.5, "csc", random_state=2), np.ones(4)
    )
    shared = Factored(random.random((5, 2)), dense.right, random.random(4))
    other = Factored(random.random((5, 1)), random.random((1, 4)), random.random(4))
    every = slice(None)
    for parts in ([dense, thin], [dense, shared], [dense, other, shared], [mean_floor(sparse(random, 9, 4), 5), dense]):
        expected = np.mean([part.genes(every) for part in parts], axis=0)
        np.testing.assert_allclose(average(parts).genes(every), expected, atol=1e-6)
    assert average([dense, shared]).left.shape == (5, 2)
    with pytest.raises(ValueError, match="no average"):
        average([dense, dense.rows(np.array([0]))])


@pytest.mark.parametrize("shape", [(80, 60), (1_200, 700)])
def test_components_are_those_of_the_centred_matrix(random, shape):
    Y = sparse(random, *shape, density=0.2)
    Y = (Y + sp.csr_matrix(np.outer(random.random(shape[0]) > 0.5, random.random(shape[1]) > 0.7) * 2.0)).tocsr()
    found = components(Y.astype(np.float32), 5)
    dense = Y.toarray()
    _, size, axes = np.linalg.svd(dense - dense.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs((found.axes * axes[:5]).sum(axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.scores, axis=0), size[:5], rtol=1e-4)
    np.testing.assert_allclose(found.compress(Y), found.scores, atol=1e-3)
    assert (found.axes[np.arange(5), np.abs(found.axes).argmax(axis=1)] > 0).all()
    np.testing.assert_allclose(components(Y, 5, seed=3).scores, found.scores, atol=1e-3)
    assert np.array_equal(components(Y, 5, seed=3).scores, components(Y, 5, seed=3).scores)


def test_components_and_back(random):
    Y = sparse(random, 30, 12)
    all_of_them = components(Y, 50)
    assert all_of_them.scores.shape == (30, 12)
    np.testing.assert_allclose(all_of_them.decompress(all_of_them.scores).genes(slice(None)), Y.toarray(), atol=1e-5)
    with pytest.raises(ValueError, match="components of 1 spots"):
        components(Y[:1], 2)


def test_mean_and_library_size_are_what_least_squares_says(random):
    Y, x, x_test = sparse(random, 40, 6), random.random(40), random.random(7)
    np.testing.assert_allclose(
        mean_floor(Y, 7).genes(slice(None)), np.tile(Y.toarray().mean(axis=0), (7, 1)), rtol=1e-6
    )
    design = np.column_stack([np.ones(40), x])
    expected = np.column_stack([np.ones(7), x_test]) @ np.linalg.lstsq(design, Y.toarray(), rcond=None)[0]
    np.testing.assert_allclose(library_size(x, Y, x_test).genes(slice(None)), expected, atol=1e-5)
    level = library_size(np.ones(40), Y, x_test).genes(slice(None))
    np.testing.assert_allclose(level, mean_floor(Y, 7).genes(slice(None)))


def test_nearest_averages_the_nearest_in_two_and_three_dimensions(random):
    for d in (2, 3):
        xy, xy_test, Y = random.random((50, d)), random.random((9, d)), sparse(random, 50, 6)
        near = np.argsort(np.linalg.norm(xy_test[:, None] - xy[None], axis=2), axis=1)[:, :4]
        expected = Y.toarray()[near].mean(axis=1)
        np.testing.assert_allclose(nearest(xy, Y, xy_test, k=4).genes(slice(None)), expected, atol=1e-6)
    assert nearest(xy, Y, xy_test, k=500).left.nnz == 9 * 50


def test_neighbours_are_chosen_on_the_inner_folds(random):
    xy = random.random((300, 2)) * 1_000
    wave = np.sin(xy[:, :1] / 80) + 2
    inner = random_folds(300, 3)

    def chosen(noise):
        Y = sp.csr_matrix(wave * np.ones(5) + noise * random.standard_normal((300, 5)))
        return int(np.diff(nearest(xy, Y, xy[:4], inner=inner).left.indptr)[0])

    assert chosen(0.01) <= 2 < 4 <= chosen(2.0)
    with pytest.raises(HistoweftError, match="number of neighbours is chosen on inner folds, and there are none"):
        nearest(xy, sparse(random, 300, 4), xy)
    with pytest.raises(HistoweftError, match=r"positions are missing or infinite in 1 of 300 rows \(first: row 7\)"):
        nearest(np.where(np.arange(300)[:, None] == 7, np.nan, xy), sparse(random, 300, 4), xy, k=2)


@pytest.mark.parametrize("features", [8, 90])
def test_ridge_equals_its_closed_form_wide_and_narrow(random, features):
    X, X_test = random.random((60, features)) * 50 + 3, random.random((11, features)) * 50
    X[:, 2] = 7.0  # tells nothing
    Y = sparse(random, 60, 9)
    model = Ridge(random_folds(60, 3), penalties=[0.2]).fit(X, Y)
    keep = np.arange(features) != 2
    Z = (X - X.mean(axis=0))[:, keep] / X.std(axis=0)[keep]
    Z_test = (X_test - X.mean(axis=0))[:, keep] / X.std(axis=0)[keep]
    dense = Y.toarray().astype(float)
    coefficients = np.linalg.solve(Z.T @ Z + 0.2 * 60 * np.eye(Z.shape[1]), Z.T @ (dense - dense.mean(axis=0)))
    expected = Z_test @ coefficients + dense.mean(axis=0)
    np.testing.assert_allclose(model.predict_factored(X_test).genes(slice(None)), expected, atol=1e-4)
    np.testing.assert_allclose(Ridge(random_folds(60, 3), [0.2]).fit(X, dense).predict(X_test), expected, atol=1e-4)


@pytest.mark.parametrize("criterion", ["pearson", "mse"])
def test_ridge_shrinks_where_there_is_noise(random, criterion):
    X = random.standard_normal((120, 40))
    xy = random.random((120, 2))
    signal = X[:, :1] @ np.ones((1, 6))

    def penalty(noise):
        Y = signal + noise * random.standard_normal((120, 6))
        model = Ridge(blocks(xy, 4), criterion=criterion).fit(X, Y)
        assert model.losses.argmin() == list(model.penalties).index(model.penalty)
        return model.penalty

    assert penalty(0.01) <= 0.01 < 0.1 <= penalty(3.0)


def test_ridge_of_a_constant_target_predicts_it(random):
    model = Ridge(random_folds(20, 2)).fit(random.random((20, 3)), np.full((20, 2), 4.0))
    np.testing.assert_allclose(model.predict(random.random((5, 3))), 4.0)
    flat = Ridge(random_folds(20, 2)).fit(np.ones((20, 3)), random.random((20, 2)))
    assert np.ptp(flat.predict(random.random((5, 3))), axis=0).max() == 0


def test_ridge_refuses_what_it_cannot_use(random):
    X, Y = random.random((20, 3)), random.random((20, 2))
    with pytest.raises(HistoweftError, match="penalty of the ridge is chosen on inner folds"):
        Ridge([]).fit(X, Y)
    with pytest.raises(HistoweftError, match="criterion 'r2' is not one of pearson, mse"):
        Ridge(random_folds(20, 2), criterion="r2").fit(X, Y)
    with pytest.raises(HistoweftError, match=r"features are missing or infinite in 20 of 20 rows"):
        Ridge(random_folds(20, 2)).fit(X * np.nan, Y)
    with pytest.raises(ValueError, match="20 rows of features for 19 rows of targets"):
        Ridge(random_folds(20, 2)).fit(X, Y[:19])
    with pytest.raises(ValueError, match="5 rows of component scores for 20 training rows"):
        Ridge([Fold("a", np.arange(10), np.arange(10, 20))]).fit(X, Y, scores=Y[:5])
