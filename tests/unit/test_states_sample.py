"""One sample from end to end, its surroundings on tissue, its pictures, and a panel without signatures."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft import config
from histoweft.errors import InputError
from histoweft.graph.leiden import as_igraph, leiden
from histoweft.graph.neighbours import neighbour_graph
from histoweft.io import CountsFile, CsrWriter, write_graph, write_table
from histoweft.linalg import pca
from histoweft.normalise import normalise
from histoweft.states import figures, niches, sample, signatures, simulate, tissue

PROGRAMMES = ("antioxidant_gpx4", "fatty_acid_oxidation", "diapause", "chromatin_kdm5a")
N = 900


@pytest.fixture(scope="module")
def options():
    chosen = config.complete({}, config.load_schema("config")["properties"]["states"])
    chosen["persister"]["null_sets"] = 60
    chosen["rare"]["null_samples"] = 6
    return chosen


@pytest.fixture(scope="module")
def tables(repo):
    return sorted((repo / "resources" / "signatures").glob("*.tsv"))


@pytest.fixture(scope="module")
def section(tmp_path_factory, tables):
    """Write a section: cells on a lattice, the persisters in one corner; return the folder and the truth."""
    folder = tmp_path_factory.mktemp("section")
    table = signatures.read_signatures(tables)
    cells = simulate.draw_cells(table, PROGRAMMES, ("s_phase", "g2m_phase"), n=N, share=0.05, effect=1.8, seed=2)
    order = np.argsort(cells.truth["persister"].to_numpy(), kind="stable")[::-1]
    x, y = np.meshgrid(np.arange(30.0), np.arange(30.0))
    places = np.column_stack([x.ravel(), y.ravel()])
    places = places[np.argsort(np.hypot(*(places - [6, 6]).T), kind="stable")]
    xy = np.empty((N, 2))
    xy[order] = places
    values = normalise(cells.counts)
    points = pca([values], values.shape[1], 12).project(values)
    names, genes = cells.truth.index, pd.DataFrame(index=cells.genes)
    about = {"histoweft": {"mpp": 50.0, "spot_diameter_um": 40.0}}
    for name, obsm in (("filtered", {"spatial": xy}), ("features", {"X_pca": points})):
        with CsrWriter(folder / f"{name}.h5ad", len(genes), np.int32) as writer:
            writer.append(cells.counts)
            writer.finish(pd.DataFrame(index=names), genes, obsm=obsm, uns=about)
    codes = leiden(as_igraph(neighbour_graph(points, 15)[0]), 0.5).astype(str)
    write_table(pd.DataFrame({"leiden_0.5": codes, "leiden": codes}, index=names), folder / "clusters.parquet")
    write_table(pd.DataFrame({"label": cells.truth["cell_type"]}, index=names), folder / "annotation.parquet")
    corner = np.where(np.hypot(*(xy - [6, 6]).T) < 7, "corner", "rest")
    write_table(pd.DataFrame({"niche": pd.Categorical(corner)}, index=names), folder / "niches.parquet")
    from scipy.spatial import cKDTree

    pairs = cKDTree(xy).query_pairs(1.2, output_type="ndarray")
    edges = sp.csr_matrix((np.ones(len(pairs), np.float32), pairs.T), shape=(N, N))
    write_graph(folder / "graph.npz", sp.csr_matrix(edges + edges.T))
    names_of = ["GPX4", "SIM0001"], ["CPT1A", "SIM0002"]
    pd.DataFrame(dict(zip(("ligand_complex", "receptor_complex"), names_of))).to_parquet(
        folder / "interactions.parquet"
    )
    return folder, cells.truth


@pytest.fixture(scope="module")
def found(section, options, tables):
    folder, _ = section
    with CountsFile(folder / "filtered.h5ad") as counts:
        known = sample.read_sample(
            counts, folder / "features.h5ad", folder / "clusters.parquet", folder / "annotation.parquet"
        )
        done = sample.analyse(counts, known, options, tables, 1e4, 15, seed=3)
        again = sample.analyse(counts, known, options, tables, 1e4, 15, seed=3)
    pd.testing.assert_frame_equal(done.table, again.table)
    assert done.facts == again.facts
    write_table(done.table, folder / "states.parquet")
    return done


def test_the_table_keeps_its_contract(found, section):
    table, truth = found.table, section[1]
    wanted = {
        "s_score", "g2m_score", "phase", "persister_score", "persister", "rare", "rare_score", "rare_group",
        "transitional", "transition_score",
    }  # fmt: skip
    assert wanted | {f"signature_{name}" for name in PROGRAMMES} <= set(table.columns)
    assert list(table.index) == list(truth.index)
    assert table["persister"].dtype == table["rare"].dtype == table["transitional"].dtype == bool
    assert truth.loc[table["persister"], "persister"].mean() > 0.85
    assert table.loc[truth["persister"], "persister"].mean() > 0.7
    cycling = table["phase"].isin(["S", "G2M"])
    assert cycling[truth["cycling"]].mean() > 0.9 > 0.5 > cycling[~truth["cycling"]].mean()
    assert (table["rare_group"] != "").equals(table["rare"])


def test_facts_say_what_was_done(found):
    facts = found.facts
    assert facts["persisters"] == found.table["persister"].sum()
    assert facts["corrected_for"] == ["sequencing depth", "cell cycle", "annotation"]
    assert facts["eligible"] == facts["barcodes"] == N
    assert facts["warnings"] == []
    assert set(facts["pseudobulk"]) == {name.removeprefix("signature_") for name in found.table if "signature_" in name}


def test_surroundings_of_planted_persisters(found, section):
    folder = section[0]
    tables = {name: folder / f"{name}.parquet" for name in ("niches", "annotation", "interactions")}
    around, partners = tissue.around_persisters(
        folder / "filtered.h5ad", folder / "graph.npz", folder / "states.parquet", tables, 1e4, seed=1
    )
    assert set(around["kind"]) == {"niche", "neighbour"}
    corner = around.set_index("name").loc["corner"]
    assert corner["observed"] > 0.8
    assert corner["p"] < 0.05
    own = partners.set_index(["ligand_complex", "direction"])
    assert own.loc[("GPX4", "received"), "p"] < 0.05  # raised in persisters, which lie side by side
    assert own.loc[("SIM0001", "received"), "p"] > 0.05
    assert list(partners.columns) == [*tissue.PARTNER_KEYS, *niches.COLUMNS]


def test_a_section_without_persisters_has_no_surroundings(found, section, tmp_path):
    folder = section[0]
    write_table(found.table.assign(persister=False), tmp_path / "states.parquet")
    inputs = [folder / "filtered.h5ad", folder / "graph.npz", tmp_path / "states.parquet"]
    around, partners = tissue.around_persisters(*inputs, {"niches": folder / "niches.parquet"}, 1e4)
    assert around.empty
    assert partners.empty
    assert list(partners.columns) == [*tissue.PARTNER_KEYS, *niches.COLUMNS]
    assert niches.combine({"a": around}, tissue.NICHE_KEYS).empty


def test_pictures_are_drawn(found, section, tmp_path):
    with CountsFile(section[0] / "filtered.h5ad") as counts:
        umap = np.random.default_rng(0).normal(size=(N, 2))
        for place in (figures.read_place(counts, umap), figures.Place(umap, False)):
            figures.persisters_figure(place, found.table, found.facts, tmp_path / "p.png")
            figures.signatures_figure(place, found.table, found.facts, tmp_path / "s.png")
            figures.rare_figure(place, umap, found.table, found.facts, tmp_path / "r.png")
    sizes = [(tmp_path / name).stat().st_size for name in ("p.png", "s.png", "r.png")]
    assert min(sizes) > 20_000


def made(labels=None, shares=None):
    n = len(labels) if labels is not None else len(shares)
    names = pd.Index([f"b{i}" for i in range(n)])
    return sample.Sample(names, pd.Index(["A"]), pd.DataFrame(), labels, shares, None, np.zeros((n, 2)))


def test_groups_that_may_persist():
    labels = pd.Series(["tumour", "t_cell", None])
    shares = pd.DataFrame({"tumour": [0.9, 0.3, 0.1], "t_cell": [0.1, 0.7, 0.9]})
    assert sample.eligible(made(labels), [], 0.25).all()
    assert sample.eligible(made(labels), ["tumour"], 0.25).tolist() == [True, False, False]
    assert sample.eligible(made(labels, shares), ["tumour"], 0.25).tolist() == [True, True, False]
    with pytest.raises(InputError, match=r"persister\.groups: found 'tumor'.*Did you mean 'tumour'"):
        sample.eligible(made(labels), ["tumor"], 0.25)
    bare = sample.Sample(pd.Index(["b"]), pd.Index(["A"]), pd.DataFrame(), None, None, None, np.zeros((1, 2)))
    with pytest.raises(InputError, match="cell types, which this study does not annotate"):
        sample.eligible(bare, ["tumour"], 0.25)


def test_the_coarsest_clusters_are_those_of_the_lowest_resolution():
    table = pd.DataFrame({"leiden_10": ["a"], "leiden_0.5": ["b"], "leiden_2": ["c"], "leiden": ["c"]})
    assert sample.coarsest(table).tolist() == ["b"]


def test_a_panel_without_signatures_is_said_not_failed(tmp_path, options, tables):
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(4.0, (200, 33)).astype(np.int32))
    names, genes = pd.Index([f"b{i}" for i in range(200)]), pd.DataFrame(index=[f"X{i}" for i in range(33)])
    for name, obsm in (("filtered", {}), ("features", {"X_pca": rng.normal(size=(200, 5)).astype(np.float32)})):
        with CsrWriter(tmp_path / f"{name}.h5ad", 33, np.int32) as writer:
            writer.append(counts)
            writer.finish(pd.DataFrame(index=names), genes, obsm=obsm)
    clusters = pd.DataFrame({"leiden_1": "0", "leiden": "0"}, index=names)
    write_table(clusters, tmp_path / "clusters.parquet")
    with CountsFile(tmp_path / "filtered.h5ad") as file:
        known = sample.read_sample(file, tmp_path / "features.h5ad", tmp_path / "clusters.parquet")
        found = sample.analyse(file, known, options, tables, 1e4, 15)
        place = figures.read_place(file, rng.normal(size=(200, 2)))
    assert found.facts["warnings"] == ["No signature has enough genes in this panel."]
    assert found.table["persister_score"].isna().all()
    assert not found.table["persister"].any()
    assert found.table["phase"].isna().all()
    assert found.facts["pseudobulk"] == {}
    figures.persisters_figure(place, found.table, found.facts, tmp_path / "p.png")
    figures.signatures_figure(place, found.table, found.facts, tmp_path / "s.png")
    assert (tmp_path / "s.png").stat().st_size > 1_000


def test_one_programme_of_several_scores_no_persister(section, options, tables):
    folder = section[0]
    few = options | {"min_genes": 19, "persister": options["persister"] | {"programmes": list(PROGRAMMES[1:])}}
    with CountsFile(folder / "filtered.h5ad") as counts:
        known = sample.read_sample(counts, folder / "features.h5ad", folder / "clusters.parquet")
        found = sample.analyse(counts, known, few, tables, 1e4, 15)
    assert found.facts["sets"] == 0
    assert found.table["persister_score"].isna().all()
    assert "Persisters are not scored: 1 of 3 programmes have enough genes." in found.facts["warnings"]


def test_an_unknown_programme_is_refused(section, options, tables):
    folder = section[0]
    wrong = options | {"persister": options["persister"] | {"programmes": ["diapauze"]}}
    with CountsFile(folder / "filtered.h5ad") as counts:
        known = sample.read_sample(counts, folder / "features.h5ad", folder / "clusters.parquet")
        with pytest.raises(InputError, match=r"persister\.programmes: found 'diapauze'"):
            sample.analyse(counts, known, wrong, tables, 1e4, 15)


def test_study_figure_without_anything_and_with_everything(tmp_path):
    empty = pd.DataFrame(columns=["sample", "kind", "name", "expected", "log2_ratio", "q"])
    shares = pd.DataFrame(columns=["level", "name", "patient", "condition", "share", "low", "high"])
    pairs = pd.DataFrame(columns=["sample", *tissue.PARTNER_KEYS, "expected", "log2_ratio", "q"])
    figures.study_figure(shares, pd.DataFrame(columns=["measure"]), empty, pairs, tmp_path / "empty.png")
    full = pd.DataFrame(
        {
            "level": "sample", "name": ["a", "b"], "patient": ["P", "P"], "condition": ["untreated", "treated"],
            "share": [0.1, 0.3], "low": [0.05, 0.2], "high": [0.2, 0.4],
        }
    )  # fmt: skip
    test = pd.DataFrame(
        [{"measure": "persister_share", "first": "untreated", "second": "treated", "note": "", "p": 0.03}]
    )
    around = pd.DataFrame([["all", "niche", "1", 0.2, 1.0, 0.01]], columns=empty.columns)
    figures.study_figure(full, test, around, pairs, tmp_path / "full.png")
    assert (tmp_path / "full.png").stat().st_size > (tmp_path / "empty.png").stat().st_size
