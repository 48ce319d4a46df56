"""Integration: shared genes, joint PCA, embeddings, scores, the decision, pictures."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft import io, linalg, normalise
from histoweft.errors import InputError
from histoweft.integration import embed, figures, joint, score

N, GENES = 120, 150
TYPES = np.array(["neuron", "glia", "vessel"])


def counts_of(rng, effect, n=N, genes=GENES):
    """Three cell types with 15 markers each; `effect` multiplies a fifth of the genes."""
    types = rng.integers(0, 3, n)
    rate = np.tile(np.random.default_rng(99).gamma(1.0, 1.0, genes) + 0.2, (n, 1))
    for t in range(3):
        rate[types == t, 15 * t : 15 * (t + 1)] *= 6
    rate[:, 90:120] *= effect
    return rng.poisson(rate * rng.uniform(0.6, 1.6, (n, 1))).astype(np.int32), types


def write_section(path, counts, genes, *, sample, label=None, batch=None, condition="control", ids=None):
    obs = pd.DataFrame(index=[f"cell{i}-1" for i in range(len(counts))])
    if label is not None:
        obs["label"] = pd.Categorical(label)
    ids = list(genes) if ids is None else ids
    var = pd.DataFrame({"gene_id": ids, "feature_type": "Gene Expression"}, index=list(genes))
    about = {"sample": sample, "patient": f"p{sample}", "batch": batch or sample, "condition": condition}
    with io.CsrWriter(path, counts.shape[1], np.int32) as writer:
        writer.append(sp.csr_matrix(counts))
        writer.finish(obs, var, uns={"histoweft": about})
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two sections of the same tissue with a planted batch effect, their joint features and embeddings."""
    folder = tmp_path_factory.mktemp("study")
    genes = [f"G{i}" for i in range(GENES)]
    paths = {}
    for i, (sample, effect) in enumerate({"s1": 1.0, "s2": 3.0}.items()):
        counts, types = counts_of(np.random.default_rng(i), effect)
        paths[sample] = write_section(folder / f"{sample}.h5ad", counts, genes, sample=sample, label=TYPES[types])
    features = folder / "features.h5ad"
    facts = joint.joint_features(paths, features, variable_genes=100, components=10)
    with io.CountsFile(features) as file:
        obs = file.obs()
    found = {m: embed.embed(m, features, "sample", 0) for m in ("none", "harmony")}
    return SimpleNamespace(folder=folder, paths=paths, features=features, facts=facts, obs=obs, embeddings=found)


# ---------------------------------------------------------------------------------------------- linear algebra


def test_principal_axes_of_chunks_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    X = sp.random(300, 40, density=0.3, random_state=1, format="csr") @ sp.diags(rng.uniform(0.5, 3, 40))
    found = linalg.pca((X[i : i + 70] for i in range(0, 300, 70)), 40, 5)
    dense = X.toarray()
    centred = dense - dense.mean(axis=0)
    _, singular, vt = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(found.variance, singular[:5] ** 2 / 299)
    assert np.allclose(np.abs((found.axes * vt[:5].T).sum(axis=0)), 1)
    assert np.allclose(found.project(X), centred @ found.axes, atol=1e-5)
    assert np.allclose(found.variance_ratio, found.variance / centred.var(axis=0, ddof=1).sum())
    largest = found.axes[np.abs(found.axes).argmax(axis=0), range(5)]
    assert (largest > 0).all()


def test_more_axes_than_there_can_be_are_refused():
    with pytest.raises(ValueError, match="1 to 3 can be had"):
        linalg.pca([sp.csr_matrix(np.eye(4))], 4, 4)


# ----------------------------------------------------------------------------------------------- joint features


def tables(*names, ids=None):
    found = {}
    for i, symbols in enumerate(names):
        table = pd.DataFrame(index=symbols)
        if ids is not None:
            table["gene_id"] = ids[i]
        found[f"s{i}"] = table
    return found


def test_genes_are_matched_by_id_when_the_symbols_differ():
    match = joint.match_genes(tables(["A", "B", "C"], ["c", "a", "x"], ids=[["1", "2", "3"], ["3", "1", "9"]]), 2)
    assert match.by == "gene_id"
    assert list(match.keys) == ["1", "3"]
    assert list(match.columns["s0"]) == [0, 2]
    assert list(match.columns["s1"]) == [1, 0]


