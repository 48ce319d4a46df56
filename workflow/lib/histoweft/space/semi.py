"""Labels of a few points spread to all: expression where no label is near, the labels themselves where some are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.errors import nearest as nearest_word
from histoweft.places import spacing
from histoweft.space.domains import even_out
from histoweft.space.values import one_hot
from histoweft.space.views import View, averaging

REACHES = (1.0, 2.0, 4.0, 8.0)
"""Distances over which a label speaks for its surroundings, in spacings of the points."""

TRUST = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""How many labels at no distance the prediction from expression weighs as much as."""

PENALTIES = (0.003, 0.03, 0.3)
"""Inverse penalties of the logistic regression, to choose from."""

SECOND = 0.5
"""Weight of the second opinion, the first's being one: see `spread_labels`."""

FOLDS = 5
_MOST_NEAR = 40
_MOST_CHOSEN_ON = 2_000
_NEIGHBOUR_COUNTS = (1, 3, 5, 9, 15)
_STEPS = 2
_ADJACENT = 6
_FLOOR_PENALTY = 1.0


def semi_views(n_genes: int) -> list[View]:
    """Return the views whose components the model reads: a narrow and a wide average over neighbours."""
    genes = min(1_000, n_genes)
    return [View(genes, False, 8), View(genes, False, 30)]


@dataclass(frozen=True)
class Place:
    """What is known of every point but its label.

    Attributes
    ----------
    features
        (points, features): components of expression, votes for domains.
    smoothed
        (points, components) of expression, averaged widely: what the second opinion and the floor read.
    xy
        Of each section, (n, 2).
    near
        Nearest other points of each section, see `histoweft.space.views.nearest`.
    """

    features: np.ndarray
    smoothed: np.ndarray
    xy: Sequence[np.ndarray]
    near: Sequence[np.ndarray]

    def section(self, number: int) -> Place:
        """Return one section alone."""
        ends = np.cumsum([len(one) for one in self.xy])
        rows = slice(ends[number] - len(self.xy[number]), ends[number])
        return Place(self.features[rows], self.smoothed[rows], [self.xy[number]], [self.near[number]])


@dataclass(frozen=True)
class Spread:
    """Labels of all points.

    Attributes
    ----------
    labels
        (points,) code; a given label stays what it is.
    shares
        (points, classes) probabilities.
    reach, trust, penalty
        What the inner folds chose; see `REACHES`, `TRUST`, `PENALTIES`.
    """

    labels: np.ndarray
    shares: np.ndarray
    reach: float
    trust: float
    penalty: float


def read_codes(labels: pd.Series, where: str) -> tuple[np.ndarray, list[str]]:
    """Turn a column with few labels into codes.

    Parameters
    ----------
    labels
        Missing, or an empty string, where there is none.
    where
        How messages call the column.

    Returns
    -------
    codes
        (points,), -1 where there is no label.
    names
        Of the classes, sorted.

    Raises
    ------
    InputError
        Fewer than two classes have a label.
    """
    text = labels.astype(object).where(labels.notna(), "").astype(str).str.strip()
    names = sorted(set(text) - {""})
    if len(names) < 2:
        hint = "Label a few points of at least two regions."
        raise InputError.one(where, f"{len(names)} different labels", "two or more", hint)
    return pd.Categorical(text, categories=names).codes.astype(np.int64), names


def spread_labels(place: Place, codes: np.ndarray, seed: int = 0) -> Spread:
    """Spread the labels of a few points to all points.

    Parameters
    ----------
    place
        All points.
    codes
        (points,) class of each point, -1 where it is not known.
    seed
        Of the inner folds.

    Notes
    -----
    The probability of a class is ``trust x p + sum of K(distance / reach)`` over the labels of the section, scaled to
    one: p is a logistic regression on expression, K a Gaussian. Far from all labels the sum vanishes and expression
    decides alone; so a tissue labelled in one half only is not filled with the label of its border. Penalty, reach and
    trust are those of the smallest logarithmic loss on inner folds of the labelled points.

    With a handful of labels that choice is mostly chance. A second opinion, the logistic regression of `logistic_floor`
    with nothing to choose, is therefore averaged in at `SECOND` of the weight.
    """
    n_classes = int(codes.max()) + 1
    known = np.flatnonzero(codes >= 0)
    features = _standardised(place.features)
    chosen = _choose(place, features, codes, n_classes, seed)
    model = _logistic(features[known], codes[known], chosen[0])
    evidence = _evidence(place, known, codes, n_classes, chosen[1])
    around = sp.block_diag([averaging(near, _ADJACENT) for near in place.near], format="csr")
    shares = _propagate(_combine(_predict(model, features, n_classes), evidence, chosen[2]), around, known, codes)
    shares += SECOND * _predict(*_plain_logistic(place, codes), n_classes)
    shares /= 1 + SECOND
    shares[known] = one_hot(codes, n_classes)[known].toarray()
    labels = even_out(shares, around)
    labels[known] = codes[known]
    return Spread(labels, shares, chosen[1], chosen[2], chosen[0])


