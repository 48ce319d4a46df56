"""Which fits a study gets, what is held out of them, and which sections are serial."""

import pytest

from histoweft.histology import plan
from histoweft.histology.plan import Fit


def rows(**samples):
    """Sheet rows of samples given as (patient, position along the block)."""
    return {name: {"patient": patient, "section": section} for name, (patient, section) in samples.items()}


PATIENTS = rows(a1=("A", 1), a2=("A", 2), b1=("B", None), c1=("C", 1), c2=("C", 3))
SECTIONS = rows(m1=("mouse", 1), m2=("mouse", 2), m3=("mouse", 3))


def test_patients_are_held_out_where_one_has_several_sections():
    assert plan.groups(PATIENTS) == ("patient", {"a1": "A", "a2": "A", "b1": "B", "c1": "C", "c2": "C"})


@pytest.mark.parametrize("samples", [SECTIONS, rows(a=("A", 1), b=("B", 1)), rows(only=("A", 1))])
def test_sections_are_held_out_where_patients_are_one_or_as_many_as_sections(samples):
    assert plan.groups(samples) == ("section", {name: name for name in samples})


def test_patients_that_are_numbers_are_names():
    assert plan.groups(rows(a=(1, 1), b=(1, 2), c=(2, 1)))[1] == {"a": "1", "b": "1", "c": "2"}


def test_every_group_is_tested_once_across():
    fits = plan.fits(PATIENTS, ["across", "block"], 5)
    assert list(fits) == ["across-1", "across-2", "across-3", *(f"block-{name}" for name in PATIENTS), "all"]
    across = [fit for fit in fits.values() if fit.kind == plan.ACROSS]
    assert [fit.held_out for fit in across] == [("A",), ("B",), ("C",)]
    assert {fit.samples for fit in across} == {tuple(PATIENTS)}
    assert fits["block-b1"] == Fit("block-b1", "block", ("b1",))
    assert fits["all"] == Fit("all", "all", tuple(PATIENTS))
    assert all(name == fit.name for name, fit in fits.items())


def test_few_folds_share_the_groups():
    fits = plan.fits(PATIENTS, ["across"], 2)
    held_out = [fit.held_out for fit in fits.values() if fit.kind == plan.ACROSS]
    assert held_out == [("A", "C"), ("B",)]
    assert sorted(sum(held_out, ())) == ["A", "B", "C"]


def test_sections_are_folds_of_their_own_in_the_order_of_the_sheet():
    fits = plan.fits(rows(m3=("mouse", 3), m1=("mouse", 1), m2=("mouse", 2)), ["across", "random"], 5)
    assert [fits[f"across-{i}"].held_out for i in (1, 2, 3)] == [("m3",), ("m1",), ("m2",)]
    assert [name for name in fits if name.startswith("random")] == ["random-m3", "random-m1", "random-m2"]


def test_a_single_sample_is_not_held_out_across():
    fits = plan.fits(rows(only=("A", None)), ["across", "block", "random"], 5)
    assert list(fits) == ["block-only", "random-only", "all"]


def test_nothing_but_the_maps_without_protocols():
    assert list(plan.fits(SECTIONS, [], 5)) == ["all"]


def test_serial_sections_of_a_patient_share_a_frame():
    assert plan.frames(PATIENTS, "patient") == {"a1": "A", "a2": "A", "c1": "C", "c2": "C"}
    assert plan.frames(PATIENTS, "study") == dict.fromkeys(["a1", "a2", "c1", "c2"], "study")
    assert plan.frames(PATIENTS, "none") == {}


def test_a_section_alone_has_no_frame():
    assert plan.frames(rows(a1=("A", 1), a2=("A", None), b=("B", 1)), "patient") == {}
    # The first position may be 0.
    assert plan.frames(rows(a1=("A", 0), a2=("A", 1)), "patient") == {"a1": "A", "a2": "A"}


def test_pretraining_takes_sections_from_all_over_the_sheet():
    names = [f"s{i}" for i in range(10)]
    assert plan.spread(names, 4) == ["s0", "s2", "s5", "s7"]
    assert plan.spread(names, 12) == names
