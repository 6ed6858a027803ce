"""Evaluation: metrics per epoch, baselines, and the log of test-set evaluations."""
