"""What happens inside a `Tagger`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from everloop.insight.inside import Inside
from everloop.tasks.inside import as_batch, place_of, ranked, step_at, with_more
from everloop.tasks.tagger.network import OTHER

if TYPE_CHECKING:
    from everloop.tasks.tagger.task import Tagger


def look(
    task: Tagger,
    words: Sequence[str],
    target: str | Sequence[str] | None = None,
    at: int | None = None,
    hidden: frozenset[int] = frozenset(),
) -> Inside:
    """One sentence. Answers are the tags of the word at `at`, the first where nobody says."""
    network, tags = task._network, task.tags_
    (rows,) = task.codec_.encode_batch([words])
    if not len(rows):
        raise ValueError("inside: a sentence without words came; expected one or more")
    read = rows.copy()
    # All that a word is seen as, its letters too.
    read[sorted(hidden)] = np.minimum(rows[sorted(hidden)], task.codec_.unknown)
    word = step_at(at, 0, len(rows), "the place of a word")
    lengths = torch.tensor([len(rows)])

    def run(network: nn.Module) -> Tensor:
        """The scores [1, T, K] of the tags of each word."""
        network.eval()
        return network(as_batch(read, network), lengths)

    def score(scores: Tensor, answer: str | None) -> Tensor:
        if network.crf is None:
            found = scores[0, word].log_softmax(-1)
        else:
            found = network.crf.marginals(scores, lengths)[0, word].log()
        return found.max() if answer is None else found[place_of(answer, tags, "a tag")]

    def loss(scores: Tensor) -> Tensor:
        total, count = network.loss(scores, as_batch(numbers, network), lengths)
        return total / max(count, 1)

    with torch.no_grad():
        answers = ranked(tags, network.shares(run(network), lengths)[0, word].double().cpu().numpy())
    numbers = np.zeros(0, np.int64) if target is None else _numbers(task, target, len(rows))
    return Inside(
        network,
        list(words),
        run,
        answers,
        score,
        None if target is None else loss,
        with_more(lambda more: look(task, words, target, at, more), hidden, len(rows)),
        "an unknown word",
    )


def _numbers(task: Tagger, target: str | Sequence[str], words: int) -> np.ndarray:
    """The places of the true tags [T]; `OTHER` for those that training had not."""
    tags: list[Any] = target.split() if isinstance(target, str) else list(target)
    if len(tags) != words:
        raise ValueError(f"inside: {len(tags)} tags came for {words} words; expected as many")
    return np.array([task.tags_.index(tag) if tag in task.tags_ else OTHER for tag in tags])
