"""What a benchmark finds: one row of the table and of the JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any

OURS = "everloop"


@dataclass(frozen=True)
class Figure:
    """Seconds of one call, or bytes: the median of the samples and their quartiles.

    cores: seconds of the processor per second, all threads together; shows whether a peer kept to its threads.
    """

    median: float
    low: float
    high: float
    samples: int = 1
    cores: float | None = None

    @staticmethod
    def of(samples: Sequence[float], cores: float | None = None) -> Figure:
        if len(samples) == 1:
            return Figure(samples[0], samples[0], samples[0], 1, cores)
        low, _, high = quantiles(samples, n=4, method="inclusive")
        return Figure(median(samples), low, high, len(samples), cores)


@dataclass(frozen=True)
class Check:
    """One comparison. value: mostly how many times as long as ours the peer takes; more than 1, and ours is faster.

    figure: the figure of the row that is compared with, if there is one.
    """

    name: str
    value: float
    goal: float | None = None
    at_most: bool = False
    figure: str = ""

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal


@dataclass(frozen=True)
class Row:
    """figures: ours (of whom else, see OURS) and those of the peers, in seconds or bytes, as `unit` says (s, B).

    shape: B, T, I, H. rate: how much of `rate_unit` ours does in a second. wrong: peers that were not timed, because
    they computed something else.
    """

    group: str
    cell: str
    shape: tuple[int, int, int, int]
    what: str
    threads: int
    figures: dict[str, Figure]
    checks: list[Check]
    unit: str = "s"
    rate: float | None = None
    rate_unit: str = ""
    backend: str = ""
    wrong: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        for check, words in zip(self.checks, found["checks"], strict=True):
            words["met"] = check.met
        return found

    @staticmethod
    def from_json(found: dict[str, Any]) -> Row:
        figures = {name: Figure(**figure) for name, figure in found["figures"].items()}
        checks = [Check(**{k: v for k, v in check.items() if k != "met"}) for check in found["checks"]]
        return Row(**(found | {"figures": figures, "checks": checks, "shape": tuple(found["shape"])}))
