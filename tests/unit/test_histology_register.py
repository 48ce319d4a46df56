"""Serial sections find one another by their images: rotations, flips, shifts; what fits already stays."""

import numpy as np
import pytest

from histoweft.histology import register
from histoweft.histology.register import Registration, Section

PITCH = 100.0


def look(xy):
    """Four smooth features of a tissue that has no symmetry."""
    x, y = xy.T / 1000
    waves = [np.sin(3.1 * x + 0.7 * y), np.cos(2.3 * y - 0.4 * x * y), np.exp(-((x - 0.3) ** 2 + (y - 0.8) ** 2) / 0.1)]
    return np.stack([*waves, x * y - 0.4 * y], axis=1)


def section(seed=0, shift=(0.0, 0.0)):
    """Spots on a grid over an L-shaped piece; `shift` moves the grid over the tissue."""
    x, y = np.meshgrid(np.arange(13) * PITCH, np.arange(11) * PITCH)
    xy = np.stack([x.ravel(), y.ravel()], axis=1) + shift
    xy = xy[~((xy[:, 0] > 700) & (xy[:, 1] > 500))]
    noise = 0.1 * np.random.default_rng(seed).standard_normal((len(xy), 4))
    return Section(xy, look(xy) + noise)


def matrix(degrees, mirrored=False):
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.diag([1.0, -1.0 if mirrored else 1.0])


@pytest.mark.parametrize(("degrees", "mirrored"), [(73.0, False), (-160.0, True)])
def test_a_turned_section_is_found(degrees, mirrored):
    fixed, moving = section(0), section(1, shift=(40.0, -30.0))
    there = matrix(degrees, mirrored)
    turned = (moving.xy - 500) @ there.T + [2500.0, -800.0]
    found = register.register(fixed, Section(turned, moving.features))
    error = np.hypot(*(found(turned) - moving.xy).T)
    # Spots are drawn onto spots: up to half a diagonal of their grid stays.
    assert error.max() < 0.75 * PITCH
    assert found.mirrored == mirrored
    assert found.cost < 0.5 * found.cost_as_is
    inverse = np.linalg.inv(there)
    apart = np.rad2deg(np.arctan2(inverse[1, 0], inverse[0, 0])) - found.angle
    assert abs((apart + 180) % 360 - 180) < 4
    assert f"turned by {found.angle:.0f} degrees{', mirrored' if mirrored else ''}, shifted by" in str(found)


def test_sections_that_fit_stay_as_they_lie():
    fixed, moving = section(0), section(1)
    found = register.register(fixed, moving)
    assert np.array_equal(found(moving.xy), moving.xy)
    assert found.cost == found.cost_as_is
    assert found.angle == 0
    assert not found.mirrored
    assert str(found) == f"kept as it lies (disagreement {found.cost_as_is:.2f})"


def test_a_transform_turns_about_the_centre():
    centre, target = np.array([10.0, 20.0]), np.array([13.0, 24.0])
    moved = Registration(matrix(90), centre, target, 0.5, 1.0)
    np.testing.assert_allclose(moved(np.array([[10.0, 20.0], [11.0, 20.0]])), [[13, 24], [13, 25]], atol=1e-12)
    assert moved.angle == pytest.approx(90)
    assert str(moved) == "turned by 90 degrees, shifted by 5 um (disagreement 1.00 before, 0.50 after)"


def test_the_cost_is_lowest_where_images_agree_and_spots_have_partners():
    fixed, moving = section(0), section(1)
    task = register._Task(fixed, moving)
    at_place, right = task.cost_of(moving.xy), np.array([150.0, 0.0])
    assert at_place < task.cost_of(moving.xy + right) < task.cost_of(moving.xy + 4 * right)
    # Features alone: at the same places, but of other tissue.
    shuffled = Section(moving.xy, moving.features[np.random.default_rng(0).permutation(len(moving.xy))])
    assert register._Task(fixed, shuffled).cost_of(moving.xy) > at_place
    # Stretch is not free.
    narrower, none = np.array([-0.2, 0, 0, 0, 0, 0]), np.zeros(6)
    free = task.cost_of((moving.xy - task.centre) @ np.diag([0.8, 1.0]) + task.transform(none, np.eye(2))[1])
    assert task.cost(narrower, np.eye(2)) == pytest.approx(free + 0.1)


def test_many_spots_are_thinned_evenly():
    assert np.array_equal(register._subset(100), np.arange(100))
    few = register._subset(10_000)
    assert len(few) == register._MOST_SPOTS
    assert (few[0], few[-1]) == (0, 9_999)
    assert np.diff(few).max() - np.diff(few).min() <= 1
