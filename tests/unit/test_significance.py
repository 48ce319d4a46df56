"""Tails of distributions and the false discovery rate."""

import numpy as np
import pytest

from histoweft import significance
from histoweft.significance import adjust, cauchy, two_sided, upper_tail


def test_benjamini_hochberg_equals_scipys_and_leaves_gaps():
    from scipy.stats import false_discovery_control

    p_values = np.random.default_rng(0).random(50) ** 3
    assert np.allclose(adjust(p_values), false_discovery_control(p_values))
    gaps = np.insert(p_values, 3, np.nan).reshape(3, 17)
    assert np.isnan(adjust(gaps).ravel()[3])
    assert np.allclose(np.delete(adjust(gaps).ravel(), 3), false_discovery_control(p_values))


def test_upper_tail_is_normal_without_skew_and_pearsons_third_type_with_it():
    from scipy.stats import norm, pearson3

    z = np.linspace(-3, 6, 19)
    assert upper_tail(z) == pytest.approx(norm.sf(z), rel=1e-6)
    for skew in (0.6, 1.5):
        inside = z > -2 / skew + 0.05
        assert upper_tail(z[inside], skew) == pytest.approx(pearson3.sf(z[inside], skew), rel=1e-5, abs=1e-12)


def test_two_sided_doubles_the_smaller_tail():
    from scipy.stats import norm

    z = np.array([-2.5, 0.0, 1.0, 4.0])
    assert two_sided(z) == pytest.approx(2 * norm.sf(np.abs(z)), rel=1e-6)


def test_cauchy_combination_of_equal_values_is_that_value():
    p = np.full((7, 4), 0.03)
    assert np.asarray(cauchy(p)).ravel() == pytest.approx(0.03, rel=1e-6)


def test_arrangements_are_all_counted_or_many_drawn():
    assert significance.all_deals(40, 20, 0).shape == (significance.MOST_ARRANGEMENTS, 20)
    assert all(len(set(row)) == 20 for row in significance.all_deals(40, 20, 0)[:50])
    assert len(significance.all_deals(6, 2, 0)) == 15
    assert significance.all_signs(30, 0).shape == (significance.MOST_ARRANGEMENTS, 30)
    assert len(np.unique(significance.all_signs(5, 0), axis=0)) == 32


def test_p_values_of_arrangements_are_counted_exactly():
    a, b = np.array([0.0, 1, 2]), np.array([5.0, 6, 7])
    assert significance.rearranged(a, b, paired=False, seed=0) == 2 / 20
    assert significance.rearranged(a, b, paired=True, seed=0) == 2 / 8
    assert significance.rearranged(a, a, paired=False, seed=0) == 1
