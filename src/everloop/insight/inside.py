"""What a task hands to whoever looks inside: one input, how it is run, and what the model says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Inside:
    """One input of a fitted model. Made by `Task.inside`.

    pieces: one name per step that the layers read, as people read it: words, letters, "0:00:10", "row 3".
    run: runs the network in evaluation mode on the input, [1, T, ...]; what it returns is the task's own, can be
        differentiated, and is for `score` and `loss`.
    answers: what the model says, best first, with probabilities; of a forecaster, values.
    score: of what `run` returned, the log-probability (of a forecaster, the value) of an answer, a scalar. None: of the
        first of `answers`.
    loss: of what `run` returned, the loss against the target, a scalar; None without a target.
    without: the same input with these pieces made unknown; `ablation` says in words what is put in their place.
    reads: the name in the network of the recurrent layers whose steps the pieces are.
    """

    network: nn.Module
    pieces: list[str]
    run: Callable[[nn.Module], Any]
    answers: list[tuple[str, float]]
    score: Callable[[Any, str | None], Tensor]
    loss: Callable[[Any], Tensor] | None
    without: Callable[[Sequence[int]], Inside]
    ablation: str
    reads: str = "recurrent"
