# Which files a sample is read from.


def counts_inputs(wildcards):
    """Return the files that a sample's counts, positions, labels and image size are read from."""
    return discoveries[wildcards.sample].files


def image_input(wildcards):
    """Return a sample's image."""
    return discoveries[wildcards.sample].image
