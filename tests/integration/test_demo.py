"""The demo, end to end: its outputs against its planted truth, and what runs again when something changes."""

import hashlib
import json
import re
import zipfile

import numpy as np
import pandas as pd
import pytest

from histoweft.metrics import COLUMNS, adjusted_rand_index

INTEGRATED = {
    "joint_clusters", "niches", "score_integration", "assemble", "domain_figures", "score_space", "join_metrics",
    "report_sample", "report_study", "persisters", "cohort_features", "cohort_figures", "biomarkers", "targets",
    "explorer_sample", "explorer", "provenance",
}  # fmt: skip
"""What depends on the joint clusters."""
SAMPLES = ("P1_pre", "P1_post", "P2_pre", "P2_post")


@pytest.fixture(scope="module")
def results(demo):
    return demo.root / "results" / "demo"


@pytest.fixture(scope="module")
def truth(results):
    return {s: pd.read_csv(results / "truth" / f"{s}.tsv", sep="\t", index_col="barcode") for s in SAMPLES}


def clusters(results, sample):
    return pd.read_parquet(results / "samples" / sample / "clusters.parquet")


@pytest.mark.parametrize("sample", SAMPLES)
def test_clusters_find_the_planted_domains(results, truth, sample):
    found = clusters(results, sample)
    domain = truth[sample].loc[found.index, "domain"]
    assert adjusted_rand_index(found["leiden_0.5"], domain) > 0.4


@pytest.mark.parametrize("sample", SAMPLES)
def test_planted_low_quality_spots_are_what_qc_removes(results, truth, sample):
    barcodes = pd.read_parquet(results / "samples" / sample / "qc_barcodes.parquet")
    planted = truth[sample].loc[barcodes.index, "low_quality"].fillna("none").astype(str)
    few_genes = planted.str.contains("gene")
    assert few_genes.any()
    removed = ~barcodes["kept"]
    assert removed[few_genes].mean() > 0.9
    assert removed[~few_genes].mean() < 0.05


def test_markers_of_the_epithelial_cluster_are_epithelial(results, truth):
    found = clusters(results, "P1_pre")["leiden"]
    domain = truth["P1_pre"].loc[found.index, "domain"]
    genes = pd.read_csv(results / "truth" / "genes.tsv", sep="\t")
    planted = set(genes.loc[genes["role"].astype(str) != "background", "gene" if "gene" in genes else "symbol"])
    top = pd.read_csv(results / "samples" / "P1_pre" / "top_markers.tsv", sep="\t")
    assert top.groupby("cluster").size().max() == 4
    assert set(top["cluster"].astype(str)) <= set(found)
    assert top["gene"].isin(planted).mean() > 0.5
    assert domain.nunique() > 3


def test_the_planted_batch_effect_is_seen_and_repaired(results):
    metrics = pd.read_csv(results / "metrics.tsv", sep="\t")
    integration = metrics[metrics["task"] == "integration"].set_index(["method", "metric"])["value"]
    batch = integration.xs("scib_batch", level="metric")
    assert batch["harmony"] > batch["floor:none"]
    verdict = json.loads((results / "integration" / "verdict.json").read_text())
    assert verdict["text"]


@pytest.mark.parametrize("sample", SAMPLES)
def test_joint_domains_follow_the_planted_ones(results, truth, sample):
    found = pd.read_parquet(results / "samples" / sample / "domains.parquet")["domain"]
    assert adjusted_rand_index(found, truth[sample].loc[found.index, "domain"]) > 0.5


def test_the_planted_ligand_and_receptor_lie_together_and_no_other_pair_does(results):
    pairs = pd.read_csv(results / "space" / "interactions.tsv", sep="\t")
    planted = pd.read_csv(results / "truth" / "interactions.tsv", sep="\t")
    planted = set(map(tuple, planted.loc[planted["planted"], ["ligand", "receptor"]].to_numpy()))
    called = pairs.loc[pairs["q"] < 0.05, ["ligand_complex", "receptor_complex"]].to_numpy()
    assert ("CXCL12", "CXCR4") in set(map(tuple, called)) <= planted
    assert len(pairs) > len(planted)


