"""Make the page of one sample."""

from histoweft.job import run


def main(job):
    """Write the page, the executed notebook and the sample's facts."""
    from histoweft.report import sample_page

    sample_page.write(
        dict(job.input.items()),
        job.input.captions,
        job.params.config,
        job.wildcards.sample,
        notebook=job.input.notebook,
        facts_path=job.output.facts,
        executed=job.output.notebook,
        output=job.output.page,
        shown=job.params.shown,
        sources=job.params.sources,
    )


# A page without these says no more than why they are not there.
NEEDED = {"counts", "filtered", "qc", "clusters", "stability", "metrics", "top_markers"}
run(snakemake, main, optional=set(snakemake.input.keys()) - NEEDED)
