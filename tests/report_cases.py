"""A small study as the pages are given it: what the earlier steps would have written."""

import json

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft import config as options
from histoweft.io import CsrWriter, add_elements, write_graph, write_table
from histoweft.metrics import metric_row, write_metrics
from histoweft.report.assemble import log_normalised

EVIL = "<script>alert(1)</script>"
N, G, VARIABLE, K = 150, 60, 20, 8
CONFIG = {
    "study": "demo",
    "title": f"Study {EVIL}",
    "samples": "/home/somebody/secret/place/samples.tsv",
    "data_root": "/home/somebody/secret/place",
    "seed": 7,
    "ingest": {"counts": "refuse", "working_mpp": 1.0},
    "expression": {
        "qc": {
            "min_genes": 200, "min_counts": 0, "max_counts": 30000, "max_genes": None, "max_pct_mito": 12.5,
            "min_spots": 3, "mito_genes": [], "mads": None, "doublets": "none",
        },
        "features": {"target_sum": 10000, "flavour": "seurat", "n_top": 2000, "n_components": 30, "scale": False},
        "neighbours": 15, "resolutions": [0.5, 1.0], "resolution": 1.0, "stability_seeds": 5, "umap_min_dist": 0.5,
        "markers_per_cluster": 4,
    },
    "integration": {
        "methods": ["none", "harmony"], "batch": "sample", "n_top": 1500, "n_components": 20, "resolution": 0.8,
    },
    "report": {"author": ""},
}  # fmt: skip
CONFIG = options.complete(CONFIG, options.load_schema("config"))


def picture(path, size=(60, 40), colour=(200, 120, 90)):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return str(path)


