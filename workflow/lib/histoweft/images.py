"""Reading the working image that the ingest stage wrote: a pyramidal TIFF that knows its scale."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np

from histoweft.errors import InputError


def read_image(path: str | os.PathLike, level: int = 0, max_px: int | None = None) -> tuple[np.ndarray, float, float]:
    """Read a working image.

    Parameters
    ----------
    path
        ``image.tif`` of a sample.
    level
        0 is the finest; each next one is half as large.
    max_px
        Instead of `level`: the finest level whose longest side is at most this, shrunk further if none is.

    Returns
    -------
    array
        (height, width, 3) uint8.
    um_per_px
        Micrometres per pixel of `array`; NaN unknown.
    scale
        Pixels of `array` per full-resolution pixel.

    Raises
    ------
    InputError
        The file is not such an image.
    """
    import tifffile

    path = Path(path)
    try:
        with tifffile.TiffFile(path) as tif:
            facts = json.loads(tif.pages[0].description)
            um_per_px, scale = facts["um_per_px"], float(facts["scale"])
            levels = tif.series[0].levels
            if max_px is not None:
                fits = [i for i, one in enumerate(levels) if max(one.shape[:2]) <= max_px]
                level = fits[0] if fits else len(levels) - 1
            if not 0 <= level < len(levels):
                raise InputError.one(path, f"level {level}", f"0 to {len(levels) - 1}")
            array = levels[level].asarray()
            full = levels[0].shape[1]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, tifffile.TiffFileError) as error:
        expected = "a TIFF written by the ingest stage"
        hint = "Only images written by this workflow carry their scale; delete it and run again."
        raise InputError.one(path, f"no working image ({error})", expected, hint) from error
    if max_px is not None and max(array.shape[:2]) > max_px:
        array = _shrunk(array, max_px)
    shrink = array.shape[1] / full
    return array, (math.nan if um_per_px is None else um_per_px / shrink), scale * shrink


def _shrunk(array: np.ndarray, max_px: int) -> np.ndarray:
    from PIL import Image

    ratio = max_px / max(array.shape[:2])
    size = (max(1, round(array.shape[1] * ratio)), max(1, round(array.shape[0] * ratio)))
    return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BOX))
