"""The reference: read by the ingest stage, genes shared with the samples, cells and types chosen, folds."""

import gzip

import anndata
import annotation_cases as cases
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft import normalise
from histoweft.annotation import embedding, folds, genes, reference
from histoweft.errors import InputError
from histoweft.ingest import reference as ingest
from histoweft.ingest.readers import write_counts
from histoweft.io import CountsFile
from histoweft.species import Species
from histoweft.study import Study


def source(path, **changed):
    given = {"labels": "kind", "labels_column": "", "batch": "", "subset": "", "counts": "refuse", "spatial": False}
    return {**given, "path": str(path), **changed}


@pytest.fixture
def labelled(tmp_path):
    """An h5ad whose obs names type, donor and assay; and the same counts as a table with a table of labels."""
    names = cases.draw_types({"alpha": 30, "beta": 20})
    counts = cases.counts_of(names)
    obs = pd.DataFrame(
        {"kind": names, "donor": np.tile(["D1", "D2"], 25), "assay": np.repeat(["old", "new"], 25)},
        index=[f"c{i}" for i in range(50)],
    )
    path = tmp_path / "reference.h5ad"
    adata = anndata.AnnData(sp.csr_matrix(counts), obs, pd.DataFrame(index=cases.NAMES))
    adata.obsm["spatial"] = np.arange(100.0).reshape(50, 2)
    adata.write_h5ad(path)
    pd.DataFrame(counts.T, index=cases.NAMES, columns=obs.index).to_csv(tmp_path / "counts.csv")
    obs.rename_axis("barcode").to_csv(tmp_path / "labels.csv")
    return tmp_path, counts, obs


# ---------------------------------------------------------------------------------------------------- reading


def test_labels_and_donors_come_from_the_obs_of_the_file(labelled):
    folder, counts, obs = labelled
    section = ingest.read(source(folder / "reference.h5ad", batch="donor", subset="assay=new"))
    new = (obs["assay"] == "new").to_numpy()
    assert (section.counts.toarray() == counts[new]).all()
    assert list(section.obs["label"].astype(str)) == list(obs["kind"][new])
    assert list(section.obs["batch"]) == list(obs["donor"][new])
    assert section.xy_px is None


def test_positions_are_read_where_the_tissue_is_looked_at(labelled):
    folder, _, _ = labelled
    section = ingest.read(source(folder / "reference.h5ad", spatial=True))
    assert (section.xy_px == np.arange(100.0).reshape(50, 2)).all()


def test_a_table_of_labels_gives_types_donors_and_the_subset(labelled):
    folder, counts, obs = labelled
    given = source(
        folder / "counts.csv",
        labels=str(folder / "labels.csv"),
        labels_column="kind",
        batch="donor",
        subset="assay!=new",
    )
    section = ingest.read(given)
    old = (obs["assay"] == "old").to_numpy()
    assert (section.counts.toarray() == counts[old]).all()
    assert list(section.obs["label"].astype(str)) == list(obs["kind"][old])
    assert list(section.obs["batch"]) == list(obs["donor"][old])
    assert section.dropped == {"subset": 25}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": "knid"}, r"config: annotation, column labels: found 'knid'.*Did you mean 'kind'"),
        ({"subset": "assay=newest"}, r"assay=newest, which no spot has; expected one of: new, old"),
        ({"batch": "person"}, r"'person'; expected one of: kind, donor, assay"),
    ],
)
def test_wrong_columns_are_named_with_those_there_are(labelled, changed, message):
    with pytest.raises(InputError, match=message):
        ingest.read(source(labelled[0] / "reference.h5ad", **changed))


def study_with(root, **annotation):
    full = {name: annotation.get(name, "") for name in ("reference", *source(""), "labels")}
    return Study({"study": "x", "data_root": str(root), "annotation": full})


def test_a_reference_is_found_before_a_job_runs(labelled):
    folder, _, _ = labelled
    study = study_with(folder, reference="counts.csv", labels="labels.csv")
    found = ingest.located(study.config)
    assert found["path"] == str(folder / "counts.csv")
    assert found["labels"] == str(folder / "labels.csv")
    files = ingest.discover(found, study.simulated)
    assert not files.faults
    assert set(files.files) == {folder / "counts.csv", folder / "labels.csv"}