def test_genes_are_matched_by_symbol_when_the_ids_differ_or_are_missing():
    assert joint.match_genes(tables(["A", "B"], ["B", "A"], ids=[["1", "2"], ["x", "y"]]), 2).by == "symbol"
    assert joint.match_genes(tables(["A", "B"], ["B", "A"]), 2).by == "symbol"


def test_ids_decide_when_both_match():
    # "A-1" is another gene in each section: only the ids know.
    match = joint.match_genes(tables(["A", "A-1"], ["A", "A-1"], ids=[["1", "2"], ["2", "1"]]), 2)
    assert match.by == "gene_id"
    assert list(match.columns["s1"]) == [1, 0]


def test_too_few_shared_genes_name_the_odd_section():
    human = [f"GENE{i}" for i in range(100)]
    with pytest.raises(InputError, match=r"'s1' shares least.*put 's1' into a study of its own") as error:
        joint.match_genes(tables(human, [f"Gene{i}" for i in range(100)], human), 50)
    assert "at least 50" in str(error.value)


def test_small_panels_may_share_fewer_genes():
    assert len(joint.match_genes(tables(list("abcdef"), list("abcdef")), 50).keys) == 6


def test_the_median_section_decides_which_genes_vary():
    scores = np.array([[9.0, 5.0, 1.0, 3.0], [-np.inf, 5.0, 2.0, 3.0], [0.5, 5.0, 2.0, 4.0]])
    # Gene 0 leads in one section only.
    assert list(joint.median_rank(scores)) == [1, 3, 2, 0]


def test_dispersion_is_judged_among_genes_of_like_mean():
    rng = np.random.default_rng(0)
    mean = np.repeat([0.1, 10.0], 50)
    variance = mean * rng.uniform(0.9, 1.1, 100)
    variance[50:] *= 5  # all genes of high mean vary more
    variance[7] *= 2
    scores = normalise.dispersion_table(mean, variance)["dispersions_norm"]
    assert scores.idxmax() == 7
    still = normalise.dispersion_table(np.array([0.0, 1, 2]), np.array([0.0, 0, 1]))["dispersions_norm"]
    assert still[:2].isna().all()


def test_joint_features_hold_what_they_say(study):
    import anndata

    data = anndata.read_h5ad(study.features)
    assert study.facts["shared_genes"] == GENES
    assert data.shape == (2 * N, 100)
    assert data.X.dtype == np.float32
    assert data.obs_names[0] == "s1:cell0-1"
    assert data.obs_names[-1] == f"s2:cell{N - 1}-1"
    assert list(data.obs["sample"].cat.categories) == ["s1", "s2"]
    assert {"patient", "batch", "condition", "barcode", "label"} <= set(data.obs)
    assert data.obs["patient"].iloc[-1] == "ps2"
    assert sorted(data.var["rank"]) == list(range(100))
    # Values: all genes of the section count towards the total, also those that are not variable.
    raw = anndata.read_h5ad(study.paths["s2"])
    dense = raw.X.toarray().astype(float)
    expected = np.log1p(dense / dense.sum(axis=1, keepdims=True) * 10_000)
    columns = raw.var_names.get_indexer(data.var_names)
    assert np.allclose(data.X[N:].toarray(), expected[:, columns], rtol=1e-5)
    centred = data.X.toarray() - data.X.toarray().mean(axis=0)
    assert np.allclose(data.obsm["X_pca"], centred @ data.varm["PCs"], atol=1e-3)
    # The planted markers and the planted batch genes are what varies.
    best = data.var.sort_values("rank").index[:45].str[1:].astype(int)
    assert ((best < 45) | ((best >= 90) & (best < 120))).mean() > 0.8


def test_sections_of_other_gene_order_join_to_the_same(study, tmp_path):
    import anndata

    raw = anndata.read_h5ad(study.paths["s2"])
    order = np.random.default_rng(0).permutation(GENES)
    moved = write_section(
        tmp_path / "s2.h5ad",
        raw.X.toarray()[:, order],
        [f"other{i}" for i in order],
        sample="s2",
        label=raw.obs["label"],
        ids=raw.var["gene_id"].to_numpy()[order],
    )
    again = tmp_path / "features.h5ad"
    facts = joint.joint_features({"s1": study.paths["s1"], "s2": moved}, again, variable_genes=100, components=10)
    assert facts["matched_by"] == "gene_id"
    assert np.array_equal(embed.embed("none", again), study.embeddings["none"])


