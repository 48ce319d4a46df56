"""Maps are what the model says of spots, pixel by pixel; the genes of the maps, and how well they are known."""

import dataclasses

import histology_cases as cases
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from histoweft.errors import InputError, NotComputed
from histoweft.histology import context, evaluate, folds, maps, spots
from histoweft.histology.network import Options
from histoweft.histology.plan import ALL, Fit
from histoweft.histology.results import write_scores
from histoweft.histology.score import FoldScores, Panel

SHOWN = ["B3", "A0", "A1", "N2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a section, its paths and a model trained on all of its spots."""
    from threadpoolctl import threadpool_limits

    paths = cases.write(tmp_path_factory.mktemp("section"))
    section = spots.read_section(*paths)
    joined = spots.join([section])
    (everything,) = evaluate.folds_of(joined, Fit(ALL, ALL, ("s0",)), {}, {}, 0)
    goal = folds.target(joined, everything, 8)
    options = Options(members=4, hidden=16, steps=60, batch=48, points=4, ridge_share=0.4)
    with threadpool_limits(1):
        model, _ = folds.fit_context(joined, goal, options, seed=0)
    return section, paths, model


@pytest.fixture(scope="module")
def drawn(trained):
    """Return the painter of four genes, and their maps."""
    section, paths, model = trained
    painter = maps.painter(model, section, paths[1], SHOWN)
    return painter, painter.predict(slice(0, 205), slice(0, 205))


# ------------------------------------------------------------------------------------------------------ painting


def test_the_map_over_a_footprint_is_the_prediction_of_the_spot(trained, drawn):
    section, _, model = trained
    painter, painted = drawn
    assert painter.shape == painted.shape[1:] == (205, 205)
    assert painter.um_per_px == 8
    columns = np.array([cases.GENES.index(gene) for gene in SHOWN])
    spot = model.expression(folds.predict_context(model, section.pixels), columns)
    y, x = (np.mgrid[:205, :205] + 0.5) * painter.um_per_px
    over = np.empty_like(spot)
    for i, (cx, cy) in enumerate(cases.section().xy_um):
        over[i] = painted[:, np.hypot(x - cx, y - cy) < cases.SPOT_UM / 2].mean(axis=1)
    for gene in range(3):
        assert np.corrcoef(over[:, gene], spot[:, gene])[0, 1] > 0.98
        # Not only in the same order: of the same size.
        assert np.abs(over[:, gene] - spot[:, gene]).max() < 0.4 * spot[:, gene].std()


def test_maps_follow_the_planted_programmes(drawn):
    painted = drawn[1]
    at = np.rint(cases.section().xy_um / 8 - 0.5).astype(int)
    there = painted[:, at[:, 1], at[:, 0]]
    a, b = cases.section().programmes.T
    assert np.corrcoef(there[1], a)[0, 1] > 0.8
    assert np.corrcoef(there[2], a)[0, 1] < -0.8
    assert np.corrcoef(there[0], b)[0, 1] < -0.8
    assert abs(np.corrcoef(there[1], b)[0, 1]) < 0.5


def test_off_the_tissue_is_zero(drawn):
    painter, painted = drawn
    off = ~cases.section().mask[::2, ::2]
    assert painted.dtype == np.float32
    assert not painted[:, off].any()
    assert (painted >= 0).all()
    assert painted[:, np.asarray(painter.pyramid.edge) > 40].mean() > 0.5
    assert not painter.predict(slice(0, 9), slice(0, 205)).any()


def test_windows_have_no_seams(drawn):
    painter, painted = drawn
    part = painter.predict(slice(61, 110), slice(90, 97))
    np.testing.assert_allclose(part, painted[:, 61:110, 90:97], atol=1e-4)


def test_the_ridge_alone_paints_something_else(trained, drawn):
    section, paths, model = trained
    ridge = maps.painter(dataclasses.replace(model, ridge_share=1.0), section, paths[1], SHOWN)
    window = (slice(80, 120), slice(80, 120))
    painted = ridge.predict(*window)
    features = ridge.pyramid.window(*window).reshape(94, -1).T
    x = spots.standardise(features, section.centre, section.spread)
    columns = [cases.GENES.index(gene) for gene in SHOWN]
    expected = np.maximum((x @ model.ridge + model.ridge_offset) @ model.axes[:, columns] + model.mean[columns], 0)
    np.testing.assert_allclose(painted.reshape(4, -1).T, expected, atol=2e-3)
    assert not np.allclose(painted, drawn[1][(slice(None), *window)], atol=0.01)


def test_images_are_averaged_onto_the_grid(drawn):
    painter = drawn[0]
    one = cases.section()
    small = painter.on_grid(one.rgb)
    assert small.shape == (205, 205, 3)
    assert small.dtype == np.uint8
    assert np.array_equal(
        small[90, 70], one.rgb[180:182, 140:142].mean(axis=(0, 1), dtype=float).round().astype(np.uint8)
    )
    mask = np.zeros((410, 410), bool)
    mask[10:13, 20:24] = True
    found = painter.on_grid(mask)
    assert found.dtype == bool
    # Half a pixel of tissue is none.
    assert np.argwhere(found).tolist() == [[5, 10], [5, 11]]


# --------------------------------------------------------------------------------------------------------- genes


def panel(path, genes):
    pd.DataFrame({"gene": genes, "score": 1.0}).to_csv(path, sep="\t", index=False)
    return path


def test_wanted_genes_are_painted_once_in_their_order(tmp_path):
    wanted = ["B1", "A0", "B1"]
    assert maps.genes_to_paint(wanted, [tmp_path / "not read.tsv"], cases.GENES) == ["B1", "A0"]


def test_unknown_genes_are_named_all_at_once():
    with pytest.raises(InputError) as caught:
        maps.genes_to_paint(["A0", "a11x", "GFAP"], [], cases.GENES)
    text = str(caught.value)
    assert "histology.paint: found 'a11x'; expected one of the 40 genes that all sections share" in text
    assert "Did you mean 'A11'?" in text
    assert "'GFAP'" in text
    assert "'A0'" not in text


def test_marker_panels_are_painted_where_no_gene_is_wanted(tmp_path):
    panels = [panel(tmp_path / "a.tsv", ["A3", "XIST", "B2"]), panel(tmp_path / "b.tsv", ["B2", "N0", "A3"])]
    assert maps.genes_to_paint([], panels, cases.GENES) == ["A3", "B2", "N0"]


def test_panels_without_a_shared_gene_leave_nothing_to_paint(tmp_path):
    panels = [panel(tmp_path / "a.tsv", ["XIST"])]
    with pytest.raises(NotComputed, match=r"hold 1 genes, none of them in all sections.*histology\.paint"):
        maps.genes_to_paint([], panels, cases.GENES)


# ------------------------------------------------------------------------------------------------------ measured


@pytest.fixture(scope="module")
def measured(trained):
    return maps.measured_expression(trained[1][0], SHOWN)


def test_a_footprint_that_the_config_gives_is_the_size_of_the_spots(trained):
    assert maps.measured_expression(trained[1][0], SHOWN, 31.0).spot_um == 31.0


def test_measured_expression_is_log_normalised_to_the_median(measured):
    counts = cases.section().counts.toarray().astype(float)
    totals = counts.sum(axis=1, keepdims=True)
    expected = np.log1p(counts / totals * np.median(totals))[:, [cases.GENES.index(gene) for gene in SHOWN]]
    np.testing.assert_allclose(measured.values, expected, rtol=1e-5)
    np.testing.assert_allclose(measured.xy_um, cases.section().xy_um)
    assert measured.spot_um == cases.SPOT_UM
    assert list(measured.names) == cases.GENES
    # N2 follows nothing: it varies least.
    assert measured.most_variable(SHOWN, 3) == ["B3", "A0", "A1"]
    assert measured.most_variable(SHOWN, 9) == SHOWN


def test_held_out_correlation_is_the_mean_over_blocks(tmp_path):
    def fold(number, values):
        table = pd.DataFrame({"pearson": values}, index=pd.Index([2, 0, 1], name="gene"))
        panels = [Panel("all", np.arange(3))]
        return FoldScores("s1", f"block_{number}", 9, panels, {"context": table, "floor:ridge_context": -table}, {})

    write_scores(tmp_path / "s.npz", [fold(1, [0.1, 0.2, np.nan]), fold(2, [0.3, 0.4, 0.5])], ["x", "y", "z"])
    found = maps.held_out_pearson(tmp_path / "s.npz", ["z", "y", "x", "unscored"], "context")
    assert found == pytest.approx([0.2, 0.5, 0.3, np.nan], nan_ok=True)
    ridge = maps.held_out_pearson(tmp_path / "s.npz", ["z"], "floor:ridge_context")
    assert ridge == pytest.approx([-0.2])
    assert maps.held_out_pearson(None, ["z"], "context") is None


def test_the_composite_shows_genes_that_differ(measured, drawn):
    painted = drawn[1]
    mask = np.asarray(drawn[0].pyramid.edge) > 0
    alike = np.concatenate([painted, painted[1:2] + 0.01, painted[:1] * 0])
    values = np.concatenate([measured.values, measured.values[:, 1:2] * 0.99, measured.values[:, :1] * 9], axis=1)
    more = dataclasses.replace(measured, values=values)
    genes = [*SHOWN, "copy", "flat"]
    chosen = maps.composite_genes(alike, mask, more, genes)
    # The most variable first; then A0 and A1, which are opposites; one of two that are alike; none that is flat.
    assert chosen[0] == int(np.argmax(values.std(axis=0)[:5]))
    assert set(chosen) in ({0, 1, 2, 3}, {0, 1, 4, 3})
    assert chosen[-1] == 3
    one = dataclasses.replace(measured, values=values[:, :1])
    assert maps.composite_genes(alike[:1], None, one, genes[:1]) == [0]


def test_features_of_another_resolution_are_standardised_as_the_spots(trained):
    """The map's scale comes from the section's spots, not from its pixels."""
    section = trained[0]
    values = section.centre + np.array([[0.0], [2.0], [100.0]]) * section.spread
    given = spots.standardise(values, section.centre, section.spread)
    np.testing.assert_allclose(given[:, 4], [0, 2, context.CLIP], atol=1e-3)
