"""Submitted methods: what the config may say, what a file must define and give back, and that the scores are ours."""

import re
import textwrap
from types import SimpleNamespace

import annotation_cases
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import space_cases
import yaml

from histoweft import config
from histoweft.annotation import deconvolve_sample, evaluate, fitting, folds, heldout, score
from histoweft.annotation.deconvolve_inputs import Inputs, read_inputs
from histoweft.annotation.models import Options
from histoweft.errors import InputError
from histoweft.metrics import adjusted_rand_index, check_metrics
from histoweft.submissions import annotation, declared, deconvolution, domains, interface

TYPES = ["B cell", "NK", "T cell"]


def write(folder, code, name="method.py"):
    path = folder / name
    path.write_text(textwrap.dedent(code))
    return path


def rows_of(rows):
    """Check rows as the workflow does, and return them by metric."""
    table = check_metrics(pd.DataFrame(rows))
    assert table["note"].str.startswith("submission").all()
    return table


# ------------------------------------------------------------------------------------------------- the config


def entry(folder, **changed):
    path = folder / "method.py"
    path.touch()
    return {"stage": "domains", "name": "mine", "file": str(path)} | changed


def declare(repo, entries):
    study = {"submissions": entries}
    faults = config.check(study, {"properties": {"submissions": submissions_schema()}})
    faults.extend(declared.complete(study, repo / "envs"))
    return study["submissions"], [str(fault) for fault in faults.items]


def submissions_schema():
    return config.load_schema("config")["properties"]["submissions"]


def test_what_an_entry_leaves_out_is_filled_in_as_the_schema_says(repo, tmp_path):
    (found,), faults = declare(repo, [entry(tmp_path)])
    assert faults == []
    properties = submissions_schema()["items"]["properties"]
    for option in ("environment", "options", "seeds"):
        assert found[option] == properties[option]["default"], option
    assert set(found) == set(properties)
    assert declared.complete({}, repo / "envs").items == []


def test_all_faults_of_all_entries_are_said_at_once(repo, tmp_path):
    (tmp_path / "metod.txt").touch()
    own = tmp_path / "own.yaml"
    own.touch()
    _, faults = declare(repo, [
        entry(tmp_path, stage="domain"),
        entry(tmp_path, file=str(tmp_path / "methd.py")),
        entry(tmp_path, name="consensus"),
        entry(tmp_path, name="once", environment="peer"),
        entry(tmp_path, name="once", environment=str(own)),
        entry(tmp_path, name="other", stage="annotation", seeds=3, file=str(tmp_path / "metod.txt")),
        entry(tmp_path, name="a b"),
    ])  # fmt: skip
    assert len(faults) == 8
    text = "\n".join(faults)
    assert 'submissions[0].stage: found "domain"; expected one of domains, deconvolution, annotation' in text
    assert "methd.py, which does not exist" in text
    assert "Did you mean 'method.py'?" in text
    assert "submissions[2].name: found 'consensus'; expected a name that no method of the stage domains has" in text
    assert "submissions[3].environment: found 'peer'" in text
    assert "Did you mean 'peers'?" in text
    assert "submissions[4].name: found 'once' once more" in text
    assert "submissions[5].seeds: found 3; expected 1 for the stage annotation" in text
    assert "metod.txt, which is no Python file" in text
    assert "submissions[6].name" in text


def test_entries_of_the_wrong_kind_are_left_to_the_schema(repo, tmp_path):
    _, faults = declare(repo, [entry(tmp_path, file=3), "domains", {"stage": ["domains"]}, entry(tmp_path, seeds="2")])
    assert any("submissions[0].file: found 3; expected text" in fault for fault in faults)
    assert any("submissions[3].seeds" in fault for fault in faults)
    _, faults = declare(repo, {"stage": "domains"})
    assert len(faults) == 1


@pytest.mark.parametrize("name", ["a" * 5000, "~nobody-of-this-name/x", "a\0b", "{sample}", "/"])
def test_a_path_that_no_machine_has_is_told_like_any_other(repo, tmp_path, name):
    _, faults = declare(repo, [entry(tmp_path, file=f"{name}.py", environment=f"{name}.yaml")])
    assert any("submissions[0].file" in fault for fault in faults)
    assert any("submissions[0].environment" in fault for fault in faults)


