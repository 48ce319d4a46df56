"""The full-size simulated atlas: what its docstring says, measured on what it draws."""

import numpy as np
import pandas as pd
import pytest

from histoweft.simulate import atlas

TREE = pd.DataFrame({"id": [1, 2, 3, 11, 12, 21], "parent": [0, 1, 1, 2, 2, 3]})


@pytest.fixture(scope="module")
def annotation():
    """Return an ellipsoid of nested shells, the same on both sides, off the middle of its grid."""
    z, y, x = np.indices((30, 22, 26))
    shell = np.sqrt(((z - 14) / 13) ** 2 + ((y - 10) / 9) ** 2 + ((x - 11.5) / 10) ** 2)
    volume = np.zeros(shell.shape, np.int32)
    for limit, structure in ((1.0, 21), (0.8, 12), (0.55, 11)):
        volume[shell <= limit] = structure
    return volume


@pytest.fixture(scope="module")
def drawn(annotation):
    return atlas.draw_on_annotation(annotation, TREE, 150, 3)


def gridded(drawn, gene):
    volume = np.full(drawn.annotation.shape, np.nan)
    volume[tuple(drawn.coordinates.T)] = np.where(drawn.expression[:, gene] < 0, np.nan, drawn.expression[:, gene])
    return volume


def neighbours(volume, lag, axis):
    """Return the correlation of voxels `lag` apart."""
    n = volume.shape[axis]
    one, two = (volume.take(range(*span), axis) for span in ((0, n - lag), (lag, n)))
    both = np.isfinite(one) & np.isfinite(two)
    return np.corrcoef(one[both], two[both])[0, 1]


def halves(volume, annotation):
    """Return the correlation of voxels with their mirror images."""
    x = np.flatnonzero(annotation.any((0, 1)))
    box = volume[..., x[0] : x[-1] + 1]
    both = np.isfinite(box) & np.isfinite(box[..., ::-1])
    return np.corrcoef(box[both], box[..., ::-1][both])[0, 1]


def test_shape_names_and_values(drawn, annotation):
    assert drawn.expression.shape == ((annotation > 0).sum(), 150)
    assert drawn.expression.dtype == np.float32
    assert (annotation[tuple(drawn.coordinates.T)] > 0).all()
    assert len(set(drawn.genes)) == 150
    there = drawn.expression[drawn.expression >= 0]
    assert set(np.unique(drawn.expression[drawn.expression < 0])) == {-1}
    assert there.max() < atlas.SATURATION
    assert 0.01 < (drawn.expression < 0).mean() < 0.12


def test_same_seed_same_atlas_and_the_array_may_be_ones_own(annotation, drawn, tmp_path):
    def mapped(shape):
        return np.lib.format.open_memmap(tmp_path / "e.npy", mode="w+", dtype=np.float32, shape=shape)

    again = atlas.draw_on_annotation(annotation, TREE, 150, 3, mapped)
    again.expression.flush()
    assert np.array_equal(np.load(tmp_path / "e.npy"), drawn.expression)
    other = atlas.draw_on_annotation(annotation, TREE, 150, 4)
    assert not np.allclose(other.expression, drawn.expression)


def test_whole_sections_are_missing(drawn):
    section = drawn.coordinates[:, 0]
    gone = pd.DataFrame(drawn.expression < 0).groupby(section).mean().to_numpy()
    whole = gone == 1
    assert 0.3 < whole.any(0).mean()  # most genes lack a section or more
    assert whole[[0, -1]].mean() > whole[5:-5].mean()  # those at the ends most often
    assert 0.003 < gone[~whole].mean() < 0.03  # single voxels


def test_smooth_and_nearly_symmetric(drawn, annotation):
    near, far, mirror = [], [], []
    for gene in range(0, 150, 5):
        volume = np.log1p(gridded(drawn, gene))
        near.append(np.mean([neighbours(volume, 1, axis) for axis in range(3)]))
        far.append(np.mean([neighbours(volume, 8, axis) for axis in range(3)]))
        mirror.append(halves(volume, annotation))
    assert 0.8 < np.mean(near) < 0.98
    assert np.mean(far) < np.mean(near) - 0.3
    assert 0.75 < np.mean(mirror) < 0.95  # 5 % asymmetry, and noise


def test_structures_carry_the_share_that_the_truth_says(drawn):
    structure = drawn.annotation[tuple(drawn.coordinates.T)]
    explained = []
    for gene in range(150):
        values = pd.Series(drawn.expression[:, gene])
        values = np.log(values[values >= 0])
        means = values.groupby(structure[values.index]).transform("mean")
        explained.append(np.var(means) / np.var(values))
    assert np.corrcoef(explained, drawn.truth["structure_share"])[0, 1] > 0.6


def test_sections_differ_in_gain(drawn):
    """Neighbours along z, between sections, agree less than neighbours inside a section."""
    across, inside = [], []
    for gene in range(0, 150, 5):
        volume = np.log1p(gridded(drawn, gene))
        across.append(neighbours(volume, 1, 0))
        inside.append(neighbours(volume, 1, 1))
    assert np.mean(across) < np.mean(inside)


def test_children_resemble_their_parents():
    tree = np.array([(-1, 0), (0, 1), (0, 1), (1, 2), (1, 2), (2, 2)])
    effects = atlas._down_the_tree(np.random.default_rng(0), tree, 20_000)
    siblings, cousins = np.corrcoef(effects[3], effects[4])[0, 1], np.corrcoef(effects[3], effects[5])[0, 1]
    variance = atlas.SHRINK ** (2 * np.arange(3))
    assert siblings == pytest.approx(variance[:2].sum() / variance.sum(), abs=0.02)
    assert cousins == pytest.approx(variance[0] / variance.sum(), abs=0.02)


def test_one_structure_and_the_row_of_the_outside(annotation):
    one = atlas.draw_on_annotation((annotation > 0).astype(np.int32), {"id": [0, 1], "parent": [0, 0]}, 5, 0)
    assert np.isfinite(one.expression).all()


def test_neighbours_correlate_as_in_two_real_genes(real_data):
    """Within the spread between genes, on the true annotation."""
    from histoweft.atlas import tables, volumes

    folder = real_data / "allen_ish_200um" / "original"
    annotation = volumes.read_volume(folder / "P56_Mouse_gridAnnotation.zip").astype(np.int32)
    brain = annotation > 0
    structures = tables.structures(folder / "allen_structure_tree.csv")
    drawn = atlas.draw_on_annotation(annotation, structures, 24, 0)

    def profile(volume):
        volume = np.log1p(volume)
        lags = [np.mean([neighbours(volume, lag, axis) for axis in range(3)]) for lag in (1, 2, 4, 8)]
        return [*lags, halves(volume, brain)]

    real = []
    for name in ("Nrp1_P56_coronal_74272479_200um.zip", "Pdyn_P56_coronal_71717084_200um.zip"):
        energy = volumes.read_volume(folder / name)
        real.append(profile(np.where(brain & (energy >= 0), energy, np.nan)))
    simulated = np.array([profile(gridded(drawn, gene)) for gene in range(24)])
    assert np.mean(real, 0) == pytest.approx(simulated.mean(0), abs=0.08)
