"""A small voxel atlas: a two-sided organ on a grid, four structures, smooth and structural genes, section artefacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from histoweft.simulate.draws import stream

if TYPE_CHECKING:
    import scipy.sparse as sp

VOXEL_UM = 200
N_GENES = 150
#: id, acronym, name, parent id: two levels under the root.
STRUCTURES = (
    (1, "ORG", "organ", 0),
    (2, "CTX", "cortex", 1),
    (3, "MED", "medulla", 1),
    (11, "CTXs", "cortex, superficial layer", 2),
    (12, "CTXd", "cortex, deep layer", 2),
    (21, "MEDl", "medulla, lateral part", 3),
    (22, "MEDm", "medulla, medial part", 3),
)
LEAVES = (11, 12, 21, 22)


@dataclass(frozen=True)
class Atlas:
    """The atlas.

    Parameters
    ----------
    expression
        float32, voxels x genes, non-negative energies; -1 where missing.
    coordinates
        int16, voxels x 3: z (section), y, x on the grid, 0-based.
    annotation
        int32 volume of structure ids, 0 outside the organ.
    genes
        One name a gene.
    truth
        One array a gene: kind, structure, wavelength.
    """

    expression: np.ndarray
    coordinates: np.ndarray
    annotation: np.ndarray
    genes: np.ndarray
    truth: Mapping[str, np.ndarray]


def draw_atlas(seed: int, voxels: int = 1500) -> Atlas:
    """Draw an atlas of about `voxels` voxels inside an ellipsoid with a left and a right half.

    A third of the genes are smooth fields, a third follow a structure, a sixth do both, a sixth are noise.
    Every gene has the artefacts of a section-wise assay: whole sections brighter or dimmer, 1 % of voxels and
    some sections missing.
    """
    rng = stream(seed, "atlas")
    scale = (voxels / (4 / 3 * np.pi)) ** (1 / 3)
    radius = scale * np.array([1.2, 0.75, 1 / 0.9])
    size = np.ceil(2 * radius + 2).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(k) for k in size), indexing="ij"), -1)
    unit = (grid - (size - 1) / 2) / radius
    shell = np.linalg.norm(unit, axis=-1)
    wave = 0.06 * np.sin(4 * unit[..., 0] + 1) * np.cos(5 * unit[..., 1])
    annotation = np.zeros(size, np.int32)
    organ = shell <= 1.0
    annotation[organ] = np.where(np.abs(unit[..., 2]) > 0.33, 21, 22)[organ]
    annotation[organ & (shell + wave > 0.68)] = 12
    annotation[organ & (shell + wave > 0.86)] = 11
    coordinates = np.argwhere(annotation > 0).astype(np.int16)
    place = unit[annotation > 0]
    region = annotation[annotation > 0]

    kind = np.array(["smooth", "structure", "both", "noise"])[rng.choice(4, N_GENES, p=[0.34, 0.33, 0.18, 0.15])]
    wavelength = np.where(np.isin(kind, ["smooth", "both"]), rng.uniform(1.2, 3.0, N_GENES), np.nan)
    structure = np.where(np.isin(kind, ["structure", "both"]), rng.choice(LEAVES, N_GENES), 0)
    # the two halves mirror one another, but for a slight slope from left to right in the smooth genes
    folded = np.column_stack([place[:, :2], np.abs(place[:, 2])])
    log = rng.normal(0.3, 0.5, N_GENES) + 0.12 * rng.standard_normal((len(place), N_GENES))
    for gene in np.flatnonzero(np.isfinite(wavelength)):
        direction = rng.standard_normal((4, 3))
        direction *= 2 * np.pi / wavelength[gene] / np.linalg.norm(direction, axis=1, keepdims=True)
        log[:, gene] += 0.45 * np.cos(folded @ direction.T + rng.uniform(0, 2 * np.pi, 4)).sum(1)
        log[:, gene] += rng.normal(0, 0.25) * place[:, 2]
    log += np.where(region[:, None] == structure, rng.uniform(0.8, 1.6, N_GENES), 0.0)
    log += 0.10 * rng.standard_normal((size[0], N_GENES))[coordinates[:, 0]]
    expression = np.exp(log).astype(np.float32)
    gone = rng.random(expression.shape) < 0.01
    gone |= (rng.random((size[0], N_GENES)) < 0.015)[coordinates[:, 0]]
    expression[gone] = -1
    names = np.array([f"ATLAS{i:03d}" for i in range(1, N_GENES + 1)])
    truth = {"gene": names, "kind": kind, "structure": structure, "wavelength_voxels": wavelength * scale}
    return Atlas(expression, coordinates, annotation, names, truth)


# ------------------------------------------------------------------------------- a full-size atlas on a true annotation

#: Gaussian width in voxels of the smooth fields, and how many of each.
FIELD_WIDTHS = {1.2: 130, 2.0: 100, 3.5: 70, 6.0: 50, 10.0: 30}
#: Share of a field's variance in a gene by its width, on average.
FIELD_SHARES = {1.2: 0.28, 2.0: 0.32, 3.5: 0.20, 6.0: 0.11, 10.0: 0.09}
#: Antisymmetric fields, whose share of the variance is `ASYMMETRY`.
ASYMMETRIC_FIELDS = {2.5: 20, 6.0: 20}
ASYMMETRY = 0.05
PROGRAMMES = 60
#: Share of a gene's structure effects and fields that the programmes give.
SHARED = 0.7
#: Factor by which the increments of a structure over its parent shrink from one depth to the next.
SHRINK = 0.85
#: Gaussian width in voxels of the borders between structures (sections are registered and averaged into voxels).
BORDER = 0.6
GAIN_SD = 0.17
NOISE_SD = 0.12
#: Energy that a stain cannot exceed.
SATURATION = 60.0
TINY = 1e-6
MISSING_SCATTERED = 0.01
MISSING_SECTION = 0.01
CHUNK_GENES = 64


def draw_on_annotation(
    annotation: np.ndarray,
    structures: Mapping[str, np.ndarray],
    n_genes: int,
    seed: int,
    out: Callable[[tuple[int, int]], np.ndarray] | None = None,
) -> Atlas:
    """Draw a full-size atlas whose genes follow the structures of a true annotation.

    Parameters
    ----------
    annotation
        Volume of structure ids (z sections, y, x), 0 outside the organ.
    structures
        Columns id and parent (0 or an unknown id for a root); a data frame will do.
    n_genes
        Genes to draw.
    seed
        Seed of every draw.
    out
        Makes the float32 array of a given shape that is filled, e.g. a memory map; `numpy.empty` when None.

    Returns
    -------
    Atlas
        Truth of each gene: mean_log, sd_log, structure_share (of the variance, before gain and noise) and
        section_gain_sd (in units of sd_log).

    Notes
    -----
    What is assumed. The logarithm of a gene's energy is its own mean plus a spread times the sum of

    - structure effects: the effect of a structure is that of its parent plus an increment that shrinks with depth;
      seven tenths of the variance come from 60 programmes that genes share, the rest is the gene's own; borders are
      a little blurred, as registration and averaging into voxels do;
    - smooth Gaussian random fields of five widths, the same in both halves (mixed from a pool of 380 fields, again
      seven tenths by shared programmes);
    - antisymmetric fields with 5 % of the variance: a persistent difference between left and right;

    and of a gain a section and gene and noise a voxel. Energies are the exponential of that, saturating at 60 as a
    stain does, and missing (-1) at 1 % of places, in 1 % of the sections, and in a few sections at the front and the
    back (one draw a gene).

    Widths, shares and spreads were chosen so that the correlation of neighbours at 1, 2, 4 and 8 voxels, the one
    between the two halves, and the share of variance between structures agree with two real coronal genes (Nrp1, Pdyn)
    of the Allen Mouse Brain Atlas. How strongly genes share their programmes is an assumption: two genes cannot tell.

    Memory is the result and about a third of it for 3,000 genes.
    """
    rng = stream(seed, "full atlas")
    coordinates = np.argwhere(annotation > 0)
    ids = annotation[annotation > 0]
    membership, tree = _memberships(annotation, coordinates, ids, structures)
    fields = _field_pool(rng, coordinates)
    even, odd = _loadings(rng, n_genes)
    effects = _structure_effects(rng, tree, membership, n_genes)
    share = rng.beta(6, 5, n_genes)
    truth = {
        "gene": np.array([f"SIM{i:05d}" for i in range(1, n_genes + 1)]),
        "mean_log": rng.normal(-0.8, 1.0, n_genes),
        "sd_log": np.clip(rng.normal(1.3, 0.25, n_genes), 0.4, None),
        "structure_share": (1 - ASYMMETRY) * share,
        "section_gain_sd": GAIN_SD * rng.uniform(0.6, 1.4, n_genes),
    }
    effects *= np.sqrt(truth["structure_share"]).astype(np.float32)
    loadings = np.concatenate([even * np.sqrt((1 - ASYMMETRY) * (1 - share)), odd * np.sqrt(ASYMMETRY)])
    loadings = loadings.astype(np.float32)

    shape = (len(coordinates), n_genes)
    expression = np.empty(shape, np.float32) if out is None else out(shape)
    section = coordinates[:, 0] - coordinates[:, 0].min()
    for start in range(0, n_genes, CHUNK_GENES):
        genes = slice(start, min(start + CHUNK_GENES, n_genes))
        values = membership @ effects[:, genes]
        values += fields @ loadings[:, genes]
        expression[:, genes] = _measured(rng, values, section, {key: column[genes] for key, column in truth.items()})
    return Atlas(expression, coordinates.astype(np.int16), np.asarray(annotation, np.int32), truth["gene"], truth)


def _measured(rng: np.random.Generator, values: np.ndarray, section: np.ndarray, truth: Mapping) -> np.ndarray:
    """Return energies of standardized log values (voxels x genes, changed in place) as the assay gives them."""
    n_sections, n = section.max() + 1, values.shape[1]
    gain = rng.standard_normal((n_sections, n), np.float32) * truth["section_gain_sd"].astype(np.float32)
    values += gain[section]
    noise = rng.standard_normal(values.shape, np.float32)
    noise *= np.float32(NOISE_SD)
    values += noise
    values *= truth["sd_log"].astype(np.float32)
    values += truth["mean_log"].astype(np.float32)
    np.exp(values, out=values)
    values /= 1 + values / np.float32(SATURATION)
    lost = rng.random((n_sections, n)) < MISSING_SECTION
    place = np.arange(n_sections)[:, None]
    ends = rng.binomial(6, 0.25, (2, n)) * n_sections // 65
    lost |= (place < ends[0]) | (place >= n_sections - ends[1])
    values[lost[section]] = -1
    values[rng.random(values.shape, np.float32) < MISSING_SCATTERED] = -1
    return values


def _memberships(
    annotation: np.ndarray, coordinates: np.ndarray, ids: np.ndarray, structures: Mapping[str, np.ndarray]
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Return how far each voxel belongs to each structure (rows add up to 1), and the tree of these structures.

    The tree has one row a node that is an annotated structure or lies above one, parents first: the parent's row (-1
    for a root) and the depth.
    """
    import scipy.sparse as sp

    parent_of = dict(zip(np.asarray(structures["id"]).tolist(), np.asarray(structures["parent"]).tolist()))
    parent_of.pop(0, None)  # the outside, which some trees list
    row_of: dict[int, int] = {}
    tree: list[tuple[int, int]] = []

    def add(node: int) -> int:
        if node not in row_of:
            above = parent_of.get(node, 0)
            parent = add(above) if above in parent_of else -1
            tree.append((parent, 0 if parent < 0 else tree[parent][1] + 1))
            row_of[node] = len(tree) - 1
        return row_of[node]

    own, voxel = np.unique(ids, return_inverse=True)
    row = np.array([add(i) for i in own.tolist()])
    n = len(coordinates)
    number = np.full(annotation.shape, -1)
    number[tuple(coordinates.T)] = np.arange(n)
    number = np.pad(number, 1, constant_values=-1)
    entries = []
    for step in np.ndindex(3, 3, 3):
        neighbour = number[tuple((coordinates + step).T)]
        weight = np.exp(-((np.array(step) - 1) ** 2).sum() / (2 * BORDER**2))
        there = np.flatnonzero(neighbour >= 0)
        entries.append((there, row[voxel[neighbour[there]]], np.full(len(there), weight, np.float32)))
    rows, columns, weights = (np.concatenate(part) for part in zip(*entries))
    blurred = sp.csr_matrix((weights, (rows, columns)), shape=(n, len(tree)))
    blurred.sum_duplicates()
    total = np.asarray(blurred.sum(1)).ravel()
    blurred.data /= np.repeat(total, np.diff(blurred.indptr)).astype(np.float32)
    return blurred, np.array(tree)


