"""The models of one interface, and the plain ones: logistic regression and nearest cells.

A model is fitted on cells with their types and gives logits of all types for other cells. `state` turns it into named
arrays and `from_state` back, so that every model is stored alike, without pickle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from histoweft.annotation import folds
from histoweft.annotation.names import GNN, KNN, LOGISTIC, TRANSFORMER
from histoweft.annotation.reference import Cells
from histoweft.annotation.space import Space
from histoweft.errors import HistoweftError

_ROWS = 4_096


@dataclass(frozen=True)
class Options:
    """Settings of all models; each reads its own.

    Attributes
    ----------
    neighbours
        Nearest cells that ``knn`` and ``gnn`` ask.
    spatial
        Whether ``gnn`` also looks at the neighbours on the tissue.
    epochs
        Most epochs of the networks.
    gene_sets
        Name to genes, the tokens of ``transformer``; modules are learned from the reference where there are none.
    seed, device, threads
        Of the training.
    """

    neighbours: int = 15
    spatial: bool = False
    epochs: int = 60
    gene_sets: dict[str, list[str]] | None = None
    seed: int = 0
    device: str = "cpu"
    threads: int = 1


class Model(Protocol):
    """What every model can do."""

    def fit(self, cells: Cells, codes: np.ndarray, groups: np.ndarray | None, n_types: int, space: Space) -> Model:
        """Learn from cells, their types (0 to `n_types` - 1) and their batches."""

    def logits(self, cells: Cells) -> np.ndarray:
        """Return cells x types, float32; softmax turns them into probabilities."""

    def gene_weights(self, cells: Cells, codes: np.ndarray) -> np.ndarray | None:
        """Return types x used genes: what each gene adds to the decision for cells of a type; None if unknown."""

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs: arrays and json-able values."""


def build(name: str, genes: np.ndarray, options: Options) -> Model:
    """Return an unfitted model; networks are imported only where they are asked for.

    Parameters
    ----------
    name
        Of `names.MODELS`.
    genes
        Names of the shared genes.
    options
        Settings.
    """
    if name == TRANSFORMER:
        from histoweft.annotation.transformer import Transformer

        return Transformer(genes, options)
    if name == GNN:
        from histoweft.annotation.gnn import Gnn

        return Gnn(options)
    return {LOGISTIC: Logistic, KNN: Knn}[name](options)


def restore(name: str, state: dict[str, Any]) -> Model:
    """Return a fitted model from its `state`."""
    if name == TRANSFORMER:
        from histoweft.annotation.transformer import Transformer

        return Transformer.from_state(state)
    if name == GNN:
        from histoweft.annotation.gnn import Gnn

        return Gnn.from_state(state)
    return {LOGISTIC: Logistic, KNN: Knn}[name].from_state(state)


def balanced_weights(codes: np.ndarray, n_types: int) -> np.ndarray:
    """Return a weight for each type such that all present ones count alike and the mean over cells is 1; (types,)."""
    sizes = np.bincount(codes, minlength=n_types)
    return np.divide(len(codes), sizes * (sizes > 0).sum(), out=np.zeros(n_types), where=sizes > 0)


def widen(logits: np.ndarray, present: np.ndarray, n_types: int) -> np.ndarray:
    """Put the logits of the types that were there into those of all; a type without cells gets a hopeless one."""
    wide = np.repeat(logits.min(axis=1, keepdims=True) - 20.0, n_types, axis=1)
    wide[:, present] = logits
    return wide.astype(np.float32)


