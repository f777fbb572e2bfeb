"""Metrics by name: which way is better, how they are written."""

from __future__ import annotations

LOWER = {"loss", "perplexity", "error", "mae", "mse", "rmse", "mase", "smape", "pinball", "cer", "wer", "brier", "ece"}
AIMED_AT = {"coverage"}
"""Neither more nor less of these is better: what is wanted is a certain value."""
SHARES = {"accuracy", "f1", "precision", "recall", "clipped", "coverage", "match", "form", "cer", "wer", "ece"}


def kind(name: str) -> str:
    """What a metric is, its first words left out: `valid_loss` is a loss."""
    return name.rsplit("_", 1)[-1]


def can_be_better(name: str) -> bool:
    """Whether more of it, or less, is better."""
    return kind(name) not in AIMED_AT


def lower_is_better(name: str) -> bool:
    return kind(name) in LOWER


def is_better(name: str, value: float, other: float) -> bool:
    """Whether a value of that metric is better than another; one that is no number never is."""
    return value < other if lower_is_better(name) else value > other


def is_share(name: str) -> bool:
    """Whether it is written in percent."""
    return kind(name) in SHARES


def figure(name: str, value: float) -> str:
    """For a sentence."""
    return f"{100 * value:.1f} %" if is_share(name) else f"{value:.3f}"