@pytest.mark.parametrize("sample", SAMPLES)
def test_proportions_follow_the_cells_that_were_put_into_each_spot(results, truth, sample):
    found = pd.read_parquet(results / "samples" / sample / "proportions.parquet")
    types = [name for name in found if f"low:{name}" in found]
    assert np.allclose(found[types].sum(axis=1), 1, atol=1e-3)
    given = truth[sample].loc[found.index, [f"prop_{name}" for name in types]].to_numpy()
    error = ((found[types].to_numpy() - given) ** 2).sum()
    assert 1 - error / ((given - given.mean(axis=0)) ** 2).sum() > 0.85
    inside = (found[[f"low:{name}" for name in types]].to_numpy() <= given) & (
        given <= found[[f"high:{name}" for name in types]].to_numpy()
    )
    assert inside.mean() > 0.85


def test_held_out_reference_cells_get_their_types_back(results):
    metrics = pd.read_csv(results / "annotation" / "metrics.tsv", sep="\t")
    accuracy = metrics[
        (metrics["metric"] == "accuracy") & (metrics["protocol"] == "patient") & (metrics["fold"] == "all")
    ]
    accuracy = accuracy.set_index("method")["value"]
    assert accuracy["logistic"] > 0.95 > accuracy["floor:majority"]


def test_the_atlas_is_scored_beside_its_floors_on_blocks_and_at_random(results):
    metrics = pd.read_csv(results / "atlas" / "metrics.tsv", sep="\t")
    means = metrics[metrics["fold"] == "all"].set_index(["task", "metric", "protocol", "method"])["value"].sort_index()
    recovered = means["voxel_reconstruction", "r2"]
    assert recovered["random", "residual"] > recovered["block", "residual"]
    distance = means["voxel_position", "euclid_folded_voxels"]
    assert distance["block", "residual"] < distance["block", "floor:mean"]
    assert {"floor:pca", "floor:knn", "floor:ridge"} <= set(metrics["method"])
    verdict = json.loads((results / "atlas" / "verdict.json").read_text())
    assert verdict["texts"]


@pytest.mark.parametrize("sample", ["P1_pre", "P2_pre"])
def test_tumour_spots_are_ordered_along_the_planted_gradient(results, truth, sample):
    fates = pd.read_parquet(results / "samples" / sample / "fates.parquet")
    ordered = fates["pseudotime"].notna()
    planted = truth[sample].loc[fates.index[ordered], "pseudotime"]
    assert fates.loc[ordered, "pseudotime"].corr(planted, method="spearman") > 0.3
    probabilities = fates.loc[ordered].filter(regex="^fate_(?!entropy)")
    assert probabilities.shape[1] == 2
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    assert len(set(fates["terminal"]) - {""}) == 2
    metrics = pd.read_csv(results / "trajectory" / "metrics.tsv", sep="\t")
    assert set(metrics["sample"]) >= {"P1_pre", "P2_pre"}


def test_planted_persisters_are_found_above_their_floors(results, truth):
    metrics = pd.read_csv(results / "states" / "metrics.tsv", sep="\t")
    persister = metrics[
        (metrics["task"] == "persister") & (metrics["metric"] == "auroc") & (metrics["sample"] == "all")
    ]
    auroc = persister.set_index("method")["value"]
    ours = auroc[~auroc.index.str.startswith("floor:")].max()
    assert ours > 0.95
    assert ours > auroc[auroc.index.str.startswith("floor:")].max()
    for sample in SAMPLES:
        found = pd.read_parquet(results / "samples" / sample / "states.parquet")
        planted = truth[sample].loc[found.index, "persister_fraction"] > 0
        called = found["persister"].astype(bool)
        assert called.sum() == 0 or planted[called].mean() > 0.6, sample
    said = json.loads((results / "states" / "verdict.json").read_text())
    assert "no test" in " ".join([*said["texts"], *said["warnings"]])


