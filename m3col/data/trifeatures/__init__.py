"""Trifeatures: drawn images of a shape with a texture and a colour, and pairs of them with four labels."""
