"""Serial sections in one frame: a rotation, a flip, a shift and a little stretch, found from the images alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

AS_THEY_LIE = 0.97
"""Positions are kept as they are unless the best transform costs less than this share of what they cost."""

_ANGLES = np.arange(0, 360, 20)
_REFINED = 4
_COMPONENTS = 10
_SMOOTHED_OVER = 9
_MOST_SPOTS = 1500


@dataclass(frozen=True)
class Section:
    """What registration sees of a section.

    Attributes
    ----------
    xy
        spots x 2, um.
    features
        spots x features of the image, standardised within the section; see `context`.
    """

    xy: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Registration:
    """A transform of positions, ``(xy - centre) @ matrix.T + target``.

    Attributes
    ----------
    matrix
        2 x 2.
    centre, target
        (2,), um: what is moved onto what.
    cost, cost_as_is
        Disagreement of the images after it, and with the positions as they are.
    """

    matrix: np.ndarray
    centre: np.ndarray
    target: np.ndarray
    cost: float
    cost_as_is: float

    def __call__(self, xy: np.ndarray) -> np.ndarray:
        """Move positions, spots x 2 um."""
        return (xy - self.centre) @ self.matrix.T + self.target

    @property
    def angle(self) -> float:
        """Rotation, degrees."""
        return math.degrees(math.atan2(self.matrix[1, 0], self.matrix[0, 0]))

    @property
    def mirrored(self) -> bool:
        """Whether the section was turned over."""
        return bool(np.linalg.det(self.matrix) < 0)

    def __str__(self) -> str:
        if np.array_equal(self.matrix, np.eye(2)) and np.array_equal(self.centre, self.target):
            return f"kept as it lies (disagreement {self.cost_as_is:.2f})"
        moved = math.hypot(*(self.target - self.centre))
        flip = ", mirrored" if self.mirrored else ""
        return (
            f"turned by {self.angle:.0f} degrees{flip}, shifted by {moved:.0f} um "
            f"(disagreement {self.cost_as_is:.2f} before, {self.cost:.2f} after)"
        )


def register(fixed: Section, moving: Section) -> Registration:
    """Find the transform that lays one section's image features and outline onto another's.

    Parameters
    ----------
    fixed, moving
        Neither holds expression, so a test section may be either.

    Returns
    -------
    Registration
        Of the moving section's positions into the fixed one's frame.

    Notes
    -----
    The first principal components of both sections' features, smoothed over neighbouring spots, are compared where
    spots fall on spots; spots of either section without a partner add to the cost, as do stretch and shear. Eighteen
    rotations of either side are tried with the centres on one another; the best are refined by Powell's method.
    """
    from scipy.optimize import minimize

    task = _Task(fixed, moving)
    starts = [(task.cost(np.zeros(6), turn), turn) for turn in _turns()]
    starts.sort(key=lambda start: start[0])
    options = {"maxiter": 5, "xtol": 1e-3, "ftol": 1e-4}
    refined = [minimize(task.cost, np.zeros(6), args=(turn,), method="Powell", options=options) for _, turn in
               starts[:_REFINED]]  # fmt: skip
    best = min(range(len(refined)), key=lambda i: refined[i].fun)
    as_is = task.cost_of(moving.xy[task.chosen])
    cost, turn = float(refined[best].fun), starts[best][1]
    if cost > AS_THEY_LIE * as_is:
        origin = np.zeros(2)
        return Registration(np.eye(2), origin, origin, as_is, as_is)
    matrix, target = task.transform(refined[best].x, turn)
    return Registration(matrix, task.centre, target, cost, as_is)


def _turns() -> list[np.ndarray]:
    angles = np.deg2rad(_ANGLES)
    rotations = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    return [rotation @ np.diag([1.0, side]) for side in (1, -1) for rotation in rotations]


class _Task:
    """The cost of a transform, with what does not change computed once."""

    def __init__(self, fixed: Section, moving: Section):
        from scipy.spatial import cKDTree

        of_fixed, self.chosen = _subset(len(fixed.xy)), _subset(len(moving.xy))
        self._xy, self._moving = fixed.xy[of_fixed], moving.xy[self.chosen]
        self._tree = cKDTree(self._xy)
        self._pitch = float(np.median(self._tree.query(self._xy, 2)[0][:, 1]))
        self.centre, self._onto = self._moving.mean(axis=0), self._xy.mean(axis=0)
        self._size = float(self._xy.std())
        a, b = _smooth(fixed)[of_fixed], _smooth(moving)[self.chosen]
        both = np.concatenate([a, b])
        axes = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)[2][:_COMPONENTS].T
        self._fixed_look, self._moving_look = _standard(a @ axes), _standard(b @ axes)

    def transform(self, parameters: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return matrix and target: stretch, shear, a further turn (rad), the turn, a shift in section sizes."""
        wide, high, shear, angle = parameters[:4]
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return turn @ rotation @ np.array([[1 + wide, shear], [shear, 1 + high]]), self._onto + parameters[
            4:
        ] * self._size

    def cost(self, parameters: np.ndarray, turn: np.ndarray) -> float:
        """Return the cost of a transform."""
        matrix, target = self.transform(parameters, turn)
        moved = (self._moving - self.centre) @ matrix.T + target
        return self.cost_of(moved) + 0.5 * float(np.abs(parameters[:3]).sum())

    def cost_of(self, moved: np.ndarray) -> float:
        """Return the disagreement at given positions of the moving spots."""
        from scipy.spatial import cKDTree

        distance, near = self._tree.query(moved, 5)
        weight = 1 / (distance + self._pitch / 4)
        weight /= weight.sum(axis=1, keepdims=True)
        expected = np.einsum("nk,nkc->nc", weight, self._fixed_look[near])
        look = np.minimum((expected - self._moving_look) ** 2, 4).mean()
        back = cKDTree(moved).query(self._xy)[0]
        apart = sum(np.minimum(gap / self._pitch, 4).mean() for gap in (distance[:, 0], back))
        return float(look + 0.3 * apart)


def _subset(n: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, _MOST_SPOTS)).round().astype(int))


def _smooth(section: Section) -> np.ndarray:
    from scipy.spatial import cKDTree

    near = cKDTree(section.xy).query(section.xy, min(_SMOOTHED_OVER, len(section.xy)))[1]
    return section.features[near.reshape(len(section.xy), -1)].mean(axis=1)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)
