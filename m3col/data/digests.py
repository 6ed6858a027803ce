"""Digests of data: the same values give the same digest on every machine."""

import hashlib
import json

import numpy as np

from m3col.data.columns import MediaColumn, ModalityData


def feed(sha: "hashlib._Hash", name: str, column: ModalityData) -> None:
    """Adds a modality's name and content to a hash; the same on every machine, wherever its files lie."""
    if isinstance(column, MediaColumn):
        from m3col.data.images.cache import content_digests

        sha.update(json.dumps([name, column.kind, content_digests(column)]).encode())
        return
    canonical = np.where(np.isnan(column), np.nan, column).astype("<f8")  # one bit pattern for every NaN
    sha.update(json.dumps([name, list(column.shape)]).encode())
    sha.update(np.ascontiguousarray(canonical).tobytes())