def test_a_missing_reference_and_missing_labels_are_told_together(tmp_path):
    study = study_with(tmp_path, reference="none.h5ad")
    faults = ingest.discover(ingest.located(study.config), study.simulated).faults
    text = "\n".join(map(str, faults.items))
    assert "config: annotation.reference" in text
    assert "none.h5ad" in text
    assert "config: annotation.labels: found nothing" in text


def test_a_simulated_reference_need_not_be_there_yet():
    study = study_with(".", reference="results/x/simulated/reference/reference.h5ad", labels="cell_type")
    found = ingest.discover(ingest.located(study.config), study.simulated)
    assert not found.faults
    assert str(found.files[0]) == "results/x/simulated/reference/reference.h5ad"


def test_a_study_without_reference_has_none():
    assert ingest.located(study_with(".", reference="").config) == {}
    assert ingest.located({"study": "x"}) == {}


# ------------------------------------------------------------------------------------------------------ genes


def tables(*names, ids=None):
    found = [pd.DataFrame(index=list(one)) for one in names]
    for table, each in zip(found, ids or []):
        table["gene_id"] = each
    return found[0], {f"s{i}": table for i, table in enumerate(found[1:], 1)}


def test_genes_are_matched_by_symbol_in_the_reference_order():
    own, samples = tables("ABCDE", "ECAX", "YAEC")
    shared = genes.match_genes(own, samples, 50)
    assert shared.by == "symbol"
    assert list(shared.names) == ["A", "C", "E"]
    assert list(shared.samples["s1"]) == [2, 1, 0]
    assert list(shared.samples["s2"]) == [1, 3, 2]


def test_genes_are_matched_in_any_case_or_by_id_where_symbols_differ():
    mouse, samples = tables(["Actb", "Gapdh", "Cd4"], ["ACTB", "CD4", "GAPDH"])
    assert genes.match_genes(mouse, samples, 50).by == "symbol in any case"
    own, samples = tables(["1", "2", "3"], ["a", "b", "c"], ids=[["x", "y", "z"], ["z", "y", "x"]])
    shared = genes.match_genes(own, samples, 50)
    assert shared.by == "gene_id"
    assert list(shared.samples["s1"]) == [2, 1, 0]


def test_a_name_that_stands_twice_in_one_way_of_matching_is_left_out():
    own, samples = tables(["Aa", "aA", "B", "C", "D"], ["aa", "b", "c", "d"])
    shared = genes.match_genes(own, samples, 50)
    assert shared.by == "symbol in any case"
    assert list(shared.names) == ["B", "C", "D"]


ORTHOLOGS = "Trp53\tTP53\nMki67\tMKI67\nTwin\tONE\nTwin\tTWO\n"


@pytest.mark.parametrize(
    "text",
    [
        "mouse\thuman\n" + ORTHOLOGS,
        ORTHOLOGS,
        "human\tmouse\n" + "".join("\t".join(line.split("\t")[::-1]) + "\n" for line in ORTHOLOGS.splitlines()),
        "n\tmouse\tid\thuman\n"
        + "".join("1\t{}\tx\t{}\n".format(*line.split("\t")) for line in ORTHOLOGS.splitlines()),
    ],
)
@pytest.mark.parametrize("name", ["orthologs.tsv", "orthologs.csv.gz"])
def test_orthologs_translate_the_reference(tmp_path, text, name):
    path = tmp_path / name
    with (gzip.open if name.endswith("gz") else open)(path, "wt") as file:
        file.write(text.replace("\t", ",") if ".csv" in name else text)
    own, samples = tables(["Trp53", "Other", "Mki67", "Twin"], ["MKI67", "TP53", "ACTB", "ONE"])
    table, notes = genes.read_orthologs(path, own, samples.values())
    assert {name: table.get(name) for name in own.index} == {
        "Trp53": "TP53", "Other": None, "Mki67": "MKI67", "Twin": None,
    }  # fmt: skip
    assert notes[0].startswith("2 of ")
    shared = genes.match_genes(own, samples, 2, table)
    assert list(shared.names) == ["Trp53", "Mki67"]
    assert list(shared.samples["s1"]) == [1, 0]


