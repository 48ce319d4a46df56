"""Cell types by transfer from a labelled reference, with calibrated doubt and explanations."""
