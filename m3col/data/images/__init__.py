"""Image files: decoding, the index of file properties, and the cache of decoded images."""
