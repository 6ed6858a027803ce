"""A tree of studies: the whole procedure, once on each outer split of the data (PROTOCOL 9)."""
