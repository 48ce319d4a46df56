"""The demo study: files that readers accept, and planted truths that are there, or gone when switched off."""

import ast
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from histoweft.errors import InputError
from histoweft.simulate import layout, study, write
from histoweft.simulate.genes import CELL_TYPES, INTERACTIONS, MARKERS, RARE_TYPE, planted
from histoweft.simulate.tissue import DOMAINS

SMALL = {"genes": 600, "reference_cells": 300, "voxels": 400}


@pytest.fixture(scope="module")
def demo():
    return study.simulate_study(3, 400, **SMALL)


@pytest.fixture(scope="module")
def null():
    """Return the same study with every switchable effect off."""
    effects = ("persister", "interaction", "gradient", "batch", "treatment")
    off = {f"{name}_effect": 0 for name in effects}
    return study.simulate_study(3, 400, **SMALL, **off, rare_share=0, images=False)


@pytest.fixture(scope="module")
def folder(demo, tmp_path_factory):
    path = tmp_path_factory.mktemp("demo")
    write.write_study(demo, path)
    return path


def share(made, section, *genes):
    """Return counts per 10,000 of each spot, summed over `genes`."""
    counts = made.sections[section].counts
    total = np.asarray(counts.sum(1)).ravel()
    return 1e4 * np.asarray(counts[:, made.genes.where(*genes)].sum(1)).ravel() / total


def fold(values, inside, outside):
    return values[inside].mean() / values[outside].mean()


def test_layout_needs_only_the_standard_library():
    tree = ast.parse(Path(layout.__file__).read_text(encoding="utf-8"))
    modules = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert modules <= set(sys.stdlib_module_names)


def test_writes_exactly_the_files_of_the_layout(folder):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == set(layout.study_files())
    assert set(layout.TRUTH_FILES + layout.REFERENCE_FILES + layout.ATLAS_FILES) < found


@pytest.mark.filterwarnings("ignore")
def test_scanpy_reads_the_matrix(demo, folder):
    sc = pytest.importorskip("scanpy")
    for name, section in demo.sections.items():
        data = sc.read_10x_h5(folder / name / "filtered_feature_bc_matrix.h5")
        assert data.shape == section.counts.shape
        assert list(data.obs_names) == list(section.barcode)
        assert list(data.var_names) == list(demo.genes.symbol)
        assert data.var_names.is_unique
        assert data.var["gene_ids"].str.match(r"ENSG9\d{10}$").all()
        assert data.var["gene_ids"].is_unique
        assert (data.X != section.counts).nnz == 0


