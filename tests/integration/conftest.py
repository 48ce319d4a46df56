"""A finished demo run shared by the tests."""

import pytest
from checkouts import Checkout


@pytest.fixture(scope="session")
def demo(repo, tmp_path_factory):
    """Return a checkout in which the demo has run once."""
    made = Checkout(repo, tmp_path_factory.mktemp("demo"))
    _, made.log = made.run()
    return made
