"""Image files: decoding, the index of what is known of them, the cache of decoded images."""