def test_orthologs_of_other_genes_are_refused(tmp_path):
    path = tmp_path / "orthologs.tsv"
    path.write_text("A\tB\nC\tD\n")
    own, samples = tables(["Trp53"], ["TP53"])
    with pytest.raises(InputError, match=r"no gene of the reference in it.*\n.*no gene of the samples in it"):
        genes.read_orthologs(path, own, samples.values())


LETTERS = [f"{a}{b}{c}" for a in "ABC" for b in "DEF" for c in "GHI"]
HUMAN, MOUSE = Species("human", True), Species("mouse", True)
WANTED = {"min_genes": 10, "orthologs": "", "same_species": False}


def of(names, species):
    return genes.Genes(pd.DataFrame(index=list(names)), species)


def test_species_that_differ_are_refused_with_both_ways_out():
    mouse = of([name.title() for name in LETTERS], MOUSE)
    samples = {"a": of(LETTERS, HUMAN), "b": of(LETTERS, Species("human"))}
    with pytest.raises(
        InputError, match=r"(?s)2 faults.*'a'.*mouse \(by how.*human.*orthologs.*same_species: true.*'b'"
    ):
        genes.share_genes(mouse, samples, WANTED)
    shared = genes.share_genes(mouse, samples, WANTED | {"same_species": True})
    assert len(shared.names) == 27
    assert "27 of the reference's 27 genes are found in every sample, matched by symbol in any case" in shared.told
    assert "the reference looks like mouse" in shared.cautions[0]


def test_a_species_not_known_is_a_caution_where_case_is_ignored():
    lower = of([name.lower() for name in LETTERS], Species(""))
    shared = genes.share_genes(of(LETTERS, HUMAN), {"s": lower}, WANTED)
    assert "species of s is not known" in shared.cautions[0]
    assert "unknown species" in shared.told
    assert genes.share_genes(of(LETTERS, HUMAN), {"s": of(LETTERS, Species(""))}, WANTED).cautions == ()


def test_orthologs_allow_two_species(tmp_path):
    path = tmp_path / "orthologs.csv"
    path.write_text("human,mouse\n" + "".join(f"{name},X{name.lower()}\n" for name in LETTERS))
    mouse = of([f"X{name.lower()}" for name in LETTERS], MOUSE)
    shared = genes.share_genes(mouse, {"s": of(LETTERS, HUMAN)}, WANTED | {"orthologs": str(path)})
    assert shared.by == "ortholog table"
    assert shared.samples["s"].tolist() == list(range(27))
    assert shared.cautions == ()


def test_too_few_shared_genes_name_the_sample_and_the_numbers():
    own, samples = tables(
        [f"g{i}" for i in range(100)], [f"g{i}" for i in range(100)], [f"h{i}" for i in range(99)] + ["g7"]
    )
    with pytest.raises(
        InputError, match=r"found 1 genes shared.*'s2' shares least: 1 of its 100.*at least 50.*orthologs"
    ):
        genes.match_genes(own, samples, 50)


def test_half_of_a_small_panel_is_enough():
    own, samples = tables("ABCDEFGH", "ABCDWXYZ")
    assert len(genes.match_genes(own, samples, 50).names) == 4


@pytest.mark.parametrize(("text", "message"), [("a\tb\tc\n1\t2\t3\n", "3 columns"), ("a,b\n", "1 columns")])
def test_tables_of_pairs_need_two_columns(tmp_path, text, message):
    path = tmp_path / "pairs.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"pairs.tsv: found {message}.*two columns: type, group"):
        genes.read_pairs(path, "type, group")
    with pytest.raises(InputError, match=r"none.tsv.*a table with a header"):
        genes.read_pairs(tmp_path / "none.tsv", "type, group")


def test_expression_depends_on_the_shared_genes_alone():
    counts = cases.counts_of(np.array(["alpha", "beta", "delta"]))
    columns = np.array([5, 1, 80])
    other = counts.copy()
    other[:, 100:] *= 50
    one, two = (genes.shared_expression(sp.csr_matrix(c), columns).toarray() for c in (counts, other))
    part = counts[:, columns]
    assert np.allclose(one, np.log1p(part / part.sum(axis=1, keepdims=True) * 10_000), atol=1e-5)
    assert (one == two).all()


