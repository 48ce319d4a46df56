"""Deconvolution of spots mixed from real cells that the reference lacks, as rows of a metrics table.

The cases of `benchmarks/deconvolution.py` (data sets by difficulties), one seed, with intervals over spots; part of
`./histoweft benchmark`.

    python benchmarks/mixed_spots.py <folder of the data sets> <metrics.tsv>
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "lib"))

import numpy as np
import scipy.sparse as sp
from deconvolution import DIFFICULTIES, SPOTS, data_sets

from histoweft.annotation.deconvolve import METHODS, POISSON, Options, deconvolve
from histoweft.annotation.deconvolve_score import NAMES, with_intervals
from histoweft.annotation.deconvolve_selftest import halve
from histoweft.annotation.deconvolve_signature import learn_signature
from histoweft.annotation.deconvolve_simulate import simulate_spots
from histoweft.metrics import metric_row, write_metrics

STUDY, SEED = "mixed_spots", 0


def rows(name: str, cells: sp.csr_matrix, codes: np.ndarray, types: list[str]) -> Iterator[dict]:
    """Score every method on one data set: signatures of one half of its cells, spots mixed of the other."""
    halves = halve(codes, None, SEED)
    signature = learn_signature(cells[halves.train], codes[halves.train], len(types))
    for level, setting in DIFFICULTIES.items():
        spots = simulate_spots(cells[halves.test], codes[halves.test], len(types), SPOTS, seed=SEED + 10, **setting)
        found, seconds = {}, {}
        for method in METHODS:
            start = time.perf_counter()
            found[method] = deconvolve(spots.counts, signature, Options(method)).values
            seconds[method] = time.perf_counter() - start
        for method, scores in with_intervals(spots.proportions, found, SEED).items():
            about = {"n": SPOTS, "panel": level, "note": "default" if method == POISSON else ""}
            key = (STUDY, "annotation", "deconvolution", NAMES[method], name, "truth")
            for metric, (value, low, high) in scores.items():
                yield metric_row(*key, metric, value, low=low, high=high, **about)
            yield metric_row(*key, "seconds", seconds[method], **about)


def main(folder: str, out: str) -> None:
    """Write the table."""
    write_metrics([row for case in data_sets(Path(folder)) for row in rows(*case)], out)


if __name__ == "__main__":
    main(*sys.argv[1:])
