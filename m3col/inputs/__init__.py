"""From the values of a modality to batches: transforms fitted on the training fold, and sources of batches."""
