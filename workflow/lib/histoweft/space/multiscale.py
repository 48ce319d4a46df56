"""Domains at several scales: which persist from one to the next, as a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histoweft.errors import InputError
from histoweft.graph.leiden import by_size
from histoweft.places import spacing
from histoweft.space import domains
from histoweft.space.views import FEWEST_POINTS, Tissue, View, averaging, iterate_views, nearest, too_few

SCALES = (6, 18, 36, 90)
"""Points averaged over, from fine to coarse: about one, two, three and five rings of a hexagonal lattice."""

OPTION = "space.multiscale.neighbours"

PERSISTS = 0.5
"""Overlap from which a domain counts as the same at the next scale."""

TREE_COLUMNS = ("fine", "fine_domain", "coarse", "coarse_domain", "overlap", "share_of_fine", "points", "parent")


@dataclass(frozen=True)
class Scales:
    """Domains of a study at several scales.

    Attributes
    ----------
    labels
        (scales, points) numbers, 0 the largest domain of its scale.
    neighbours
        Points averaged over at each scale.
    radius
        Median distance of the farthest of them, in um (the file's units where um are not known).
    """

    labels: np.ndarray
    neighbours: tuple[int, ...]
    radius: tuple[float, ...]


def check_scales(neighbours: Sequence[int]) -> None:
    """Refuse scales that do not rise."""
    if list(neighbours) != sorted(set(neighbours)):
        given = ", ".join(map(str, neighbours))
        raise InputError.one(f"config: {OPTION}", given, "numbers that rise, from fine to coarse")


def too_small(sizes: Mapping[str, int], neighbours: Sequence[int] = SCALES) -> dict[str, str]:
    """Say which sections cannot bear the finest scale.

    Parameters
    ----------
    sizes
        Sample to its number of points.
    neighbours
        Points averaged over, rising; an average takes in an eighth of a section at most.

    Returns
    -------
    Sample to the reason, in words.

    Raises
    ------
    NotComputed
        No section is large enough.
    """
    check_scales(neighbours)
    needed = max(8 * neighbours[0], FEWEST_POINTS)
    step = "points; domains at several scales need {needed}"
    return too_few(sizes, needed, step, "points that domains at several scales need", OPTION)


def left_out(sizes: Mapping[str, int], neighbours: Sequence[int]) -> list[str]:
    """Say which of the wider scales the smallest section cannot bear, nothing where it bears all."""
    sample = min(sizes, key=sizes.__getitem__)
    wide = [k for k in neighbours if k > sizes[sample] // 8]
    if not wide:
        return []
    told = ", ".join(map(str, wide))
    return [
        f"Domains over {told} neighbours are left out: {sample} has {sizes[sample]} points, and an average takes in an "
        f"eighth of a section at most. Option: {OPTION}."
    ]


def domains_at_scales(
    tissue: Tissue, n: int, neighbours: Sequence[int] = SCALES, seed: int = 0, genes: int = 1_000
) -> Scales:
    """Find domains at each scale, in all sections together.

    Parameters
    ----------
    tissue
        All sections.
    n
        Domains at every scale.
    neighbours
        Points averaged over, rising. Wider ones than an eighth of the smallest section are left out.
    seed
        Of the mixtures.
    genes
        Number of the most spatially variable genes.
    """
    smallest = int(tissue.sizes.min())
    too_small(dict(zip(tissue.samples, map(int, tissue.sizes))), neighbours)
    domains.check_number(n, int(tissue.sizes.sum()))
    kept = [k for k in neighbours if k <= smallest // 8]
    blind = next(iter(iterate_views(tissue, [View(min(genes, len(tissue.genes)), False, 0)], depth=30)))[1]
    near = [nearest(one.xy, max(kept)) for one in tissue.sections]
    around = domains.neighbours_of(tissue)
    labels, radii = [], []
    for k in kept:
        smooth = np.concatenate([averaging(a, k) @ part for a, part in zip(near, tissue.split(blind))])
        partitions = np.concatenate(
            [domains.fit_partitions([(None, smooth)], n, seed + run, list(tissue.sizes)) for run in range(3)]
        )
        labels.append(domains.consensus(partitions, n, around, list(tissue.sizes)).labels)
        radii.append(float(np.median([_reach(one.xy, a, k) for one, a in zip(tissue.sections, near)])))
    return Scales(np.array([by_size(one) for one in labels]), tuple(kept), tuple(radii))


def _reach(xy: np.ndarray, near: np.ndarray, k: int) -> float:
    farthest = xy[near[:, :k]] - xy[:, None, :]
    return float(np.median(np.hypot(farthest[..., 0], farthest[..., 1]).max(axis=1))) or spacing(xy)


def overlaps(fine: np.ndarray, coarse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare the domains of two scales.

    Returns
    -------
    jaccard
        (fine domains, coarse domains): points in both as a share of points in either (Jaccard 1901).
    shared
        Points in both.
    """
    n, m = int(fine.max()) + 1, int(coarse.max()) + 1
    shared = np.bincount(fine.astype(np.int64) * m + coarse, minlength=n * m).reshape(n, m)
    either = shared.sum(axis=1)[:, None] + shared.sum(axis=0)[None, :] - shared
    return np.divide(shared, either, out=np.zeros(shared.shape), where=either > 0), shared


def tree(scales: Scales) -> pd.DataFrame:
    """Connect the domains of each scale with those of the next.

    Returns
    -------
    `TREE_COLUMNS`; one row for each pair of domains with points in common: the two scales (points averaged over),
    overlap (Jaccard), share of the finer domain's points, points in common, and whether the coarser one is the finer
    one's parent (it holds the largest share of it).
    """
    rows = []
    for at in range(len(scales.neighbours) - 1):
        jaccard, shared = overlaps(scales.labels[at], scales.labels[at + 1])
        parents = shared.argmax(axis=1)
        sizes = shared.sum(axis=1)
        for fine, coarse in zip(*np.nonzero(shared)):
            rows.append(
                (
                    scales.neighbours[at], str(fine + 1), scales.neighbours[at + 1], str(coarse + 1),
                    jaccard[fine, coarse], shared[fine, coarse] / sizes[fine], int(shared[fine, coarse]),
                    bool(parents[fine] == coarse),
                )
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(TREE_COLUMNS))


def persistence(scales: Scales) -> pd.DataFrame:
    """Say how well each domain is found again at the other scales.

    Returns
    -------
    One row a domain of each scale: scale (points averaged over), radius, domain, points, persistence (mean over the
    other scales of the best overlap with a domain there) and found_at (scales, its own included, where that overlap is
    0.5 or more).
    """
    rows = []
    count = len(scales.neighbours)
    for at, (k, radius) in enumerate(zip(scales.neighbours, scales.radius)):
        best = [
            overlaps(scales.labels[at], scales.labels[other])[0].max(axis=1) for other in range(count) if other != at
        ]
        sizes = np.bincount(scales.labels[at])
        for domain, points in enumerate(sizes):
            found = [values[domain] for values in best]
            mean = float(np.mean(found)) if found else 1.0
            rows.append((k, radius, str(domain + 1), int(points), mean, 1 + sum(v >= PERSISTS for v in found)))
    return pd.DataFrame(rows, columns=["scale", "radius", "domain", "points", "persistence", "found_at"])


def scale_tables(tissue: Tissue, scales: Scales) -> dict[str, pd.DataFrame]:
    """Write the domains of all scales as one table a section: index barcodes, a column ``scale_<k>`` each."""
    columns = {}
    for k, labels in zip(scales.neighbours, scales.labels):
        names = [str(number + 1) for number in range(int(labels.max()) + 1)]
        columns[f"scale_{k}"] = pd.Categorical.from_codes(labels, names)
    return domains.split_table(tissue, pd.DataFrame(columns))
