"""Fit resources/costs.tsv, which preflight reads, to the benchmark files of finished studies.

    python tools/fit_costs.py --machine "2 cores, 24 GB" [--keep] FOLDER:STUDY [FOLDER:STUDY ...]

FOLDER is where Snakemake ran (with benchmarks/ and results/), STUDY the study's name; a study that is named twice
counts twice. Jobs whose results were deleted since cannot be sized and count as having read nothing. With --keep, rules
that these studies did not run, or only at smaller sizes, keep the lines they have.
"""

import argparse
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "workflow" / "lib"))


def main(arguments: list[str]) -> None:
    """Read the studies, fit, write the table and say how well it fits."""
    from histoweft.report import costs

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", required=True, help="what the table says it was measured on")
    parser.add_argument("--out", type=Path, default=REPO / "resources" / "costs.tsv")
    parser.add_argument("--keep", action="store_true", help="lines of rules not measured now, or only smaller")
    parser.add_argument("studies", nargs="+", metavar="FOLDER:STUDY")
    given = parser.parse_args(arguments)
    jobs = []
    for one in given.studies:
        folder, _, study = one.rpartition(":")
        found = costs.read_benchmarks(folder or ".", study)
        print(f"{one}: {len(found)} measurements")
        jobs += found
    fitted = costs.fit_costs(jobs)
    if given.keep:
        fitted = costs.merged(costs.read_costs(given.out), fitted)
    costs.write_costs(fitted, given.out, given.machine)
    for cost in fitted:
        print(
            f"{cost.rule:32} {cost.unit:10} {cost.jobs:4} jobs  {cost.memory.base:6.0f} + {cost.memory.k:8.4g} x^"
            f"{cost.memory.exponent:<4} MB  {cost.time.base:6.1f} + {cost.time.k:8.4g} x^{cost.time.exponent:<4} s  "
            f"error {cost.memory.error:.0%}, {cost.time.error:.0%}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