def test_a_stage_that_does_nothing_in_the_study_takes_no_submission(tmp_path):
    entries = [entry(tmp_path), entry(tmp_path, stage="deconvolution"), entry(tmp_path, stage="annotation")]
    works = {"domains": True, "deconvolution": False, "annotation": False}
    found = [str(fault) for fault in declared.check_stages(entries, works).items]
    assert len(found) == 2
    assert "submissions[1].stage: found deconvolution in a study that deconvolves no sample" in found[0]
    assert "annotation.reference" in found[1]


def test_the_names_of_own_methods_are_those_of_the_stages():
    from histoweft.annotation import deconvolve, names
    from histoweft.space import domain_scores
    from histoweft.space import domains as own

    assert {own.DEFAULT, *own.FLOORS, domain_scores.SPREAD, *domain_scores.SEMI_FLOORS} == set(declared.OWN["domains"])
    assert {*deconvolve.METHODS, "misfit"} == set(declared.OWN["deconvolution"])
    flags = {evaluate.DISTANCE, evaluate.PROBABILITY.removeprefix("floor:"), score.MAJORITY.removeprefix("floor:")}
    assert {*names.MODELS, *flags} == set(declared.OWN["annotation"])


def test_an_environment_is_a_name_or_a_path(repo, tmp_path):
    assert declared.environment_file("peers", repo / "envs") == repo / "envs" / "peers.yaml"
    assert declared.environment_file(str(tmp_path / "own.yml"), repo / "envs") == tmp_path / "own.yml"


# --------------------------------------------------------------------------------------------------- the file


def test_a_file_is_loaded_and_called_with_its_options(tmp_path):
    path = write(tmp_path, """
        from __future__ import annotations
        from dataclasses import dataclass

        @dataclass
        class Setting:  # looks its own module up
            k: int

        def annotate(a, genes, labels, batches, test, seed, *, k=1):
            return Setting(k).k, seed
    """)  # fmt: skip
    found = interface.load("annotation", "mine", path, {"k": 5})
    cost = interface.Cost()
    assert cost.of(found, 0, 0, 0, 0, 0, 7) == (5, 7)
    assert cost.calls == 1
    assert cost.seconds >= 0
    assert cost.peak_mb > 10


@pytest.mark.parametrize(
    ("code", "options", "said"),
    [
        (
            "from textwrap import dedent\ndef domain(sections, n, seed): pass",
            {},
            "no function 'domains' (there is domain)",
        ),
        ("def domains(sections, n_domains, seed, radius=1): pass", {"radios": 2}, "Did you mean 'radius'?"),
        ("import no_such_package", {}, "no module 'no_such_package'"),
        ("def domains(:", {}, "expected a Python file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, code, options, said):
    with pytest.raises(InputError) as error:
        interface.load("domains", "mine", write(tmp_path, code), options)
    assert said in str(error.value)


def test_a_package_that_lacks_when_the_method_runs_is_told_like_one_that_lacks_at_once(tmp_path):
    path = write(tmp_path, "def domains(sections, n_domains, seed, **more):\n    import no_such_package")
    with pytest.raises(InputError, match=r"submission mine \(domains\).*no_such_package.*environment"):
        interface.load("domains", "mine", path, {"any": 1})([], 2, 0)


# ------------------------------------------------------------------------------------------ what comes back


def section(name, n):
    names = np.arange(n).astype(str)
    return interface.Section(name, sp.csr_matrix((n, 3)), np.array(list("abc")), names, np.zeros((n, 2)), "st")


def test_labels_of_domains_become_numbers():
    found = interface.check_domains(
        [["x", "y", "y"], pd.Series(["y", "x"])], [section("A", 3), section("B", 2)], 2, "m"
    )
    assert found.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "expected a list of 2 arrays"),
        ([[0, 1, 1]], "found 1 entries"),
        ([[0, 1], [0, 1]], "section A: found labels of shape (2,); expected (3,)"),
        ([[0, 1, None], [0, np.nan]], "section B: found 1 points without a label"),
        ([[0, 1, 2], [0, 1]], "found 3 different labels; expected 2 at most"),
    ],
)
def test_labels_that_are_no_domains_are_refused(found, said):
    with pytest.raises(InputError) as error:
        interface.check_domains(found, [section("A", 3), section("B", 2)], 2, "m")
    assert said in str(error.value)


