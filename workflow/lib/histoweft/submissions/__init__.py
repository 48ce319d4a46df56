"""The bench: methods of other people, on the inputs, splits and scores that our own methods are measured with.

Not a stage but what stands beside them: these modules may import any stage, for a submission has to be scored by the
stage's own functions. No stage imports them.
"""
