"""A finished demo run shared by the tests."""

import os
import shutil
import subprocess
import sys

import pytest
from checkouts import Checkout


def find_uv(repo):
    """Return uv, the user's or the one that ./histoweft brings."""
    own = repo / ".tools" / "bin" / "uv"
    return shutil.which("uv") or (str(own) if own.is_file() else None)


@pytest.fixture(scope="session")
def conda(repo, tmp_path_factory):
    """Return a way of running with one environment a step, on a host that has Snakemake alone; None without uv.

    Nothing but the rule's own environment can then give a script its packages. The stand-in builds environments from
    the conda files as they are.
    """
    uv = find_uv(repo)
    if uv is None:
        return None
    host = tmp_path_factory.mktemp("host") / "venv"
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment["HISTOWEFT_UV"] = uv
    base = [uv, "--quiet", "--no-config"]
    subprocess.run([*base, "venv", "--python", sys.executable, host], env=environment, check=True)
    lock = repo / "envs" / "host.lock.txt"
    python = host / "bin" / "python"
    subprocess.run([*base, "pip", "sync", "--require-hashes", "--python", python, lock], env=environment, check=True)
    stand_in = repo / "tests" / "conda" / "bin"
    environment["PATH"] = f"{host / 'bin'}:{stand_in}:{environment['PATH']}"
    return [str(python), "-m", "snakemake", "--use-conda"], environment


@pytest.fixture(scope="session")
def demo(repo, conda, tmp_path_factory):
    """Return a checkout in which the demo has run once, every rule in its own environment where that is possible."""
    made = Checkout(repo, tmp_path_factory.mktemp("demo"), *(conda or ()))
    _, made.log = made.run()
    return made
