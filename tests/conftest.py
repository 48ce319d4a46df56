"""Fixtures every test shares."""

import os
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "workflow" / "lib"))


@pytest.fixture(scope="session")
def repo() -> Path:
    """Return the root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data sets; skip where a machine has none."""
    folder = Path(os.environ.get("HISTOWEFT_TEST_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data here (set HISTOWEFT_TEST_DATA)")
    return folder


@pytest.fixture
def checkout(repo, tmp_path):
    """Return an empty checkout to run in."""
    from checkouts import Checkout

    return Checkout(repo, tmp_path)
