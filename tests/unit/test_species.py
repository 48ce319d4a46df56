import pytest

from histoweft.species import Species, disagreement


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (Species("human"), Species("mouse"), True),
        (Species("human", True), Species("mouse", True), True),
        (Species("human"), Species("human", True), False),
        (Species("rat"), Species("mouse", True), False),
        (Species("rat"), Species("mouse"), True),
        (Species("human"), Species(""), False),
        (Species("mixed"), Species("mouse"), False),
    ],
)
def test_species_contradict_where_they_cannot_be_the_same(one, other, differ):
    assert one.contradicts(other) is differ
    assert other.contradicts(one) is differ


def test_samples_of_two_species_are_one_fault_that_names_both():
    samples = {"a": Species("human"), "b": Species(""), "c": Species("mouse", True), "d": Species("mouse")}
    (fault,) = disagreement(samples, "integration", "Two studies.")
    assert str(fault) == (
        "integration: found 'a' of human beside 'c' of mouse (by how its genes are written); expected samples of one "
        "species. Two studies."
    )
    assert disagreement({"a": Species("human"), "b": Species("")}, "integration", "") == []
