"""What happens inside a `Classifier`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from everloop.insight.inside import Inside
from everloop.tasks.classifier.data import as_text
from everloop.tasks.inside import (
    MEAN,
    UNKNOWN,
    as_batch,
    mean_at,
    pieces_of,
    place_of,
    ranked,
    step_names,
    unknown_at,
    with_more,
)

if TYPE_CHECKING:
    from everloop.tasks.classifier.task import Classifier


def look(
    task: Classifier, given: Any, target: Any = None, at: int | None = None, hidden: frozenset[int] = frozenset()
) -> Inside:
    """One text or one input of values. Answers are classes, with the probabilities that `predict_proba` gives: of what
    stands beside the layers, too."""
    if at is not None:
        raise ValueError(f"inside: at={at} came; a classifier gives one answer to the whole of an input: leave it out")
    names = [str(name) for name in task.classes_]
    (steps,) = task._encoded([given])
    network, front = task.network_, getattr(task.network_, "front", None)
    if task.is_text:
        pieces, ablation = pieces_of(task.codec_, as_text(given), steps), UNKNOWN[task.unit_]
        read = unknown_at(steps, hidden, task.codec_.unknown)
    else:
        pieces, ablation = step_names(task.codec_, front, len(steps)), MEAN
        read = mean_at(steps, hidden, front)

    def run(network: nn.Module) -> Tensor:
        """The scores [1, C]."""
        network.eval()
        return network(as_batch(read, network), torch.tensor([len(read)]))

    def shares(scores: Tensor) -> Tensor:
        """Log-probabilities [C]."""
        return (scores[0] / task.temperature_).log_softmax(-1)

    def score(scores: Tensor, answer: str | None) -> Tensor:
        found = shares(scores)
        return found.max() if answer is None else found[place_of(answer, names, "a class")]

    with torch.no_grad():
        answers = ranked(names, shares(run(network).double()).exp().cpu().numpy())
    true = None if target is None else place_of(target, names, "a class")
    return Inside(
        network,
        pieces,
        run,
        answers,
        score,
        None if true is None else lambda scores: -shares(scores)[true],
        with_more(lambda more: look(task, given, target, at, more), hidden, len(pieces)),
        ablation,
    )