def make_sample(folder, sample, *, located=True, seed=0):
    """Write what the earlier steps would have written for one sample."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    dense = rng.poisson(1.0, (N, G))
    dense[:, 0] += 1
    counts = sp.csr_matrix(dense.astype(np.int32))
    names = pd.Index([f"{sample}_{i}" for i in range(N)])
    genes = pd.Index([f"G{i}" for i in range(G)])
    var = pd.DataFrame({"gene_id": [f"ENS{i}" for i in range(G)], "feature_type": "Gene Expression"}, index=genes)
    xy = rng.uniform(0, 2000, (N, 2))
    about = {
        "sample": sample, "patient": f"patient {EVIL}", "batch": "run1", "condition": "a & b", "platform": "visium",
        "mpp": 0.5, "spot_diameter_um": 55.0, "image": located, "image_scale": 0.5, "species": "mouse",
    }  # fmt: skip
    obsm = {"spatial": xy, "spatial_um": xy * 0.5} if located else {}
    label = pd.Categorical(rng.choice(["L1", "L2", EVIL], N), categories=["L1", "L2", EVIL])
    obs = pd.DataFrame({"array_row": np.arange(N), "label": label}, index=names)
    with CsrWriter(folder / "counts.h5ad", G, np.int32) as writer:
        writer.append(sp.vstack([counts, counts[:300]], format="csr"))
        both = pd.concat([obs, obs.rename(index=lambda name: f"{name}b")])
        twice = {name: np.vstack([value, value]) for name, value in obsm.items()}
        writer.finish(both, var, obsm=twice, uns={"histoweft": about})
    obs["n_genes"], obs["n_counts"], obs["pct_mito"] = (dense > 0).sum(1), dense.sum(1).astype(float), 1.0
    with CsrWriter(folder / "filtered.h5ad", G, np.int32) as writer:
        writer.append(counts)
        writer.finish(obs, var, obsm=obsm, uns={"histoweft": about})
    chosen = np.sort(rng.choice(G, VARIABLE, replace=False))
    known = var.iloc[chosen].assign(means=1.5, dispersions_norm=2.0, rank=np.arange(1, VARIABLE + 1))
    with CsrWriter(folder / "features.h5ad", VARIABLE, np.float32) as writer:
        writer.append(log_normalised(counts, 1e4)[:, chosen])
        writer.finish(pd.DataFrame(index=names), known)
    pca = rng.normal(size=(N, K)).astype(np.float32)
    loadings = {"obsm/X_pca": pca, "varm/PCs": rng.normal(size=(VARIABLE, K))}
    ratio = np.linspace(0.2, 0.01, K)
    add_elements(folder / "features.h5ad", {**loadings, "uns/pca": {"variance": ratio, "variance_ratio": ratio}})
    graph = sp.random(N, N, 0.1, random_state=1, format="csr", dtype=np.float32)
    graph = graph + graph.T
    graph.setdiag(0)
    graph.eliminate_zeros()
    write_graph(folder / "neighbours.npz", graph.tocsr(), graph.tocsr())
    clusters = rng.integers(0, 11, N).astype(str).astype(object)
    write_table(pd.DataFrame({"leiden_0.5": clusters, "leiden": clusters}, index=names), folder / "clusters.parquet")
    umap = pd.DataFrame(rng.normal(size=(N, 2)), columns=["umap_1", "umap_2"], index=names)
    write_table(umap, folder / "umap.parquet")
    (folder / "ingest_warnings.txt").write_text(
        f"off_tissue: 12 spots left out {EVIL}\nmpp: read from /home/somebody/secret/place/scalefactors.json\n"
    )
    qc = [
        ("min_genes", "fewer than 200 genes", "barcodes", 200, 140, 140, 160),
        ("max_counts", "more than 30,000 counts", "barcodes", 3e4, 12, 10, 150),
        ("min_spots", "found in fewer than 3 spots", "genes", 3, 0, 0, 60),
    ]
    columns = ["filter", "rule", "axis", "threshold", "removed_alone", "removed", "remaining"]
    pd.DataFrame(qc, columns=columns).to_csv(folder / "qc.tsv", sep="\t", index=False)
    stable = {
        "resolution": [0.5, 1.0], "ari_mean": [0.97, 0.512], "ari_min": [0.9, 0.41], "clusters_median": [5.0, 11.0],
        "clusters_min": [5, 10], "clusters_max": [6, 12], "seeds": [5, 5],
    }  # fmt: skip
    pd.DataFrame(stable).to_csv(folder / "stability.tsv", sep="\t", index=False)
    row = {"study": "demo", "stage": "expression", "task": "domains", "sample": sample, "protocol": "truth"}
    row |= {"metric": "ari", "n": N}
    write_metrics(
        [
            metric_row(method="model", value=0.734, note="default; resolution 1", **row),
            metric_row(method="floor:leiden", value=0.3, **row),
            metric_row(method="floor:one cluster", value=0.0, **row),
        ],
        folder / "expression.tsv",
    )
    top = pd.DataFrame(
        {
            "cluster": [str(c) for c in range(11) for _ in range(4)], "rank": [1, 2, 3, 4] * 11,
            "gene": [f"G{i}" for i in range(44)], "auroc": 0.91, "log2_fold_change": 2.25, "pct_in": 88.0,
            "pct_out": 12.0, "p_adjusted": 3e-9,
        }
    )  # fmt: skip
    top.to_csv(folder / "top_markers.tsv", sep="\t", index=False)
    for name in ("qc", "features", "clusters", "stability", "markers"):
        picture(folder / "figures" / f"{name}.png")
    return folder


def write_image(path, size=(1000, 800), scale=0.5):
    import tifffile

    image = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        facts = json.dumps({"um_per_px": 1.0, "scale": scale})
        tif.write(image, subifds=2, description=facts, **options)
        for step in (2, 4):
            tif.write(image[::step, ::step], subfiletype=1, **options)
    return path


def paths_of(folder):
    return {
        "counts": folder / "counts.h5ad", "filtered": folder / "filtered.h5ad", "clusters": folder / "clusters.parquet",
        "qc": folder / "qc.tsv", "stability": folder / "stability.tsv", "metrics": folder / "expression.tsv",
        "warnings": folder / "ingest_warnings.txt",
    }  # fmt: skip


def captions_of(repo):
    return sorted(str(path) for path in (repo / "workflow" / "report").glob("*.rst"))


def site(folder, repo):
    """Write a study's report as a run lays it out, with its figures, tables and explorer beside it, and return it.

    Parameters
    ----------
    folder
        Where to; it stands for ``results/<study>``.
    repo
        The checkout.
    """
    from histoweft.report import facts, sample_page, study_page

    root, report = folder, folder / "report"
    config = CONFIG | {"study": folder.name}
    config["report"] = config["report"] | {"explorer": config["report"]["explorer"] | {"run": True}}
    notebooks, captions = repo / "workflow" / "notebooks", captions_of(repo)
    (root / "explorer").mkdir(parents=True)
    (root / "explorer" / "index.html").write_text("<title>explorer</title>")
    report.mkdir()
    verdict = root / "space" / "verdict.json"
    verdict.parent.mkdir()
    verdict.write_text(json.dumps({"texts": ["155 genes are spatially variable."], "warnings": ["Two folds only."]}))
    rows = pd.DataFrame({"gene": [f"G{i}" for i in range(40)], "moran": np.linspace(1, 0, 40), "said": "a word " * 9})
    rows.to_csv(root / "space" / "genes.tsv", sep="\t", index=False)
    pictures, sheet = [], {}
    for seed, name in enumerate(("A1", "B2")):
        own = make_sample(root / "samples" / name, name, located=name == "A1", seed=seed)
        inputs = paths_of(own) | {"top_markers": own / "top_markers.tsv"}
        inputs["figures"] = sorted(str(path) for path in (own / "figures").glob("*.png"))
        pictures.append(photograph(own / "figures" / ("domain.png" if name == "A1" else "clusters.png"), seed))
        sample_page.write(
            inputs, captions, config, name, notebook=notebooks / "sample.ipynb", facts_path=own / "facts.json",
            executed=report / f"{name}.ipynb", output=report / f"{name}.html",
            sources=_sources([*inputs["figures"], inputs["qc"], pictures[-1]]), shown=_shown(pictures[-1]),
        )  # fmt: skip
        found = facts.sample_facts(**paths_of(own), resolution=1.0)
        (own / "facts.json").write_text(json.dumps(found), encoding="utf-8")
        sheet[name] = {"sample": name, "patient": name, "path": f"data/{name}", "line": 2, "clinical": {}}
    row = {"study": folder.name, "stage": "space", "task": "domains", "sample": "all", "protocol": "truth", "n": 9}
    scores = (("consensus", 0.4, "default"), ("floor:leiden", 0.6, ""))
    write_metrics(
        [metric_row(method=method, metric="ari", value=value, note=note, **row) for method, value, note in scores],
        root / "metrics.tsv",
    )
    study_page.write(
        {"facts": [root / "samples" / name / "facts.json" for name in sheet], "metrics": root / "metrics.tsv",
         "pictures": pictures},
        captions, config, sheet, notebook=notebooks / "study.ipynb", executed=report / "study.ipynb",
        output=report / "index.html", methods_path=report / "methods.txt", excluded=["C3"],
        sources=_sources([*pictures, root / "metrics.tsv", root / "space" / "genes.tsv"]),
        shown=_shown(pictures[0]) | {"space": {
            "verdict": str(verdict), "figures": [[pictures[0], "domains_figure"]],
            "tables": [[str(root / "space" / "genes.tsv"), "space_genes_table"]],
        }},
    )  # fmt: skip
    return report


def _shown(figure):
    return {"space": {"figures": [[figure, "domains_figure"]]}}


def _sources(paths):
    return {str(path): {"rule": "drawn", "log": "logs/s/drawn.log", "table": ""} for path in paths}


def photograph(path, seed=0, size=1400):
    """Write a png as large and as busy as that of a stained section, and a vector figure beside it."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 160, size)[:, None, None] + np.array([60, 20, 50])
    noise = rng.normal(0, 6, (size, size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(ramp + noise, 0, 255).astype(np.uint8)).save(path)
    path.with_suffix(".pdf").write_bytes(b"%PDF-1.4")
    return str(path)
