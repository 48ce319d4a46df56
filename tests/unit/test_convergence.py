import warnings

import numpy as np
import pytest
from scipy.sparse.linalg import ArpackNoConvergence, aslinearoperator

from histoweft import convergence
from histoweft.errors import HistoweftError


def no_convergence(*_, **__):
    raise ArpackNoConvergence("no", np.zeros(0), np.zeros((0, 0)))


def test_components_that_do_not_converge_are_computed_whole_and_told(monkeypatch):
    matrix = np.random.default_rng(0).standard_normal((30, 12))
    ask = (aslinearoperator(matrix), 4, np.ones(12), lambda: matrix, "components of it")
    _, known, _ = convergence.singular_vectors(*ask)
    monkeypatch.setattr("scipy.sparse.linalg.svds", no_convergence)
    with convergence.collect("x") as told:
        left, values, right = convergence.singular_vectors(*ask)
    np.testing.assert_allclose(values, known)
    np.testing.assert_allclose(left * values @ right, (matrix @ right.T) @ right, atol=1e-9)
    assert told == ["components of it: the iteration for 4 components did not converge, so all of them were computed"]
    monkeypatch.setattr(convergence, "DENSE_VALUES", 100)
    with pytest.raises(HistoweftError, match="components of it: 4 components of 30 x 12 values did not converge"):
        convergence.singular_vectors(*ask)


def test_a_library_s_warning_of_convergence_becomes_one_sentence():
    from sklearn.exceptions import ConvergenceWarning

    told = []

    def solve():
        with convergence.collect("the model logistic") as found:
            for _ in range(3):
                warnings.warn("lbfgs failed", ConvergenceWarning, stacklevel=1)
            warnings.warn("another matter", stacklevel=1)
            convergence.tell("one did not settle")
            convergence.tell("one did not settle")
        told.extend(found)

    with pytest.warns(UserWarning, match="another matter"):
        solve()
    assert told == [
        "one did not settle",
        "the model logistic: 3 of its fits reached their limit of steps before they settled",
    ]


def test_what_settles_says_nothing():
    with convergence.collect("x") as told:
        pass
    assert told == []