def test_counts_come_back_from_logarithms():
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(3, (50, 30)) * rng.integers(1, 20_000, (50, 30)))
    totals = np.asarray(counts.sum(axis=1)).ravel() + 100.0
    logged = sp.csr_matrix(np.log1p(counts.multiply(10_000 / totals[:, None]))).astype(np.float32)
    assert (joint.raw_counts(logged, totals).toarray() == counts.toarray()).all()


def test_one_section_or_an_empty_one_is_refused(study, tmp_path):
    output = tmp_path / "features.h5ad"
    with pytest.raises(InputError, match="at least two sections"):
        joint.joint_features({"s1": study.paths["s1"]}, output)
    genes = [f"G{i}" for i in range(GENES)]
    empty = write_section(tmp_path / "e.h5ad", np.zeros((0, GENES), np.int32), genes, sample="e")
    with pytest.raises(InputError, match="0 barcodes x 150 genes in section 'e'"):
        joint.joint_features({"s1": study.paths["s1"], "e": empty}, output)
    assert list(tmp_path.iterdir()) == [empty]


# -------------------------------------------------------------------------------------------------- embeddings


def test_the_floor_is_the_pca_and_harmony_mixes_it(study):
    none, harmony = study.embeddings["none"], study.embeddings["harmony"]
    assert none.shape == harmony.shape == (2 * N, 10)
    section = study.obs["sample"].to_numpy()
    before, after = score.section_effect(none, section), score.section_effect(harmony, section)
    assert before["neighbour_purity"] > 0.7
    assert after["neighbour_purity"] < 0.6
    assert after["variance_share"] < before["variance_share"] / 3
    assert np.array_equal(harmony, embed.embed("harmony", study.features, "sample", 0))


@pytest.mark.parametrize(
    ("method", "key", "options", "message"),
    [
        ("harmoni", "sample", {}, "Did you mean 'harmony'"),
        ("harmony", "smaple", {}, "Did you mean 'sample'"),
        ("harmony", "condition", {}, "which is 'control' in every section"),
        ("harmony", "sample", {"thet": 1}, "Did you mean 'theta'"),
        ("none", "sample", {"theta": 1}, "no options for none"),
    ],
)
def test_wrong_requests_are_refused_with_a_hint(study, method, key, options, message):
    with pytest.raises(InputError, match=message):
        embed.embed(method, study.features, key, 0, options)


def test_harmonypy_is_imported_only_where_it_runs(repo):
    code = "import sys; from histoweft.integration import embed, joint, score, figures; print(*sys.modules)"
    path = {"PYTHONPATH": str(repo / "workflow" / "lib")}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "histoweft" in loaded
    assert not loaded & {"harmonypy", "scvi", "scib_metrics", "jax", "sklearn", "anndata", "matplotlib", "torch"}


def test_gpu_requests_reach_the_trainer():
    assert embed._device("cpu") == ("cpu", 1)
    assert embed._device("cuda") == ("gpu", 1)
    assert embed._device("cuda:1") == ("gpu", [1])


def test_scvi_refuses_what_are_no_counts(tmp_path):
    paths = {}
    for i in range(2):
        counts, _ = counts_of(np.random.default_rng(i), 1, n=30)
        with io.CsrWriter(tmp_path / f"{i}.h5ad", GENES, np.float32) as writer:
            writer.append(sp.csr_matrix(counts + 0.5).astype(np.float32))
            names = [f"G{g}" for g in range(GENES)]
            writer.finish(
                pd.DataFrame(index=[f"c{c}" for c in range(30)]), pd.DataFrame({"gene_id": names}, index=names)
            )
        paths[f"s{i}"] = tmp_path / f"{i}.h5ad"
    facts = joint.joint_features(paths, tmp_path / "features.h5ad")
    assert facts["whole_counts"] is False
    with pytest.raises(InputError, match="not whole numbers"):
        embed.embed("scvi", tmp_path / "features.h5ad")


