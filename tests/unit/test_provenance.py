"""The library hash sees what a script reaches, and nothing else."""

import shutil

import pytest

from histoweft import provenance


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Return a small library with two stages that share a ground floor."""
    root = tmp_path / "histoweft"
    for name, text in {
        "__init__.py": "",
        "ground.py": "x = 1\n",
        "left/__init__.py": "",
        "left/deep.py": "def f():\n    from histoweft.ground import x\n    return x\n",
        "right/__init__.py": "",
        "right/other.py": "import json\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(provenance, "LIBRARY", root)
    script = tmp_path / "script.py"
    script.write_text("def main():\n    from histoweft.left import deep\n    return deep.f()\n")

    def digest():
        provenance._imports.cache_clear()
        provenance.library_hash.cache_clear()
        return provenance.library_hash(script)

    return root, script, digest


def test_modules_are_found_through_modules_and_inside_functions(library):
    root, script, _ = library
    provenance._imports.cache_clear()
    found = {path.relative_to(root).as_posix() for path in provenance.library_files(script)}
    assert found == {"__init__.py", "left/__init__.py", "left/deep.py", "ground.py"}


@pytest.mark.parametrize("name", ["ground.py", "left/deep.py", "left/__init__.py"])
def test_an_edit_in_reach_changes_the_hash(library, name):
    root, _, digest = library
    before = digest()
    (root / name).write_text((root / name).read_text() + "\ny = 2\n")
    assert digest() != before


def test_an_edit_out_of_reach_does_not(library):
    root, _, digest = library
    before = digest()
    (root / "right" / "other.py").write_text("import csv\n")
    shutil.rmtree(root / "right")
    assert digest() == before


def test_every_script_reaches_the_job_module(repo):
    for script in (repo / "workflow" / "scripts").glob("*/*.py"):
        names = {path.name for path in provenance.library_files(script)}
        assert "job.py" in names, f"{script} does not run through histoweft.job"


def test_versions_leave_out_what_is_absent():
    found = provenance.versions(["numpy", "no-such-package"])
    assert list(found) == ["numpy"]
