"""Make the page of the study."""

from histoweft.job import run


def main(job):
    """Write the page, the executed notebook and the Methods paragraph."""
    from histoweft.report import study_page

    study_page.write(
        dict(job.input.items()),
        job.input.captions,
        job.params.config,
        job.params.samples,
        notebook=job.input.notebook,
        executed=job.output.notebook,
        output=job.output.page,
        shown=job.params.shown,
        sources=job.params.sources,
        excluded=job.params.excluded,
        methods_path=job.output.methods,
    )


run(snakemake, main, optional=["*"])
