"""Failures are kept beside logs until their job succeeds, and end in advice."""

from histoweft.failures import Failure, advice, forget, remember, remembered


def test_failures_are_kept_until_the_job_succeeds(tmp_path):
    folder = tmp_path / "logs" / "study"
    (folder / "expression").mkdir(parents=True)
    bad = Failure("qc", "b", "1 fault in what this study was given:\n  1. b.h5: found nothing")
    remember(folder / "expression" / "qc.b.log", bad)
    remember(folder / "join.log", Failure("join", "", "ValueError: x"))
    assert remembered(folder) == [Failure("join", "", "ValueError: x"), bad]
    forget(folder / "join.log")
    forget(folder / "never.log")
    assert remembered(folder) == [bad]


def test_advice_names_sample_rule_cause_and_the_way_on():
    failed = [Failure("qc", "b", "1 fault in what this study was given:\n  1. b.h5: found nothing\n  2. more")]
    told = advice(failed, ["a", "b", "c"], "my/config.yaml")
    assert "b, rule qc: 1. b.h5: found nothing" in told
    assert "2 of 3 samples are not concerned" in told
    assert "./histoweft --configfile my/config.yaml --config 'exclude=[b]'" in told


def test_no_way_on_is_offered_without_a_sample_that_works():
    assert "exclude" not in advice([Failure("qc", "a", "x")], ["a"])
    assert "exclude" not in advice([Failure("join", "", "x")], ["a", "b"])
    assert advice([], ["a"]) == ""
