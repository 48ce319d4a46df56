"""Time and memory of the states of many cells.

    python benchmarks/states_scale.py [100000]

Cells are those of `histoweft.states.simulate`, 2,000 genes, with 3 % persisters and a rare population of 1 %. The peak
holds the drawing of the cells too.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow" / "lib"))

PROGRAMMES = ("antioxidant_gpx4", "fatty_acid_oxidation", "diapause", "chromatin_kdm5a")
GENES, BLOCK = 2_000, 4_000


def write_cells(folder: Path, tables: list[Path], n: int) -> None:
    """Write counts, components and clusters of cells that are drawn in blocks."""
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    from histoweft.io import CsrWriter, write_table
    from histoweft.linalg import pca
    from histoweft.normalise import normalise
    from histoweft.states import signatures, simulate

    table = signatures.read_signatures(tables)
    axes, kinds, points = None, [], []
    names = pd.Index([f"c{number}" for number in range(n)])
    with CsrWriter(folder / "filtered.h5ad", GENES, np.int32) as writer:
        for start in range(0, n, BLOCK):
            size = min(BLOCK, n - start)
            planted = {"share": 0.03, "rare_share": 0.01, "n_genes": GENES, "seed": start}
            cells = simulate.draw_cells(table, PROGRAMMES, ("s_phase", "g2m_phase"), n=size, **planted)
            values = normalise(cells.counts)
            axes = axes or pca([values], GENES, 30)
            points.append(axes.project(values))
            kinds.append(cells.truth["cell_type"].to_numpy())
            writer.append(cells.counts)
        genes = pd.DataFrame(index=cells.genes)
        writer.finish(pd.DataFrame(index=names), genes)
    with CsrWriter(folder / "features.h5ad", GENES, np.int32) as writer:
        writer.append(sp.csr_matrix((n, GENES), dtype=np.int32))
        writer.finish(pd.DataFrame(index=names), genes, obsm={"X_pca": np.concatenate(points)})
    clusters = np.concatenate(kinds)
    write_table(pd.DataFrame({"leiden_1": clusters, "leiden": clusters}, index=names), folder / "clusters.parquet")


def main(n: int) -> None:
    """Measure `analyse` with the default options."""
    from histoweft import config
    from histoweft.io import CountsFile
    from histoweft.states.sample import analyse, read_sample

    tables = sorted((REPOSITORY / "resources" / "signatures").glob("*.tsv"))
    options = config.complete({}, config.load_schema("config")["properties"]["states"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cells(folder, tables, n)
        start = time.time()
        with CountsFile(folder / "filtered.h5ad") as counts:
            known = read_sample(counts, folder / "features.h5ad", folder / "clusters.parquet")
            facts = analyse(counts, known, options, tables, 1e4, 15).facts
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    said = f"{facts['persisters']} persisters, {len(facts['rare'])} rare populations"
    print(f"{n} cells: {time.time() - start:.0f} s, peak {peak:.0f} MB; {said}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