def _standardised(features: np.ndarray) -> np.ndarray:
    spread = features.std(axis=0)
    return (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _logistic(features: np.ndarray, codes: np.ndarray, penalty: float):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=penalty, max_iter=500).fit(features, codes)


def _predict(model, features: np.ndarray, n_classes: int) -> np.ndarray:
    shares = np.zeros((len(features), n_classes))
    shares[:, model.classes_] = model.predict_proba(features)
    return shares


def _evidence(
    place: Place, known: np.ndarray, codes: np.ndarray, n_classes: int, reach: float, rows: np.ndarray | None = None
) -> np.ndarray:
    """Sum a Gaussian of the distance to the labels of the section, by class; (`rows` or all points, classes)."""
    rows = np.arange(len(codes)) if rows is None else rows
    found = np.zeros((len(rows), n_classes))
    for asked, gaps, near in _nearest_known(place, known, rows, _MOST_NEAR):
        weights = np.exp(-0.5 * (gaps / reach) ** 2)
        flat = np.arange(len(asked))[:, None] * n_classes + codes[near]
        sums = np.bincount(flat.ravel(), weights=weights.ravel(), minlength=len(asked) * n_classes)
        found[asked] = sums.reshape(len(asked), n_classes)
    return found


def _nearest_known(
    place: Place, known: np.ndarray, rows: np.ndarray, k: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each section with labels: positions in `rows`, distances (in spacings) and rows of the nearest labels."""
    from scipy.spatial import cKDTree

    start = 0
    for xy in place.xy:
        stop = start + len(xy)
        labelled = known[(known >= start) & (known < stop)]
        asked = np.flatnonzero((rows >= start) & (rows < stop))
        if len(labelled) and len(asked):
            wanted = [*range(1, min(k, len(labelled)) + 1)]
            gaps, at = cKDTree(xy[labelled - start]).query(xy[rows[asked] - start], k=wanted)
            yield asked, gaps / spacing(xy), labelled[at]
        start = stop


def _combine(expression: np.ndarray, evidence: np.ndarray, trust: float) -> np.ndarray:
    total = trust * expression + evidence
    return total / total.sum(axis=1, keepdims=True)


def _folds(codes: np.ndarray, known: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut labelled points into folds, each class spread over them; pairs of rows to learn from and to test on."""
    rng = np.random.default_rng(seed)
    known = rng.permutation(known)
    known = known[np.argsort(codes[known], kind="stable")]
    part = np.arange(len(known)) % FOLDS
    return [(known[part != fold], known[part == fold]) for fold in range(FOLDS) if (part == fold).any()]


def _choose(
    place: Place, features: np.ndarray, codes: np.ndarray, n_classes: int, seed: int
) -> tuple[float, float, float]:
    """Choose penalty, reach and trust on inner folds of the labelled points."""
    known = np.flatnonzero(codes >= 0)
    if len(known) < 2 * n_classes:
        return PENALTIES[1], _label_distance(place, known), 0.1
    rng = np.random.default_rng(seed)
    folds = []
    for train, test in _folds(codes, known, seed):
        test = test if len(test) <= _MOST_CHOSEN_ON // FOLDS else rng.choice(test, _MOST_CHOSEN_ON // FOLDS, False)
        fitted = train if len(train) <= _MOST_CHOSEN_ON else rng.choice(train, _MOST_CHOSEN_ON, False)
        if len(np.unique(codes[fitted])) > 1:
            folds.append((train, fitted, test))
    predictions = {
        penalty: [
            _predict(_logistic(features[fitted], codes[fitted], penalty), features[test], n_classes)
            for _, fitted, test in folds
        ]
        for penalty in PENALTIES
    }
    losses = {}
    for reach in REACHES:
        evidence = [_evidence(place, train, codes, n_classes, reach, test) for train, _, test in folds]
        for penalty, expression in predictions.items():
            for trust in TRUST:
                loss = [
                    -np.log(_combine(p, e, trust)[np.arange(len(test)), codes[test]] + 1e-3).sum()
                    for p, e, (_, _, test) in zip(expression, evidence, folds)
                ]
                losses[penalty, reach, trust] = sum(loss)
    return min(losses, key=losses.get)


def _label_distance(place: Place, known: np.ndarray) -> float:
    """Return the median distance of a point to the nearest label of its section, in spacings; at least 1."""
    rows = np.arange(len(place.features))
    return max(1.0, float(np.median(np.concatenate([gaps for _, gaps, _ in _nearest_known(place, known, rows, 1)]))))


def _propagate(shares: np.ndarray, around: sp.csr_matrix, known: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Average probabilities over neighbours, the given labels held fast (Zhu, Ghahramani and Lafferty 2003)."""
    given = one_hot(codes, shares.shape[1])[known].toarray()
    for _ in range(_STEPS):
        shares[known] = given
        shares = around @ shares
    shares[known] = given
    return shares


def spread_column(
    place: Place, observed: Mapping[str, pd.DataFrame], column: str, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Spread the labels of a column of the sections' observations.

    Parameters
    ----------
    place
        All points of all sections.
    observed
        Sample to its table of observations (index: barcodes), in the order of `place`; sections may lack the column.
    column
        Its name.
    seed
        Of the inner folds.

    Returns
    -------
    Sample to a table; index: barcodes; semi (category) and semi_confidence (probability of it).

    Raises
    ------
    InputError
        No section has the column, or fewer than two of its labels are given.
    """
    where = "config: space.domains.semi"
    if not any(column in table for table in observed.values()):
        known = sorted(set().union(*(table.columns for table in observed.values())))
        hint = nearest_word(column, known) or f"There are {', '.join(known)}."
        raise InputError.one(where, repr(column), "a column of the counts' observations, such as label", hint)
    given = [
        table[column].astype(object) if column in table else pd.Series(np.nan, table.index, dtype=object)
        for table in observed.values()
    ]
    codes, names = read_codes(pd.concat(given), f"{where}: {column}")
    found = spread_labels(place, codes, seed)
    confidence = found.shares[np.arange(len(codes)), found.labels].astype(np.float32)
    tables, start = {}, 0
    for sample, table in observed.items():
        rows = slice(start, start + len(table))
        labels = pd.Categorical.from_codes(found.labels[rows], names)
        columns = {"semi": labels, "semi_confidence": confidence[rows]}
        tables[sample] = pd.DataFrame(columns, index=pd.Index(table.index, name="barcode"))
        start = rows.stop
    return tables


# ------------------------------------------------------------------------------------------------------ floors


def coordinates_floor(place: Place, codes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Give each point the commonest label among the nearest labelled points, their number chosen on inner folds."""
    known = np.flatnonzero(codes >= 0)
    choices = [k for k in _NEIGHBOUR_COUNTS if k <= max(1, len(known) * (FOLDS - 1) // FOLDS)]
    right = np.zeros(len(choices))
    for train, test in _folds(codes, known, seed):
        for at, k in enumerate(choices):
            right[at] += (_nearest_labels(place, train, codes, k)[test] == codes[test]).sum()
    return _nearest_labels(place, known, codes, choices[int(right.argmax())])


def _nearest_labels(place: Place, known: np.ndarray, codes: np.ndarray, k: int) -> np.ndarray:
    n_classes = int(codes.max()) + 1
    found = np.full(len(codes), np.bincount(codes[known]).argmax())
    for asked, _, near in _nearest_known(place, known, np.arange(len(codes)), k):
        flat = np.arange(len(asked))[:, None] * n_classes + codes[near]
        found[asked] = (
            np.bincount(flat.ravel(), minlength=len(asked) * n_classes).reshape(len(asked), -1).argmax(axis=1)
        )
    return found


def logistic_floor(place: Place, codes: np.ndarray) -> np.ndarray:
    """Give each point the label that a logistic regression on components averaged over neighbours predicts."""
    model, features = _plain_logistic(place, codes)
    return model.predict(features)


def _plain_logistic(place: Place, codes: np.ndarray):
    """Return a logistic regression with nothing to choose, on components averaged over neighbours, and its features."""
    known, features = np.flatnonzero(codes >= 0), _standardised(place.smoothed)
    return _logistic(features[known], codes[known], _FLOOR_PENALTY), features


# -------------------------------------------------------------------------------------------------- evaluation


def hidden_labels(
    codes: np.ndarray, xy: np.ndarray, draws: int = 5, seed: int = 0
) -> Iterator[tuple[str, str, int, np.ndarray]]:
    """Hide most labels of a section, in the ways that are scored.

    Parameters
    ----------
    codes
        (points,) class, -1 where there is none.
    xy
        (points, 2).
    draws
        Random choices of labelled points, for each share.

    Yields
    ------
    panel, protocol
        ``1% labels`` and ``5% labels`` (random points), ``one half`` (block): the left, right, lower, upper one.
    draw
        Number.
    codes
        With -1 where hidden.
    """
    known = np.flatnonzero(codes >= 0)
    for share in (0.01, 0.05):
        for draw in range(draws):
            rng = np.random.default_rng([seed, draw, round(100 * share)])
            kept = rng.choice(known, max(2, round(share * len(known))), replace=False)
            yield f"{share:.0%} labels", "random", draw, np.where(np.isin(np.arange(len(codes)), kept), codes, -1)
    for axis in (0, 1):
        low = xy[:, axis] < np.median(xy[known, axis])
        for side, given in enumerate((low, ~low)):
            yield "one half", "block", 2 * axis + side, np.where(given, codes, -1)