def _structure_effects(
    rng: np.random.Generator, tree: np.ndarray, membership: sp.csr_matrix, n_genes: int
) -> np.ndarray:
    """Return the effect of each structure on each gene (float32), standardized over the voxels."""
    weights = _programme_weights(rng, n_genes)
    shared = _down_the_tree(rng, tree, PROGRAMMES) @ weights
    own = _down_the_tree(rng, tree, n_genes)
    effects = _mixed(_standardized(shared, membership), _standardized(own, membership))
    return _standardized(effects, membership).astype(np.float32)


def _down_the_tree(rng: np.random.Generator, tree: np.ndarray, n: int) -> np.ndarray:
    """Return n random effects of every node: its parent's plus an increment shrinking with depth."""
    effects = rng.standard_normal((len(tree), n)) * SHRINK ** tree[:, 1][:, None]
    for node, (parent, _) in enumerate(tree):  # parents come first
        if parent >= 0:
            effects[node] += effects[parent]
    return effects


def _standardized(effects: np.ndarray, membership: sp.csr_matrix) -> np.ndarray:
    """Return structure effects with mean 0 and variance 1 over the voxels; 0 where there is but one structure."""
    size = np.asarray(membership.sum(0), float).ravel()
    size /= size.sum()
    effects = effects - size @ effects
    return effects / np.sqrt(np.maximum(size @ effects**2, TINY))


