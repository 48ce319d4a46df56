"""An H&E-like picture of a section: optical densities of two stains, laid down cell by cell and fibre by fibre."""

from __future__ import annotations

import numpy as np

from histoweft.simulate.draws import Field, stream
from histoweft.simulate.genes import CELL_TYPES
from histoweft.simulate.tissue import BORDERS, Cells, Shape

#: Optical density per unit of stain in red, green, blue.
HAEMATOXYLIN = np.array([0.60, 0.70, 0.36])
EOSIN = np.array([0.10, 0.56, 0.27])

#: By cell type: half length and half width of the nucleus in micrometres, haematoxylin, scatter of the size.
NUCLEI = np.array(
    [
        [5.6, 4.5, 1.05, 0.18],  # tumour: large, vesicular
        [6.8, 2.1, 1.20, 0.15],  # fibroblast: spindle along the fibres
        [9.0, 1.9, 1.15, 0.15],  # smooth muscle: cigar
        [5.8, 2.2, 1.35, 0.15],  # endothelial
        [3.5, 3.4, 1.75, 0.08],  # t cell: small, round, dark
        [3.8, 3.6, 1.65, 0.08],  # b cell
        [4.6, 3.8, 0.95, 0.15],  # macrophage: pale
        [4.0, 3.8, 1.30, 0.10],  # mast
    ]
)
#: By domain: eosin, its contrast along fibres, haematoxylin of the cytoplasm.
GROUND = np.array(
    [
        [0.42, 0.10, 0.22],
        [0.47, 0.22, 0.15],
        [0.34, 0.10, 0.19],
        [0.62, 0.62, 0.02],
        [0.88, 0.34, 0.05],
    ]
)
#: Brightness of bare glass.
GLASS = 245
_COARSE = 6
_WINDOW = 5


def draw_image(seed: int, section: str, patient: str, shape: Shape, cells: Cells, um_per_pixel: float) -> np.ndarray:
    """Paint the section.

    Parameters
    ----------
    um_per_pixel
        Micrometres per pixel of the picture; nuclei need 2.5 or less to show.

    Returns
    -------
    numpy.ndarray
        uint8, height x width x 3, white off the tissue.
    """
    from scipy.ndimage import gaussian_filter

    rng = stream(seed, section, "image")
    n = round(shape.side_um / um_per_pixel)
    edge, depth, across, along = _maps(rng, shape, n, um_per_pixel)
    # a third of the frame is bare glass: paint only the box around the tissue
    box = tuple(_span((edge > -20).any(axis)) for axis in (1, 0))
    edge, depth, across, along = (values[box] for values in (edge, depth, across, along))
    grain = rng.standard_normal(edge.shape, dtype=np.float32)
    soft = gaussian_filter(grain, 1.2) * 4.0
    solid = 1 / (1 + np.exp(-np.clip((edge + 3 * soft) / 2.5, -30, 30)))

    domain = np.searchsorted(BORDERS, depth + 0.006 * soft)
    ground = GROUND.astype(np.float32)[domain]
    stroma = _fibres(rng, across, along, 4.0, 90.0, um_per_pixel)
    muscle = _fibres(rng, across, along, 2.5, 220.0, um_per_pixel)
    texture = np.where(domain == 4, muscle, stroma)
    eosin = ground[..., 0] * np.clip(1 + ground[..., 1] * texture + 0.08 * soft, 0.12, 2.2)

    nuclei, halo = _stamp(rng, shape, cells, box, um_per_pixel)
    haze = gaussian_filter(halo, 3.0)
    eosin = eosin * (1 - 0.75 * np.clip(nuclei, 0, 1)) + 0.10 * np.clip(haze * 3, 0, 1)
    chromatin = nuclei * (1 + 0.14 * soft)
    haematoxylin = chromatin + ground[..., 2] * (1 + 0.15 * soft) + 0.35 * haze

    stain = stream(seed, patient, "stain")
    strength = np.exp(stain.normal(0, 0.12, 2))
    tint = np.exp(stain.normal(0, 0.05, (2, 3)))
    out = np.full((n, n, 3), GLASS, np.uint8)
    for channel in range(3):
        density = haematoxylin * np.float32(HAEMATOXYLIN[channel] * tint[0, channel] * strength[0])
        density += eosin * np.float32(EOSIN[channel] * tint[1, channel] * strength[1])
        density = gaussian_filter(density * solid, 0.5, truncate=2.0)
        value = GLASS * np.exp(-density) + 1.2 * grain * solid
        out[(*box, channel)] = np.clip(value + 0.5, 0, 255)
    return out


def _span(covered: np.ndarray) -> slice:
    """Return the slice from the first to the last true entry."""
    where = np.flatnonzero(covered)
    return slice(int(where[0]), int(where[-1]) + 1)


