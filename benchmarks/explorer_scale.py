"""The explorer at size: weight on disk, seconds to make it and to its first picture, frames while panning.

    python benchmarks/explorer_scale.py            # 100,000 cells x 500 genes, and 4,000 spots x 20,000 genes

Made from simulated samples in a temporary folder, opened from disk in headless Chromium (tests/browser/chromium.py)
without a graphics card: WebGL runs on the processor (SwiftShader), so frame times are the worst that a reader sees.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "workflow" / "lib"), str(REPO / "tests" / "browser")]

CASES = {"100,000 cells x 500 genes": (100_000, 500, 0.25), "4,000 spots x 20,000 genes": (4_000, 20_000, 0.15)}

PAN = """
(async () => {
  const view = page.views[0];
  view.zoomBy(3, [view.shown.x, view.shown.y]);
  const times = [];
  let before = await new Promise(requestAnimationFrame);
  for (let i = 0; i < 60; i++) {
    view.moveBy(12 * Math.cos(i / 5), 12 * Math.sin(i / 5));
    const now = await new Promise(requestAnimationFrame);
    times.push(now - before);
    before = now;
  }
  return times;
})()
"""

RECOLOUR = """
(async () => {
  const start = performance.now();
  addGene("GENE7");
  while (document.getElementById("views").dataset.state !== "drawn") await new Promise(requestAnimationFrame);
  return performance.now() - start;
})()
"""


def write_sample(path, n, genes, density, seed=0):
    """Write a sample of `n` points as the workflow assembles it."""
    import pandas as pd
    import scipy.sparse as sp

    from histoweft import io

    rng = np.random.default_rng(seed)
    per_row = rng.binomial(genes, density, n)
    spatial = rng.random((n, 2)) * 10_000
    obs = pd.DataFrame(
        {"leiden": pd.Categorical(rng.integers(0, 20, n).astype(str))}, index=[f"c{i}" for i in range(n)]
    )
    obs["n_counts"] = rng.lognormal(7, 0.5, n)
    names = [f"GENE{i}" for i in range(genes)]
    var = pd.DataFrame({"highly_variable": np.arange(genes) < 2_000}, index=names)
    with io.CsrWriter(path, genes) as writer:
        for start in range(0, n, 5_000):
            lengths = per_row[start : start + 5_000]
            indices = np.concatenate([np.sort(rng.choice(genes, k, replace=False)) for k in lengths])
            values = np.log1p(rng.geometric(0.5, len(indices))).astype(np.float32)
            indptr = np.concatenate([[0], np.cumsum(lengths)])
            writer.append(sp.csr_matrix((values, indices, indptr), shape=(len(lengths), genes)))
        embedding = rng.normal(size=(n, 2)).astype(np.float32)
        about = {"platform": "xenium", "mpp": 1.0}
        writer.finish(obs, var, obsm={"spatial": spatial, "X_umap": embedding}, uns={"histoweft": about})


def make(folder, n, genes, density):
    """Write an explorer of one sample; return the seconds it took."""
    from histoweft.explorer import sample, site

    h5ad = folder / "sample.h5ad"
    write_sample(h5ad, n, genes, density)
    out, web = folder / "explorer", sorted((REPO / "workflow/lib/histoweft/explorer/web").iterdir())
    start = time.perf_counter()
    about = sample.write_sample(
        out / "data" / "S1", sample="S1", h5ad=h5ad, image=None, painted=None, joint=None, wanted="all"
    )
    told = site.study_about([about], "scale", "")
    site.write_site(told, web=web, page=[out / path.name for path in web], study=out / "data" / "study.js")
    return time.perf_counter() - start


def measure(folder):
    """Open the explorer and return what a reader waits for, in milliseconds, and what the first picture loads."""
    import chromium

    with chromium.Page() as page:
        page.open((folder / "explorer" / "index.html").as_uri())
        first = page.run("page.drawnAt")
        paths = {Path(unquote(urlsplit(url).path)) for url in page.requests if url.startswith("file:")}
        loaded = sum(path.stat().st_size for path in paths) / 1e6
        frames = np.array(page.run(PAN))
        page.run("page.views.forEach((view) => view.look(null))")
        whole = np.array(page.run(PAN.replace("view.zoomBy(3,", "view.zoomBy(1,")))
        recolour = page.run(RECOLOUR)
        if page.errors:
            raise RuntimeError(f"the page complained: {page.errors}")
    return {
        "first_picture_ms": first,
        "megabytes_loaded": loaded,
        "frame_ms_median_zoomed": float(np.median(frames)),
        "frame_ms_p95_zoomed": float(np.percentile(frames, 95)),
        "frame_ms_median_whole": float(np.median(whole)),
        "frame_ms_p95_whole": float(np.percentile(whole, 95)),
        "gene_shown_ms": recolour,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    for name in parser.parse_args().cases:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            seconds = make(folder, *CASES[name])
            files = [path for path in (folder / "explorer").rglob("*") if path.is_file()]
            weight = sum(path.stat().st_size for path in files) / 1e6
            found = {"case": name, "made_s": seconds, "files": len(files), "megabytes": weight, **measure(folder)}
            print(json.dumps({key: round(v, 1) if isinstance(v, float) else v for key, v in found.items()}))


if __name__ == "__main__":
    main()
