"""Gene expression from the histology image: models, painting, and how well it is done."""