def test_shares_may_be_a_table_in_any_order_and_is_brought_to_a_sum_of_one():
    table = pd.DataFrame([[0.2, 0.3, 0.501], [1.0, 0, 0]], columns=["T cell", "B cell", "NK"])
    found = interface.check_shares(table, 2, TYPES, "m")
    assert np.allclose(found[0], np.array([0.3, 0.501, 0.2]) / 1.001)
    assert found.sum(axis=1) == pytest.approx([1, 1], abs=1e-15)
    assert np.allclose(interface.check_shares(sp.csr_matrix(found), 2, TYPES, "m"), found)


def test_rows_that_cannot_be_known_are_not_looked_at():
    values = np.array([[1.0, 0, 0], [np.nan, -5, 0]])
    found = interface.check_shares(values, 2, TYPES, "m", np.array([False, True]))
    assert found[0].tolist() == [1, 0, 0]
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (np.ones((2, 2)), "found an array of shape (2, 2); expected (2, 3)"),
        ([[1, 0, 0], [np.nan, 1, 0]], "found 1 rows with NaN or infinity (first: row 1)"),
        ([[1.5, -0.5, 0], [1, 0, 0]], "found 1 rows with negative values (first: row 0)"),
        ([[3, 1, 0], [1, 0, 0]], "found 1 rows that do not add up to 1 (row 0: 4)"),
        ([["a", "b", "c"]] * 2, "expected a table of numbers"),
        (pd.DataFrame(np.eye(3)[:2], columns=["B cells", "NK", "T cell"]), "Did you mean 'B cell'?"),
        (pd.DataFrame(np.eye(3)[:2], columns=["B cells", "NK", "T cell"]), "found no column 'B cell'"),
    ],
)
def test_shares_that_are_none_are_refused(found, said):
    with pytest.raises(InputError) as error:
        interface.check_shares(found, 2, TYPES, "m")
    assert said in str(error.value)


def test_labels_of_cells_come_with_probabilities_or_without():
    codes, shares = interface.check_annotation(["NK", "B cell"], 2, TYPES, "m")
    assert codes.tolist() == [1, 0]
    assert shares is None
    codes, shares = interface.check_annotation((["NK", "B cell"], np.eye(3)[:2]), 2, TYPES, "m")
    assert shares.tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (["NK"], "labels of shape (1,); expected (2,)"),
        (["NK", "B cels"], "found 'B cels'; expected a label of the training cells. Did you mean 'B cell'?"),
        (["NK", None], "found 'None'; expected a label of the training cells"),
        ((["NK", "NK"], np.ones((2, 3))), "m: probabilities: found 2 rows that do not add up to 1"),
    ],
)
def test_labels_that_are_no_types_are_refused(found, said):
    with pytest.raises(InputError) as error:
        interface.check_annotation(found, 2, TYPES, "m")
    assert said in str(error.value)


# --------------------------------------------------------------------------------------------------- domains

BANDS = """
    import numpy as np

    def domains(sections, n_domains, seed, *, jitter=0.0):
        assert not any(hasattr(one, "labels") for one in sections)
        rng = np.random.default_rng(seed)
        found = []
        for one in sections:
            height = one.xy[:, 1] + jitter * rng.standard_normal(len(one.xy))
            found.append(np.floor(n_domains * (height - height.min()) / (np.ptp(height) + 1)).astype(int))
        return found
"""


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tissue")
    paths = {name: folder / f"{name}.h5ad" for name in ("A", "B")}
    truth = {name: space_cases.write_section(path, name, seed) for seed, (name, path) in enumerate(paths.items())}
    return SimpleNamespace(paths=paths, truth=truth)


