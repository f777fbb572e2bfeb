"""What was promised: how many times as long as ours a peer has to take, at least.

The table is the one that the kernels were designed for. Its classes are those of batch and width that a machine treats
differently: where calls cost more than arithmetic, where weights fit a cache, where a matrix product sets the pace.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARE_OF_LSTM = 0.8
"""Of the GFLOP/s of `lstm` at the same shape, for any cell that has products in its loop."""

SHARE_OF_COPY = 0.7
"""Of the speed of a copy of as many bytes, for a scan."""

RAGGED = 1.1
"""Time of a ragged batch over the same share of a full batch's time as it has of its steps."""

MEMORY = 1.0
"""Peak of a training step over torch's."""

COMPILE_STEP, COMPILE_ALL = 0.1, 1.0
"""Seconds for the kernel of a step, and for all kernels of a cell."""

COMPILE_AGAIN = 0.1
"""Seconds in the next process: what takes less than a tenth of a second is not noticed."""

CONTENTION = 1.25
"""Time beside a busy process over that of one thread alone: "about" the same."""

CONTENTION_STEP = 1e-3
"""Seconds of a step beside a busy process."""


@dataclass(frozen=True)
class Goals:
    """Ratios; pairs are forward and training. others: torch's GRU and RNN; loop: any cell but lstm, gru and elman."""

    lstm: tuple[float, float]
    others: tuple[float, float]
    onnxruntime: float
    loop: float


SMALL_STEP = Goals((40, 40), (40, 40), 7, 40)
WIDE_STEP = Goals((5, 5), (5, 5), 1.7, 5)
ONE_SEQUENCE = Goals((2.5, 2), (12, 15), 1.2, 18)
SMALL_BATCH = Goals((1.5, 1.3), (2.7, 2.7), 1.1, 3.5)
BATCH = Goals((1.25, 1.25), (1.4, 1.4), 1.04, 1.8)
WIDE = Goals((1.1, 1.1), (1.15, 1.15), 1, 1.3)


def goals_of(what: str, batch: int, units: int) -> Goals:
    """what: step, forward or training."""
    if what == "step":
        return SMALL_STEP if units <= 64 else WIDE_STEP
    if units >= 512:
        return WIDE
    if batch == 1:
        return ONE_SEQUENCE
    return SMALL_BATCH if batch <= 16 else BATCH


def goal(peer: str, cell: str, what: str, batch: int, units: int) -> float | None:
    """The least ratio, or None where nothing is promised."""
    goals = goals_of(what, batch, units)
    common = cell in ("lstm", "gru", "elman")
    training = what == "training"
    match peer:
        case "torch.nn" if common:
            return (goals.lstm if cell == "lstm" else goals.others)[training]
        case "onnxruntime" | "onnxruntime, bound" if common and not training:
            return goals.onnxruntime
        case "torch loop" if not common:
            return goals.loop
        case "jax scan" if cell == "elman" and training and batch == 1:
            return 1.0  # the one loss of the prototype, to be won
        case _:
            return None
