"""Lay serial sections onto one another, by their images."""

from histoweft.job import run


def main(job):
    """Write every spot's position in its frame, and what was done to each section."""
    import pandas as pd

    from histoweft.histology import register
    from histoweft.histology.spots import points_each, read_section

    sections = {
        name: read_section(counts, pyramid, points_each(100_000), job.params.footprint_um)
        for name, counts, pyramid in zip(job.params.samples, job.input.filtered, job.input.context, strict=True)
    }
    found, facts = [], []
    for frame in dict.fromkeys(job.params.frames.values()):
        names = [name for name in sections if job.params.frames[name] == frame]
        fixed = max(names, key=lambda name: len(sections[name].xy))
        reference = register.Section(sections[fixed].xy, sections[fixed].means)
        for name in names:
            section = sections[name]
            xy, words = section.xy, "the frame itself"
            if name != fixed:
                moved = register.register(reference, register.Section(section.xy, section.means))
                xy, words = moved(section.xy), str(moved)
            job.log.info("%s onto %s: %s", name, fixed, words)
            facts.append({"sample": name, "frame": frame, "onto": fixed, "transform": words})
            index = [f"{name}:{barcode}" for barcode in section.barcodes]
            found.append(pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1], "frame": frame}, index=index))
    pd.concat(found).to_parquet(job.output.positions)
    pd.DataFrame(facts).to_csv(job.output.table, sep="\t", index=False)


run(snakemake, main)