def test_domains_are_scored_by_section_and_seed(tmp_path, tissue):
    sections, truth, notes = domains.read_sections(tissue.paths)
    assert notes == []
    assert set(truth) == {"A", "B"}
    assert sections[0].counts.shape == (space_cases.SIDE**2, 120)
    assert sections[0].platform == "visium"
    path = write(tmp_path, BANDS)
    mine = interface.load("domains", "bands", path, {"jitter": 50.0})
    table = rows_of(domains.run(mine, sections, truth, 4, range(3, 6), "s", "genes (9)"))
    expected = {name: [] for name in truth}
    for seed in range(3, 6):
        for name, found in zip(truth, mine(sections, 4, seed), strict=True):
            expected[name].append(adjusted_rand_index(found, tissue.truth[name]))
    ari = table[table["metric"] == "ari"].set_index("sample")
    for name, values in expected.items():
        assert ari.loc[name, "value"] == pytest.approx(np.mean(values))
        assert ari.loc[name, "high"] == pytest.approx(np.mean(values) + 2 * np.std(values, ddof=1))
    assert 0.2 < ari.loc["all", "value"] < 0.95
    assert ari.loc["all", "value"] == pytest.approx(np.mean(list(expected.values())))
    assert (ari["stage"] == "space").all()
    assert (ari["panel"] == "genes (9)").all()
    assert re.fullmatch(
        r"submission; 4 domains; 3 seeds, SD 0\.\d+; given all 120 genes that the sections share", ari.loc["A", "note"]
    )
    costs = table.set_index("metric")
    assert costs.loc["peak_mb", "value"] > 10
    assert costs.loc["seconds", "n"] == 2 * space_cases.SIDE**2
    assert "3 seeds in all" in costs.loc["seconds", "note"]


def test_the_example_of_the_docs_runs_as_it_stands(repo, tmp_path, tissue):
    page = (repo / "docs" / "submit_a_method.md").read_text(encoding="utf-8")
    blocks = {kind: re.findall(rf"^```{kind}\n(.*?)^```", page, flags=re.M | re.S) for kind in ("python", "yaml")}
    for block in blocks["yaml"]:
        study = yaml.safe_load(block)
        schema = {"properties": {"submissions": submissions_schema()}, "additionalProperties": False}
        assert not config.check(study, schema).items
    line = yaml.safe_load(blocks["yaml"][0])["submissions"][0]
    path = write(tmp_path, blocks["python"][0])
    sections, truth, _ = domains.read_sections(tissue.paths)
    mine = interface.load(line["stage"], line["name"], path, line["options"])
    table = rows_of(domains.run(mine, sections, truth, 4, range(line["seeds"]), "s", ""))
    score = table[(table["metric"] == "ari") & (table["sample"] == "all")].iloc[0]
    assert score["value"] > 0.5
    assert score["low"] < score["value"]


def test_domains_without_expert_labels_leave_time_and_memory_alone(tmp_path):
    space_cases.write_section(tmp_path / "A.h5ad", "A", labelled=False)
    sections, truth, _ = domains.read_sections({"A": tmp_path / "A.h5ad"})
    assert truth == {}
    mine = interface.load("domains", "bands", write(tmp_path, BANDS), {})
    table = rows_of(domains.run(mine, sections, truth, 4, [0], "s", ""))
    assert sorted(table["metric"]) == ["peak_mb", "seconds"]
    assert set(table["sample"]) == {"A"}


# --------------------------------------------------------------------------------------------- deconvolution