def test_blocks_of_a_file_are_those_of_the_matrix(tmp_path, monkeypatch):
    names = cases.draw_types({"alpha": 30, "beta": 30})
    counts = cases.counts_of(names)
    path = cases.write_h5ad(tmp_path / "s.h5ad", names, counts)
    monkeypatch.setattr("histoweft.io.NNZ_BUDGET", 1_000)
    columns = np.arange(0, cases.GENES, 3)
    with CountsFile(path) as file:
        blocks = list(genes.ExpressionOnDisk(file, columns).blocks())
    assert len(blocks) > 3
    whole = normalise.normalise(sp.csr_matrix(counts[:, columns]))
    assert np.allclose(sp.vstack([block for _, block in blocks]).toarray(), whole.toarray())
    assert [rows.start for rows, _ in blocks][1:] == [rows.stop for rows, _ in blocks][:-1]


# ---------------------------------------------------------------------------------------------- cells and types


def written(tmp_path, names, batch=None, counts=None):
    return cases.write_h5ad(
        tmp_path / "reference.h5ad", names, cases.counts_of(names) if counts is None else counts, batch=batch
    )


def read(path, **changed):
    given = {"min_cells": 10, "cells_per_type": 1000, "seed": 0, **changed}
    return reference.read_reference(path, np.arange(cases.GENES), **given)


def test_rare_types_and_cells_without_label_are_left_out_and_said(tmp_path):
    names = cases.draw_types({"alpha": 30, "beta": 20, "rare": 4}).astype(object)
    names[:3] = None
    found = read(written(tmp_path, names))
    left = pd.Series(names).value_counts()
    assert found.types == ["alpha", "beta"]
    assert len(found) == left["alpha"] + left["beta"]
    assert "3 of 54 reference cells have no label" in found.notes[0]
    assert f"fewer than 10 cells are left out of the reference: rare ({left['rare']})" in found.notes[1]
    assert found.groups is None


def test_large_types_are_thinned_alike_over_batches(tmp_path):
    names = np.array(["alpha"] * 100 + ["beta"] * 12)
    batch = np.array(["big"] * 90 + ["small"] * 10 + ["big"] * 12)
    found = read(written(tmp_path, names, batch=batch), cells_per_type=40)
    alpha = found.codes == 0
    assert alpha.sum() == 40
    assert pd.Series(found.groups[alpha]).value_counts().to_dict() == {"big": 30, "small": 10}
    assert "40 cells are drawn of each of: alpha" in found.notes[0]
    again = read(tmp_path / "reference.h5ad", cells_per_type=40)
    assert (again.barcodes == found.barcodes).all()


def test_cells_without_a_shared_count_are_left_out(tmp_path):
    names = np.repeat(["alpha", "beta"], 15)
    counts = cases.counts_of(names)
    counts[4] = 0
    found = read(written(tmp_path, names, counts=counts))
    assert "cell4" not in found.barcodes
    assert len(found) == len(found.expression.toarray()) == 29
    assert "1 reference cells have no count in a shared gene" in found.notes[0]


def test_one_type_teaches_nothing(tmp_path):
    with pytest.raises(InputError, match=r"labels: found alpha \(30\), rare \(3\); expected at least two types of 10"):
        read(written(tmp_path, np.array(["alpha"] * 30 + ["rare"] * 3)))


def test_the_ingested_reference_is_read_back(tmp_path, labelled):
    folder, counts, obs = labelled
    write_counts(ingest.read(source(folder / "reference.h5ad", batch="donor")), tmp_path / "out.h5ad")
    found = reference.read_reference(tmp_path / "out.h5ad", np.arange(50), min_cells=5, cells_per_type=100, seed=0)
    assert found.types == ["alpha", "beta"]
    assert list(found.groups) == list(obs["donor"])
    part = counts[:, :50]
    assert np.allclose(found.expression.toarray(), np.log1p(part / part.sum(axis=1, keepdims=True) * 1e4), atol=1e-5)


