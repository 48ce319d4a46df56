"""Formatting and linting stay clean."""

import subprocess
import sys

import pytest

CHECKS = {
    "ruff": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "snakefmt": ["snakefmt", "--line-length", "120", "--check", "Snakefile", "workflow/rules"],
    "snakemake --lint": ["snakemake", "--lint"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_clean(repo, name):
    module, *arguments = CHECKS[name]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=repo, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