OURS = """
    import numpy as np
    from histoweft.annotation.deconvolve import Options, deconvolve
    from histoweft.annotation.deconvolve_signature import learn_signature

    def proportions(counts, genes, reference_counts, reference_genes, reference_types, seed, *, method):
        assert list(genes) == list(reference_genes) and counts.shape[1] == len(genes)
        types, codes = np.unique(reference_types, return_inverse=True)
        signature = learn_signature(reference_counts, codes, len(types))
        found = deconvolve(counts, signature, Options(method, seed=seed)).values
        return np.nan_to_num(found, nan=1 / len(types))
"""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Inputs with a few spots so shallow that mixed ones may be empty."""
    folder = tmp_path_factory.mktemp("mixed")
    names = annotation_cases.draw_types({"alpha": 90, "beta": 80, "delta": 60}, seed=1)
    annotation_cases.write_h5ad(folder / "reference.h5ad", names, annotation_cases.counts_of(names, 1))
    spots = annotation_cases.counts_of(annotation_cases.draw_types({"alpha": 30, "beta": 30}, seed=2), 2)
    spots[:20] = np.random.default_rng(0).binomial(spots[:20], 0.003)
    annotation_cases.write_h5ad(folder / "spots.h5ad", ["x"] * len(spots), spots, platform="st")
    reading = {"min_genes": 50, "orthologs": "", "min_cells": 10, "cells_per_type": 1000}
    return read_inputs(folder / "reference.h5ad", folder / "spots.h5ad", "S", reading, 0)


def test_spots_and_scores_are_those_of_our_own_methods(tmp_path, mixed):
    """Least squares submitted from outside must repeat the floor's rows to the last digit."""
    assert isinstance(mixed, Inputs)
    assert len(mixed.genes) == mixed.spots.shape[1]
    options = {"method": "auto", "genes": 2000, "cell_sizes": True, "cells_per_spot": [], "missing_rate": 0.05}
    about = {"study": "s", "sample": "S", "platform": "st", "seed": 3}
    own = pd.DataFrame(deconvolve_sample.deconvolve_sample(mixed, options, **about).rows)
    path = write(tmp_path, OURS)
    for method, name in (("nnls", "floor:nnls"), ("poisson", "poisson")):
        mine = interface.load("deconvolution", "mine", path, {"method": method})
        table = rows_of(deconvolution.run(mine, mixed, options, **about)).set_index("metric")
        ours = own[own["method"] == name].set_index("metric")
        for metric in ("r2", "rmse", "pearson_spot", "pearson_type", "jensen_shannon"):
            assert table.loc[metric, ["value", "low", "high"]].tolist() == pytest.approx(
                ours.loc[metric, ["value", "low", "high"]].tolist(), abs=1e-12, nan_ok=True
            ), (method, metric)
        assert table.loc["rmse", ["n", "panel", "task", "protocol"]].tolist() == (
            ours.loc["rmse", ["n", "panel", "task", "protocol"]].tolist()
        )
        assert table.loc["seconds", "value"] > 0
    assert table.loc["rmse_gain", "value"] == pytest.approx(ours.loc["rmse_gain", "value"])


def test_a_submission_may_not_leave_hard_spots_out(tmp_path, mixed):
    code = OURS.replace("return np.nan_to_num(found, nan=1 / len(types))", "found[:9] = np.nan\n        return found")
    mine = interface.load("deconvolution", "mine", write(tmp_path, code), {"method": "nnls"})
    options = {"method": "auto", "genes": 2000, "cell_sizes": True, "cells_per_spot": [], "missing_rate": 0.05}
    with pytest.raises(InputError, match=r"mixed spots of S: found \d+ rows with NaN"):
        deconvolution.run(mine, mixed, options, study="s", sample="S", platform="st", seed=3)


# ------------------------------------------------------------------------------------------------ annotation

COMMONEST = """
    import numpy as np

    def annotate(train_counts, genes, labels, batches, test_counts, seed, *, probabilities=True):
        assert batches is not None and len(batches) == len(labels) == train_counts.shape[0]
        names, sizes = np.unique(labels, return_counts=True)
        n = test_counts.shape[0]
        said = np.repeat(names[sizes.argmax()], n)
        return (said, np.tile(sizes / sizes.sum(), (n, 1))) if probabilities else said
"""

