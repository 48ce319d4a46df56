"""The metrics table keeps its columns and words; the Rand index equals scikit-learn's."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from histoweft import metrics
from histoweft.errors import InputError
from histoweft.metrics import (
    COLUMNS,
    adjusted_rand_index,
    join_metrics,
    metric_row,
    percentile_interval,
    write_metrics,
)


def row(**changes):
    given = {
        "study": "demo", "stage": "expression", "task": "domains", "method": "leiden_1", "sample": "s1",
        "protocol": "truth", "metric": "ari", "value": 0.4,
    }  # fmt: skip
    return metric_row(**(given | changes))


@pytest.mark.parametrize("seed", range(5))
def test_rand_index_equals_scikit_learn(seed):
    from sklearn.metrics import adjusted_rand_score

    random = np.random.default_rng(seed)
    a = random.integers(6, size=200)
    b = np.where(random.random(200) < 0.6, a, random.integers(4, size=200)).astype(str)
    assert adjusted_rand_index(a, b) == pytest.approx(adjusted_rand_score(a, b))


def test_rand_index_at_the_edges():
    assert adjusted_rand_index(["a", "b", "a"], [2, 1, 2]) == 1
    assert adjusted_rand_index([1, 1, 1], [2, 2, 2]) == 1
    assert adjusted_rand_index([1, 2, 3], ["x", "y", "z"]) == 1
    assert adjusted_rand_index(["a", "a", None, "b"], [1, 1, 5, 2]) == 1
    assert np.isnan(adjusted_rand_index([1], [1]))
    with pytest.raises(ValueError, match="2 and 3 things"):
        adjusted_rand_index([1, 2], [1, 2, 3])


def test_rows_go_to_disk_and_back_in_the_order_of_columns(tmp_path):
    write_metrics([row(sample="s2", n=10), row(low=0.3, high=0.5, note="default")], tmp_path / "b.tsv")
    write_metrics([row(sample="NA", fold=3)], tmp_path / "a.tsv")
    write_metrics([], tmp_path / "none.tsv")
    header = (tmp_path / "none.tsv").read_text().strip().split("\t")
    assert tuple(header) == COLUMNS
    table = join_metrics([tmp_path / "b.tsv", tmp_path / "none.tsv", tmp_path / "a.tsv"])
    assert tuple(table.columns) == COLUMNS
    assert table["sample"].tolist() == ["NA", "s1", "s2"]
    assert table["fold"].tolist() == ["3", "all", "all"]
    assert table["n"].tolist() == [pd.NA, pd.NA, 10]
    assert table["low"].iloc[1] == 0.3
    assert table["note"].tolist() == ["", "default", ""]
    assert len(join_metrics([])) == 0


def test_words_outside_the_vocabulary_are_refused_together():
    with pytest.raises(InputError) as caught:
        row(stage="expresion", task="domain", protocol="holdout")
    message = str(caught.value)
    assert "Did you mean 'expression'?" in message
    assert "Did you mean 'domains'?" in message
    assert "'holdout'" in message
    assert len(caught.value.faults) == 3


def test_a_value_outside_its_interval_is_refused():
    with pytest.raises(InputError, match=r"0\.4 outside of 0\.5 to 0\.6"):
        row(low=0.5, high=0.6)


def test_foreign_tables_are_refused(tmp_path):
    pd.DataFrame({"study": ["x"], "metrik": ["ari"]}).to_csv(tmp_path / "x.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match=r"Did you mean 'metric'\?"):
        join_metrics([tmp_path / "x.tsv"])


def test_a_percentile_interval_holds_the_value_and_skips_gaps():
    draws = np.append(np.linspace(0, 1, 1001), np.nan)
    assert percentile_interval(0.5, draws) == pytest.approx((0.025, 0.975))
    assert percentile_interval(-0.2, draws) == pytest.approx((-0.2, 0.975))
    assert percentile_interval(1.3, draws) == pytest.approx((0.025, 1.3))
    assert np.isnan(percentile_interval(0.5, np.array([np.nan]))).all()


def test_the_description_of_the_table_names_every_column_in_order(tmp_path):
    metrics.write_schema(tmp_path / metrics.SCHEMA_FILE)
    found = json.loads((tmp_path / metrics.SCHEMA_FILE).read_text())
    assert [field["name"] for field in found["fields"]] == list(metrics.COLUMNS)
    kinds = {field["name"]: field["type"] for field in found["fields"]}
    assert (kinds["value"], kinds["n"], kinds["note"]) == ("number", "integer", "string")
    task = next(field for field in found["fields"] if field["name"] == "task")
    assert task["constraints"]["enum"] == list(metrics.TASKS)
    assert found["version"] == metrics.SCHEMA_VERSION


@pytest.mark.parametrize("version", ["1.0", "1.9", "0.3"])
def test_tables_of_this_and_of_older_kinds_are_read(tmp_path, version):
    metrics.write_metrics([], tmp_path / "metrics.tsv")
    (tmp_path / metrics.SCHEMA_FILE).write_text(json.dumps({"version": version}))
    assert len(metrics.read_metrics(tmp_path / "metrics.tsv")) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"version": "2.0"}', "found a metrics table of version 2.0; expected 1.0 or older. A newer Histoweft"),
        ("{}", "no description of a metrics table"),
        ("[", "no description of a metrics table"),
        ('{"version": "new"}', "no description of a metrics table"),
    ],
)
def test_tables_of_a_newer_kind_are_refused(tmp_path, text, expected):
    metrics.write_metrics([], tmp_path / "metrics.tsv")
    (tmp_path / metrics.SCHEMA_FILE).write_text(text)
    with pytest.raises(InputError, match=re.escape(expected)):
        metrics.read_metrics(tmp_path / "metrics.tsv")
