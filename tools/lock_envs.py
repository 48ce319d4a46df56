"""Renew every environment's hashed pins and its conda file from envs/*.in.

One resolution for all (all.in) constrains the parts, so that a package has one version wherever it is used. The lock
files hold pins and hashes for every platform and no download address; the conda files hold the pins alone, because
conda hands its `pip:` list to pip without hashes.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ENVS = Path(__file__).resolve().parents[1] / "envs"
PYTHON = "3.11"
ALONE = ("peers",)
"""Environments of benchmarks, whose packages ask for other versions than the workflow's."""
PIN = re.compile(r"^(?P<pin>[A-Za-z0-9_.-]+(?:\[[^\]]+\])?==[^\s;]+)\s*(?:;\s*(?P<marker>[^\\]+?))?\s*\\?$")


def compile_lock(source: Path, *options: str) -> Path:
    """Resolve one requirements file into hashed pins for all platforms."""
    lock = source.with_suffix(".lock.txt")
    uv = shutil.which("uv") or str(ENVS.parent / ".tools" / "bin" / "uv")
    command = [uv, "pip", "compile", "--quiet", "--no-config", "--universal", "--generate-hashes", "--no-annotate"]
    command += ["--no-header", "--python-version", PYTHON, "--fork-strategy", "fewest", *options]
    subprocess.run([*command, source.name, "-o", lock.name], cwd=ENVS, check=True, stdout=subprocess.DEVNULL)
    return lock


def pins(lock: Path) -> list[str]:
    """Return the requirement lines of a lock file, markers kept, hashes left out."""
    found = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        match = PIN.match(line)
        if match:
            marker = f" ; {match['marker'].strip()}" if match["marker"] else ""
            found.append(match["pin"] + marker)
    return found


def render_conda(lock: Path) -> str:
    """Return the conda environment of a lock file."""
    name = lock.name.removesuffix(".lock.txt")
    head = [
        f"# Made from {lock.name} by ./histoweft lock; edit {name}.in instead.",
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        f"  - python={PYTHON}",
        "  - pip",
        "  - pip:",
    ]
    return "\n".join([*head, *(f'      - "{pin}"' for pin in pins(lock)), ""])


def main() -> int:
    """Lock the whole, then its parts under the whole's pins."""
    compile_lock(ENVS / "uv.in")
    whole = compile_lock(ENVS / "all.in")
    for source in sorted(ENVS.glob("*.in")):
        if source.stem in ("all", "uv"):
            continue
        lock = compile_lock(source, *([] if source.stem in ALONE else ["--constraint", whole.name]))
        source.with_suffix(".yaml").write_text(render_conda(lock), encoding="utf-8")
        print(f"{source.stem}: {len(pins(lock))} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
