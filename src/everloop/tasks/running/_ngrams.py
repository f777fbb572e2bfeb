"""The linear model on runs of pieces that stands beside the recurrent layers of a classifier of texts."""

from __future__ import annotations

import math

import numpy as np

from everloop.tasks.running._learned import Learned

NGRAM_SCALE = 5.0
"""What the scores of n-grams are multiplied by, so that they learn as fast as the rest: their gradients are small."""


class Ngrams:
    """Its keys and weights, as the network has them."""

    def __init__(self, learned: Learned) -> None:
        number, classes = int(learned.fitted["ngrams"]), len(learned.fitted["classes"])
        self.longest, self.base = int(learned.fitted["longest"]), len(learned.codec) + 1
        self.keys = learned.weight("ngram_keys", number)
        self.table = learned.weight("ngram_scores.weight", number + 1, classes)
        self.bias = learned.weight("ngram_bias", classes)
        self.mixture = np.array(learned.fitted["mixture"], np.float32)

    def ending_at_each(self, ids: np.ndarray, before: np.ndarray) -> np.ndarray:
        """[T, C]: what the runs that end at each piece add. before: the pieces before, as many as a run can reach."""
        whole = np.concatenate([before, ids])
        total = np.zeros((len(ids), self.table.shape[1]), np.float32)
        keys = np.zeros(len(whole) + 1, np.int64)
        for n in range(self.longest):
            keys = keys[:-1] * self.base + whole[n:] + 1
            ends = keys[max(0, len(before) - n) :]
            total[len(ids) - len(ends) :] += self.table[places(ends, self.keys)]
        return total

    def scores(self, total: np.ndarray, length: int) -> np.ndarray:
        """Of what the runs in a text of that length come to, [C]."""
        return np.float32(NGRAM_SCALE / math.sqrt(max(length, 1))) * total + self.bias

    def mixed(self, of_layers: np.ndarray, of_ngrams: np.ndarray) -> np.ndarray:
        """Both scores [..., C] as one."""
        return self.mixture[0] * of_layers + self.mixture[1] * of_ngrams


def places(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where keys stand among the sorted known ones; those that do not: behind them all."""
    places = np.searchsorted(known, keys).clip(max=len(known) - 1)
    return np.where(known[places] == keys, places, len(known))
