"""Linear-chain conditional random fields: whole sequences of tags are scored, and the chain is summed over exactly.

The score of tags y_1 ... y_T is the sum of scores[t, y_t], transitions[y_t, y_t+1], start[y_1] and end[y_T]; the
probability of them is the exponential of that over the sum for all K^T sequences. Everything is batched: scores
[B, T, K], lengths [B]; steps from lengths[b] on count for nothing.

Lafferty, McCallum, Pereira 2001; on top of a recurrent network, Huang, Xu, Yu 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CRF(nn.Module):
    """The transitions [K, K] (from, to), starts [K] and ends [K] of a chain over K tags; all zero at first, which makes
    the tags of different steps independent."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.zeros(tags, tags))
        self.start = nn.Parameter(torch.zeros(tags))
        self.end = nn.Parameter(torch.zeros(tags))

    def log_likelihood(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """[B]: the log-probability of tags [B, T]."""
        lengths = _checked(scores, lengths)
        return self._score(scores, tags, lengths) - self.log_partition(scores, lengths)

    def log_partition(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """[B]: the logarithm of the sum over all sequences of tags (the forward algorithm)."""
        lengths = _checked(scores, lengths)
        last = self._forward(scores, lengths)[-1]
        return torch.logsumexp(last + self.end, -1)

    def marginals(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """[B, T, K]: the probability of each tag at each step (forward and backward); 0 beyond the lengths."""
        lengths = _checked(scores, lengths)
        forward = torch.stack(self._forward(scores, lengths), 1)
        backward = torch.stack(self._backward(scores, lengths), 1)
        total = torch.logsumexp(forward[:, -1] + self.end, -1)
        found = (forward + backward - total[:, None, None]).exp()
        return found * _inside(scores, lengths)[..., None]

    def viterbi(self, scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable tags [B, T] (0 beyond the lengths) and their scores [B] (Viterbi 1967)."""
        lengths = _checked(scores, lengths)
        inside = _inside(scores, lengths)
        best = scores[:, 0] + self.start
        stay = torch.arange(scores.shape[2], device=scores.device).expand_as(best)
        came_from: list[Tensor] = []
        for t in range(1, scores.shape[1]):
            onward, before = (best[:, :, None] + self.transitions).max(1)
            best = torch.where(inside[:, t, None], onward + scores[:, t], best)
            came_from.append(torch.where(inside[:, t, None], before, stay))
        total, tag = (best + self.end).max(-1)
        path = [tag]
        for before in reversed(came_from):
            tag = before.gather(1, tag[:, None])[:, 0]
            path.append(tag)
        return torch.stack(path[::-1], 1) * inside, total

    def _score(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        inside = _inside(scores, lengths)
        own = scores.gather(2, tags[:, :, None])[:, :, 0]
        steps = self.transitions[tags[:, :-1], tags[:, 1:]]
        last = tags.gather(1, lengths[:, None] - 1)[:, 0]
        return (
            torch.where(inside, own, 0.0).sum(1)
            + torch.where(inside[:, 1:], steps, 0.0).sum(1)
            + self.start[tags[:, 0]]
            + self.end[last]
        )

    def _forward(self, scores: Tensor, lengths: Tensor) -> list[Tensor]:
        """Of each step [B, K]: the log-sum over all beginnings that end there with that tag; beyond the lengths it
        stays as it was."""
        inside = _inside(scores, lengths)
        found = [scores[:, 0] + self.start]
        for t in range(1, scores.shape[1]):
            onward = torch.logsumexp(found[-1][:, :, None] + self.transitions, 1) + scores[:, t]
            found.append(torch.where(inside[:, t, None], onward, found[-1]))
        return found

    def _backward(self, scores: Tensor, lengths: Tensor) -> list[Tensor]:
        """Of each step [B, K]: the log-sum over all that can follow that tag there."""
        inside = _inside(scores, lengths)
        found = [self.end.expand_as(scores[:, 0])]
        for t in range(scores.shape[1] - 1, 0, -1):
            following = torch.logsumexp(self.transitions + (scores[:, t] + found[-1])[:, None, :], 2)
            found.append(torch.where(inside[:, t, None], following, found[-1]))
        return found[::-1]


def _inside(scores: Tensor, lengths: Tensor) -> Tensor:
    """[B, T]: whether a step belongs to its sequence."""
    return torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]


def _checked(scores: Tensor, lengths: Tensor) -> Tensor:
    """The lengths, where the scores are."""
    if scores.dim() != 3 or lengths.shape != scores.shape[:1]:
        raise ValueError(
            f"scores of shape {list(scores.shape)} and lengths of shape {list(lengths.shape)} came; "
            "expected [B, T, K] and [B]"
        )
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= scores.shape[1]:
        raise ValueError(
            f"lengths from {int(lengths.min())} to {int(lengths.max())} came for {scores.shape[1]} steps; "
            "expected 1 to that many"
        )
    return lengths.to(scores.device)
