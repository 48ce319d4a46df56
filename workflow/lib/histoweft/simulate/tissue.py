"""The geometry of one section: outline, layers, cells, spots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histoweft.simulate.draws import Field, stream
from histoweft.simulate.genes import CELL_TYPES, RARE_TYPE
from histoweft.simulate.layout import PITCH_UM, SPOT_DIAMETER_UM

DOMAINS = ("tumour_core", "invasive_margin", "immune_band", "stroma", "muscle")
#: Share of the tissue's area that each layer takes, deepest first.
DOMAIN_SHARE = np.array([0.28, 0.18, 0.15, 0.21, 0.18])
#: Depth (0-1) where one layer ends and the next begins.
BORDERS = np.cumsum(DOMAIN_SHARE)[:-1]
#: Composition of each domain (rows) in `CELL_TYPES` order.
COMPOSITION = np.array(
    [
        [0.840, 0.045, 0.003, 0.035, 0.030, 0.005, 0.040, 0.002],
        [0.370, 0.280, 0.010, 0.080, 0.100, 0.025, 0.130, 0.005],
        [0.035, 0.110, 0.010, 0.070, 0.370, 0.300, 0.100, 0.005],
        [0.015, 0.640, 0.055, 0.120, 0.065, 0.015, 0.080, 0.010],
        [0.005, 0.120, 0.740, 0.065, 0.025, 0.005, 0.037, 0.003],
    ]
)
#: Mean number of cells within a spot's disc, by domain.
CELLS_PER_SPOT = np.array([8.5, 8.5, 12.5, 7.0, 6.5])
NICHE_RADIUS_UM = 230.0
#: Share of the tumour cells that persist, by condition.
PERSISTER_SHARE = {"untreated": 0.03, "treated": 0.22}

_CANDIDATE_PITCH_UM = 11.0


@dataclass(frozen=True)
class Shape:
    """Outline, layers, holes and niches of one section; positions in micrometres, y down."""

    side_um: float
    radius_um: float
    harmonics: np.ndarray
    pole: np.ndarray
    warp: tuple[Field, Field]
    quantiles: np.ndarray
    holes: np.ndarray
    niches: np.ndarray
    rare_spots: np.ndarray

    @property
    def centre(self) -> np.ndarray:
        """Return the centre of the capture frame."""
        return np.full(2, self.side_um / 2)

    def edge(self, xy: np.ndarray) -> np.ndarray:
        """Return how far inside the outline each point lies, in micrometres (negative outside)."""
        offset = xy - self.centre
        angle = np.arctan2(offset[:, 1], offset[:, 0])
        order = np.arange(2, 2 + len(self.harmonics))
        wave = np.cos(angle[:, None] * order + self.harmonics[:, 1]) @ self.harmonics[:, 0]
        return self.radius_um * (1 + wave) - np.hypot(*offset.T)

    def inside(self, xy: np.ndarray) -> np.ndarray:
        """Return which points lie on tissue: within the outline and in no hole."""
        inside = self.edge(xy) > 0
        for x, y, radius in self.holes:
            inside &= np.hypot(xy[:, 0] - x, xy[:, 1] - y) > radius
        return inside

    def across(self, xy: np.ndarray) -> np.ndarray:
        """Return the coordinate across the layers in micrometres."""
        bend = 0.10 * self.radius_um * self.warp[0](xy) + 0.03 * self.radius_um * self.warp[1](xy)
        return np.hypot(*(xy - self.pole).T) + bend

    def along(self, xy: np.ndarray) -> np.ndarray:
        """Return the coordinate along the layers in micrometres, 0 in their middle."""
        offset = xy - self.pole
        axis = self.centre - self.pole
        angle = np.arctan2(offset[:, 1], offset[:, 0]) - np.arctan2(axis[1], axis[0])
        return (np.mod(angle + np.pi, 2 * np.pi) - np.pi) * np.hypot(*axis)

    def depth(self, xy: np.ndarray) -> np.ndarray:
        """Return the share of the tissue that lies deeper: 0 in the tumour core, 1 at the far end."""
        return np.interp(self.across(xy), self.quantiles, np.linspace(0, 1, len(self.quantiles)))

    def near_niche(self, xy: np.ndarray) -> np.ndarray:
        """Return the distance to the nearest persister niche in micrometres."""
        return np.min([np.hypot(*(xy - centre).T) for centre in self.niches], axis=0)


@dataclass(frozen=True)
class Cells:
    """Every cell of a section; arrays of one length."""

    xy_um: np.ndarray
    kind: np.ndarray
    depth: np.ndarray
    pseudotime: np.ndarray
    secretory: np.ndarray
    cycling: np.ndarray
    persister: np.ndarray


@dataclass(frozen=True)
class Spots:
    """Every spot of the capture frame, on tissue or not; arrays of one length."""

    barcode: np.ndarray
    array_row: np.ndarray
    array_col: np.ndarray
    xy_um: np.ndarray


def draw_shape(seed: int, section: str, patient: str, spots: int) -> Shape:
    """Draw a section's shape so that about `spots` spots fall on tissue.

    Sections of one patient share the direction of the layers; everything else is the section's own.
    """
    rng, shared = stream(seed, section, "shape"), stream(seed, patient, "shape")
    radius = np.sqrt(1.03 * spots * PITCH_UM**2 * np.sqrt(0.75) / np.pi)
    order = np.arange(2, 8)
    harmonics = np.column_stack([rng.normal(0, 0.11 / order, len(order)), rng.uniform(0, 2 * np.pi, len(order))])
    direction = shared.uniform(0, 2 * np.pi) + rng.normal(0, 0.25)
    side = 2.36 * radius + 200
    pole = side / 2 + 1.7 * radius * np.array([np.cos(direction), np.sin(direction)])
    warp = (Field.draw(rng, 1.3 * radius), Field.draw(rng, 0.5 * radius))
    none = np.zeros((0, 3))
    bare = Shape(side, radius, harmonics, pole, warp, np.zeros(2), none, none[:, :2], none[:, :2])
    probe = rng.uniform(0, side, (20_000, 2))
    probe = probe[bare.edge(probe) > 0]
    quantiles = np.quantile(bare.across(probe), np.linspace(0, 1, 201))
    layered = Shape(side, radius, harmonics, pole, warp, quantiles, none, none[:, :2], none[:, :2])

    depth, along, edge = layered.depth(probe), layered.along(probe), layered.edge(probe)
    away = edge > 0.18 * radius
    niches = [_pick(rng, probe, away & (np.abs(depth - 0.3) < 0.05) & (along * sign > 0)) for sign in (-1, 1)]
    rare = [_pick(rng, probe, away & (depth > BORDERS[2] + 0.05) & (depth < BORDERS[3])) for _ in range(2)]
    n_holes = max(2, round(spots / 150))
    far = layered.edge(probe) > 120
    for centre in niches + rare:
        far &= np.hypot(*(probe - centre).T) > 250
    far = far if far.any() else edge > 120
    holes = [[*_pick(rng, probe, far), rng.uniform(35, 85)] for _ in range(n_holes)]
    return Shape(side, radius, harmonics, pole, warp, quantiles, np.array(holes), np.array(niches), np.array(rare))


def _pick(rng: np.random.Generator, points: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    chosen = points[allowed] if allowed.any() else points
    return chosen[rng.integers(len(chosen))]


def draw_spots(seed: int, section: str, shape: Shape) -> Spots:
    """Lay a hexagonal array over the capture frame: 100 um pitch, mounted at a slight angle.

    A barcode belongs to a place of the array and so recurs in every section, as on real slides.
    """
    rows = int((shape.side_um - 200) // (PITCH_UM * np.sqrt(0.75)))
    columns = int((shape.side_um - 200) // PITCH_UM)
    row, column = (grid.ravel() for grid in np.mgrid[:rows, :columns])
    column = 2 * column + row % 2
    xy = np.column_stack([column * PITCH_UM / 2, row * PITCH_UM * np.sqrt(0.75)])
    angle = np.deg2rad(stream(seed, section, "spots").uniform(-1.5, 1.5))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    xy = (xy - xy.mean(0)) @ turn + shape.centre
    letters = np.array(list("ACGT"))[stream(0, "barcodes").integers(0, 4, (len(row), 16))]
    # the first eight letters count upwards in base 4, so no two barcodes are alike
    letters[:, :8] = np.array(list("ACGT"))[(np.arange(len(row))[:, None] // 4 ** np.arange(8)) % 4]
    letters = letters[:, stream(0, "barcode letters").permutation(16)]
    barcode = np.array(["".join(word) + "-1" for word in letters])
    return Spots(barcode, row, column, xy)


def draw_cells(
    seed: int,
    section: str,
    shape: Shape,
    *,
    treated: bool,
    persisters: bool,
    treatment_effect: float,
    rare_share: float,
) -> Cells:
    """Place the cells of a section and give each a type and a state.

    Parameters
    ----------
    treated
        Whether the section was taken after therapy.
    persisters
        Whether persister cells exist at all.
    treatment_effect
        Multiplier of therapy's effect on T cells and proliferation; 0 for none.
    rare_share
        Share of mast cells at the heart of their two foci; 0 for none beyond the background.
    """
    therapy = treatment_effect if treated else 0.0
    rng = stream(seed, section, "cells")
    steps = np.arange(0, shape.side_um, _CANDIDATE_PITCH_UM)
    xy = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    xy = xy + rng.uniform(-4, 4, xy.shape)
    xy = xy[shape.inside(xy)]
    depth = shape.depth(xy)
    disc = np.pi * SPOT_DIAMETER_UM**2 / 4
    domain = np.searchsorted(BORDERS, depth + rng.normal(0, 0.012, len(xy)))
    crowding = np.exp(0.18 * Field.draw(rng, 350.0)(xy))
    keep = rng.random(len(xy)) < CELLS_PER_SPOT[domain] * crowding / disc * _CANDIDATE_PITCH_UM**2
    xy, depth, domain = xy[keep], depth[keep], domain[keep]

    kind = _draw_kinds(rng, shape, xy, domain, therapy, rare_share)
    state = stream(seed, section, "states")
    tumour = kind == CELL_TYPES.index("tumour")
    pseudotime = np.clip(1 - depth / BORDERS[1] + state.normal(0, 0.06, len(xy)), 0, 1)
    side = shape.along(xy) + 90 * Field.draw(state, 400.0)(xy) + state.normal(0, 60, len(xy))
    secretory = side > 0
    score = np.exp(-(shape.near_niche(xy) ** 2) / (2 * NICHE_RADIUS_UM**2)) + 0.10 * Field.draw(state, 250.0)(xy)
    share = PERSISTER_SHARE["treated" if treated else "untreated"]
    persister = tumour & (score > np.quantile(score[tumour], 1 - share)) & (state.random(len(xy)) < 0.9)
    persister &= persisters
    # progenitors divide, mature cells and persisters hardly do
    rate = np.where(tumour, 0.45 - 0.38 * pseudotime, 0.0) * 0.45**therapy
    rate = np.where(persister, 0.15 * rate, rate)
    cycling = state.random(len(xy)) < rate
    return Cells(xy, kind, depth, np.where(tumour, pseudotime, np.nan), tumour & secretory, cycling, persister)


def _draw_kinds(
    rng: np.random.Generator,
    shape: Shape,
    xy: np.ndarray,
    domain: np.ndarray,
    therapy: float,
    rare_share: float,
) -> np.ndarray:
    """Draw each cell's type from its domain's composition, bent by smooth fields, niches and therapy."""
    weight = COMPOSITION[domain]
    for i in range(len(CELL_TYPES)):
        weight[:, i] *= np.exp(0.22 * Field.draw(rng, 260.0)(xy))
    niche = np.exp(-(shape.near_niche(xy) ** 2) / (2 * (0.8 * NICHE_RADIUS_UM) ** 2))
    weight[:, CELL_TYPES.index("macrophage")] *= 1 + 2.5 * niche
    weight[:, CELL_TYPES.index("endothelial")] *= 1 + 1.5 * niche
    weight[:, CELL_TYPES.index("t_cell")] *= np.where(domain < 2, 1.6**therapy, 1.0)
    weight /= weight.sum(1, keepdims=True)
    rare = np.zeros(len(xy))
    for centre in shape.rare_spots:
        rare = np.maximum(rare, rare_share * np.exp(-(np.hypot(*(xy - centre).T) ** 2) / (2 * 110.0**2)))
    weight *= 1 - rare[:, None]
    weight[:, CELL_TYPES.index(RARE_TYPE)] += rare
    return (rng.random(len(xy))[:, None] > weight.cumsum(1)[:, :-1]).sum(1)
