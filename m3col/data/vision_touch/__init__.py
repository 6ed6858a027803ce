"""Converts the HDF5 files of Vision & Touch to a folder of images, sequences and tables."""
