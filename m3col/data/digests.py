"""Content digests of modalities. Equal values give equal digests on every machine."""

import hashlib
import json

import numpy as np

from m3col.data.columns import MediaColumn, ModalityData
from m3col.data.sequences.column import SequenceColumn


def feed(sha: "hashlib._Hash", name: str, column: ModalityData) -> None:
    """Adds the name and content of a modality to a hash. The result does not depend on where its files are stored."""
    if isinstance(column, MediaColumn):
        from m3col.data.images.cache import content_digests

        sha.update(json.dumps([name, column.kind, content_digests(column)]).encode())
        return
    if isinstance(column, SequenceColumn):
        sha.update(json.dumps([name, column.kind, column.width, column.lengths.tolist()]).encode())
        sha.update(column.canonical().tobytes())
        return
    canonical = np.where(np.isnan(column), np.nan, column).astype("<f8")  # one bit pattern for every NaN
    sha.update(json.dumps([name, list(column.shape)]).encode())
    sha.update(np.ascontiguousarray(canonical).tobytes())