def test_positions_agree_with_the_matrix_and_the_pitch_is_100_um(demo, folder):
    import pandas as pd
    from scipy.spatial import cKDTree

    for name, section in demo.sections.items():
        table = pd.read_csv(folder / name / "spatial" / "tissue_positions.csv", index_col="barcode")
        assert table.index.is_unique
        assert set(table.index[table.in_tissue == 1]) == set(section.barcode)
        assert 0.2 < (table.in_tissue == 0).mean() < 0.6
        assert ((table.array_row + table.array_col) % 2 == 0).all()
        xy = table[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy() * layout.MPP
        distance, _ = cKDTree(xy).query(xy, k=7)
        inner = distance[:, 6] < 110
        assert inner.mean() > 0.7
        assert distance[inner, 1:].mean() == pytest.approx(100, abs=0.5)
        factors = json.loads((folder / name / "spatial" / "scalefactors_json.json").read_text())
        hires = xy / layout.MPP * factors["tissue_hires_scalef"]
        assert hires.min() > 0
        assert hires.max() < section.image.shape[0]
        assert abs(len(section.barcode) - 400) < 30


def test_images_are_rgb_and_scaled_as_written(demo, folder):
    from PIL import Image

    for name, section in demo.sections.items():
        spatial = folder / name / "spatial"
        factors = json.loads((spatial / "scalefactors_json.json").read_text())
        hires, lowres = (Image.open(spatial / f"tissue_{kind}_image.png") for kind in ("hires", "lowres"))
        assert hires.mode == lowres.mode == "RGB"
        assert np.array_equal(np.asarray(hires), section.image)
        ratio = factors["tissue_lowres_scalef"] / factors["tissue_hires_scalef"]
        assert lowres.size[0] / hires.size[0] == pytest.approx(ratio)


def spot_patches(section, radius=13):
    """Return the mean colour under each tissue spot and the share of dark pixels (nuclei)."""
    place = np.argsort(section.spots.barcode)
    place = place[section.in_tissue[place]]
    assert list(section.spots.barcode[place]) == list(section.barcode)
    centre = (section.spots.xy_um[place] / section.image_um_per_pixel).astype(int)
    mean, dark = [], []
    for x, y in centre:
        patch = section.image[y - radius : y + radius, x - radius : x + radius].reshape(-1, 3)
        mean.append(patch.mean(0))
        dark.append((patch[:, 0] < 130).mean())
    return np.array(mean), np.array(dark)


def test_image_shows_the_cells(demo):
    for section in demo.sections.values():
        mean, dark = spot_patches(section)
        domain, cells = section.truth["domain"], section.truth["n_cells"]
        assert (section.image[:20] > 235).all(), "glass is white"
        assert np.corrcoef(dark, cells)[0, 1] > 0.25
        assert dark[domain == "immune_band"].mean() > 1.5 * dark[domain == "muscle"].mean()
        redness = mean[:, 0] - mean[:, 2]
        assert redness[domain == "muscle"].mean() > redness[domain == "tumour_core"].mean() + 15


def test_counts_look_like_visium(demo):
    for section in demo.sections.values():
        counts = section.counts
        total, detected = np.asarray(counts.sum(1)).ravel(), np.diff(counts.indptr)
        assert counts.dtype == np.int32
        assert 2000 < np.median(total) < 4500
        assert total.max() < 30_000
        good = section.truth["low_quality"] == ""
        assert (detected[good] >= 200).mean() > 0.99


def test_low_quality_spots_are_what_the_truth_says(demo):
    for section in demo.sections.values():
        counts, reason = section.counts, section.truth["low_quality"]
        detected, total = np.diff(counts.indptr), np.asarray(counts.sum(1)).ravel()
        mito = np.asarray(counts[:, demo.genes.role == "mitochondrial"].sum(1)).ravel() / total
        assert (reason == "few_genes").sum() >= 2
        assert (reason == "high_mito").sum() >= 2
        assert detected[reason == "few_genes"].max() < 200
        assert mito[reason == "high_mito"].min() > 0.3
        assert mito[reason == ""].max() < 0.25


def test_truth_is_consistent(demo):
    for section in demo.sections.values():
        truth = section.truth
        proportions = np.column_stack([truth[f"prop_{name}"] for name in CELL_TYPES])
        assert np.allclose(proportions.sum(1), 1)
        assert (np.array(CELL_TYPES)[proportions.argmax(1)] == truth["cell_type"]).all()
        assert set(truth["domain"]) == set(DOMAINS)
        assert {len(values) for values in truth.values()} == {len(section.barcode)}
        assert (np.isnan(truth["pseudotime"]) == (truth["prop_tumour"] == 0)).all()
        labelled = section.labels != ""
        assert 0.8 < labelled.mean() < 0.99
        agreement = (section.labels == truth["domain"])[labelled].mean()
        assert 0.85 < agreement < 1, "an expert is nearly right"


def test_markers_mark_their_type(demo):
    section = demo.sections["P1_pre"]
    for kind, names in MARKERS.items():
        proportion = section.truth[f"prop_{kind}"]
        values = share(demo, "P1_pre", *names.split())
        high = proportion >= np.quantile(proportion, 0.95)
        assert fold(values, high & (proportion > 0), proportion == 0) > 1.8, kind
        assert np.corrcoef(values, proportion)[0, 1] > 0.6, kind


def test_persisters_are_planted_and_can_be_switched_off(demo, null):
    programme = demo.genes.symbol[demo.genes.role == "persister"]
    assert {"GPX4", "NQO1", "CPT1A", "ACADM", "KDM5A"} <= set(programme)
    share_of = {}
    for name, section in demo.sections.items():
        tumour = section.truth["prop_tumour"] > 0.3
        fraction = section.truth["persister_fraction"]
        kinds, cells = section.cells.kind, section.cells
        share_of[section.condition] = cells.persister[kinds == CELL_TYPES.index("tumour")].mean()
        values = share(demo, name, *programme)
        assert fold(values, tumour & (fraction > 0.5), tumour & (fraction == 0)) > 1.5
        held = (fraction * section.truth["niche"]).sum() / fraction.sum()
        assert held > 2 * section.truth["niche"][tumour].mean(), "near a niche"
        assert not null.sections[name].cells.persister.any()
        assert not null.sections[name].truth["niche_lr_active"].any()
    assert 0.02 < share_of["untreated"] < 0.04
    assert share_of["treated"] > 0.15


def test_null_programme_does_not_follow_the_niche(demo, null):
    programme = demo.genes.symbol[demo.genes.role == "persister"]
    for name, section in null.sections.items():
        before = demo.sections[name].truth
        assert (before["barcode"] == section.barcode).all(), "the switch moves no spot"
        tumour = section.truth["prop_tumour"] > 0.3
        would_be = before["persister_fraction"] > 0.5
        values = share(null, name, *programme)
        assert fold(values, tumour & would_be, tumour & ~would_be) == pytest.approx(1, abs=0.2)


def test_interaction_is_raised_at_the_border_only(demo, null):
    for ligand, receptor, sender, receiver, place in INTERACTIONS[:2]:
        flag = "lr_active" if place == "immune_stroma_border" else "niche_lr_active"
        for gene, kind in ((ligand, sender), (receptor, receiver)):
            with_effect, without = [], []
            for made, out in ((demo, with_effect), (null, without)):
                for name, section in made.sections.items():
                    active = demo.sections[name].truth[flag]
                    mass = section.truth[f"prop_{kind}"]
                    present = mass > 0
                    rate = share(made, name, gene) / np.maximum(mass, 0.1)
                    out.append((rate[active & present], rate[~active & present]))
            planted_fold, null_fold = (
                np.concatenate([a for a, _ in out]).mean() / np.concatenate([b for _, b in out]).mean()
                for out in (with_effect, without)
            )
            assert planted_fold > 1.35 * null_fold, gene
    assert not any(section.truth["lr_active"].any() for section in null.sections.values())
    section = demo.sections["P1_pre"]
    assert set(section.truth["domain"][section.truth["lr_active"]]) == {"immune_band", "stroma"}


def test_gradient_follows_the_pseudotime_and_forks(demo, null):
    for made, check in ((demo, lambda rho: rho > 0.3), (null, lambda rho: abs(rho) < 0.2)):
        for name, section in made.sections.items():
            truth = section.truth
            tumour = truth["prop_tumour"] > 0.5
            names = {
                group: share(made, name, *made.genes.symbol[made.genes.members(group)])[tumour]
                for group in ("progenitor", "mature", "absorptive", "secretory")
            }
            change = np.log(names["mature"] + 1) - np.log(names["progenitor"] + 1)
            assert check(np.corrcoef(change, truth["pseudotime"][tumour])[0, 1])
            branch = truth["branch"][tumour]
            gap = np.log(names["secretory"] + 1) - np.log(names["absorptive"] + 1)
            late = gap[branch == "secretory"].mean() - gap[branch == "absorptive"].mean()
            assert (late > 0.4) if made is demo else (abs(late) < 0.25)


def test_batch_effect_is_gene_wise_and_can_be_switched_off(demo, null):
    spread = {}
    for key, made in (("demo", demo), ("null", null)):
        profile = {}
        for batch in ("run1", "run2"):
            counts = sum(
                np.asarray(section.counts.sum(0)).ravel()
                for section in made.sections.values()
                if section.batch == batch
            )
            profile[batch] = np.log(counts / counts.sum())
        # background genes alone, lest composition of the tissue is taken for batch
        keep = (made.genes.role == "background") & (np.exp(profile["run1"]) > 2e-4)
        difference = profile["run1"] - profile["run2"]
        spread[key] = difference[keep].std()
        if key == "demo":
            expected = np.log(made.batch_factors["run1"] / made.batch_factors["run2"])
            assert np.corrcoef(difference[keep], expected[keep])[0, 1] > 0.9
        else:
            assert all((factor == 1).all() for factor in made.batch_factors.values())
    assert spread["demo"] > 0.2
    assert spread["null"] < 0.08


def test_therapy_slows_division(demo, null):
    def cycling(made, name):
        cells = made.sections[name].cells
        return cells.cycling[cells.kind == CELL_TYPES.index("tumour")].mean()

    assert cycling(demo, "P1_post") < 0.7 * cycling(demo, "P1_pre")
    assert cycling(null, "P1_post") == pytest.approx(cycling(null, "P1_pre"), rel=0.15)


def test_rare_type_has_foci_and_is_not_in_the_reference(demo, null):
    for name in demo.sections:
        column = f"prop_{RARE_TYPE}"
        rare = demo.sections[name].truth[column]
        assert (rare > 0.2).sum() >= 3
        assert rare.mean() < 0.06
        assert (null.sections[name].truth[column] > 0.2).sum() <= 2
    assert RARE_TYPE not in set(demo.reference.obs["cell_type"])


@pytest.mark.filterwarnings("ignore")
def test_anndata_reads_the_reference(demo, folder):
    anndata = pytest.importorskip("anndata")
    data = anndata.read_h5ad(folder / "reference" / "reference.h5ad")
    assert data.shape == (300, 600)
    assert list(data.var_names) == list(demo.genes.symbol)
    assert list(data.var["gene_id"]) == list(demo.genes.gene_id)
    assert set(data.obs["cell_type"]) == set(CELL_TYPES) - {RARE_TYPE}
    assert str(data.obs["cell_type"].dtype) == "category"
    assert set(data.obs["donor"]) == {"D1", "D2", "D3"}
    assert (data.X != demo.reference.counts).nnz == 0
    epcam = data[:, "EPCAM"].X.toarray().ravel()
    tumour = (data.obs["cell_type"] == "tumour").to_numpy()
    assert fold(epcam, tumour, ~tumour) > 5


def test_atlas_files_agree(folder):
    atlas = np.load(folder / "atlas" / "expression.npz", allow_pickle=False)
    annotation = np.load(folder / "atlas" / "annotation.npy", allow_pickle=False)
    genes = (folder / "atlas" / "genes.tsv").read_text().split()[1:]
    assert atlas["expression"].shape == (len(atlas["coordinates"]), len(genes))
    assert tuple(atlas["shape"]) == annotation.shape
    regions = annotation[tuple(atlas["coordinates"].T)]
    assert set(regions) == {11, 12, 21, 22}
    assert (annotation > 0).sum() == len(regions)
    missing = atlas["expression"] == -1
    assert 0.005 < missing.mean() < 0.06
    assert atlas["expression"][~missing].min() >= 0


def test_atlas_genes_are_what_the_truth_says(demo):
    atlas = demo.atlas
    value = np.where(atlas.expression < 0, np.nan, atlas.expression)
    regions = atlas.annotation[tuple(atlas.coordinates.T)]
    place = {tuple(where): i for i, where in enumerate(atlas.coordinates)}
    pairs = np.array([(i, place[z, y, x + 1]) for (z, y, x), i in place.items() if (z, y, x + 1) in place])
    smooth = {}
    for gene, (kind, structure) in enumerate(zip(atlas.truth["kind"], atlas.truth["structure"])):
        if kind == "structure":
            inside = regions == structure
            assert np.nanmean(value[inside, gene]) > 1.5 * np.nanmean(value[~inside, gene])
        both = np.log(value[pairs, gene])
        both = both[np.isfinite(both).all(1)]
        smooth.setdefault(kind, []).append(np.corrcoef(both.T)[0, 1])
    assert np.mean(smooth["smooth"]) > 0.75
    assert np.mean(smooth["noise"]) < 0.6


def test_same_seed_same_study_and_another_seed_another():
    small = {"spots": 80, "genes": 320, "reference_cells": 80, "voxels": 120, "sections": layout.SECTIONS[:1]}
    first, second, other = (study.simulate_study(seed, **small) for seed in (5, 5, 6))
    a, b, c = (made.sections["P1_pre"] for made in (first, second, other))
    assert np.array_equal(a.image, b.image)
    assert a.counts.shape == b.counts.shape
    assert (a.counts != b.counts).nnz == 0
    for name in a.truth:
        assert np.array_equal(a.truth[name], b.truth[name], equal_nan=a.truth[name].dtype.kind == "f"), name
    assert np.array_equal(first.atlas.expression, second.atlas.expression)
    assert (first.reference.counts != second.reference.counts).nnz == 0
    assert a.counts.shape != c.counts.shape or (a.counts != c.counts).nnz > 100


def test_truth_files_say_what_was_planted(demo, null, folder, tmp_path):
    import pandas as pd

    genes = pd.read_csv(folder / "truth" / "genes.tsv", sep="\t")
    assert set(genes.gene) >= {symbol for symbol, _, _ in planted()}
    assert {"log2_batch_run1", "log2_batch_run2"} <= set(genes.columns)
    parameters = json.loads((folder / "truth" / "simulate.json").read_text())
    assert parameters["seed"] == 3
    assert parameters["sections"] == layout.SECTIONS
    table = pd.read_csv(folder / "truth" / "P2_post.tsv", sep="\t")
    assert list(table.columns) == list(demo.sections["P2_post"].truth)
    assert np.allclose(table.pseudotime, demo.sections["P2_post"].truth["pseudotime"], atol=1e-5, equal_nan=True)
    readme = (folder / "truth" / "README.md").read_text()
    missing = [name for name in table.columns if f"| {name} |" not in readme and not name.startswith("prop_")]
    assert not missing
    cells = np.load(folder / "truth" / "P2_post.cells.npz", allow_pickle=False)
    assert cells["x_um"].shape == cells["persister"].shape
    pairs = pd.read_csv(folder / "truth" / "interactions.tsv", sep="\t")
    assert list(pairs.loc[pairs.planted, "ligand"]) == ["CXCL12", "GAS6"]
    write.write_study(null, tmp_path)
    pairs = pd.read_csv(io.StringIO((tmp_path / "truth" / "interactions.tsv").read_text()), sep="\t")
    assert not pairs.planted.any()


def test_gene_symbols_are_unique():
    symbols = [symbol for symbol, _, _ in planted()]
    assert len(symbols) == len(set(symbols))


def test_all_wrong_arguments_are_named_together():
    sections = [{**layout.SECTIONS[0], "condition": "before"}]
    with pytest.raises(InputError) as caught:
        study.simulate_study(-1, spots=5, batch_effect=-2, sections=sections)
    text = str(caught.value)
    for word in ("seed", "spots", "batch_effect", "P1_pre"):
        assert word in text
