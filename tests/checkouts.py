"""A copy of the checkout to run in."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

PARTS = ("Snakefile", "workflow", "config", "envs", "profiles", "resources", "tools")


class Checkout:
    """A copy of the project with a `snakemake` of its own."""

    def __init__(self, repo: Path, root: Path, snakemake=(sys.executable, "-m", "snakemake"), environment=None):
        self.root, self.snakemake, self.environment = root, list(snakemake), environment
        for part in PARTS:
            source = repo / part
            ignore = shutil.ignore_patterns("__pycache__", "data")
            if source.is_dir():
                shutil.copytree(source, root / part, ignore=ignore, symlinks=True)
            else:
                shutil.copy2(source, root / part)

    def command(self, *arguments):
        return [*self.snakemake, "--cores", "2", *map(str, arguments)]

    def run(self, *arguments, check=True):
        done = subprocess.run(
            self.command(*arguments), cwd=self.root, env=self.environment, capture_output=True, text=True, check=False,
            timeout=3600,
        )  # fmt: skip
        text = done.stdout + done.stderr
        if check:
            assert done.returncode == 0, text[-6000:]
        return done.returncode, text

    def planned(self, *arguments):
        """Return the rules that a dry run would execute, and how often."""
        _, text = self.run("-n", *arguments)
        table = re.search(r"^job +count\n-[- ]+\n(.*?)^total", text, flags=re.M | re.S)
        jobs = dict(line.split() for line in table[1].splitlines()) if table else {}
        return {rule: int(count) for rule, count in jobs.items() if rule != "all"}

    def configure(self, name, text):
        """Write a config file and return its path."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path
