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


def test_the_design_that_can_give_the_smaller_p_is_chosen():
    assert significance.design(6, 0, 0) == (True, 2 / 64)
    assert significance.design(3, 4, 4) == (False, 2 / 70)
    assert significance.design(0, 3, 4) == (False, 1 / 35)  # the mirror image is none of the ways
    assert significance.design(1, 0, 0) == (False, 1.0)
    assert significance.design(0, 5, 0) == (False, 1.0)
    assert significance.smallest_dealt([(2, 2), (2, 2)]) == 2 / 36


DESIGNS = {
    "as many in both groups": ([*"abcd"], [*"efgh"]),
    "more in one group": ([*"abc"], [*"efgh"]),
    "patients with both": ([*"abcdefg"], [*"abcdefg"]),
    "patients with both and more with one": ([*"abcefgh"], [*"abcijkl"]),
    "one patient with both": ([*"abcde"], [*"efghi"]),
    "too few patients with both": ([*"abc"], [*"abc"]),
    "too few patients": ([*"ab"], [*"cd"]),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_the_same_comparison_has_the_same_p_in_every_stage(name):
    import pandas as pd

    from histoweft.cohort import contrasts
    from histoweft.space import niches
    from histoweft.states import contrast

    first, second = DESIGNS[name]
    samples = [f"s{i}" for i in range(len(first) + len(second))]
    values = pd.Series(np.random.default_rng(3).random(len(samples)) / 4, index=samples)
    values[samples[len(first) :]] += 0.2
    patients = dict(zip(samples, first + second, strict=True))
    conditions = dict(zip(samples, ["before"] * len(first) + ["after"] * len(second), strict=True))
    of_state = contrast.compare(values, patients, conditions, ["before", "after"])
    of_niche = niches.compare_conditions(pd.DataFrame({"1": values}), patients, conditions)[0].iloc[0]
    label = pd.Series(conditions).map({"before": 1.0, "after": 0.0})
    groups = contrasts.Groups("before", "after", label, pd.Series(patients), pd.Series("all", index=samples))
    of_cohort = contrasts.compare(pd.DataFrame({"1": values}), groups).iloc[0]
    for key in ("p", "smallest_p"):
        found = [float(one[key]) for one in (of_state, of_niche, of_cohort)]
        assert found == pytest.approx([found[0]] * 3, nan_ok=True)
    assert np.isnan(of_state["p"]) == name.startswith("too few")
    assert (contrasts.advice(groups) == "") == np.isfinite(of_state["p"])
