"""Sections that markers are drawn on."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.cohort.figures import Shown
from histoweft.io import CountsFile
from histoweft.normalise import normalise, row_sums

IMAGE_PX = 1_500
"""Longest side of the image under the spots."""


def read_shown(
    path: str | os.PathLike, sample: str, image_path: str, markers: pd.DataFrame, target_sum: float
) -> Shown:
    """Read the values of marker genes of one section, and where they lie.

    Parameters
    ----------
    path
        Raw counts with coordinates.
    sample
        Its name.
    image_path
        Working image; empty without one.
    markers
        See `biomarkers.COLUMNS`; features and genes that the section lacks are left out.
    target_sum
        Total that each barcode is scaled to before log1p.
    """
    with CountsFile(path) as counts:
        about = counts.uns.get("histoweft", {})
        options = {"mpp": about.get("mpp"), "spot_diameter_um": about.get("spot_diameter_um")}
        xy = np.asarray(counts.obsm("spatial"), dtype=float)[:, :2]
        wanted = [str(name) for name in markers.loc[markers["kind"] == "gene", "marker"]]
        columns = counts.var_names.get_indexer_for(wanted) if wanted else np.empty(0, dtype=int)
        names = [name for name, at in zip(wanted, columns) if at >= 0]
        columns = columns[columns >= 0]
        parts = [normalise(chunk[:, columns], target_sum, row_sums(chunk)) for _, chunk in counts.chunks()]
        title = f"{sample} ({about['condition']})" if about.get("condition") else sample
    if image_path:
        from histoweft.images import read_image

        image, _, scale = read_image(image_path, max_px=IMAGE_PX)
        options |= {"image": image, "image_scale": scale}
    return Shown(title, xy, sp.vstack(parts, format="csc"), names, options)
