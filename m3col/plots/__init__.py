"""Figures: one style, fonts for names of every script, plots of a trained model."""
