import numpy as np
import pytest

from histoweft import places


def hexagons(n=12, pitch=100.0):
    row, column = (axis.ravel() for axis in np.mgrid[:n, :n])
    return np.column_stack([(column + row % 2 / 2) * pitch, row * pitch * np.sqrt(3) / 2])


def squares(n=12, pitch=100.0):
    return np.stack(np.mgrid[:n, :n], axis=-1).reshape(-1, 2) * pitch


def cells(n=400, seed=0):
    return np.random.default_rng(seed).random((n, 2)) * 1000


@pytest.mark.parametrize("xy", [hexagons(), squares(), hexagons()[::7], cells(), np.round(cells())])
def test_places_of_one_section_pass(xy):
    assert places.fault_of(xy) == ""
    assert places.caution_of(xy) == ""


@pytest.mark.parametrize("xy", [hexagons(), squares()])
@pytest.mark.parametrize("shift", [(7, 3), (-20, 31), (0.5, 0)])
def test_two_lattices_on_one_another_are_recognised(xy, shift):
    both = np.vstack([xy, xy + shift])
    assert "two lattices" in places.fault_of(np.random.default_rng(0).permutation(both))


def test_cells_of_two_sections_at_the_same_places_are_counted():
    both = np.vstack([cells(), cells()])
    assert places.caution_of(both).startswith("400 of 800 observations on a place that another one holds")
    assert places.fault_of(both, on_lattice=True).startswith("400 of 800 observations")
    three = np.vstack([both, cells()])
    assert places.fault_of(three) == "800 of 1,200 observations on a place that another one holds"


def test_cells_may_meet_where_spots_may_not():
    xy = np.vstack([cells(), cells()[:40]])
    assert places.fault_of(xy) == ""
    assert places.caution_of(xy).startswith("40 of 440 observations")
    assert places.fault_of(xy, on_lattice=True).startswith("40 of 440 observations")


def test_duplicates_are_counted_beyond_the_first():
    assert places.duplicate_share(np.array([[0, 0], [0, 0], [0, 0], [1, 1], [np.nan, 0]])) == 0.5
    assert places.duplicate_share(np.zeros((0, 2))) == 0


@pytest.mark.parametrize(
    ("xy", "words"),
    [
        (np.array([[0.0, 0], [1, 1]]), "2 observations"),
        (np.zeros((50, 2)), "one point"),
        (np.column_stack([np.arange(50.0), 3 * np.arange(50.0) + 1e7]), "one line"),
        (np.vstack([cells(), [[np.nan, 1]], [[1, np.inf]]]), "2 of 402 observations without a place"),
    ],
)
def test_degenerate_places_are_named(xy, words):
    assert words in places.fault_of(xy)


def test_a_narrow_strip_is_an_area():
    strip = np.column_stack([np.arange(200.0), np.arange(200) % 2])
    assert not places.is_collinear(strip)