CENTROID = """
    import numpy as np

    def annotate(train_counts, genes, labels, batches, test_counts, seed):
        def scaled(counts):
            dense = np.sqrt(counts.toarray() / np.maximum(counts.sum(axis=1), 1).reshape(-1, 1))
            return np.asarray(dense)
        names = np.unique(labels)
        train, test = scaled(train_counts), scaled(test_counts)
        means = np.array([train[labels == name].mean(axis=0) for name in names])
        return names[((test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)]
"""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A reference of three donors, and what our logistic regression says of its held-out cells."""
    folder = tmp_path_factory.mktemp("labelled")
    names = annotation_cases.draw_types({"alpha": 90, "beta": 70, "delta": 50}, seed=4)
    path = annotation_cases.write_h5ad(
        folder / "reference.h5ad", names, annotation_cases.counts_of(names, 4),
        batch=pd.Categorical([f"D{i % 3}" for i in range(len(names))]),
    )  # fmt: skip
    options = annotation_cases.options(min_genes=50, min_cells=10)
    genes = fitting.shared_genes(path, {"S": path}, options)
    cells = fitting.load_reference(path, genes, options, 0)
    plan = folds.plan_folds(cells.codes, cells.groups, 3, 0)
    found = evaluate.out_of_fold(cells, plan, "logistic", 100, 10, Options(seed=0))
    held = heldout.collect(cells, plan, "logistic", found, {}, pd.DataFrame())
    counts, batches = annotation.read_cells(path, genes.reference, held)
    return SimpleNamespace(path=path, genes=genes, held=held, counts=counts, batches=batches, cells=cells)


def annotate(labelled, path, **options):
    mine = interface.load("annotation", "mine", path, options)
    names = labelled.genes.names
    about = {"study": "s", "alpha": 0.1, "seed": 5}
    return rows_of(annotation.run(mine, labelled.counts, names, labelled.batches, labelled.held, **about))


def test_cells_are_those_of_our_own_models(labelled):
    from histoweft.normalise import normalise

    expected = normalise(labelled.counts.astype(np.float32), 10_000)
    assert abs(expected - labelled.cells.expression).max() < 1e-5
    assert labelled.batches.tolist() == labelled.cells.groups.tolist()


def test_the_cells_may_stand_in_another_order(labelled):
    from dataclasses import replace

    order = np.random.default_rng(0).permutation(len(labelled.held.codes))[:50]
    some = replace(labelled.held, barcodes=labelled.held.barcodes[order], codes=labelled.held.codes[order])
    counts, batches = annotation.read_cells(labelled.path, labelled.genes.reference, some)
    assert (counts != labelled.counts[order]).nnz == 0
    assert batches.tolist() == labelled.batches[order].tolist()
    gone = replace(some, barcodes=np.array(["gone", *some.barcodes[1:]]))
    with pytest.raises(InputError, match="no cell 'gone'"):
        annotation.read_cells(labelled.path, labelled.genes.reference, gone)


def test_folds_and_scores_are_those_of_our_own_models(tmp_path, labelled):
    """The commonest type, submitted from outside, must repeat the floor's scores: same folds, same bootstrap."""
    table = annotate(labelled, write(tmp_path, COMMONEST)).set_index("metric")
    floor = score.score(score.judge(score.majority(labelled.held), 0.1), 5)
    for metric in ("accuracy", "macro_f1", "ece", "coverage", "set_size"):
        assert table.loc[metric, "value"] == pytest.approx(floor.values[metric], abs=1e-4), metric
    assert table.loc["accuracy", ["low", "high"]].tolist() == pytest.approx(floor.interval("accuracy"))
    assert table.loc["accuracy", "protocol"] == "patient" == labelled.held.protocol
    assert "held out: whole batches (3)" in table.loc["accuracy", "note"]
    gain = table.loc["macro_f1_gain"]
    assert gain["value"] < 0
    assert "over logistic, same cells" in gain["note"]
    assert "3 folds in all" in table.loc["seconds", "note"]


def test_predictions_are_compared_with_the_truth(tmp_path, labelled):
    table = annotate(labelled, write(tmp_path, CENTROID)).set_index("metric")
    mine = interface.load("annotation", "mine", tmp_path / "method.py", {})
    right = []
    for donor in ("D0", "D1", "D2"):
        out = labelled.batches == donor
        names = np.array(labelled.held.types)[labelled.held.codes]
        said = mine(labelled.counts[~out], None, names[~out], None, labelled.counts[out], 0)
        right += (said == names[out]).tolist()
    assert 0.6 < np.mean(right) <= 1
    assert table.loc["accuracy", "value"] == pytest.approx(np.mean(right))


def test_without_probabilities_nothing_is_said_of_calibration(tmp_path, labelled):
    table = annotate(labelled, write(tmp_path, COMMONEST), probabilities=False)
    assert {"accuracy", "macro_f1", "recall", "macro_f1_gain"} <= set(table["metric"])
    assert not {"ece", "coverage", "set_size"} & set(table["metric"])


def test_types_that_a_fold_lacks_have_no_probability(tmp_path, labelled):
    from dataclasses import replace

    only = (labelled.batches == "D0") & (labelled.held.codes == 2)
    codes = np.where(only | (labelled.held.codes != 2), labelled.held.codes, 0)
    held = replace(labelled.held, codes=codes)
    mine = interface.load("annotation", "mine", write(tmp_path, COMMONEST), {})
    cost = interface.Cost()
    _, shares = annotation.predict(mine, labelled.counts, labelled.genes.names, labelled.batches, held, 0, cost)
    lacking = labelled.batches == "D0"
    assert (shares[lacking, 2] == 0).all()
    assert (shares[~lacking, 2] > 0).all()
    assert np.allclose(shares.sum(axis=1), 1)
    assert cost.calls == 3
