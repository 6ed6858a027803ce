"""Training: one fold's model, the loop over epochs for all folds in lockstep, checkpoints."""
