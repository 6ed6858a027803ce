"""The lengths by which samples are put into batches of similar length."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from m3col.config.schema import DataConfig
from m3col.inputs.base import Source
from m3col.inputs.batches import PartialSource
from m3col.inputs.sequences import SequenceSource
from m3col.inputs.texts import TokenSource


def lengths(config: DataConfig, sources: Mapping[str, Source]) -> NDArray[np.int64] | None:
    """Numbers of tokens and steps of each sample [N], over the modalities that are grouped by length; None: none is.

    Args:
        config: the section `data:`, for `text.group_by_length` and `sequence.group_by_length`.
        sources: the samples, by modality.
    """
    whole = [source.source if isinstance(source, PartialSource) else source for source in sources.values()]
    counts = [
        source.lengths()
        for source in whole
        if (isinstance(source, TokenSource) and config.text.group_by_length)
        or (isinstance(source, SequenceSource) and config.sequence.group_by_length)
    ]
    return np.sum(counts, axis=0) if counts else None
