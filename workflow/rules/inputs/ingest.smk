# Which files a sample is read from.


def counts_inputs(wildcards):
    """Return the files that a sample's counts, positions, labels and image size are read from."""
    return discoveries[wildcards.sample].files


def image_input(wildcards):
    """Return a sample's image."""
    image = discoveries[wildcards.sample].image
    return getattr(image, "path", image)  # of one inside an h5ad: that file
