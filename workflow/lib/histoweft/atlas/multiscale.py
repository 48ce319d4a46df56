"""Principal components at several scales: strong ones a voxel, the many weak ones shared among neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histoweft import splits

_PART = 20_000
"""Voxels of one tree, about: larger atlases are coded in contiguous parts, and energies learned from one of them."""


@dataclass(frozen=True)
class Tree:
    """Voxels halved again and again across their longest side.

    Attributes
    ----------
    order
        Voxels such that every branch is a range of it.
    bounds
        For each level, from the root: the ends of its branches in `order`, (branches + 1,).
    """

    order: np.ndarray
    bounds: list[np.ndarray]

    @classmethod
    def grow(cls, position: np.ndarray) -> Tree:
        """Halve positions, voxels x 3, until each voxel stands alone; see `splits.partition`."""
        n = len(position)
        bounds = [np.array([0, n])]
        while (np.diff(bounds[-1]) > 1).any():
            ends = bounds[-1]
            middle = ends[:-1] + np.diff(ends) // 2
            bounds.append(np.append(np.column_stack([ends[:-1], middle]).ravel(), n))
        return cls(np.argsort(splits.partition(position, n), kind="stable"), bounds)

    def sizes(self, level: int) -> np.ndarray:
        """Return the voxels in each branch of a level."""
        return np.diff(self.bounds[level])

    def means(self, scores: np.ndarray) -> list[np.ndarray]:
        """Return the mean scores of the branches of each level, branches x components; 0 for an empty branch."""
        running = np.zeros((len(scores) + 1, scores.shape[1]))
        np.cumsum(scores[self.order], axis=0, out=running[1:])
        found = []
        for ends in self.bounds:
            sizes = np.maximum(np.diff(ends), 1)[:, None]
            found.append((running[ends[1:]] - running[ends[:-1]]) / sizes)
        return found

    def splits_of(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the sizes of the two halves of each branch of a level."""
        below = self.sizes(level + 1)
        return below[::2], below[1::2]


@dataclass(frozen=True)
class Code:
    """How much each component varies within branches of each size: what a code of few numbers should keep.

    Attributes
    ----------
    energy
        scales x components: mean square of a coefficient that tells two halves of a branch of about ``2 ** (scale +
        1)`` voxels apart.
    budget
        Numbers a voxel.
    """

    energy: np.ndarray
    budget: float

    def kept(self, tree: Tree) -> list[np.ndarray]:
        """Choose the components whose differences are kept at each level of a tree.

        Returns
        -------
        list of ndarray
            For each level but the last, (components,) of bool.
        """
        levels = len(tree.bounds) - 1
        m = self.energy.shape[1]
        counts = np.array([(np.minimum(*tree.splits_of(level)) > 0).sum() for level in range(levels)])
        energy = np.stack([self.energy[self._scale(tree, level)] for level in range(levels)])
        cost = np.repeat(counts, m)
        order = np.argsort(-energy.ravel(), kind="stable")
        # The mean of all voxels costs one number a component.
        paid = np.cumsum(cost[order]) + m
        chosen = np.zeros(levels * m, dtype=bool)
        chosen[order[paid <= self.budget * len(tree.order)]] = True
        return list(chosen.reshape(levels, m))

    def _scale(self, tree: Tree, level: int) -> int:
        return min(_scale_of(tree, level), len(self.energy) - 1)

    def reconstruct(self, scores: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Encode scores of voxels with the budget, and decode them.

        Parameters
        ----------
        scores
            voxels x components.
        position
            voxels x 3, voxels. Only which voxels lie together is used.

        Returns
        -------
        ndarray
            voxels x components, float32.
        """
        result = np.empty(scores.shape, dtype=np.float32)
        parts = _parts(position)
        for part in range(parts.max() + 1):
            rows = np.flatnonzero(parts == part)
            result[rows] = self._decoded(scores[rows], Tree.grow(position[rows]))
        return result

    def _decoded(self, scores: np.ndarray, tree: Tree) -> np.ndarray:
        means, kept = tree.means(scores), self.kept(tree)
        found = means[0]
        for level, chosen in enumerate(kept):
            first, second = tree.splits_of(level)
            difference = np.where(chosen, means[level + 1][::2] - means[level + 1][1::2], 0.0)
            difference *= (np.minimum(first, second) > 0)[:, None]
            total = np.maximum(first + second, 1)
            below = np.empty_like(means[level + 1])
            # The halves lie around their mean, the smaller one farther away.
            below[::2] = found + difference * (second / total)[:, None]
            below[1::2] = found - difference * (first / total)[:, None]
            found = below
        alone = tree.sizes(len(tree.bounds) - 1) == 1
        result = np.empty(scores.shape, dtype=np.float32)
        result[tree.order] = found[alone]
        return result


def learn(scores: np.ndarray, position: np.ndarray, budget: float) -> Code:
    """Learn from training voxels how components vary over space.

    Parameters
    ----------
    scores
        training voxels x components.
    position
        training voxels x 3, voxels.
    budget
        Numbers a voxel that a code may have: as many as the latent of the other models.

    Notes
    -----
    Haar wavelets on a tree of positions (Gavish, Nadler and Coifman 2010), times principal components.
    Both are orthonormal, so the best code of so many numbers keeps the pairs of a component and a scale with the
    largest mean squares. A component that is smooth in space is told once for many voxels: the numbers saved pay for
    components that PCA of the same budget has no room for. Nothing is learned but these mean squares: there is little
    that could fail on an unseen block.
    """
    # A contiguous part: voxels drawn at random would lie farther apart than those to be coded.
    part = _parts(position) == 0
    scores, position = scores[part], position[part]
    tree = Tree.grow(position)
    means = tree.means(scores)
    scales = _scale_of(tree, 0) + 1
    square, count = np.zeros((scales, scores.shape[1])), np.zeros(scales)
    for level in range(len(tree.bounds) - 1):
        first, second = tree.splits_of(level)
        both = np.minimum(first, second) > 0
        weight = (first * second / np.maximum(first + second, 1))[both, None]
        difference = (means[level + 1][::2] - means[level + 1][1::2])[both]
        scale = _scale_of(tree, level)
        square[scale] += (weight * difference**2).sum(axis=0)
        count[scale] += both.sum()
    return Code(square / np.maximum(count, 1)[:, None], budget)


def _parts(position: np.ndarray) -> np.ndarray:
    return splits.partition(position, -(-len(position) // _PART))


def _scale_of(tree: Tree, level: int) -> int:
    """Return the logarithm of the size of a level's branches: 0 for pairs."""
    return max(0, round(np.log2(max(2, len(tree.order) / 2**level))) - 1)
