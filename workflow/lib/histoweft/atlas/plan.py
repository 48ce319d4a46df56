"""Which folds and models a study fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from histoweft.atlas.folds import HEMISPHERE, RANDOM, n_folds_of

FLOORS, RESIDUAL, REFERENCE, FRONT = "floors", "residual", "reference", "reference_front"
MODELS = (FLOORS, RESIDUAL, REFERENCE, FRONT)
"""Jobs of a fold. ``reference_front`` is the reference with its own validation voxels, see `folds.first_fifth`."""


def jobs(atlas: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """List the jobs of a study.

    Parameters
    ----------
    atlas
        The section ``atlas`` of the config.

    Returns
    -------
    list of (protocol, number of the fold, model)
        Every model and the floors in every fold; the reference with its own validation voxels only in the first random
        fold, to show what they do. Nothing where the stage is off.
    """
    if not atlas["input"]:
        return []
    protocols = [name for name in atlas["protocols"] if name != HEMISPHERE or atlas["midline"] is not None]
    models = list(dict.fromkeys([FLOORS, atlas["model"], *atlas["compare"]]))
    found = [
        (protocol, number, model)
        for protocol in protocols
        for number in range(1, n_folds_of(protocol, atlas["folds"]) + 1)
        for model in models
    ]
    return found + ([(RANDOM, 1, FRONT)] if REFERENCE in models and RANDOM in protocols else [])
