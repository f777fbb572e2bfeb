"""What the caller of `read_examples` asked for."""

from dataclasses import dataclass
from typing import Literal

from everloop.data._say import names_of

BadRowPolicy = Literal["stop", "skip"]
WantTarget = Literal["yes", "no", "if there"]


@dataclass(frozen=True)
class Asked:
    """input, target, part, group: names of columns. modality: a name, or "auto"."""

    input: str | None = None
    target: str | None = None
    encoding: str | None = None
    bad_rows: BadRowPolicy = "stop"
    want_target: WantTarget = "if there"
    part: str | None = None
    group: str | None = None
    modality: str = "auto"

    @property
    def columns(self) -> list[str]:
        return [name for name in (self.input, self.target, self.part, self.group) if name is not None]

    def refuse_columns(self, reason: str) -> None:
        if self.columns:
            raise ValueError(f"{reason} and has no columns; leave {names_of(self.columns)} out")
