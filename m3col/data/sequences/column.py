"""Sequences of one modality: N samples with T_i steps each, and F features at every step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from m3col.errors import InputError


@dataclass(frozen=True, eq=False)
class SequenceColumn:
    """N sequences. Splits and folds of one data set share one table of steps, of which each sample has a part.

    Attributes:
        table: [S, F] float32, the steps of all sequences of the data set, one sequence after the other. NaN means
            missing.
        starts: [N] row of `table` with the first step of each sample.
        lengths: [N] number of steps T_i of each sample, at least 1.
    """

    table: NDArray[np.float32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    kind: ClassVar[str] = "sequence"

    @classmethod
    def of(cls, sequences: Sequence[Any]) -> "SequenceColumn":
        """Builds a column from arrays [T_i, F].

        Raises:
            InputError: there is no sequence, or their numbers of features differ.
        """
        if not len(sequences):
            raise InputError(["a column of sequences must have at least one, but has none"])
        widths = {np.shape(sequence)[1:] for sequence in sequences}
        if len(widths) > 1 or len(next(iter(widths))) != 1:
            raise InputError([f"sequences must be arrays [T_i, F] with one F, but have the shapes [T_i, *{widths}]"])
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        table = np.ascontiguousarray(np.concatenate([np.asarray(sequence) for sequence in sequences]), dtype=np.float32)
        return cls.from_offsets(table, np.concatenate([[0], np.cumsum(lengths)]))

    @classmethod
    def from_offsets(cls, table: NDArray[Any], offsets: NDArray[Any]) -> "SequenceColumn":
        """Builds a column from a table of steps: sample i has the rows offsets[i] to offsets[i + 1], the last excluded.

        Args:
            table: [S, F] steps.
            offsets: [N + 1], from 0 to S.

        Raises:
            InputError: the offsets do not divide the table into parts of at least one step.
        """
        offsets = np.asarray(offsets, dtype=np.int64)
        if offsets.ndim != 1 or len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(table):
            raise InputError([f"offsets must begin with 0 and end with the number of steps ({len(table)})"])
        if (np.diff(offsets) < 1).any():
            raise InputError(["offsets must grow by at least 1, because every sequence needs a step"])
        return cls(np.ascontiguousarray(table, dtype=np.float32), offsets[:-1], np.diff(offsets))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, at: Any) -> "SequenceColumn":
        """The samples at positions, in a slice, or where a mask is True. The table of steps is shared, not copied."""
        return SequenceColumn(self.table, self.starts[at], self.lengths[at])

    @property
    def width(self) -> int:
        """F, the number of features."""
        return int(self.table.shape[1])

    @property
    def offsets(self) -> NDArray[np.int64]:
        """[N + 1] positions in `steps` where each sample begins, and the number of all steps."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    @property
    def steps(self) -> NDArray[np.float32]:
        """[sum of T_i, F] the steps of these samples, one sample after the other."""
        within = np.arange(int(self.lengths.sum())) - np.repeat(self.offsets[:-1], self.lengths)
        return self.table[np.repeat(self.starts, self.lengths) + within]

    def sequence(self, row: int) -> NDArray[np.float32]:
        """[T_i, F] the steps of one sample."""
        start = int(self.starts[row])
        return self.table[start : start + int(self.lengths[row])]

    def truncated(self, longest: int | None, *, cut: str) -> "SequenceColumn":
        """The samples with at most `longest` steps (None: all).

        Args:
            longest: largest number of steps, >= 1.
            cut: "end": the first steps are kept; "front": the last ones.
        """
        if longest is None:
            return self
        lengths = np.minimum(self.lengths, longest)
        starts = self.starts + (self.lengths - lengths if cut == "front" else 0)
        return SequenceColumn(self.table, starts, lengths)

    def joined(self, other: "SequenceColumn") -> "SequenceColumn":
        """These samples, then those of `other`."""
        if self.table is other.table:
            table, moved = self.table, 0
        else:
            table, moved = np.concatenate([self.table, other.table]), len(self.table)
        return SequenceColumn(
            table,
            np.concatenate([self.starts, other.starts + moved]),
            np.concatenate([self.lengths, other.lengths]),
        )

    def canonical(self) -> NDArray[np.float32]:
        """`steps` with one bit pattern for every NaN, for digests."""
        steps = self.steps
        return np.where(np.isnan(steps), np.float32(np.nan), steps).astype("<f4")
