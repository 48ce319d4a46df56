"""Unpack one fetched archive."""

from histoweft.job import run


def main(job):
    """Write the folder; an archive that holds one folder and nothing else becomes that folder."""
    import os
    import tempfile
    from pathlib import Path

    from histoweft.download import extract

    with tempfile.TemporaryDirectory(dir=job.output.folder.parent, prefix=".partial.") as scratch:
        unpacked = Path(scratch, "unpacked")
        files = extract(job.input.archive, unpacked)
        job.log.info("%d files", len(files))
        inside = list(unpacked.iterdir())
        os.replace(inside[0] if len(inside) == 1 and inside[0].is_dir() else unpacked, job.output.folder)


run(snakemake, main)
