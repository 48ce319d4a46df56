"""A study of three sections that can hardly bear any step: few spots, one cluster, no image."""

from pathlib import Path

import numpy as np
import pandas as pd
from ingest_cases import barcodes, picture

MARKERS = ["EPCAM", "KRT8", "KRT18", "COL1A1", "COL1A2", "DCN", "CD3D", "CD3E", "TRAC"]
GENES = [*MARKERS, *[f"GENE{i}" for i in range(16)]]
TYPES = ["tumour", "stroma", "T cell"]


def kinds_of(n, one):
    """Return the type of each of n spots: bands, or the first type for all."""
    return np.zeros(n, dtype=int) if one else np.arange(n) * len(TYPES) // n


def expression(kinds, seed=0):
    """Return counts of 25 genes, three of which mark each type."""
    rate = np.full((len(kinds), len(GENES)), 2.0)
    for kind in range(len(TYPES)):
        rate[np.ix_(kinds == kind, range(3 * kind, 3 * kind + 3))] = 12.0
    return np.random.default_rng(seed).poisson(rate).astype(np.int32)


def section(path: Path, n: int, one: bool = False, seed: int = 0):
    """Write an h5ad file of n spots on a Visium lattice, ten in a row, 1 um a pixel, with labels."""
    import anndata

    kinds = kinds_of(n, one)
    row, col = np.divmod(np.arange(n), 10)
    obs = pd.DataFrame({"cell_type": [TYPES[k] for k in kinds]}, index=barcodes(n))
    data = anndata.AnnData(expression(kinds, seed), obs=obs, var=pd.DataFrame(index=GENES))
    data.obsm["spatial"] = np.column_stack([60 + 100.0 * col + 50 * (row % 2), 60 + row * 86.6])
    data.write_h5ad(path)
    return path


def reference(path: Path, n: int = 60):
    """Write single cells with a type and a donor."""
    import anndata

    kinds = kinds_of(n, one=False)
    obs = pd.DataFrame({"cell_type": [TYPES[k] for k in kinds], "donor": ["D1", "D2"] * (n // 2)}, index=barcodes(n))
    anndata.AnnData(expression(kinds, 7), obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(path)
    return path


def study(root: Path) -> Path:
    """Write the study; return its config, which leaves options at their defaults; training is cut short."""
    section(root / "few.h5ad", 45)
    section(root / "alike.h5ad", 120, one=True, seed=1)
    section(root / "plain.h5ad", 150, seed=2)
    for name, height in (("few", 520), ("alike", 1160)):
        picture(root / f"{name}.png", 1070, height)
    reference(root / "reference.h5ad")
    lines = ["sample\tpatient\tcondition\tplatform\tpath\tmpp\timage\tlabels"]
    for name, patient, condition in (("few", "A", "before"), ("alike", "B", "after"), ("plain", "C", "after")):
        image = "" if name == "plain" else f"{name}.png"
        lines.append(f"{name}\t{patient}\t{condition}\th5ad\t{name}.h5ad\t1\t{image}\tcell_type")
    (root / "samples.tsv").write_text("\n".join(lines) + "\n")
    config = root / "small.yaml"
    config.write_text(
        "study: small\nsamples: samples.tsv\nexpression: {qc: {min_genes: 0}}\n"
        "histology: {footprint_um: 55, pretrain: {epochs: 2}, network: {steps: 20}}\n"
        "annotation: {reference: reference.h5ad, labels: cell_type}\n"
    )
    return config
