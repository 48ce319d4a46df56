"""The schema, its defaults, its messages and its documentation."""

import pytest

from histoweft import config


@pytest.fixture(scope="module")
def schema():
    return config.load_schema("config")


def messages(faults):
    return [str(fault) for fault in faults.items]


def test_defaults_reach_every_depth(schema):
    done = config.complete({"study": "s", "samples": "s.tsv"}, schema)
    assert done["expression"]["qc"]["min_genes"] == 200
    assert done["expression"]["qc"]["max_counts"] == 30000
    assert done["integration"]["methods"] == ["none", "harmony"]


def test_given_values_stay_and_the_input_is_not_changed(schema):
    given = {"study": "s", "samples": "s.tsv", "expression": {"qc": {"min_genes": 7}}}
    done = config.complete(given, schema)
    assert done["expression"]["qc"]["min_genes"] == 7
    assert done["expression"]["qc"]["min_spots"] == 3
    assert given == {"study": "s", "samples": "s.tsv", "expression": {"qc": {"min_genes": 7}}}


def test_a_switch_may_be_text_as_the_command_line_gives_it(schema):
    done = config.complete({"study": "s", "samples": "s.tsv", "require_gpu": "true"}, schema)
    assert done["require_gpu"] is True
    assert not config.check(done, schema)


def test_every_default_is_valid(schema):
    assert not config.check(config.complete({"study": "s", "samples": "s.tsv"}, schema), schema)


def test_every_option_is_described(schema):
    def walk(part, name):
        for key, child in part.get("properties", {}).items():
            assert child.get("description"), f"{name}{key} has no description"
            if "properties" in child:
                assert child["additionalProperties"] is False, f"{name}{key} lets unknown options through"
                walk(child, f"{name}{key}.")

    walk(schema, "")


def test_faults_come_together_with_the_option_the_value_and_the_nearest_word(schema):
    given = {
        "study": "bad name/",
        "sed": 1,
        "expression": {
            "qc": {"min_gene": 5, "max_pct_mito": 250},
            "features": {"flavour": "seurat3"},
            "resolutions": [],
        },
        "integration": {"methods": ["harmny", "none"]},
    }
    found = messages(config.check(config.complete(given, schema), schema, "my.yaml"))
    for expected in (
        'my.yaml: study: found "bad name/"',
        "my.yaml: sed: found an unknown option; expected one that config/README.md lists. Did you mean 'seed'?",
        "my.yaml: expression.qc.min_gene: found an unknown option",
        "Did you mean 'min_genes'?",
        "my.yaml: expression.qc.max_pct_mito: found 250; expected 100 or less",
        'my.yaml: expression.features.flavour: found "seurat3"; expected one of seurat, seurat_v3, pearson.',
        "Did you mean 'seurat'?",
        "my.yaml: expression.resolutions: found []; expected at least 1 entries",
        'my.yaml: integration.methods[0]: found "harmny"; expected one of none, harmony, scvi.',
        "Did you mean 'harmony'?",
    ):
        assert any(expected in message for message in found), f"{expected!r} not among {found}"
    assert len(found) == 7


def test_a_quoted_number_is_explained(schema):
    given = {"study": "s", "samples": "s.tsv", "expression": {"qc": {"min_genes": "200"}}}
    (message,) = messages(config.check(config.complete(given, schema), schema))
    assert 'found "200"; expected a whole number. Take the quotes away.' in message


def test_the_floor_of_integration_cannot_be_taken_out(schema):
    given = {"study": "s", "samples": "s.tsv", "integration": {"methods": ["harmony"]}}
    (message,) = messages(config.check(config.complete(given, schema), schema))
    assert 'a list with "none" in it' in message


def test_the_option_page_is_the_schema(repo, schema):
    rendered = config.markdown(schema, config.load_schema("samples"))
    committed = (repo / "config" / "README.md").read_text(encoding="utf-8")
    assert rendered == committed, "run ./histoweft docs"
