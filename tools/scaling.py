"""How cost grows, what the workflow itself takes, and what large studies would need: docs/benchmarks/scaling.md.

    python tools/scaling.py table counts|pixels FOLDER:STUDY FOLDER:STUDY FOLDER:STUDY   # three runs, small first
    python tools/scaling.py table genes|sections FOLDER:STUDY@SIZE ...    # the same, with thousand genes, or sections
    python tools/scaling.py overhead "WHAT IT IS" FOLDER:STUDY [ARGUMENT ...]   # runs it there, with these arguments
    python tools/scaling.py machines                                      # from resources/costs.tsv; runs nothing
    python tools/scaling.py page                                          # the page and its figure, from the tables

The first three each write a table below docs/benchmarks/; the page is made of the three.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "workflow" / "lib"))
sys.path.insert(0, str(REPO / "tools"))

DOCS = REPO / "docs" / "benchmarks"
IMPORT = re.compile(r"^import time:\s+(\d+) \|")


def table(series, runs):
    """Write what each rule took at each size, and the curve through it, in the place of the series' old rows."""
    import pandas as pd

    from histoweft.report import costs, growth

    jobs, sizes = [], []
    for run in runs:
        folder, _, study = run.rpartition(":")
        study, _, size = study.partition("@")
        jobs.append(costs.read_benchmarks(folder or ".", study))
        sizes += [float(size)] if series in growth.OWN_UNITS else []
    path, rows = DOCS / "scaling.tsv", growth.measured(series, jobs, sizes or None)
    if path.is_file():
        old = pd.read_csv(path, sep="\t")
        rows = pd.concat([old.loc[old["series"] != series], rows])
    rows.sort_values(["series", "rule"]).to_csv(path, sep="\t", index=False, float_format="%.4g")


def overhead(about, folder, study, arguments):
    """Run a study, one job at a time, and write where the time went; a run that fails writes nothing."""
    import pandas as pd

    from histoweft.report import costs

    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    command = ["snakemake", "--snakefile", str(REPO / "Snakefile"), "--directory", str(folder), "--cores", "1"]
    command += ["--benchmark-extended", *arguments]
    with tempfile.TemporaryFile("w+") as said:
        began, clock = time.perf_counter(), time.time()
        process = subprocess.Popen(command, stderr=said, env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
        own = jobs = 0.0
        while process.poll() is None:
            own, jobs = processor_seconds(process.pid) or (own, jobs)
            time.sleep(0.2)
        wall = time.perf_counter() - began
        said.seek(0)
        lines = said.readlines()
        if process.returncode:
            told = [line for line in lines if not IMPORT.match(line)]
            sys.exit("".join(told[-20:]) + "scaling: the run failed; above what Snakemake said last")
    count = sum(line.startswith("Finished jobid") for line in lines)
    logs = [path for path in (folder / "logs").rglob("*.log") if path.stat().st_mtime >= clock]
    # What a job imports before it opens its log stands among what Snakemake says, after the first job has begun.
    first = next((at for at, line in enumerate(lines) if line.startswith("Select jobs to execute")), 0)
    imports = import_seconds(lines[first:]) + sum(import_seconds(path.read_text().splitlines()) for path in logs)
    timed = sum(job.seconds for job in costs.read_benchmarks(folder, study) if job.rule not in costs.DISK)
    row = {
        "about": about, "jobs": count, "wall_s": wall, "timed_s": timed, "imports_s": imports, "own_cpu_s": own,
        "jobs_cpu_s": jobs,
    }  # fmt: skip
    pd.DataFrame([row]).to_csv(DOCS / "overhead.tsv", sep="\t", index=False, float_format="%.4g")


def import_seconds(lines):
    """Return the time that imports took by the lines that Python says of them; those of a job are in its log."""
    return sum(int(match[1]) for line in lines if (match := IMPORT.match(line))) / 1e6


def processor_seconds(pid):
    """Return the processor time of a process and of those it waited for; None when it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    tick = os.sysconf("SC_CLK_TCK")
    user, system, waited_user, waited_system = (int(fields[at]) / tick for at in range(11, 15))
    return user + system, waited_user + waited_system


def machines():
    """Write what large studies would take on several machines."""
    import pandas as pd

    from histoweft.report import costs, growth

    known = costs.read_costs(REPO / "resources" / "costs.tsv")
    rows = []
    for case in growth.CASES:
        rows += growth.estimates(case, planned(case), known)
    pd.DataFrame(rows).to_csv(DOCS / "machines.tsv", sep="\t", index=False, float_format="%.4g")


def planned(case):
    """Return the jobs of a study of empty sections, planned as Snakemake would and given the sizes of the case."""
    import preflight

    with tempfile.TemporaryDirectory() as folder:
        config = empty_study(Path(folder), case)
        given = argparse.Namespace(configfile=[str(config)], directory=folder, cores=8, config=[], targets=[])
        here = os.getcwd()
        try:
            workflow = preflight.plan(given)
            sizes = {sample: case.size for sample in workflow.globals["study"].samples}
            return preflight.planned_jobs(workflow, sizes)
        finally:
            os.chdir(here)


def empty_study(folder, case):
    """Make a study whose files are there and hold nothing: enough to plan it; return its config."""
    from PIL import Image

    rows = ["sample\tpatient\tcondition\tplatform\tpath"]
    for at in range(case.sections):
        section = folder / "data" / f"s{at}" / "spatial"
        section.mkdir(parents=True)
        for path in ("filtered_feature_bc_matrix.h5", "spatial/tissue_positions.csv", "spatial/scalefactors_json.json"):
            (section.parent / path).write_bytes(b"x")
        Image.new("RGB", (8, 8)).save(section / "tissue_hires_image.png")
        rows.append(f"s{at}\tp{at // 2}\t{('before', 'after')[at % 2]}\tvisium\tdata/s{at}")
    (folder / "samples.tsv").write_text("\n".join(rows) + "\n")
    (folder / "config.yaml").write_text("study: planned\nsamples: samples.tsv\n")
    return folder / "config.yaml"


def page():
    """Write the page and its figure."""
    import pandas as pd

    from histoweft.report import growth

    tables = {
        name: pd.read_csv(DOCS / f"{name}.tsv", sep="\t") if (DOCS / f"{name}.tsv").is_file() else None
        for name in ("scaling", "overhead", "machines")
    }
    if tables["scaling"] is not None:
        scaling = tables["scaling"]
        growth.figure(scaling.loc[scaling["series"] == "counts"], DOCS / "scaling.svg")
    (DOCS / "scaling.md").write_text(growth.page(**tables), encoding="utf-8")


def main(arguments):
    """Do one of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "overhead", "machines", "page"])
    given, rest = parser.parse_known_args(arguments)
    if given.what == "table":
        table(rest[0], rest[1:])
    elif given.what == "overhead":
        about, run, *more = rest
        overhead(about, *run.rsplit(":", 1), more)
    elif given.what == "machines":
        machines()
    else:
        page()


if __name__ == "__main__":
    main(sys.argv[1:])
