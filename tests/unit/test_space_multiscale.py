"""Domains at several scales: which persist, how they connect, and the pictures."""

import numpy as np
import pandas as pd
import pytest
from space_cases import LAYERS, write_section

from histoweft import plotting
from histoweft.errors import InputError, NotComputed
from histoweft.metrics import adjusted_rand_index
from histoweft.space import domain_figures, multiscale, views
from histoweft.space.figures import Place


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scales")
    layer = write_section(folder / "a.h5ad", "a", 5)
    tissue = views.read_tissue({"a": folder / "a.h5ad"})
    return tissue, layer, multiscale.domains_at_scales(tissue, LAYERS, (6, 18, 36))


def test_planted_layers_persist(found):
    _, layer, scales = found
    assert scales.neighbours == (6, 18, 36)
    assert all(adjusted_rand_index(labels, layer) > 0.6 for labels in scales.labels)
    table = multiscale.persistence(scales)
    assert (table.loc[table["scale"] == 18, "persistence"] > 0.6).all()
    assert (table.loc[table["scale"] == 18, "found_at"] == 3).all()
    assert table.groupby("scale")["points"].sum().eq(len(layer)).all()


def test_radii_are_rings_of_the_lattice(found):
    radii = found[2].radius
    assert radii[0] == pytest.approx(100, rel=0.02)
    assert radii[1] == pytest.approx(200, rel=0.02)


def test_overlaps_are_jaccard_indices():
    fine, coarse = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 1])
    jaccard, shared = multiscale.overlaps(fine, coarse)
    assert np.allclose(jaccard, [[2 / 3, 0], [1 / 4, 1 / 4], [0, 2 / 3]])
    assert shared.tolist() == [[2, 0], [1, 1], [0, 2]]


def test_tree_connects_what_has_points_in_common():
    labels = np.array([[0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 0, 1]])
    table = multiscale.tree(multiscale.Scales(labels, (6, 18), (1.0, 2.0)))
    assert table[["fine_domain", "coarse_domain"]].to_numpy().tolist() == [["1", "1"], ["2", "1"], ["3", "2"]]
    assert table["parent"].all()
    assert (table["share_of_fine"] == 1).all()
    assert table["overlap"].tolist() == pytest.approx([3 / 5, 2 / 5, 1])


def test_a_domain_of_one_scale_only_does_not_persist():
    labels = np.array([[0] * 50 + [1] * 50, [0, 1] * 50])
    table = multiscale.persistence(multiscale.Scales(labels, (6, 18), (1.0, 2.0)))
    assert table["persistence"].tolist() == pytest.approx([1 / 3] * 4)
    assert (table["found_at"] == 1).all()


def test_wide_scales_are_left_out_and_faults_told(found):
    tissue = found[0]
    assert multiscale.domains_at_scales(tissue, 3, (6, 500)).neighbours == (6,)
    with pytest.raises(InputError, match="18, 6; expected numbers that rise"):
        multiscale.check_scales([18, 6])


def test_small_sections_are_left_out_by_name_and_none_left_is_no_fault():
    told = multiscale.too_small({"a": 45, "b": 48}, (6, 18))
    assert told == {"a": "a has 45 points; domains at several scales need 48. Option: space.multiscale.neighbours."}
    assert multiscale.left_out({"b": 48, "c": 900}, (6, 18))[0].startswith("Domains over 18 neighbours are left out: b")
    assert multiscale.left_out({"c": 900}, (6, 18)) == []
    with pytest.raises(NotComputed, match="no section has the 48 points"):
        multiscale.too_small({"a": 45, "b": 12}, (6, 18))


def test_tables_have_a_column_for_each_scale(found):
    tissue, _, scales = found
    table = multiscale.scale_tables(tissue, scales)["a"]
    assert list(table) == ["scale_6", "scale_18", "scale_36"]
    assert (table["scale_18"].cat.codes.to_numpy() == scales.labels[1]).all()


# ---------------------------------------------------------------------------------------------------- pictures


def test_colours_follow_the_largest_overlap(found):
    _, _, scales = found
    tree, persistence = multiscale.tree(scales), multiscale.persistence(scales)
    colours = domain_figures.scale_colours(tree, persistence)
    assert all(len(set(one.values())) == LAYERS for one in colours.values())
    links = tree[(tree["fine"] == 18) & (tree["overlap"] > 0.5)]
    assert len(links) == LAYERS
    assert all(colours[18][row.fine_domain] == colours[36][row.coarse_domain] for row in links.itertuples())


def test_matched_colours_take_those_of_the_reference():
    table = pd.DataFrame({"a": pd.Categorical(list("111222333")), "b": pd.Categorical(list("222333114"))})
    found = domain_figures.matched_colours(table, "a", "b")
    own = domain_figures.matched_colours(table, "a", "a")
    assert (found["2"], found["3"], found["1"]) == (own["1"], own["2"], own["3"])
    assert found["4"] not in own.values()


def test_colours_of_domains_and_labels_are_those_of_the_study():
    numbers = pd.CategoricalDtype(["1", "2", "3"])
    one = pd.DataFrame({"consensus": list("1122"), "leiden": list("3311")}, dtype=numbers)
    two = pd.DataFrame({"consensus": list("333"), "leiden": list("222")}, dtype=numbers)
    found = domain_figures.study_colours([one, two], {"L2", "WM", "L1", np.nan})
    assert found["consensus"] == plotting.category_colours(["1", "2", "3"])
    assert found["leiden"] == {
        "3": found["consensus"]["1"], "1": found["consensus"]["2"], "2": found["consensus"]["3"]
    }  # fmt: skip
    assert found["label"] == plotting.category_colours(["L1", "L2", "WM"])
    assert found == domain_figures.study_colours([two, one], ["WM", "L1", "L2"])


def test_pictures_are_drawn(found, tmp_path):
    tissue, layer, scales = found
    place = Place(tissue.sections[0].xy, {"mpp": 1.0, "spot_diameter_um": 55.0})
    tree, persistence = multiscale.tree(scales), multiscale.persistence(scales)
    colours = domain_figures.scale_colours(tree, persistence)
    domain_figures.tree_figure(tree, persistence, colours, tmp_path / "tree.png")
    table = multiscale.scale_tables(tissue, scales)["a"]
    domain_figures.scales_figure(place, table, colours, tmp_path / "scales.png")
    one = table["scale_6"]
    parts = {"consensus": one, "leiden": table["scale_18"], "semi": one, "confidence": np.linspace(0, 1, len(one))}
    truth = pd.Series(layer.astype(str))
    parts = pd.DataFrame(parts)
    shared = domain_figures.study_colours([parts], truth)
    domain_figures.domains_figure(place, parts, truth, tmp_path / "domains.png", shared)
    domain_figures.niches_figure(place, one, pd.Categorical(layer), tmp_path / "niches.png")
    shares = pd.DataFrame([[0.5, 0.5]], index=["a"], columns=["1", "2"])
    profiles = pd.DataFrame(np.eye(2), index=["1", "2"], columns=["x", "y"])
    domain_figures.profiles_figure(profiles, shares, tmp_path / "profiles.png")
    from PIL import Image

    for path in tmp_path.glob("*.png"):
        assert np.asarray(Image.open(path).convert("L")).std() > 5, path
    assert len(list(tmp_path.glob("*.png"))) == 5
