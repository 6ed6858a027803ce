"""Scoring a model: metrics per epoch, free baselines, and the log of test-set evaluations."""
