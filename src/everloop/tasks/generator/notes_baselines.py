"""Baselines of a generator of music: how often each key sounds, and what sounded a step before."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from everloop.tasks.baseline import Baseline


def notes_baselines(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> list[Baseline]:
    """Rolls [T, K] of 0 and 1. The loss is nats per step, summed over the keys, of all steps of the test pieces.

    Every key by itself, sounding as often as in training; and as often as in training after steps at which it did or
    did not sound, silence standing before the first. Counts begin at 1/2 (Jeffreys), so that nothing is impossible.
    """
    start = time.perf_counter()
    sounds = np.concatenate([*train]).astype(bool)
    frequent = Baseline("how often each key sounds", *_scored(_share(sounds, len(sounds)), test, start))
    start = time.perf_counter()
    before = np.concatenate([_before(roll) for roll in train])
    after = [_share(sounds & (before == was), (before == was).sum(0)) for was in (False, True)]

    def given(roll: np.ndarray) -> np.ndarray:
        return np.where(_before(roll), after[1], after[0])

    return [frequent, Baseline("each key by whether it sounded before", *_scored(given, test, start))]


def _share(sounds: np.ndarray, steps: int | np.ndarray) -> np.ndarray:
    return (sounds.sum(0) + 0.5) / (steps + 1.0)


def _before(roll: np.ndarray) -> np.ndarray:
    return np.pad(roll.astype(bool), ((1, 0), (0, 0)))[:-1]


def _scored(share: object, test: Sequence[np.ndarray], start: float) -> tuple[dict[str, float], float]:
    """share: of each key [K], or what gives it for each step of a roll, [T, K]."""
    nats = 0.0
    for roll in test:
        p = share(roll) if callable(share) else share
        nats -= np.log(np.where(roll, p, 1 - np.asarray(p))).sum()
    return {"loss": float(nats / sum(map(len, test)))}, time.perf_counter() - start