@pytest.mark.slow
def test_scvi_runs_and_repeats_itself(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"epochs": 3, "components": 5, "hidden": 16}
    one = embed.embed("scvi", study.features, "sample", 1, options)
    assert one.shape == (2 * N, 5)
    assert np.isfinite(one).all()
    assert one.std(axis=0).min() > 0
    assert np.array_equal(one, embed.embed("scvi", study.features, "sample", 1, options))
    assert not np.array_equal(one, embed.embed("scvi", study.features, "sample", 2, options))
    assert not list(tmp_path.iterdir())  # no logs, no checkpoints left about


def test_clusters_and_layout_come_in_one_table(study):
    table = embed.cluster(study.embeddings["harmony"], study.obs.index, neighbours=5)
    assert list(table.columns) == ["leiden", "umap_1", "umap_2"]
    assert (table.index == study.obs.index).all()
    assert table["leiden"].map(type).eq(str).all()
    tiny = embed.cluster(np.eye(4), list("abcd"), neighbours=15)
    assert len(tiny) == 4


# ------------------------------------------------------------------------------------------------------ scores


def frame(**columns):
    return pd.DataFrame(columns)


def test_labels_are_the_truth_only_when_every_section_has_them():
    obs = frame(sample=["a"] * 4 + ["b"] * 4, label=["x", "y", "x", None, "x", "y", "y", "y"])
    truth = score.truth_of(obs)
    assert truth.kind == "labels"
    assert pd.isna(truth.values[3])
    obs.loc[5:, "label"] = None
    own = list("00110011")
    truth = score.truth_of(obs, own)
    assert truth.kind == "own"
    assert list(truth.values) == own
    assert "no expert labels" in truth.text
    with pytest.raises(ValueError, match="own clusters"):
        score.truth_of(obs)


def test_confounded_conditions_and_lonely_domains_raise_a_warning():
    obs = frame(sample=list("aabb"), condition=["t", "t", "c", "c"], label=["x", "y", "x", "x"])
    found = score.warnings_of(obs, score.truth_of(obs))
    assert len(found) == 2
    assert "confounded with batch: a, b hold one condition only" in found[0]
    assert "in one batch only: y" in found[1]
    clean = frame(sample=list("aabb"), condition=list("tctc"), label=list("xyxy"))
    assert score.warnings_of(clean, score.truth_of(clean)) == []
    same = frame(sample=list("aabb"), condition=list("cccc"), label=list("xyxy"))
    assert score.warnings_of(same, score.truth_of(same)) == []


def test_the_cells_scored_keep_the_share_of_each_section():
    obs = frame(sample=["a"] * 900 + ["b"] * 100, label=["x", "y"] * 500)
    obs.loc[:9, "label"] = None
    truth = score.truth_of(obs)
    cells = score.choose_cells(obs, truth, most=100)
    assert len(cells) == len(set(cells)) == 100
    assert cells.min() >= 10
    assert 88 <= (cells < 900).sum() <= 92
    assert np.array_equal(cells, score.choose_cells(obs, truth, most=100))
    assert len(score.choose_cells(obs, truth)) == 990


def test_each_cell_is_its_own_first_neighbour_even_among_twins():
    X = np.repeat(np.random.default_rng(0).normal(size=(10, 3)), 8, axis=0)
    near = score.nearest_neighbours(X, 5)
    assert np.array_equal(near.indices[:, 0], np.arange(80))
    assert all(len(set(row)) == 5 for row in near.indices)
    assert (np.diff(near.distances, axis=1) >= 0).all()


def test_the_quick_batch_silhouette_is_the_one_of_scib_metrics():
    from scib_metrics import bras

    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5)) + 1
    names, batch = np.repeat(["x", "y"], 30), np.tile(["a", "b", "c"], 20)
    X[batch == "a"] += 0.7
    assert score.batch_silhouette(X, names, batch) == pytest.approx(bras(X, names, batch), abs=1e-4)
    assert np.isnan(score.batch_silhouette(X, names, np.where(names == "x", "a", "b")))