class Logistic:
    """Multinomial logistic regression on the components, types weighted alike, L2 penalty by inner cross-validation.

    Notes
    -----
    The penalty with the smallest balanced log loss over three inner folds (of batches where batches allow it) is
    taken; inverse penalties are those of `INVERSE_PENALTIES`. On more than `_CHOICE` cells it is chosen on a draw.
    """

    INVERSE_PENALTIES: ClassVar = (0.01, 0.1, 1.0, 10.0)
    _CHOICE = 20_000
    _INNER = 3
    _ITERATIONS = 300

    def __init__(self, options: Options | None = None):
        self._seed = 0 if options is None else options.seed
        self.coefficients = np.zeros((0, 0))
        self.intercepts = np.zeros(0)
        self.inverse_penalty = float("nan")

    def fit(self, cells: Cells, codes: np.ndarray, groups: np.ndarray | None, n_types: int, space: Space) -> Logistic:
        """Choose the penalty and fit; see `Model.fit`."""
        self._space, self._n_types = space, n_types
        self.inverse_penalty = self._choose(cells.scores, codes, groups)
        solver = self._solver(self.inverse_penalty).fit(cells.scores, codes)
        weights, intercepts = _of_all_types(solver)
        self.coefficients = np.zeros((n_types, weights.shape[1]))
        self.intercepts = np.full(n_types, intercepts.min() - 20.0)
        self.coefficients[solver.classes_], self.intercepts[solver.classes_] = weights, intercepts
        return self

    def _solver(self, inverse_penalty: float, warm: bool = False) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(
            C=inverse_penalty, class_weight="balanced", max_iter=self._ITERATIONS, tol=1e-3, warm_start=warm
        )

    def _choose(self, scores: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> float:
        rows = np.arange(len(codes))
        if len(rows) > self._CHOICE:
            rows = np.sort(np.random.default_rng(self._seed).choice(rows, self._CHOICE, replace=False))
        scores, codes = scores[rows], codes[rows]
        losses = np.zeros(len(self.INVERSE_PENALTIES))
        for fold in folds.inner(codes, None if groups is None else groups[rows], self._INNER, self._seed):
            # From the strongest penalty to the weakest, each starting where the one before ended.
            solver = self._solver(1.0, warm=True)
            if len(np.unique(codes[fold.train])) < 2:
                continue
            for i, inverse in enumerate(self.INVERSE_PENALTIES):
                solver.set_params(C=inverse).fit(scores[fold.train], codes[fold.train])
                losses[i] += _balanced_loss(solver, scores[fold.test], codes[fold.test])
        return self.INVERSE_PENALTIES[int(losses.argmin())]

    def logits(self, cells: Cells) -> np.ndarray:
        """See `Model.logits`."""
        return (cells.scores @ self.coefficients.T + self.intercepts).astype(np.float32)

    def gene_weights(self, cells: Cells, codes: np.ndarray) -> np.ndarray:
        """Coefficients carried back to genes, times how far the type's mean lies from the mean of types.

        The logit of a type is linear in the genes, so this is each gene's share in the difference between the type's
        mean logit and that of the average type.
        """
        centred = self.coefficients - self.coefficients.mean(axis=0)
        return self._space.to_genes(centred) * mean_difference(cells, codes, self._n_types, self._space)

    def state(self) -> dict[str, Any]:
        """See `Model.state`."""
        return {
            "coefficients": self.coefficients,
            "intercepts": self.intercepts,
            "inverse_penalty": self.inverse_penalty,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Logistic:
        """Return what `state` described."""
        model = cls()
        model.coefficients, model.intercepts = state["coefficients"], state["intercepts"]
        model.inverse_penalty = float(state["inverse_penalty"])
        return model


def _of_all_types(solver: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients and intercepts, one row a type; the solver keeps a single row for two types."""
    if len(solver.classes_) > 2:
        return solver.coef_, solver.intercept_
    half = solver.coef_[0] / 2, solver.intercept_[0] / 2
    return np.stack([-half[0], half[0]]), np.array([-half[1], half[1]])


def _balanced_loss(solver: Any, scores: np.ndarray, codes: np.ndarray) -> float:
    known = np.isin(codes, solver.classes_)
    probability = solver.predict_proba(scores[known])
    own = probability[np.arange(len(probability)), np.searchsorted(solver.classes_, codes[known])]
    weight = balanced_weights(codes[known], int(codes.max()) + 1)[codes[known]]
    return float(-(weight * np.log(np.maximum(own, 1e-12))).mean())


def mean_difference(cells: Cells, codes: np.ndarray, n_types: int, space: Space) -> np.ndarray:
    """Return how far each type's mean expression lies from the mean of types, types x used genes."""
    total = np.zeros((n_types, len(space.columns)))
    for rows, block in cells.expression.blocks():
        for code in np.unique(codes[rows]):
            total[code] += np.asarray(block[codes[rows] == code][:, space.columns].sum(axis=0)).ravel()
    sizes = np.bincount(codes, minlength=n_types)
    means = total / np.maximum(sizes, 1)[:, None]
    return np.where(sizes[:, None] > 0, means - means[sizes > 0].mean(axis=0), 0.0)


class Knn:
    """Votes of the nearest reference cells in the space, each type's votes weighted alike.

    The logits are the logarithm of the vote shares, half a vote being added to each type.
    """

    def __init__(self, options: Options | None = None):
        self._k = Options().neighbours if options is None else options.neighbours

    def fit(self, cells: Cells, codes: np.ndarray, groups: np.ndarray | None, n_types: int, space: Space) -> Knn:
        """Keep the cells; see `Model.fit`."""
        self._scores, self._codes, self._n_types = cells.scores.astype(np.float32), codes, n_types
        # The square root: full balancing would let one cell of a rare type outvote its whole neighbourhood.
        self._weights = np.sqrt(balanced_weights(codes, n_types))
        return self

    def logits(self, cells: Cells) -> np.ndarray:
        """See `Model.logits`."""
        from sklearn.neighbors import NearestNeighbors

        k = min(self._k, len(self._scores))
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(self._scores)
        votes = np.zeros((len(cells), self._n_types))
        for start in range(0, len(cells), _ROWS):
            near = search.kneighbors(cells.scores[start : start + _ROWS], return_distance=False)
            rows = np.repeat(np.arange(start, start + len(near)), k)
            voters = self._codes[near.ravel()]
            np.add.at(votes, (rows, voters), self._weights[voters])
        return np.log(votes + 0.5).astype(np.float32)

    def gene_weights(self, cells: Cells, codes: np.ndarray) -> None:
        """Neighbours name no genes."""
        return None

    def state(self) -> dict[str, Any]:
        """See `Model.state`."""
        return {"scores": self._scores, "codes": self._codes, "n_types": self._n_types, "k": self._k}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Knn:
        """Return what `state` described."""
        model = cls()
        model._k = int(state["k"])
        return model.fit(Cells(state["scores"], None), state["codes"], None, int(state["n_types"]), None)


def check_spatial(xy: np.ndarray | None, what: str) -> None:
    """Refuse to look at neighbours on the tissue where there are no positions."""
    if xy is None:
        raise HistoweftError(
            f"annotation.spatial is true, but {what} has no positions (obsm['spatial']). Use a reference with "
            "positions, or set annotation.spatial: false."
        )
