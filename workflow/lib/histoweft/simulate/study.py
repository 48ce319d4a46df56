"""The whole demo study in memory: sections, single-cell reference, voxel atlas, and the truth of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from histoweft.errors import Faults
from histoweft.simulate import tissue
from histoweft.simulate.atlas import Atlas, draw_atlas
from histoweft.simulate.counts import (
    Effects,
    batch_depths,
    batch_factors,
    draw_counts,
    expected,
    tumour_folds,
)
from histoweft.simulate.draws import Field, stream
from histoweft.simulate.genes import CELL_SIZE, CELL_TYPES, Genes, draw_genes, planted
from histoweft.simulate.image import draw_image
from histoweft.simulate.layout import MPP, PITCH_UM, SECTIONS, SPOT_DIAMETER_UM
from histoweft.simulate.reference import Reference, draw_reference

#: Expected total counts of a middling spot.
DEPTH = 3000.0
#: Micrometres per pixel of the hires image, unless the section is so large that it would exceed 2,000 pixels.
HIRES_UM_PER_PIXEL = 2.0
HIRES_MAX_PIXELS = 2000


@dataclass(frozen=True)
class Section:
    """One simulated section.

    Parameters
    ----------
    sample, patient, batch, condition
        As in `layout.SECTIONS`.
    spots
        Every spot of the capture frame; barcodes, array places and positions in micrometres.
    in_tissue
        Which of them lie on tissue (bool, one per spot).
    barcode
        Barcodes on tissue in the order of `counts` (sorted, as Space Ranger has them).
    counts
        int32 CSR, tissue spots x genes.
    labels
        Expert-like annotation of each tissue spot; empty where unlabelled.
    truth
        One array per column of ``truth/<sample>.tsv``, tissue spots long.
    cells
        Every cell of the section.
    image
        H&E-like, uint8, height x width x 3, or None when not asked for.
    image_um_per_pixel
        Size of the image's pixels.
    """

    sample: str
    patient: str
    batch: str
    condition: str
    spots: tissue.Spots
    in_tissue: np.ndarray
    barcode: np.ndarray
    counts: object
    labels: np.ndarray
    truth: Mapping[str, np.ndarray]
    cells: tissue.Cells
    image: np.ndarray | None
    image_um_per_pixel: float

    @property
    def xy_px(self) -> np.ndarray:
        """Return (x, y) of every spot of the frame in full-resolution pixels."""
        return self.spots.xy_um / MPP


@dataclass(frozen=True)
class Study:
    """A simulated study; `write.write_study` lays it out on disk."""

    seed: int
    parameters: Mapping[str, object]
    genes: Genes
    batch_factors: Mapping[str, np.ndarray]
    sections: Mapping[str, Section]
    reference: Reference
    atlas: Atlas
    domains: tuple[str, ...] = field(default=tissue.DOMAINS)


def simulate_study(
    seed: int,
    spots: int = 600,
    genes: int = 1200,
    *,
    sections: Sequence[Mapping[str, str]] = SECTIONS,
    persister_effect: float = 1.8,
    interaction_effect: float = 2.0,
    gradient_effect: float = 1.7,
    batch_effect: float = 0.2,
    treatment_effect: float = 1.0,
    rare_share: float = 0.4,
    reference_cells: int = 720,
    voxels: int = 1500,
    images: bool = True,
) -> Study:
    """Simulate a study; the same arguments always give the same arrays.

    Parameters
    ----------
    seed
        Seed of every draw, 0 or more.
    spots
        Spots on tissue in each section, roughly.
    genes
        Genes in the panel, planted ones included.
    sections
        sample, patient, batch and condition (``untreated`` or ``treated``) of each section.
    persister_effect
        log2 fold change of the persister programme in persister cells; at 0 there are none.
    interaction_effect
        log2 fold change of an active ligand-receptor pair; 0 for none.
    gradient_effect
        log2 range of the differentiation genes along the pseudotime; 0 for none.
    batch_effect
        Standard deviation of the gene-wise natural-log factor between batches; 0 for none.
    treatment_effect
        Multiplier of therapy's effect on T cells and on proliferation (persisters apart); 0 for none.
    rare_share
        Share of the rare type at the heart of its foci; 0 for no foci.
    reference_cells, voxels
        Size of the reference and, roughly, of the atlas.
    images
        Whether to draw the H&E, which takes most of the time.

    Returns
    -------
    Study

    Raises
    ------
    InputError
        When an argument is out of range; all faults at once.

    Notes
    -----
    Counts are negative binomial: the expected composition of a spot is the sum over the cells within its disc,
    times its batch's gene-wise factor, scaled to a log-normal depth. Each part draws from its own stream: setting
    an effect to 0 moves no spot, border or cell.
    """
    parameters = dict(locals())
    parameters["sections"] = [dict(section) for section in sections]
    _check(parameters)
    parameters["seed"] = seed = int(seed)
    effects = Effects(persister_effect, interaction_effect, gradient_effect, batch_effect)
    panel = draw_genes(stream(seed, "genes"), genes)
    batches = sorted({section["batch"] for section in sections})
    factors = batch_factors(seed, effects, batches, genes)
    depths = batch_depths(effects, batches)
    made = {}
    for entry in parameters["sections"]:
        made[entry["sample"]] = _draw_section(
            seed,
            entry,
            panel,
            effects,
            spots=spots,
            factor=factors[entry["batch"]],
            depth=DEPTH * depths[entry["batch"]],
            treatment_effect=treatment_effect,
            rare_share=rare_share,
            images=images,
        )
    return Study(
        seed,
        parameters,
        panel,
        factors,
        made,
        draw_reference(seed, panel, effects, reference_cells),
        draw_atlas(seed, voxels),
    )


def _check(parameters: Mapping[str, object]) -> None:
    faults = Faults()
    least = {"seed": 0, "spots": 60, "genes": len(planted()) + 50, "reference_cells": 70, "voxels": 100}
    for name, low in least.items():
        value = parameters[name]
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < low:
            faults.add(f"simulate: {name}", value, f"an integer of at least {low}")
    effects = [name for name in parameters if name.endswith("_effect")]
    for name in effects:
        if not np.isfinite(parameters[name]) or parameters[name] < 0:
            faults.add(f"simulate: {name}", parameters[name], "a number of at least 0", "Use 0 for no effect.")
    if not 0 <= parameters["rare_share"] <= 1:
        faults.add("simulate: rare_share", parameters["rare_share"], "a number between 0 and 1")
    for entry in parameters["sections"]:
        if entry.get("condition") not in tissue.PERSISTER_SHARE:
            faults.add(
                f"simulate: condition of section {entry.get('sample')}",
                entry.get("condition"),
                "untreated or treated",
            )
    faults.raise_if_any()


def _draw_section(
    seed: int,
    entry: Mapping[str, str],
    genes: Genes,
    effects: Effects,
    *,
    spots: int,
    factor: np.ndarray,
    depth: float,
    treatment_effect: float,
    rare_share: float,
    images: bool,
) -> Section:
    sample = entry["sample"]
    shape = tissue.draw_shape(seed, sample, entry["patient"], spots)
    frame = tissue.draw_spots(seed, sample, shape)
    cells = tissue.draw_cells(
        seed,
        sample,
        shape,
        treated=entry["condition"] == "treated",
        persisters=effects.persister > 0,
        treatment_effect=treatment_effect,
        rare_share=rare_share,
    )
    spot, cell = _members(frame.xy_um, cells.xy_um)
    in_tissue = shape.inside(frame.xy_um) & (np.bincount(spot, minlength=len(frame.barcode)) >= 2)
    chosen = np.flatnonzero(in_tissue)
    chosen = chosen[np.argsort(frame.barcode[chosen])]
    place = np.full(len(in_tissue), -1)
    place[chosen] = np.arange(len(chosen))
    kept = place[spot] >= 0
    truth, n_cells, folds = _gather(effects, shape, frame.xy_um[chosen], cells, place[spot[kept]], cell[kept])
    truth = {"barcode": frame.barcode[chosen], **truth}
    active = {
        "immune_stroma_border": truth["lr_active"].astype(float),
        "persister_niche": truth["niche_lr_active"].astype(float),
    }
    mean = expected(genes, effects, n_cells, folds, active) * factor

    rng = stream(seed, sample, "counts")
    mean *= np.exp(0.15 * effects.batch * rng.standard_normal(len(genes)))  # one section differs a little too
    mitochondrial = genes.role == "mitochondrial"
    mean[:, mitochondrial] *= np.exp(0.2 * rng.standard_normal((len(mean), 1)))
    mass = n_cells @ CELL_SIZE
    total = depth * (mass / np.median(mass)) ** 0.6 * np.exp(0.28 * rng.standard_normal(len(mean)))
    truth["low_quality"] = _spoil(rng, shape.edge(frame.xy_um[chosen]), mean, total, mitochondrial)

    um_per_pixel = max(HIRES_UM_PER_PIXEL, shape.side_um / HIRES_MAX_PIXELS)
    return Section(
        **{key: entry[key] for key in ("sample", "patient", "batch", "condition")},
        spots=frame,
        in_tissue=in_tissue,
        barcode=frame.barcode[chosen],
        counts=draw_counts(rng, mean, total),
        labels=_annotate(seed, sample, shape, frame.xy_um[chosen]),
        truth=truth,
        cells=cells,
        image=draw_image(seed, sample, entry["patient"], shape, cells, um_per_pixel) if images else None,
        image_um_per_pixel=um_per_pixel,
    )


def _members(spots_um: np.ndarray, cells_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (spot, cell) index pairs of the cells that lie within a spot's disc."""
    from scipy.spatial import cKDTree

    distance, nearest = cKDTree(spots_um).query(cells_um, distance_upper_bound=SPOT_DIAMETER_UM / 2)
    cell = np.flatnonzero(np.isfinite(distance))
    return nearest[cell], cell


