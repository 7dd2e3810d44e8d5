"""The web pages over a store: auditing now; the model's playground and the runs grow beside it."""
