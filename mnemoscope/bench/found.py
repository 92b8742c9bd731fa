"""What is foretold."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of work: ``amount`` of ``unit`` in all of the study, and the seconds that they take."""

    stage: str
    what: str
    amount: float
    unit: str
    seconds: float


@dataclass(slots=True)
class Forecast:
    """What a study will take, by one process on a machine as busy as it was.

    Attributes:
        assumed: what was not timed, and taken to be so; sentences.
        peak_bytes: the most memory that was held while this was found out, the device's if it has its own.
        whole: whether the study's own batches were timed, so that the study will not hold more.
    """

    device: str
    lines: list[Line] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    peak_bytes: int = 0
    whole: bool = True

    @property
    def seconds(self) -> float:
        return sum(line.seconds for line in self.lines)

    def of_stage(self, stage: str) -> float:
        return sum(line.seconds for line in self.lines if line.stage == stage)
