"""Converts data to model input: input transforms fitted on the training fold, and sources of batches."""
