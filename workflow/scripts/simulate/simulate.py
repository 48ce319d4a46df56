"""Simulate the demo study with its truth."""

from histoweft.job import run


def main(job):
    """Write the sections, the reference, the atlas and the truth."""
    import os
    import tempfile
    from pathlib import Path

    from histoweft.simulate import layout
    from histoweft.simulate.study import simulate_study
    from histoweft.simulate.write import write_study

    sections = [f"{s['sample']}/{name}" for s in layout.SECTIONS for name in layout.SECTION_FILES]
    names = [*sections, *layout.TRUTH_FILES, *layout.REFERENCE_FILES, *layout.ATLAS_FILES]
    staged = [*job.output.sections, *job.output.truth, *job.output.reference, *job.output.atlas]
    folder = Path(job.output.sections[0]).parents[1]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial.") as scratch:
        write_study(simulate_study(seed=job.params.seed, **job.params.options), scratch)
        for name, target in zip(names, staged, strict=True):
            os.replace(Path(scratch, name), target)


run(snakemake, main)