def _gather(
    effects: Effects,
    shape: tissue.Shape,
    xy: np.ndarray,
    cells: tissue.Cells,
    spot: np.ndarray,
    cell: np.ndarray,
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """Return the truth of each spot, its cells by type, and the mean programme folds of its tumour cells."""
    n, n_types = len(xy), len(CELL_TYPES)
    kind = cells.kind[cell]
    n_cells = np.bincount(spot * n_types + kind, minlength=n * n_types).reshape(n, n_types).astype(float)
    tumour = kind == CELL_TYPES.index("tumour")
    where, which = spot[tumour], cell[tumour]
    n_tumour = np.bincount(where, minlength=n)

    def mean(values: np.ndarray, empty: float) -> np.ndarray:
        total = np.bincount(where, weights=values, minlength=n)
        return np.where(n_tumour > 0, total / np.maximum(n_tumour, 1), empty)

    per_cell = tumour_folds(
        effects, cells.pseudotime[which], cells.secretory[which], cells.cycling[which], cells.persister[which]
    )
    folds = {programme: mean(fold, 1.0) for programme, fold in per_cell.items()}
    domain = np.searchsorted(tissue.BORDERS, shape.depth(xy))
    persister = mean(cells.persister[which].astype(float), 0.0)
    niche = shape.near_niche(xy) < tissue.NICHE_RADIUS_UM
    secretory = mean(cells.secretory[which].astype(float), np.nan)
    pseudotime = mean(cells.pseudotime[which], np.nan)
    border = _touching(xy, domain, n_cells, effects)
    truth = {
        "domain": np.array(tissue.DOMAINS)[domain],
        "cell_type": np.array(CELL_TYPES)[n_cells.argmax(1)],
        "n_cells": n_cells.sum(1).astype(int),
        **{f"prop_{name}": n_cells[:, i] / n_cells.sum(1) for i, name in enumerate(CELL_TYPES)},
        "depth": shape.depth(xy),
        "pseudotime": pseudotime,
        "branch": _branch(pseudotime, secretory),
        "cycling_fraction": mean(cells.cycling[which].astype(float), 0.0),
        "persister_fraction": persister,
        "niche": niche,
        "lr_active": border,
        "niche_lr_active": niche & (persister > 0.15) & (effects.interaction > 0),
    }
    return truth, n_cells, folds


def _branch(pseudotime: np.ndarray, secretory: np.ndarray) -> np.ndarray:
    """Name the branch of each spot's tumour cells: ``trunk`` before the fork, empty without tumour cells."""
    late = np.where(secretory > 0.5, "secretory", "absorptive")
    return np.where(np.isnan(pseudotime), "", np.where(pseudotime < 0.55, "trunk", late))


def _touching(xy: np.ndarray, domain: np.ndarray, n_cells: np.ndarray, effects: Effects) -> np.ndarray:
    """Return the spots of the immune-stroma border in whose surroundings fibroblasts and T cells meet."""
    from scipy.spatial import cKDTree

    tree = cKDTree(xy)
    pairs = tree.query_pairs(1.2 * PITCH_UM, output_type="ndarray")
    immune, stroma = tissue.DOMAINS.index("immune_band"), tissue.DOMAINS.index("stroma")
    a, b = domain[pairs].T
    meet = pairs[((a == immune) & (b == stroma)) | ((a == stroma) & (b == immune))]
    senders, receivers = n_cells[:, CELL_TYPES.index("fibroblast")], n_cells[:, CELL_TYPES.index("t_cell")]
    meet = meet[(senders[meet].sum(1) > 0) & (receivers[meet].sum(1) > 0)]
    active = np.zeros(len(xy), bool)
    active[meet.ravel()] = effects.interaction > 0
    return active


def _spoil(
    rng: np.random.Generator, edge: np.ndarray, mean: np.ndarray, total: np.ndarray, mitochondrial: np.ndarray
) -> np.ndarray:
    """Spoil a handful of spots in place, mostly near the tissue's edge; return why ("" for the others)."""
    n = len(total)
    count = max(2, round(0.008 * n))
    odds = np.exp(-edge / 300)
    spoilt = rng.choice(n, 2 * count, replace=False, p=odds / odds.sum())
    reason = np.full(n, "", dtype="<U10")
    reason[spoilt[:count]], reason[spoilt[count:]] = "few_genes", "high_mito"
    total[spoilt[:count]] = rng.uniform(50, 150, count)
    for i in spoilt[count:]:
        own, share = mean[i, mitochondrial].sum(), rng.uniform(0.4, 0.6)
        mean[i, mitochondrial] *= share / (1 - share) * (mean[i].sum() - own) / own
        total[i] *= 0.5
    return reason


def _annotate(seed: int, sample: str, shape: tissue.Shape, xy: np.ndarray) -> np.ndarray:
    """Return an expert's domains: borders drawn by hand, hence a little off, and some spots left out."""
    rng = stream(seed, sample, "labels")
    hand = shape.depth(xy) + 0.012 * Field.draw(rng, 600.0)(xy)
    label = np.array(tissue.DOMAINS)[np.searchsorted(tissue.BORDERS, hand)]
    skip = rng.random(len(xy)) < np.where(shape.edge(xy) < 70, 0.35, 0.02)
    return np.where(skip, "", label)
