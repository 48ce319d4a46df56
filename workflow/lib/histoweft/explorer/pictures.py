"""The H&E as a pyramid of tiles, and painted genes as grey pictures."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np

from histoweft.errors import InputError
from histoweft.explorer import payload
from histoweft.images import read_image

QUALITY = 85
"""Of the JPEG tiles."""

MAX_SIDE = 2048
"""Longest side of a painted map on the page, pixels: what every browser's graphics take as one texture."""


def write_tiles(folder: Path, image: str | os.PathLike) -> dict[str, Any]:
    """Write every level of a working image as JPEG tiles, ``<level>/<row>_<column>.jpg``.

    The tiles are those of the file, decoded and encoded one by one, so memory does not grow with the image.

    Parameters
    ----------
    folder
        Where to.
    image
        ``image.tif`` of a sample.

    Returns
    -------
    dict
        tile (side, pixels), levels (width and height of each, the finest first), scale (pixels of level 0 per
        full-resolution pixel).
    """
    import tifffile
    from imagecodecs import jpeg_encode

    small, _, scale = read_image(image, max_px=512)
    levels = []
    with tifffile.TiffFile(image) as tif:
        for number, level in enumerate(tif.series[0].levels):
            page = level.pages[0]
            height, width = page.shape[:2]
            levels.append([width, height])
            (folder / str(number)).mkdir(parents=True)
            for data, (_, _, top, left, _), _ in page.segments():
                row, column = top // page.tilelength, left // page.tilewidth
                tile = np.zeros((page.tilelength, page.tilewidth, 3), np.uint8) if data is None else data[0]
                tile = np.ascontiguousarray(tile[: height - top, : width - left])
                (folder / str(number) / f"{row}_{column}.jpg").write_bytes(jpeg_encode(tile, level=QUALITY))
            side = page.tilewidth
    return {"tile": side, "levels": levels, "scale": scale * levels[0][0] / small.shape[1]}


def read_maps(path: str | os.PathLike) -> tuple[Any, np.ndarray, dict[str, Any]]:
    """Open a store of painted genes (OME-Zarr) at the finest level that the page can show.

    Parameters
    ----------
    path
        ``expression.zarr`` of a sample.

    Returns
    -------
    maps
        genes x height x width, read gene by gene.
    tissue
        height x width, bool.
    about
        genes, step (micrometres a pixel), origin (of the upper left corner), method.

    Raises
    ------
    InputError
        There is no such store.
    """
    import zarr

    try:
        root = zarr.open_group(str(path), mode="r", use_consolidated=False)
        facts = root.attrs["histoweft"]
        group = root["images/expression"]
        about = group.attrs["ome"]
        names = [dataset["path"] for dataset in about["multiscales"][0]["datasets"]]
        level = next((i for i, name in enumerate(names) if max(group[name].shape[1:]) <= MAX_SIDE), len(names) - 1)
        maps = group[names[level]]
        tissue = np.ones(maps.shape[1:], dtype=bool)
        if "labels/tissue" in root:
            tissue = root[f"labels/tissue/{names[level]}"][:] != 0
    except (OSError, ValueError, KeyError) as error:
        hint = "The rule paint writes it: run it (again)."
        raise InputError.one(path, error, "a store of painted maps", hint) from error
    return (
        maps,
        tissue,
        {
            "genes": [channel["label"] for channel in about["omero"]["channels"]],
            "step": float(facts["um_per_px"]) * 2**level,
            "origin": [float(value) for value in facts["origin_um"]],
            "method": str(facts.get("model", "")),
        },
    )


def grey(values: np.ndarray, tissue: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Return a map as bytes, and the values that its ends stand for.

    Parameters
    ----------
    values
        height x width.
    tissue
        height x width, bool.

    Returns
    -------
    picture
        uint8: 0 off the tissue, else 1 (the low end and below) to 255 (the high end and above).
    ends
        2nd and 99.5th percentile on the tissue, as in the store's own contrast limits.
    """
    values = np.asarray(values, dtype=np.float32)
    low, high = (float(value) for value in np.percentile(values[tissue], (2, 99.5))) if tissue.any() else (0.0, 1.0)
    high = high if high > low else low + 1.0
    picture = 1 + np.rint(np.clip((values - low) / (high - low), 0, 1) * 254)
    return np.where(tissue, picture, 0).astype(np.uint8), [low, high]


def write_painted(folder: Path, sample: str, store: str | os.PathLike) -> dict[str, Any]:
    """Write each painted gene as a grey PNG inside a script (a page from disk may not read pixels of a PNG beside it).

    Returns
    -------
    dict
        genes, ends (of each, the values of its darkest and brightest pixels), size (width and height), step
        (micrometres a pixel), origin, method.
    """
    from imagecodecs import png_encode

    maps, tissue, about = read_maps(store)
    ends = []
    for index in range(len(about["genes"])):
        picture, own = grey(maps[index], tissue)
        ends.append(own)
        content = {"png": base64.b64encode(png_encode(np.ascontiguousarray(picture))).decode()}
        payload.write(folder, f"{sample}/painted-{index}", content)
    return {**about, "ends": ends, "size": [tissue.shape[1], tissue.shape[0]]}
