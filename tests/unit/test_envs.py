"""The three files of every environment say the same."""

import ast
import importlib.util
import re
import sys
from importlib.metadata import packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from histoweft import provenance


@pytest.fixture(scope="module")
def locking(repo):
    spec = importlib.util.spec_from_file_location("lock_envs", repo / "tools" / "lock_envs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environments(repo):
    return sorted(path.stem for path in (repo / "envs").glob("*.in") if path.stem not in ("all", "uv"))


def versions(locking, lock):
    found = {}
    for pin in locking.pins(lock):
        requirement = Requirement(pin)
        found.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    return found


def test_every_environment_is_a_trio(repo):
    for name in environments(repo):
        assert (repo / "envs" / f"{name}.lock.txt").is_file(), f"{name} is not locked: ./histoweft lock"
        assert (repo / "envs" / f"{name}.yaml").is_file(), f"{name} has no conda file: ./histoweft lock"


def test_conda_files_are_rendered_from_the_pins(repo, locking):
    for name in environments(repo):
        lock = repo / "envs" / f"{name}.lock.txt"
        assert (repo / "envs" / f"{name}.yaml").read_text() == locking.render_conda(lock), f"./histoweft lock ({name})"


def test_every_requirement_is_pinned_within_its_bounds(repo, locking):
    for name in [*environments(repo), "uv"]:
        pinned = versions(locking, repo / "envs" / f"{name}.lock.txt")
        for line in (repo / "envs" / f"{name}.in").read_text().splitlines():
            line = line.split("#")[0].strip()
            if not line:
                continue
            wanted = Requirement(line)
            found = pinned.get(canonicalize_name(wanted.name))
            assert found, f"{name}: {line} is not in the lock file; ./histoweft lock"
            for pin in found:
                assert wanted.specifier.contains(pin.removeprefix("==")), f"{name}: {line} but {pin} is locked"


def test_one_version_of_each_package_everywhere(repo, locking):
    whole = versions(locking, repo / "envs" / "all.lock.txt")
    assert all(len(pins) == 1 for pins in whole.values()), "several versions of one package"
    for name in set(environments(repo)) - set(locking.ALONE):
        for package, pins in versions(locking, repo / "envs" / f"{name}.lock.txt").items():
            assert pins <= whole[package], f"{name} has {package}{pins}, all has {whole[package]}"


def test_every_pin_has_a_hash_and_no_address(repo):
    for lock in (repo / "envs").glob("*.lock.txt"):
        text = lock.read_text()
        assert "://" not in text, f"{lock.name} names a download address"
        for block in re.split(r"\n(?=\S)", text.strip()):
            assert "--hash=sha256:" in block, f"{lock.name}: {block.splitlines()[0]}"


def test_conda_files_name_an_interpreter_and_pip(repo):
    for name in environments(repo):
        environment = yaml.safe_load((repo / "envs" / f"{name}.yaml").read_text())
        assert environment["dependencies"][:2] == ["python=3.11", "pip"]


def third_party(paths):
    """Return the packages that source files import, by the name they are installed under."""
    names = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    installed = packages_distributions()
    names -= {*sys.stdlib_module_names, "histoweft"}
    assert names <= set(installed), f"not installed: {names - set(installed)}"
    return {name: {canonicalize_name(package) for package in installed[name]} for name in names}


def test_every_script_finds_its_imports_in_its_environment(repo, locking):
    """Snakemake lets a script fall back on its own packages, so a missing one would go unseen until elsewhere."""
    rules = "\n".join(path.read_text() for path in (repo / "workflow" / "rules").glob("*.smk"))
    pairs = re.findall(r'env\("(\w+)"\)(?:(?!\nrule ).)*?\.\./scripts/([\w/]+)\.py', rules, flags=re.S)
    environments_of = {script: environment for environment, script in pairs}
    assert len(environments_of) > 15
    missing = []
    for script, environment in environments_of.items():
        path = repo / "workflow" / "scripts" / f"{script}.py"
        pinned = set(versions(locking, repo / "envs" / f"{environment}.lock.txt"))
        for name, packages in third_party([path, *provenance.library_files(path)]).items():
            # The job module asks torch for a device when a training rule wants one; the others never get there.
            if not packages & pinned and not (name == "torch" and environment != "integration"):
                missing.append(f"{script} imports {name}, which envs/{environment}.in does not bring")
    assert not missing, "\n".join(missing)