def test_two_patients_are_compared_without_a_p_value(results):
    features = pd.read_parquet(results / "cohort" / "features.parquet")
    assert set(features["patient"] if "patient" in features else features.index) == {"P1", "P2"}
    said = json.loads((results / "cohort" / "verdict.json").read_text())
    assert "2 patients" in " ".join([*said["texts"], *said["warnings"]])
    columns = pd.read_csv(results / "cohort" / "columns.tsv", sep="\t")
    assert len(columns) > 50
    assert not pd.read_parquet(results / "cohort" / "targets.parquet")["called"].any()


def test_the_explorer_has_every_sample_and_its_genes(results):
    folder = results / "explorer"
    assert (folder / "index.html").is_file()
    listed = (folder / "data" / "study.js").read_text(encoding="utf-8")
    for sample in SAMPLES:
        assert f'"{sample}"' in listed
        assert len(list((folder / "data" / sample).rglob("*.js"))) > 3


def test_the_crate_names_every_output_with_its_digest(results):
    rocrate = pytest.importorskip("rocrate.rocrate")
    crate = rocrate.ROCrate(str(results))
    files = {entity.id: entity for entity in crate.get_by_type("File")}
    for name in ("metrics.tsv", "samples/P1_pre/P1_pre.h5ad", "report/index.html"):
        digest = hashlib.sha256((results / name).read_bytes()).hexdigest()
        assert files[name]["sha256"] == digest


def test_metrics_are_one_tidy_table(results):
    metrics = pd.read_csv(results / "metrics.tsv", sep="\t")
    assert list(metrics.columns) == list(COLUMNS)
    assert set(metrics["sample"]) >= set(SAMPLES)
    against_labels = metrics[(metrics["task"] == "domains") & (metrics["metric"] == "ari")]
    assert set(against_labels["sample"]) >= set(SAMPLES)
    assert against_labels["value"].between(-1, 1).all()


def test_the_assembled_sample_opens_in_scanpy_with_its_slots(results):
    anndata = pytest.importorskip("anndata")
    adata = anndata.read_h5ad(results / "samples" / "P2_post" / "P2_post.h5ad")
    assert {"leiden", "label", "n_counts", "patient", "condition", "domain", "niche", "cell_type"} <= set(adata.obs)
    assert {"spatial", "X_pca", "X_umap", "proportions"} <= set(adata.obsm)
    assert adata.obsm["proportions"].shape[1] == len(adata.uns["proportions"]["types"])
    assert "spatial_connectivities" in adata.obsp
    assert adata.obs["patient"].astype(str).unique().tolist() == ["P2"]
    library = adata.uns["spatial"]["P2_post"]
    height, width = library["images"]["hires"].shape[:2]
    scaled = adata.obsm["spatial"] * library["scalefactors"]["tissue_hires_scalef"]
    assert (scaled >= 0).all()
    assert (scaled[:, 0] <= width).all()
    assert (scaled[:, 1] <= height).all()
    counts = adata.layers["counts"]
    assert counts.data.dtype.kind in "iu" or np.array_equal(counts.data, np.round(counts.data))
    total = np.expm1(adata.X[:20].toarray()).sum(axis=1)
    assert np.allclose(total, 10_000, rtol=1e-3)


def test_pages_stand_alone(results):
    for page in [results / "report" / "index.html", *((results / "report" / f"{s}.html") for s in SAMPLES)]:
        html = page.read_text(encoding="utf-8")
        assert not re.search(r"""<(script|link|img|iframe)[^>]+(src|href)=["']https?:""", html), page
        assert "data:image/png;base64," in html
        assert str(results.parent.parent) not in html, f"{page.name} names a folder of this machine"
    index = (results / "report" / "index.html").read_text(encoding="utf-8")
    for sample in SAMPLES:
        assert f'href="{sample}.html"' in index