def _maps(rng: np.random.Generator, shape: Shape, n: int, um_per_pixel: float) -> tuple[np.ndarray, ...]:
    """Return distance to the tissue's edge, depth, and the wavy fibre coordinates at each pixel (n x n each).

    They are smooth, so they are computed on every sixth pixel and interpolated.
    """
    m = -(-n // _COARSE) + 1
    centre = (np.arange(m) * _COARSE + 0.5) * um_per_pixel
    xy = np.stack(np.meshgrid(centre, centre), -1).reshape(-1, 2)
    edge = shape.edge(xy)
    for x, y, radius in shape.holes:
        edge = np.minimum(edge, np.hypot(xy[:, 0] - x, xy[:, 1] - y) - radius)
    wavy = shape.across(xy) + 9 * Field.draw(rng, 170.0)(xy) + 14 * Field.draw(rng, 420.0)(xy)
    return tuple(
        _enlarge(values.reshape(m, m).astype(np.float32), n)
        for values in (edge, shape.depth(xy), wavy, shape.along(xy))
    )


def _enlarge(grid: np.ndarray, n: int) -> np.ndarray:
    """Interpolate a coarse grid linearly to n x n pixels."""
    whole, part = np.divmod(np.arange(n), _COARSE)
    part = (part / _COARSE).astype(np.float32)
    tall = grid[whole] + (grid[whole + 1] - grid[whole]) * part[:, None]
    slope = np.diff(tall, axis=1)
    return tall[:, whole] + slope[:, whole] * part


def _fibres(
    rng: np.random.Generator,
    across: np.ndarray,
    along: np.ndarray,
    width_um: float,
    length_um: float,
    um_per_pixel: float,
) -> np.ndarray:
    """Return fibres with mean 0 and variance 1 that follow the layers: smoothed noise read in their coordinates."""
    from scipy.ndimage import gaussian_filter

    step = length_um / 16
    noise = rng.standard_normal((1024, 512), dtype=np.float32)
    noise = gaussian_filter(noise, (width_um / um_per_pixel / 2, 5.0), mode="wrap")
    noise /= noise.std()
    row = (across / np.float32(um_per_pixel)).astype(np.int32) & 1023
    column = (along / np.float32(step)).astype(np.int32) & 511
    return noise[row, column]


def _stamp(
    rng: np.random.Generator, shape: Shape, cells: Cells, box: tuple[slice, slice], um_per_pixel: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return haematoxylin of the nuclei, and the same of cells with basophilic cytoplasm, both within `box`."""
    count = len(cells.kind)
    look = NUCLEI[cells.kind]
    size = np.exp(look[:, 3] * rng.standard_normal(count))
    size *= np.where(cells.cycling, 1.15, 1.0)
    half = (look[:, :2] * size[:, None] / um_per_pixel).astype(np.float32)
    ink = look[:, 2] * np.exp(0.12 * rng.standard_normal(count)) * np.where(cells.cycling, 1.25, 1.0)
    # spindle nuclei lie along the layers, round ones anyhow
    right, down = np.array([[4.0, 0.0], [0.0, 4.0]])
    dx = shape.across(cells.xy_um + right) - shape.across(cells.xy_um - right)
    dy = shape.across(cells.xy_um + down) - shape.across(cells.xy_um - down)
    angle = np.arctan2(dy, dx) + np.pi / 2
    loose = np.isin(cells.kind, [CELL_TYPES.index(k) for k in ("fibroblast", "smooth_muscle", "endothelial")])
    angle = np.where(loose, angle + rng.normal(0, 0.22, count), rng.uniform(0, np.pi, count))

    position = cells.xy_um / um_per_pixel - 0.5 - [box[1].start, box[0].start]
    height, width = (span.stop - span.start for span in box)
    whole = np.floor(position).astype(int)
    offset = np.arange(-_WINDOW, _WINDOW + 1)
    ox, oy = (grid.ravel() for grid in np.meshgrid(offset, offset))
    x = (whole[:, :1] + ox - position[:, :1]).astype(np.float32)
    y = (whole[:, 1:] + oy - position[:, 1:]).astype(np.float32)
    cos, sin = np.cos(angle)[:, None].astype(np.float32), np.sin(angle)[:, None].astype(np.float32)
    reach = ((x * cos + y * sin) / half[:, :1]) ** 2 + ((y * cos - x * sin) / half[:, 1:]) ** 2
    shade = np.clip(1.5 - reach, 0, 1) * ink[:, None].astype(np.float32)
    flat = np.clip(whole[:, 1:] + oy, 0, height - 1) * width + np.clip(whole[:, :1] + ox, 0, width - 1)
    nuclei, halo = np.zeros((2, height * width), np.float32)
    hit = shade > 0
    np.maximum.at(nuclei, flat[hit], shade[hit])
    tumour = hit & (cells.kind == CELL_TYPES.index("tumour"))[:, None]
    np.maximum.at(halo, flat[tumour], shade[tumour])
    return nuclei.reshape(height, width), halo.reshape(height, width)
