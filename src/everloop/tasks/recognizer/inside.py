"""What happens inside a `Recognizer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.data.audio import HOP
from everloop.insight.inside import Inside
from everloop.tasks.decoding import ctc
from everloop.tasks.inside import MEAN, as_batch, mean_at, place_of, ranked, step_at, with_more
from everloop.tasks.recognizer.training import BLANK

if TYPE_CHECKING:
    from everloop.tasks.recognizer.task import Recognizer

NOTHING = "(nothing)"
"""What the blank is called."""


def look(
    task: Recognizer, given: Any, target: str | None = None, at: int | None = None, hidden: frozenset[int] = frozenset()
) -> Inside:
    """One recording. Answers are texts, with the probabilities of all their paths; with `at`, what the network says at
    that step."""
    network, stride = task.network_, task.stride_
    (values,) = task.codec_.encode_batch([given])
    count = -(-len(values) // stride)
    frames = [k for step in hidden for k in range(step * stride, min((step + 1) * stride, len(values)))]
    read = mean_at(values, frames, None)
    labels = [NOTHING, *(task.target_codec_.piece(k).strip() or " " for k in range(1, len(task.target_codec_)))]
    step = None if at is None else step_at(at, 0, count, "the step of the recording")

    def run(network: nn.Module) -> Tensor:
        """Log-probabilities [1, T, C] of the labels at each step."""
        network.eval()
        return network(as_batch(read, network), torch.tensor([len(read)]))[0]

    with torch.no_grad():
        scores = run(network)[0].double().cpu().numpy()
    texts: dict[str, tuple[int, ...]] = {}
    for found in task._most_probable(scores):
        texts.setdefault(task._text(found), found)

    def score(found: Tensor, answer: str | None) -> Tensor:
        if step is not None:
            here = found[0, step]
            return here.max() if answer is None else here[place_of(answer, labels, "a label")]
        answer = next(iter(texts)) if answer is None else answer
        return _log_likelihood(found, texts[answer] if answer in texts else _labels(task, answer))

    def loss(found: Tensor) -> Tensor:
        """Nats per label."""
        return -_log_likelihood(found, true) / len(true)

    true = () if target is None else _labels(task, target)
    if step is None:
        answers = [(text, float(np.exp(ctc.log_likelihood(scores, of, BLANK)))) for text, of in texts.items()]
    else:
        answers = ranked(labels, np.exp(scores[step]))
    return Inside(
        network,
        [f"{k * stride * HOP:.2f} s" for k in range(count)],
        run,
        answers,
        score,
        None if target is None else loss,
        with_more(lambda more: look(task, given, target, at, more), hidden, count),
        MEAN,
    )


def _labels(task: Recognizer, text: str) -> tuple[int, ...]:
    spelled = task._spelled(text)
    if not spelled:
        raise ValueError(f"inside: the text {text!r} came; expected one with words")
    return tuple(task.target_codec_.encode(task._as_pieces(spelled)).tolist())


def _log_likelihood(scores: Tensor, labels: Sequence[int]) -> Tensor:
    """Of a text, by log-probabilities [1, T, C]: the sum over all of its paths."""
    wanted = torch.tensor(labels, dtype=torch.int64, device=scores.device)
    steps, count = torch.tensor([scores.shape[1]]), torch.tensor([len(wanted)])
    return -F.ctc_loss(scores.transpose(0, 1), wanted[None], steps, count, BLANK, "sum")
