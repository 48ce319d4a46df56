"""Download one registered file and check its sha256."""

from histoweft.job import run


def main(job):
    """Write the file."""
    from pathlib import Path

    from histoweft.download import fetch
    from histoweft.ingest.fetch import load_registry

    entries, faults = load_registry(Path(job.params.registry))
    faults.raise_if_any()
    entry = next(e for e in entries.values() if e.sha256.startswith(job.wildcards.digest))
    fetch(entry.url, entry.sha256, job.output.file, max_bytes=entry.bytes)


run(snakemake, main)