def test_methods_paragraph_states_the_settings_and_versions(results):
    import anndata

    text = (results / "report" / "methods.txt").read_text(encoding="utf-8")
    assert "200" in text
    assert "30,000" in text
    assert anndata.__version__ in text


def test_snakemakes_own_report_has_every_figure_with_labels_and_captions(demo):
    demo.run("--report", "report.zip")
    with zipfile.ZipFile(demo.root / "report.zip") as packed:
        names = packed.namelist()
        assert sum(name.endswith("/qc.png") for name in names) == len(SAMPLES)
        index = "".join(packed.read(name).decode() for name in names if name.endswith((".html", ".js")))
    for expected in ("Integration", "QC", "what each filter removed", "P2_post"):
        assert expected in index


def test_a_second_run_has_nothing_to_do(demo):
    _, text = demo.run()
    assert "Nothing to be done" in text


PAINTED = {
    "tile", "pretrain", "image_features", "cross_validate", "score_histology", "histology_summary", "train_genes",
    "paint", "paint_figure", "join_metrics", "report_sample", "report_study", "explorer_sample", "explorer",
    "provenance",
}  # fmt: skip
"""What depends on the image."""


@pytest.mark.parametrize(
    ("option", "rules"),
    [
        ("report:\n  author: me\n", {"report_study", "provenance"}),
        (
            "expression:\n  markers_per_cluster: 3\n",
            {
                "markers", "paint", "paint_figure", "report_sample", "report_study", "explorer_sample", "explorer",
                "provenance",
            },
        ),
        ("integration:\n  resolution: 0.7\n", INTEGRATED),
        (
            "expression:\n  umap_min_dist: 0.3\n",
            {"umap", "cluster_figure", "annotation_figure", "states_figures", "trajectory_figures", *INTEGRATED},
        ),
        (
            "ingest:\n  working_mpp: 3.0\n",
            {
                "ingest_image", "qc_figure", "cluster_figure", "domain_figures", "space_figures", "states_figures",
                "trajectory_figures", "biomarkers", "targets", "cohort_figures", "assemble", *PAINTED,
            },
        ),
    ],
)  # fmt: skip
def test_an_edited_option_reruns_only_what_reads_it(demo, option, rules):
    base = (demo.root / "config" / "config.yaml").read_text()
    edited = demo.configure("edited.yaml", base + option)
    planned = set(demo.planned("--configfile", edited))
    assert planned == rules


def test_an_edited_module_reruns_what_reaches_it(demo):
    module = demo.root / "workflow" / "lib" / "histoweft" / "expression" / "markers.py"
    before = module.read_text()
    try:
        module.write_text(before + "\nEDITED = True\n")
        planned = demo.planned()
    finally:
        module.write_text(before)
    assert "markers" in planned
    assert not set(planned) & {"simulate", "ingest_counts", "qc", "features", "neighbours", "leiden", "umap"}


def test_a_dry_run_of_200_samples_is_planned(checkout):
    rows = ["sample\tplatform\tpath"]
    for number in range(200):
        folder = checkout.root / "data" / f"s{number}"
        (folder / "spatial").mkdir(parents=True)
        for name in ("filtered_feature_bc_matrix.h5", "spatial/tissue_positions.csv", "spatial/scalefactors_json.json"):
            (folder / name).write_bytes(b"x")
        rows.append(f"s{number}\tvisium\tdata/s{number}")
    (checkout.root / "samples.tsv").write_text("\n".join(rows) + "\n")
    config = checkout.configure("big.yaml", "study: big\nsamples: samples.tsv\n")
    assert checkout.planned("--configfile", config)["ingest_counts"] == 200
