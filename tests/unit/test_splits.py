"""Folds hold out what they say, keep their distance, and the audit finds every leak."""

import numpy as np
import pytest

from histoweft.errors import HistoweftError, InputError
from histoweft.splits import Fold, audit, blocks, inner_folds, leave_groups_out, partition, random_folds


def grid(rows=12, columns=30, pitch=100.0):
    y, x = np.mgrid[:rows, :columns]
    return np.column_stack([x.ravel(), y.ravel()]) * pitch


def pieces(xy, pitch):
    """Number of connected pieces of points on a grid."""
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    pairs = cKDTree(xy).sparse_distance_matrix(cKDTree(xy), pitch * 1.01)
    return connected_components(pairs)[0]


@pytest.mark.parametrize("n_folds", [2, 3, 5, 7])
def test_blocks_are_contiguous_balanced_and_cover_the_section_once(n_folds):
    xy = grid()
    folds = blocks(xy, n_folds)
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 2
    assert np.array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(len(xy)))
    assert all(pieces(xy[fold.test], 100) == 1 for fold in folds)
    assert all(len(fold.train) + len(fold.test) == len(xy) for fold in folds)
    audit(folds, len(xy))


def test_blocks_follow_the_tissue_however_it_lies():
    xy = grid()
    angle = 0.6
    turned = xy @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for fold, same in zip(blocks(xy, 2), blocks(turned + 5_000, 2)):
        # Two halves of a 12 x 30 grid: cut across its length, so 15 columns each.
        assert len(np.unique(xy[fold.test, 0])) == 15
        assert {tuple(fold.test), tuple(fold.train)} == {tuple(same.test), tuple(same.train)}


def test_the_buffer_keeps_its_distance_and_no_more():
    xy = grid()
    for fold in blocks(xy, 4, buffer_um=200):
        apart = np.linalg.norm(xy[:, None] - xy[fold.test][None], axis=2).min(axis=1)
        expected = np.setdiff1d(np.flatnonzero(apart >= 200), fold.test)
        assert np.array_equal(fold.train, expected)
    audit(blocks(xy, 4, 200), len(xy), xy=xy, buffer_um=200)


def test_blocks_of_a_volume():
    points = np.random.default_rng(0).random((400, 3)) * [100, 200, 300]
    folds = blocks(points, 4, buffer_um=10)
    assert [len(fold.test) for fold in folds] == [100] * 4
    audit(folds, 400, xy=points, buffer_um=10)


def test_partition_takes_points_that_coincide():
    assert np.bincount(partition(np.zeros((10, 2)), 5)).tolist() == [2] * 5
    with pytest.raises(ValueError, match="11 parts of 10 points"):
        partition(np.zeros((10, 2)), 11)


def test_whole_groups_are_held_out_under_their_name():
    groups = np.array(["b", "a", "c", "a", "b", "a"])
    folds = leave_groups_out(groups)
    assert [fold.name for fold in folds] == ["a", "b", "c"]
    assert folds[0].test.tolist() == [1, 3, 5]
    audit(folds, 6, groups=groups)


def test_groups_share_folds_evenly():
    sizes = {"a": 40, "b": 30, "c": 30, "d": 20}
    groups = np.repeat(list(sizes), list(sizes.values()))
    folds = leave_groups_out(groups, 2)
    assert [(fold.name, len(fold.test)) for fold in folds] == [("a+d", 60), ("b+c", 60)]
    audit(folds, 120, groups=groups)
    assert len(leave_groups_out(groups, 9)) == 4


def test_random_folds_are_seeded_and_cover_all_rows():
    folds, again, other = random_folds(103, 5, 1), random_folds(103, 5, 1), random_folds(103, 5, 2)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(folds, again))
    assert not np.array_equal(folds[0].test, other[0].test)
    assert np.array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(103))
    audit(folds, 103)


def test_inner_folds_hold_out_groups_where_there_are_any():
    xy = grid(4, 10)
    two = np.repeat(["s1", "s2"], 20)
    assert [fold.name for fold in inner_folds(xy, two)] == ["s1", "s2"]
    assert [fold.name for fold in inner_folds(xy, ["s1"] * 40, n_folds=3)] == ["block_1", "block_2", "block_3"]


def test_too_little_to_split_says_what_to_do():
    with pytest.raises(InputError, match=r"found 1 \(MOB1\); expected at least two.*hold out blocks inside it"):
        leave_groups_out(["MOB1"] * 5)
    with pytest.raises(InputError, match=r"no group for 1 of 3 rows.*Fill the column"):
        leave_groups_out(["a", None, "b"])
    with pytest.raises(InputError, match="3 spots for 5 folds"):
        blocks(np.eye(3), 5)
    with pytest.raises(InputError, match="number of folds: found 1; expected at least 2"):
        random_folds(10, 1)
    with pytest.raises(InputError, match=r"block 1 of 2: found no training spot.*1000 um.*smaller buffer"):
        blocks(grid(4, 4), 2, buffer_um=1_000)
    with pytest.raises(InputError, match=r"none for 1 of 4 rows \(first: row 2\)"):
        blocks(np.array([[0, 1], [1, 1], [np.nan, 2], [3, 3]]), 2)


def fold(train, test, name="f"):
    return Fold(name, np.array(train, dtype=int), np.array(test, dtype=int))


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([fold([0, 1], [1, 2])], "fold 'f' cannot be used: row 1 on both sides"),
        ([fold([0, 9], [1, 2])], r"training row 9 out of range, of 4 rows"),
        ([fold([0], [-1])], "test row -1 out of range"),
        ([fold([0, 0], [1])], "training row 0 there twice"),
        ([fold([], [1])], "no training rows"),
        ([fold([0, 1], [2], "a"), fold([0, 1], [2, 3], "b")], "fold 'b' .* row 2 tested in fold 'a' too"),
    ],
)
def test_the_audit_names_the_fold_that_leaks(folds, message):
    with pytest.raises(HistoweftError, match=message):
        audit(folds, 4)


def test_the_audit_sees_patients_and_buffers():
    with pytest.raises(HistoweftError, match=r"fold 'random_1' .* p1, p2 on both sides"):
        audit(random_folds(40, 4), 40, groups=["p1", "p2"] * 20)
    xy = grid(4, 10)
    with pytest.raises(HistoweftError, match=r"training row \d+ and \d+ more nearer than 150 um"):
        audit(blocks(xy, 2), 40, xy=xy, buffer_um=150)
    # Two sections lying on top of one another are not neighbours.
    both = np.vstack([xy, xy])
    sections = np.repeat(["s1", "s2"], 40)
    audit(leave_groups_out(sections), 80, xy=both, buffer_um=150, sections=sections)
    with pytest.raises(HistoweftError, match=r"fold 's1' .*nearer than 150 um"):
        audit(leave_groups_out(sections), 80, xy=both, buffer_um=150)
