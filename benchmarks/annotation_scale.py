"""Time and memory of annotating many cells with the default model.

    python benchmarks/annotation_scale.py /where/pbmc_facs.h5ad [200000]

The query is drawn from the sorted blood cells: a cell of the file, its counts thinned to four fifths. The fit and the
annotation run as two processes, so that the memory of each is its own.
"""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "lib"))


def write_query(reference: Path, path: Path, n: int) -> None:
    """Write the query in blocks."""
    import numpy as np
    import pandas as pd

    from histoweft.io import CountsFile, CsrWriter

    rng = np.random.default_rng(0)
    with CountsFile(reference) as counts, CsrWriter(path, counts.n_vars, np.int32) as writer:
        matrix, var = counts.matrix().tocsr(), counts.var()
        for start in range(0, n, 5_000):
            block = matrix[rng.integers(0, matrix.shape[0], min(5_000, n - start))].astype(np.int32)
            block.data = rng.binomial(block.data, 0.8).astype(np.int32)
            block.eliminate_zeros()
            writer.append(block)
        writer.finish(pd.DataFrame(index=[f"q{i}" for i in range(n)]), var, uns={"histoweft": {}})


def ingest(source: str, path: Path) -> None:
    """Write the reference in the workflow's own form."""
    from histoweft.ingest import reference
    from histoweft.ingest.readers import write_counts

    options = {"labels_column": "", "batch": "", "subset": "", "counts": "refuse", "spatial": False}
    write_counts(reference.read({"path": source, "labels": "celltype_facs", **options}), path)


def fit(folder: Path) -> None:
    """Fit the default model, held-out scores and calibration included."""
    from histoweft import config
    from histoweft.annotation import annotator, fitting

    options = config.complete({}, config.load_schema("config")["properties"]["annotation"])
    genes = fitting.shared_genes(folder / "reference.h5ad", {"query": folder / "query.h5ad"}, options)
    cells = fitting.load_reference(folder / "reference.h5ad", genes, options, 0)
    done = fitting.fit(cells, "logistic", options, genes.samples)
    annotator.save(done.annotator, folder / "model.npz")


def annotate(folder: Path) -> None:
    """Annotate the query and write its table."""
    from histoweft.annotation import annotator
    from histoweft.io import write_table

    found = annotator.annotate([annotator.load(folder / "model.npz")], folder / "query.h5ad", "query")[0]
    write_table(found.table, folder / "annotation.parquet")


def measured(step, *arguments) -> dict[str, float]:
    """Run a step as a process of its own; return its seconds and its peak memory."""
    receive, send = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        start = time.perf_counter()
        step(*arguments)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        send.send({"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak)})

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{step.__name__} failed")
    return receive.recv()


def main() -> None:
    source, n = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured(ingest, source, folder / "reference.h5ad")
        measured(write_query, folder / "reference.h5ad", folder / "query.h5ad", n)
        print(json.dumps({"cells": n, "fit": measured(fit, folder), "annotate": measured(annotate, folder)}))


if __name__ == "__main__":
    main()
