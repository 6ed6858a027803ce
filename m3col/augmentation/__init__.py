"""Random changes of training samples: mixing pairs of samples."""
