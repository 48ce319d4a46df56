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


run(snakemake, main)
