"""Converts the files of MultiBench, which are pickles, to folders of sequences. Nothing is unpickled."""
