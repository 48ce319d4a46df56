"""Run the studies of config/studies/benchmark.tsv on real data and renew docs/benchmarks/ from their scores.

./histoweft benchmark --data-root FOLDER [--studies a,b] [--cores N] [--use-conda]
./histoweft benchmark --render          only the pages, from the committed table

A study whose data are not below the folder is left out, one that fails is named, and the others go on. What was
finished before is not run again. Studies that are not run keep the scores they had. With --use-conda each step runs in
its own environment, and the published methods of a study's peers.yaml run beside ours.
"""

import argparse
import datetime
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "workflow" / "lib"))

STUDIES = REPO / "config" / "studies" / "benchmark.tsv"
DOCS = REPO / "docs" / "benchmarks"
PACKAGES = ["snakemake", "numpy", "scipy", "scikit-learn", "torch", "anndata", "leidenalg", "harmonypy"]


def run(study, data_root, cores, conda):
    """Run one study up to its scores; return whether it finished."""
    target = f"results/{study.name}/metrics.tsv"
    if study.prepare:
        data_root = prepared(study, data_root)
    if data_root is None:
        return False
    if study.program:
        command = [sys.executable, str(study.program), str(data_root), target]
    else:
        command = [sys.executable, str(REPO / "tools" / "launch.py"), "--snakefile", str(REPO / "Snakefile")]
        configs = [*study.configs, *([study.peers] if conda and study.peers else [])]
        command += ["--cores", str(cores), *(["--use-conda"] if conda else []), "--configfile", *map(str, configs)]
        command += ["--config", f"data_root={data_root}", "--", target]
    return subprocess.run(command, cwd=REPO, check=False).returncode == 0


def prepared(study, data_root):
    """Return the folder of the inputs that a study makes itself, which are made once; None where that failed."""
    made = REPO / "results" / study.name / "inputs"
    draft = made.with_name("inputs.part")
    if not made.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
        if subprocess.run([sys.executable, study.prepare, data_root, draft], cwd=REPO, check=False).returncode:
            return None
        draft.rename(made)
    return made


def commit():
    """Return the commit that ran, with a mark where files differ from it; empty outside of a repository."""
    changes = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/benchmarks"]
    asked = [["git", "rev-parse", "--short", "HEAD"], changes]
    told = [subprocess.run(one, cwd=REPO, capture_output=True, text=True, check=False) for one in asked]
    changed = " and changes" if told[1].stdout.strip() else ""
    return f"{told[0].stdout.strip()}{changed}" if told[0].returncode == 0 else ""


def record(study):
    """Return the line of about.tsv on a study that has just run."""
    from histoweft.provenance import versions
    from histoweft.report import evidence

    return {
        "study": study.name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": " ".join(f"{name} {version}" for name, version in versions(PACKAGES).items()),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **({} if study.program else evidence.cost(REPO / "benchmarks" / study.name)),
        "command": f"./histoweft benchmark --studies {study.name}",
    }


def update(study):
    """Put the scores of a study that finished into the committed table, and say what changed."""
    import pandas as pd

    from histoweft.metrics import read_metrics, write_metrics
    from histoweft.report import evidence

    table, about = DOCS / "metrics.tsv", DOCS / "about.tsv"
    old = read_metrics(table) if table.is_file() else None
    new = evidence.joined(old, read_metrics(REPO / "results" / study.name / "metrics.tsv"))
    write_metrics(new, table)
    lines = pd.DataFrame([record(study)], columns=list(evidence.RUN_COLUMNS))
    if about.is_file():
        kept = pd.read_csv(about, sep="\t", keep_default_na=False)
        lines = pd.concat([kept.loc[kept["study"] != study.name], lines])
    lines.sort_values("study").to_csv(about, sep="\t", index=False)
    changed = evidence.differences(old, new) if old is not None else []
    for text in changed[:20]:
        print(f"  {text}")
    print(f"{study.name}: {len(changed)} scores differ from those of the last benchmark, timings left out", flush=True)


def render():
    """Write tables.md and a figure for each task from the committed tables."""
    from histoweft.metrics import read_metrics
    from histoweft.report import evidence

    metrics = read_metrics(DOCS / "metrics.tsv")
    drawn = [task for task in evidence.TITLES if evidence.forest(metrics, task, DOCS / f"{task}.svg")]
    text = evidence.render(metrics, evidence.read_anchors(DOCS / "anchors.tsv"), drawn)
    (DOCS / "tables.md").write_text(text, encoding="utf-8")
    print(f"{len(metrics)} scores of {metrics['study'].nunique()} studies: {(DOCS / 'tables.md').relative_to(REPO)}")


def main(arguments):
    """Run, join and render; the exit code is 1 where a study failed."""
    from histoweft.errors import HistoweftError
    from histoweft.report import evidence

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=REPO / "resources" / "data")
    parser.add_argument("--studies", default="", help="names with commas between; all of the list by default")
    parser.add_argument("--cores", default=os.environ.get("HISTOWEFT_CORES", "all"))
    parser.add_argument("--use-conda", action="store_true", help="each step in its environment, and published methods")
    parser.add_argument("--render", action="store_true", help="run nothing")
    given = parser.parse_args(arguments)
    finished, failed = [], []
    try:
        names = [name for name in given.studies.split(",") if name]
        for study in [] if given.render else evidence.chosen(evidence.read_studies(STUDIES), names):
            lacking = study.missing(given.data_root)
            if lacking:
                print(f"{study.name}: left out, no {', '.join(lacking)} below {given.data_root}", flush=True)
                continue
            print(f"{study.name}: {study.evidence}", flush=True)
            if run(study, given.data_root.resolve(), given.cores, given.use_conda):
                update(study)
                finished.append(study)
            else:
                failed.append(study)
        if finished or given.render:
            render()
    except HistoweftError as error:
        sys.exit(f"benchmark: {error}")
    for study in failed:
        print(f"{study.name}: failed; its log is above, its last scores were kept", file=sys.stderr)
    if not finished and not given.render:
        sys.exit(f"benchmark: no study ran; data are looked for below {given.data_root} (--data-root)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