def test_a_hierarchy_covers_every_type(tmp_path):
    path = tmp_path / "groups.tsv"
    path.write_text("type\tgroup\na\tx\nb\tx\nc\ty\nelse\tz\n")
    assert reference.read_hierarchy(path, ["a", "b", "c"]) == {"a": "x", "b": "x", "c": "y"}
    path.write_text("type\tgroup\na\tx\na\ty\n")
    with pytest.raises(InputError) as error:
        reference.read_hierarchy(path, ["a", "b"])
    assert "the type 'a' more than once" in str(error.value)
    assert "no line for the type 'b'" in str(error.value)
    path.write_text("type\tgroup\na\tx\nb\tx\n")
    with pytest.raises(InputError, match="one group for all types"):
        reference.read_hierarchy(path, ["a", "b"])


# ------------------------------------------------------------------------------------------------------ folds


def test_whole_donors_are_held_out_where_types_are_shared():
    codes, groups = np.tile([0, 1], 30), np.repeat(["D1", "D2", "D3"], 20)
    plan = folds.plan_folds(codes, groups, 5, 0)
    assert plan.protocol == "patient"
    assert "whole batches (3)" in plan.note
    for fold in plan.folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])


def test_cells_are_held_out_where_batches_are_types():
    codes = np.repeat([0, 1], 25)
    plan = folds.plan_folds(codes, np.repeat(["A", "B"], 25), 5, 0)
    assert plan.protocol == "random"
    assert "types are not shared by batches" in plan.note
    assert "no batches known" in folds.plan_folds(codes, None, 5, 0).note


def test_random_folds_share_each_type_out():
    codes = np.repeat([0, 1, 2], [23, 7, 5])
    found = folds.stratified(codes, 5, 3)
    tested = np.concatenate([fold.test for fold in found])
    assert sorted(tested) == list(range(35))
    sizes = np.array([np.bincount(codes[fold.test], minlength=3) for fold in found])
    assert (np.ptp(sizes, axis=0) <= 1).all()


def test_inner_folds_keep_every_type_in_training():
    codes, groups = np.tile([0, 1], 20), np.repeat(["D1", "D2"], 20)
    assert {fold.name for fold in folds.inner(codes, groups, 3, 0)} == {"D1", "D2"}
    codes[groups == "D2"] = 0
    for fold in folds.inner(codes, groups, 3, 0):
        assert set(codes[fold.train]) == {0, 1}


# -------------------------------------------------------------------------------------------------- embeddings


def test_embeddings_come_from_parquet_or_obsm_in_the_order_of_the_cells(tmp_path, labelled):
    table = pd.DataFrame(np.arange(12.0).reshape(4, 3), index=list("abcd"))
    table.columns = table.columns.astype(str)
    table.to_parquet(tmp_path / "e.parquet")
    found = embedding.read_embedding(tmp_path / "e.parquet", "", np.array(["c", "a"]))
    assert found.tolist() == [[6, 7, 8], [0, 1, 2]]
    folder, _, _ = labelled
    found = embedding.read_embedding(folder / "reference.h5ad", "spatial", np.array(["c3", "c0"]))
    assert found.tolist() == [[6, 7], [0, 1]]
    assert embedding.file_of("x/{sample}.parquet", "s1") == "x/s1.parquet"


def test_embeddings_that_do_not_fit_are_refused(tmp_path, labelled):
    folder, _, _ = labelled
    with pytest.raises(InputError, match=r"obsm has spatial; expected obsm\['X_gpt'\]"):
        embedding.read_embedding(folder / "reference.h5ad", "X_gpt", np.array(["c0"]))
    table = pd.DataFrame({"0": [1.0, np.nan]}, index=["a", "b"])
    table.to_parquet(tmp_path / "e.parquet")
    with pytest.raises(InputError, match=r"no row for 1 of 2 cells \(e.g. z\)"):
        embedding.read_embedding(tmp_path / "e.parquet", "", np.array(["a", "z"]))
    with pytest.raises(InputError, match="no numbers in 1 cells"):
        embedding.read_embedding(tmp_path / "e.parquet", "", np.array(["a", "b"]))
    with pytest.raises(InputError, match="a parquet table"):
        embedding.read_embedding(tmp_path / "none.parquet", "", np.array(["a"]))
