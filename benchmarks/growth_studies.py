"""Studies that differ in one size alone: genes of a section, sections of a study.

    python benchmarks/growth_studies.py <counts.h5ad of a section with coordinates> <folder>

writes three studies for each, and prints the commands that run them and put the costs into docs/benchmarks/scaling.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "lib"))

import numpy as np
import yaml

from histoweft.io import CountsFile, CsrWriter

SHARES = (16, 4, 1)
SECTIONS = (2, 4, 8)
SPOTS = 600


def cut(source: Path, share: int, path: Path) -> int:
    """Write every `share`-th gene of a section; return how many there are."""
    with CountsFile(source) as counts:
        columns = np.arange(0, len(counts.var()), share)
        cells, obs, var, xy = (
            counts.matrix()[:, columns],
            counts.obs(),
            counts.var().iloc[columns],
            counts.obsm("spatial"),
        )
    with CsrWriter(path, len(columns), np.int32) as writer:
        writer.append(cells.astype(np.int32))
        writer.finish(obs[[]], var, obsm={"spatial": xy})
    return len(columns)


def main() -> int:
    """Write the studies and say how to run them."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    source, folder = (Path(argument).resolve() for argument in sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    series = {"genes": [], "sections": []}
    for share in SHARES:
        genes = cut(source, share, folder / f"genes{share}.h5ad")
        config = {"expression": {"qc": {"min_genes": 5, "min_counts": 10}}}
        rows = [f"section\tA\th5ad\t{folder / f'genes{share}.h5ad'}\tnone"]
        series["genes"].append((f"genes{share}", rows, config, genes / 1e3))
    for number in SECTIONS:
        name = f"sections{number}"
        made = f"results/{name}/simulated"
        rows = [
            f"S{at}\tP{at // 2}\tvisium\t{made}/P{1 + at % 2}_{('pre', 'post')[at // 2 % 2]}\tnone"
            for at in range(number)
        ]
        series["sections"].append((name, rows, {"simulate": {"spots": SPOTS}}, number))
    for kind, studies in series.items():
        runs = []
        for name, rows, config, size in studies:
            sheet, path = folder / f"{name}.tsv", folder / f"{name}.yaml"
            sheet.write_text("\n".join(["sample\tpatient\tplatform\tpath\timage", *rows]) + "\n", encoding="utf-8")
            path.write_text(yaml.safe_dump({"study": name, "samples": str(sheet), **config}), encoding="utf-8")
            print(f"snakemake --cores 1 --benchmark-extended --directory {folder} --configfile {path}")
            runs.append(f"{folder}:{name}@{size:g}")
        print(f"python tools/scaling.py table {kind} {' '.join(runs)}")
    print("python tools/scaling.py page")
    return 0


if __name__ == "__main__":
    sys.exit(main())
