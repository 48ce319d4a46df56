"""Small sections whose stain drives two gene programmes, for the tests of the histology stage."""

import functools
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.ndimage import distance_transform_edt, gaussian_filter

from histoweft import io
from histoweft.histology import context, spots, stain

UM_PER_PX = 4.0  # working image; the full-resolution image is twice as fine
MPP = 2.0
SPOT_UM = 100.0
PITCH_UM = 120.0
SIDE = 12  # spots along each side of a section
MARGIN_UM = 160.0
GENES = [*(f"A{i}" for i in range(12)), *(f"B{i}" for i in range(12)), *(f"N{i}" for i in range(16))]
A, B, NOISE = slice(0, 12), slice(12, 24), slice(24, 40)
LEVELS = 5
SPOTS = SIDE * SIDE


def field(random, shape, sigma):
    """Return a smooth random field of mean 0 and spread 1."""
    smooth = gaussian_filter(random.standard_normal(shape), sigma, mode="wrap")
    return (smooth - smooth.mean()) / smooth.std()


@functools.lru_cache(maxsize=8)
def section(seed=0, look=None):
    """Make one section: image, tissue, spots and counts.

    Programme A darkens haematoxylin, programme B darkens eosin; the genes named N follow neither. `look` is the seed
    of the fields, so that two sections of one look are serial.
    """
    random = np.random.default_rng(seed)
    px = round(((SIDE - 1) * PITCH_UM + 2 * MARGIN_UM) / UM_PER_PX)
    fields = np.random.default_rng(1000 + (seed if look is None else look))
    a, b = (field(fields, (px, px), 130 / UM_PER_PX) for _ in range(2))
    mask = np.zeros((px, px), dtype=bool)
    edge = round((MARGIN_UM - 90) / UM_PER_PX)
    mask[edge:-edge, edge:-edge] = True
    dense = np.stack([0.6 + 0.2 * a, 0.6 + 0.2 * b], axis=-1) + 0.1 * random.standard_normal((px, px, 2))
    dense = np.maximum(dense, 0) * mask[..., None] * stain.REFERENCE.maximum
    light = np.exp(-dense @ stain.REFERENCE.matrix) * (stain.REFERENCE.background + 1) - 1
    rgb = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    line = MARGIN_UM + PITCH_UM * np.arange(SIDE)
    xy_um = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    at = np.rint(xy_um / UM_PER_PX).astype(int)
    there = np.stack([a[at[:, 1], at[:, 0]], b[at[:, 1], at[:, 0]]], axis=1)
    rate = np.tile(np.repeat(np.linspace(8, 30, len(GENES) // 2), 2), (SPOTS, 1))
    for genes, values in ((A, there[:, :1]), (B, there[:, 1:])):
        # Half of the genes go up and half down, so that the total says nothing.
        rate[:, genes] *= 2 / (1 + np.exp(-1.5 * values * np.tile([1, -1], 6)))
    rate *= np.exp(0.2 * random.standard_normal((SPOTS, 1)))
    return SimpleNamespace(
        name=f"s{seed}", rgb=rgb, mask=mask, xy_um=xy_um, programmes=there,
        counts=sparse.csr_matrix(random.poisson(rate).astype(np.int32)),
        depth=np.asarray(distance_transform_edt(mask)) * UM_PER_PX,
    )  # fmt: skip


@functools.lru_cache(maxsize=8)
def pyramid(seed=0, look=None):
    """Build the image features of `section`."""
    one = section(seed, look)
    return context.build(one.rgb, UM_PER_PX, one.mask, stain.REFERENCE, SPOT_UM, levels=LEVELS)


def write_counts(path, one, rows=slice(None), genes=GENES, **about):
    """Write a section's ``filtered.h5ad``; `about` overrides ``uns['histoweft']``."""
    counts = one.counts[rows]
    facts = {"sample": one.name, "mpp": MPP, "spot_diameter_um": SPOT_UM} | about
    xy = one.xy_um[rows]
    with io.CsrWriter(path, len(genes), np.int32) as writer:
        writer.append(counts)
        obs = pd.DataFrame(index=[f"spot{i}" for i in range(len(xy))])
        var = pd.DataFrame({"gene_id": list(genes)}, index=list(genes))
        uns = {"histoweft": {key: value for key, value in facts.items() if value is not None}}
        writer.finish(obs, var, obsm={"spatial": xy / MPP, "spatial_um": xy}, uns=uns)
    return path


def write(folder, seed=0, look=None):
    """Write a section's counts and image features; return both paths."""
    features = folder / f"s{seed}.context"
    context.save(pyramid(seed, look), features)
    return write_counts(folder / f"s{seed}.h5ad", section(seed, look)), features


def read(folder, seed=0, look=None):
    """Write a section and read it as the models do."""
    return spots.read_section(*write(folder, seed, look))


def nuclei_image():
    """Return pink ground with dark nuclei, 500 x 460 px."""
    random = np.random.default_rng(0)
    image = np.full((500, 460, 3), (225, 190, 215), dtype=np.uint8)
    for y, x in random.integers(0, 450, (900, 2)):
        image[y : y + 7, x : x + 7] = (90, 60, 140)
    return image
