"""Encoders of tables, images and texts, and classification heads."""
