"""A method submitted by one file and one line of the config stands in the study's table beside ours."""

import textwrap

import pandas as pd

METHODS = {
    "bands.py": """
        import numpy as np

        def domains(sections, n_domains, seed):
            ranks = [one.xy[:, 1].argsort().argsort() for one in sections]
            return [np.floor(n_domains * rank / len(rank)) for rank in ranks]
        """,
    "even.py": """
        import numpy as np

        def proportions(counts, genes, reference_counts, reference_genes, reference_types, seed):
            types = np.unique(reference_types)
            return np.full((counts.shape[0], len(types)), 1 / len(types))
        """,
    "first.py": """
        import numpy as np

        def annotate(train_counts, genes, labels, batches, test_counts, seed, position=0):
            return np.repeat(np.unique(labels)[position], test_counts.shape[0])
        """,
}

STUDY = """
study: bench
samples: bench.tsv
simulate: {spots: 300}
annotation: {reference: results/bench/simulated/reference/reference.h5ad, labels: cell_type, batch: donor}
submissions:
  - {stage: domains, name: bands, file: methods/bands.py}
  - {stage: deconvolution, name: even, file: methods/even.py}
  - {stage: annotation, name: first, file: methods/first.py, options: {position: 1}}
"""


def test_submissions_of_every_stage_are_scored_beside_ours(checkout):
    for name, code in METHODS.items():
        checkout.configure(f"methods/{name}", textwrap.dedent(code))
    folder = "results/bench/simulated/P1_pre"
    sheet = f"sample\tpatient\tplatform\tpath\tlabels\nP1_pre\tP1\tvisium\t{folder}\t{folder}/labels.tsv\n"
    checkout.configure("bench.tsv", sheet)
    config = checkout.configure("bench.yaml", STUDY)
    submitted = {"domains": "bands", "deconvolution": "even", "annotation": "first"}
    targets = [f"results/bench/submissions/{stage}/{name}/metrics.tsv" for stage, name in submitted.items()]
    checkout.run("--configfile", config, "--", *targets, "results/bench/annotation/deconvolution/metrics.tsv")
    found = {
        stage: pd.read_csv(checkout.root / path, sep="\t").drop_duplicates("metric").set_index("metric")
        for stage, path in zip(submitted, targets, strict=True)
    }
    for stage, table in found.items():
        assert set(table["method"]) == {submitted[stage]}
        assert table["note"].str.startswith("submission; ").all()
        assert {"seconds", "peak_mb"} <= set(table.index)
    assert -0.2 < found["domains"].loc["ari", "value"] < 1
    assert 0 < found["annotation"].loc["accuracy", "value"] < 0.6
    ours = pd.read_csv(checkout.root / "results/bench/annotation/deconvolution/metrics.tsv", sep="\t")
    floor = ours[(ours["method"] == "floor:nnls") & (ours["metric"] == "rmse")].iloc[0]
    assert found["deconvolution"].loc["rmse", "value"] > floor["value"]
    assert found["deconvolution"].loc["rmse", "n"] == floor["n"]
    assert found["deconvolution"].loc["rmse", "panel"] == floor["panel"]
    # All of them belong to the study's table.
    for path in targets:
        (checkout.root / path).unlink()
    planned = checkout.planned("--configfile", config, "--", "results/bench/metrics.tsv")
    assert {rule for rule in planned if rule.startswith("submit_")} == {f"submit_{stage}" for stage in submitted}


def test_a_submission_that_cannot_run_is_refused_before_a_job(checkout):
    checkout.configure("methods/bands.py", "")
    config = checkout.configure("bench.yaml", """
study: bench
samples: config/samples.tsv
submissions:
  - {stage: domains, name: leiden, file: methods/bands.py}
  - {stage: domains, name: bands, file: methods/band.py, environment: peer}
""")  # fmt: skip
    code, text = checkout.run("-n", "--configfile", config, check=False)
    assert code != 0
    assert "submissions[0].name: found 'leiden'" in text
    assert "submissions[1].file: found methods/band.py, which does not exist" in text
    assert "submissions[1].environment: found 'peer'" in text
    config = checkout.configure("bench.yaml", """
study: bench
samples: bench.tsv
submissions:
  - {stage: annotation, name: bands, file: methods/bands.py}
""")  # fmt: skip
    folder = "results/bench/simulated/P1_pre"
    checkout.configure("bench.tsv", f"sample\tplatform\tpath\nP1_pre\tvisium\t{folder}\n")
    code, text = checkout.run("-n", "--configfile", config, check=False)
    assert code != 0
    assert "submissions[0].stage: found annotation in a study without an annotated sample" in text
