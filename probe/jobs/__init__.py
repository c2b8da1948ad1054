"""Jobs: read a run or a model, compute, write. One folder per job; imports go down the list of the
layering test only.
"""
