"""The name of a run, which is also its folder below the study's folder."""

from dataclasses import dataclass

TRIALS, REPLICATES, CONFIRMATIONS, REFITS = "trials", "replicates", "confirm", "refits"

WINNER = "winner"  # the row of the winner's refits

STAGES = (TRIALS, REPLICATES, CONFIRMATIONS, REFITS)


@dataclass(frozen=True)
class RunName:
    """The name of a run: `trials/<n>`, `replicates/<i>`, `confirm/<trial>-<i>` or `refits/<row>/<i>`.

    Args:
        stage: one of `STAGES`.
        row: what the run belongs to within its stage: the number of the confirmed trial, or the folder of the row of
            the test table; "" for trials and replicates.
        number: number of the run among those of its stage and row, from 0.

    Example:
        >>> RunName.parse("confirm/7-1")
        RunName(stage='confirm', row='7', number=1)
        >>> str(RunName("refits", "winner", 2))
        'refits/winner/2'
    """

    stage: str
    row: str
    number: int

    @classmethod
    def parse(cls, text: str) -> "RunName":
        """Parses a name. Raises ValueError if it is not the name of a run."""
        stage, _, suffix = text.partition("/")
        row, separator, number = "", "", suffix
        if stage == CONFIRMATIONS:
            row, separator, number = suffix.partition("-")
        elif stage == REFITS:
            row, separator, number = suffix.partition("/")
        separators = {TRIALS: "", REPLICATES: "", CONFIRMATIONS: "-", REFITS: "/"}
        if separators.get(stage) != separator or bool(row) != bool(separator) or not number.isdecimal():
            raise ValueError(f"{text!r} is not the name of a run")
        return cls(stage, row, int(number))

    @classmethod
    def trial(cls, number: int) -> "RunName":
        """The run of a trial."""
        return cls(TRIALS, "", number)

    def __str__(self) -> str:
        joint = {CONFIRMATIONS: "-", REFITS: "/"}.get(self.stage, "")
        return f"{self.stage}/{self.row}{joint}{self.number}"

    @property
    def is_trial(self) -> bool:
        return self.stage == TRIALS


def stage_of(text: str) -> str:
    """Returns the stage of a run by its name; "" if it is not the name of a run."""
    try:
        return RunName.parse(text).stage
    except ValueError:
        return ""