def test_purity_of_groups_is_the_clisi_of_each():
    from scib_metrics import clisi_knn

    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(60, 4)) for _ in range(2)]
    names = [np.where(X[:, 0] + rng.normal(size=60) > 0, "x", "y") for X in groups]
    names[1][::5] = "z"
    nears = [score.nearest_neighbours(X, 30) for X in groups]
    together = score._purity(nears, names)
    alone = [float(clisi_knn(near, one)) for near, one in zip(nears, names)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert together[0] != pytest.approx(together[1], abs=1e-3)


def pivot(scores):
    return scores.rows.pivot(index="metric", columns="method", values="value")


def test_a_planted_batch_effect_makes_harmony_win(study):
    scores = score.score_all(
        study.embeddings, study.obs, study="t", default="harmony", panel="joint (100)", seconds={"harmony": 0.5}
    )
    table = pivot(scores)
    assert table.loc["ilisi", "harmony"] > table.loc["ilisi", "floor:none"] + 0.3
    assert table.loc["pcr_comparison", "floor:none"] == 0
    mixing = table.loc[["ilisi", "silhouette_batch", "graph_connectivity", "pcr_comparison"]].mean()
    keeping = table.loc[["nmi", "ari", "silhouette_label", "clisi"]].mean()
    assert np.allclose(table.loc["scib_total"], 0.4 * mixing + 0.6 * keeping)
    assert table.loc["seconds", "harmony"] == 0.5
    rows = scores.rows
    assert list(rows.columns) == (
        "study stage task method sample protocol fold metric value low high n panel note".split()
    )
    assert rows["method"].iloc[0] == "floor:none"
    assert set(rows["protocol"]) == {"truth"}
    assert (rows["n"] == 2 * N).all()
    assert rows["low"].isna().all()
    assert rows.loc[rows["method"] == "harmony", "note"].str.startswith("default;").all()
    assert not rows.loc[rows["method"] == "floor:none", "note"].str.contains("default").any()
    decision = score.best(rows, scores.warnings)
    assert decision.method == "harmony"
    assert "harmony is best" in decision.text


def test_without_labels_each_section_keeps_its_own_structure(study):
    obs = study.obs.drop(columns="label")
    # Cluster names of one section mean nothing in the other.
    swap = {"neuron": "0", "glia": "1", "vessel": "2"}, {"neuron": "2", "glia": "0", "vessel": "1"}
    own = [swap[s == "s2"][str(x)] for s, x in zip(study.obs["sample"], study.obs["label"])]
    scores = score.score_all(study.embeddings, obs, study="t", own_clusters=own)
    table = pivot(scores)
    assert set(scores.rows["protocol"]) == {"section"}
    assert "each section's own clusters" in scores.rows["note"].iloc[0]
    assert "graph_connectivity" not in table.index
    assert table.loc["kbet", "harmony"] > table.loc["kbet", "floor:none"] + 0.3
    assert (table.loc["ari"] > 0.8).all()


def test_without_a_batch_effect_doing_nothing_is_best():
    rng = np.random.default_rng(0)
    label = np.repeat(TYPES, 60)
    X = rng.normal(size=(180, 5)) + 4 * np.repeat(np.eye(3, 5), 60, axis=0)
    obs = frame(sample=np.tile(["a", "b"], 90), condition="c", label=label)
    moved = X + rng.normal(scale=0.02, size=X.shape)
    scores = score.score_all({"none": X, "harmony": moved}, obs, study="t")
    assert pivot(scores).loc["pcr_comparison"].isna().all()  # nothing to remove: no reward for removing it
    decision = score.best(scores.rows)
    assert decision.floor_won
    assert decision.method == "none"
    assert "Doing nothing was best" in decision.text
    assert scores.effect.loc["floor:none", "neighbour_purity"] == pytest.approx(0.5, abs=0.06)


def totals(**values):
    names = {"none": "floor:none"}
    return frame(
        method=[names.get(m, m) for m in values], metric="scib_total", value=[float(v) for v in values.values()]
    )


@pytest.mark.parametrize(
    ("values", "method", "says"),
    [
        ({"none": 0.5, "harmony": 0.6, "scvi": 0.55}, "harmony", r"\+0.100 against doing nothing"),
        ({"none": 0.5, "harmony": 0.505}, "none", "a tie"),
        ({"none": 0.5, "harmony": 0.4}, "none", r"reached 0.400 \(-0.100\), worse"),
        ({"none": 0.5}, "none", "No method was compared"),
    ],
)
def test_the_floor_stays_unless_it_is_beaten(values, method, says):
    decision = score.best(totals(**values))
    assert decision.method == method
    assert decision.floor_won == (method == "none")
    assert pd.Series([decision.text]).str.contains(says).item()


def test_warnings_are_part_of_the_decision():
    assert score.best(totals(none=0.5, harmony=0.6), ["beware"]).text.endswith("Read it with care: beware.")


@pytest.mark.parametrize(
    ("embeddings", "batch", "message"),
    [
        ({"harmony": np.zeros((4, 2))}, "ab", "floor"),
        ({"none": np.zeros((3, 2))}, "ab", "3 rows for 4 cells"),
        ({"none": np.zeros((4, 2))}, "aa", "one batch only"),
    ],
)
def test_scores_refuse_what_cannot_be_compared(embeddings, batch, message):
    obs = frame(sample=list(batch * 2), label=list("xyxy"))
    with pytest.raises(ValueError, match=message):
        score.score_all(embeddings, obs, study="t")


# ----------------------------------------------------------------------------------------------------- pictures


def test_pictures_show_before_first_and_every_metric(study, tmp_path):
    scores = score.score_all(study.embeddings, study.obs, study="t", seconds={"harmony": 1})
    layouts = {m: embed.cluster(study.embeddings[m], study.obs.index) for m in ("harmony", "none")}
    figures.umap_figure(layouts, study.obs["sample"], tmp_path / "umap.svg")
    figures.effect_figure(scores.effect, tmp_path / "effect.svg")
    figures.score_figure(scores.rows, tmp_path / "scores.svg")
    umap, effect, bars = ((tmp_path / f"{name}.svg").read_text() for name in ("umap", "effect", "scores"))
    for text in (umap, effect, bars):
        assert 0 < text.index("before (none)") < text.index("after harmony")
    assert ">s1<" in umap
    assert "joint clusters" in umap
    assert "dashed: fully mixed (50)" in effect
    for word in ("iLISI", "NMI", "ARI", "cLISI", "total"):
        assert f">{word}<" in bars
    assert "seconds" not in bars


# ---------------------------------------------------------------------------------------------------- real data


@pytest.mark.slow
def test_two_technologies_of_the_same_cell_lines_are_joined(real_data, tmp_path):
    """Harmony mixes CEL-seq2 and Drop-seq cells and keeps the genotype-called lines apart (Tian et al. 2019)."""
    paths = {}
    for name in ("celseq2", "dropseq"):
        stem = real_data / "sc_mixology" / "original" / f"sc_{name}"
        table = pd.read_csv(f"{stem}.count.csv.gz", index_col=0)
        about = pd.read_csv(f"{stem}.metadata.csv.gz", index_col=0).loc[table.columns]
        keep = (about["demuxlet_cls"] == "SNG").to_numpy()
        counts = table.to_numpy(np.int32).T[keep]
        paths[name] = write_section(
            tmp_path / f"{name}.h5ad",
            counts,
            table.index.astype(str),
            sample=name,
            label=about["cell_line_demuxlet"].to_numpy()[keep],
        )
    features = tmp_path / "features.h5ad"
    joint.joint_features(paths, features)
    with io.CountsFile(features) as file:
        obs = file.obs()
    scores = score.score_all({m: embed.embed(m, features) for m in ("none", "harmony")}, obs, study="sc_mixology")
    table = pivot(scores)
    assert table.loc["ari"].min() > 0.95
    assert table.loc["ilisi", "floor:none"] < 0.4
    assert table.loc["ilisi", "harmony"] > 0.7
    assert score.best(scores.rows).method == "harmony"


def test_sections_of_two_species_are_refused(tmp_path):
    import anndata

    names = [f"{a}{b}{c}" for a in "ABC" for b in "DEF" for c in "GHI"]
    paths = {"a": tmp_path / "a.h5ad", "b": tmp_path / "b.h5ad"}
    for sample, genes in {"a": names, "b": [name.title() for name in names]}.items():
        var = pd.DataFrame(
            {"gene_id": [f"ENSG{i:011d}" if sample == "a" else f"ENSMUSG{i:011d}" for i in range(27)]}, index=genes
        )
        anndata.AnnData(sp.csr_matrix(np.ones((5, 27), np.float32)), var=var).write_h5ad(paths[sample])
    with pytest.raises(InputError, match=r"'a' of human beside 'b' of mouse; expected samples of one species"):
        joint.joint_features(paths, tmp_path / "features.h5ad")
    assert not (tmp_path / "features.h5ad").exists()