def _programme_weights(rng: np.random.Generator, n_genes: int) -> np.ndarray:
    """Return how much of each programme each gene has (programmes x genes): a few strong ones a gene."""
    weights = rng.standard_t(3, (PROGRAMMES, n_genes)) * rng.gamma(0.5, 1.0, (PROGRAMMES, 1))
    return weights / np.linalg.norm(weights, axis=0)


def _mixed(shared: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return what genes share and what is their own, by their shares of the variance."""
    return np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own


def _field_pool(rng: np.random.Generator, coordinates: np.ndarray) -> np.ndarray:
    """Return smooth fields at the voxels (float32, voxels x fields, mean 0, variance 1).

    The fields that are the same in both halves come first, those that change sign between them after.
    """
    low, high = coordinates.min(0), coordinates.max(0)
    here = tuple((coordinates - low).T)
    mirrored = (here[0], here[1], (high - low)[2] - here[2])
    kinds = [(width, 1) for width, k in FIELD_WIDTHS.items() for _ in range(k)]
    kinds += [(width, -1) for width, k in ASYMMETRIC_FIELDS.items() for _ in range(k)]
    fields = np.empty((len(coordinates), len(kinds)), np.float32)
    for column, (width, sign) in enumerate(kinds):
        field = _smooth_noise(rng, tuple(high - low + 1), width)
        values = field[here] + sign * field[mirrored]
        values -= values.mean()
        fields[:, column] = values / max(values.std(), TINY)
    return fields


def _loadings(rng: np.random.Generator, n_genes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each gene's loadings on the symmetric and the antisymmetric fields (fields x genes, length 1)."""
    weights = _programme_weights(rng, n_genes)
    blocks = []
    for width, k in FIELD_WIDTHS.items():
        shared = rng.standard_normal((k, PROGRAMMES)) @ weights / np.sqrt(k)
        own = rng.standard_normal((k, n_genes)) / np.sqrt(k)
        # how much of this width a gene has varies from gene to gene
        blocks.append(np.sqrt(FIELD_SHARES[width] * rng.gamma(3, 1 / 3, n_genes)) * _mixed(shared, own))
    even = np.concatenate(blocks)
    odd = rng.standard_normal((sum(ASYMMETRIC_FIELDS.values()), n_genes))
    return even / np.linalg.norm(even, axis=0), odd / np.linalg.norm(odd, axis=0)


def _smooth_noise(rng: np.random.Generator, box: tuple[int, ...], width: float) -> np.ndarray:
    """Return white noise smoothed to a Gaussian width in voxels; wide fields are drawn on a coarser grid."""
    from scipy.ndimage import gaussian_filter, zoom

    step = max(1, int(width / 2))
    coarse = [-(-size // step) + 1 for size in box]
    margin = int(np.ceil(2 * width / step))
    noise = rng.standard_normal([size + 2 * margin for size in coarse], np.float32)
    field = gaussian_filter(noise, width / step, mode="nearest", truncate=3)
    field = field[tuple(slice(margin, margin + size) for size in coarse)]
    if step > 1:
        field = zoom(field, step, order=1, grid_mode=True, mode="nearest")
    return field[tuple(slice(0, size) for size in box)]
