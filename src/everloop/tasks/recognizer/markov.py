"""A hidden Markov model of labels: the recogniser before networks. Quick to train, and it knows where a label lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from everloop.data.audio import slopes
from everloop.tasks.edits import word_error_rate

CEPSTRA = 13
ROUNDS = 6
PENALTIES = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0)  # nats that each label costs
TRIED = 40  # training recordings that the penalty is chosen on
SMALLEST_VARIANCE = 0.01


def cepstra(values: np.ndarray) -> np.ndarray:
    """The first cosines of the bands (DCT-II) and their slopes, [T, 2 * 13], each row around the recording's mean."""
    bands = values.shape[1]
    waves = np.cos(np.pi / bands * (np.arange(bands)[:, None] + 0.5) * np.arange(min(CEPSTRA, bands)))
    found = values @ (waves * np.sqrt(2 / bands)).astype(np.float32)
    found = found - found.mean(0)
    return np.concatenate([found, 3 * slopes(found)], 1)


@dataclass
class Markov:
    """One Gaussian with a diagonal covariance for each of a few states per label, on cepstra and their slopes (Rabiner
    1989). States are in a row, and are trained by Viterbi from an even share of the frames for each.

    State 0 is silence, then come those of the first label, those of the second, ...: means and variances [N, F].
    """

    states: int  # per label
    labels: list[int]
    means: np.ndarray
    variances: np.ndarray
    penalty: float = 0.0

    @classmethod
    def fit(cls, values: Sequence[np.ndarray], texts: Sequence[Sequence[int]]) -> Markov:
        labels = sorted({label for text in texts for label in text})
        frames, said = sum(map(len, values)), sum(map(len, texts))
        states = max(1, min(8, frames // said // 4))  # a state lasts some 40 ms
        known = np.concatenate(values)
        model = cls(states, labels, np.zeros((1 + states * len(labels), known.shape[1])), np.ones(1))
        chains = [model._chain(text) for text in texts]
        # A recording with fewer frames than the states of its labels has no path.
        rows = [k for k, text in enumerate(texts) if len(values[k]) >= states * len(text)]
        values, chains = [values[k] for k in rows], [chains[k] for k in rows]
        paths = [chain[np.arange(len(of)) * len(chain) // len(of)] for of, chain in zip(values, chains, strict=True)]
        for _ in range(ROUNDS):
            model._estimate(np.concatenate(values), np.concatenate(paths), known.var(0))
            paths = [chain[model._forced(of, chain)] for of, chain in zip(values, chains, strict=True)]
        return model

    def _chain(self, text: Sequence[int]) -> np.ndarray:
        """The states of a text in their order, silence before, between and after."""
        chain = [0]
        for label in text:
            first = 1 + self.states * self.labels.index(label)
            chain += [*range(first, first + self.states), 0]
        return np.array(chain)

    def _estimate(self, frames: np.ndarray, states: np.ndarray, variance: np.ndarray) -> None:
        """Means and variances of each state's frames, drawn a little towards those of all."""
        hits = np.zeros((len(self.means), len(frames)), np.float32)
        hits[states, np.arange(len(frames))] = 1
        counts = hits.sum(1)[:, None]
        self.means = (hits @ frames + frames.mean(0)) / (counts + 1)
        squares = (hits @ frames**2 + variance + frames.mean(0) ** 2) / (counts + 1)
        self.variances = np.maximum(squares - self.means**2, SMALLEST_VARIANCE * variance)

    def _scores(self, frames: np.ndarray) -> np.ndarray:
        """The log-density of every frame in every state, [T, N]."""
        weights = 1 / self.variances
        constant = (np.log(2 * np.pi * self.variances) + self.means**2 * weights).sum(1)
        return -0.5 * (frames**2 @ weights.T - 2 * frames @ (self.means * weights).T + constant)

    def _forced(self, frames: np.ndarray, chain: np.ndarray) -> np.ndarray:
        """The place in a chain of each frame on the best path through it; silence between labels may be left out."""
        scores = self._scores(frames)[:, chain]
        may_skip = np.zeros(len(chain), bool)
        may_skip[2:] = chain[1:-1] == 0
        reached = np.where(np.arange(len(chain)) < 2, scores[0], -np.inf)
        ways = np.full((3, len(chain)), -np.inf)
        came = np.zeros(scores.shape, np.int8)
        for step in range(1, len(scores)):
            ways[0], ways[1, 1:], ways[2, 2:] = reached, reached[:-1], np.where(may_skip[2:], reached[:-2], -np.inf)
            came[step] = ways.argmax(0)
            reached = ways.max(0) + scores[step]
        place = len(chain) - 1 - int(reached[-2] > reached[-1])
        path = [place]
        for step in range(len(scores) - 1, 0, -1):
            place -= int(came[step, place])
            path.append(place)
        return np.array(path[::-1])

    def spans(self, values: np.ndarray, text: Sequence[int]) -> np.ndarray:
        """Where each label of a text lies, as shares of the recording, [L, 2]; even ones where it cannot be said."""
        edges = np.arange(len(text) + 1) / len(text)
        if len(values) < self.states * len(text) or not set(text) <= set(self.labels):
            return np.stack([edges[:-1], edges[1:]], 1)
        path = self._forced(values, self._chain(text))
        starts = 1 + np.arange(len(text)) * (self.states + 1)
        places = np.searchsorted(path, [starts, starts + self.states])
        return places.T / len(values)

    def recognise(self, values: Sequence[np.ndarray]) -> list[list[int]]:
        return [self._best_labels(self._scores(frames), self.penalty) for frames in values]

    def _best_labels(self, scores: np.ndarray, penalty: float) -> list[int]:
        """The labels on the best path through any text: after each label or silence, any label or silence."""
        number = scores.shape[1]
        firsts = np.arange(1, number, self.states)
        lasts = np.concatenate([[0], firsts + self.states - 1])
        cost = np.full(number, -np.inf)
        cost[0], cost[firsts] = 0.0, -penalty
        reached = cost + scores[0]
        came = np.zeros(scores.shape, np.int32)
        own, before = np.arange(number), np.arange(number) - 1
        inside = np.ones(number, bool)
        inside[0] = inside[firsts] = False
        for step in range(1, len(scores)):
            end = lasts[reached[lasts].argmax()]
            move = np.where(inside, reached[before], reached[end] + cost)
            moves = move > reached
            came[step] = np.where(moves, np.where(inside, before, end), own)
            # A label that follows itself at once starts over: `number` is added to say so.
            came[step] += np.where(moves & ~inside & (own != 0), number, 0)
            reached = np.where(moves, move, reached) + scores[step]
        state = int(lasts[reached[lasts].argmax()])
        found = []
        for step in range(len(scores) - 1, 0, -1):
            origin = int(came[step, state])
            if origin >= number:
                found.append(self._label(state))
            state = origin % number
        if state:
            found.append(self._label(state))
        return found[::-1]

    def _label(self, state: int) -> int:
        return self.labels[(state - 1) // self.states]

    def choose_penalty(self, values: Sequence[np.ndarray], texts: Sequence[Sequence[int]]) -> None:
        """Set what each label costs in `recognise` to what makes the fewest errors on some recordings."""
        scores = [self._scores(frames) for frames in values[:TRIED]]

        def errors(penalty: float) -> float:
            came = [" ".join(map(str, self._best_labels(of, penalty))) for of in scores]
            return word_error_rate(came, [" ".join(map(str, text)) for text in texts[:TRIED]])

        self.penalty = min(PENALTIES, key=errors)
