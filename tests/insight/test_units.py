"""The unit that follows something is found where it was planted, and said to be none where nothing follows."""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from everloop import Recurrent
from everloop.insight.inside import Inside
from everloop.insight.recording import record
from everloop.insight.units import (
    UnitName,
    bracket_depth,
    find_units,
    inside_brackets,
    inside_quotes,
    place_in_line,
    unit_names,
    values_of,
)
from everloop.testing import SAME, assert_close

UNITS, PLANTED = 6, 4


class Counter(nn.Module):
    """Ids [1, T] -> anything: a layer that adds up what it reads, of which one unit counts open brackets."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = Recurrent("irnn", UNITS, UNITS, dtype=torch.float64)
        self.table = torch.rand(128, UNITS, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
        self.table[:, PLANTED] = 0.0
        self.table[ord("("), PLANTED], self.table[ord(")"), PLANTED] = 1.0, -1.0
        layer: Any = self.recurrent.layers[0][0]  # type: ignore[index]
        with torch.no_grad():
            for array in layer.parameters():
                array.copy_(torch.eye(UNITS) if array.dim() == 2 else torch.zeros(UNITS))

    def forward(self, ids: Tensor) -> Tensor:
        return self.recurrent(self.table[ids])[0][:, -1].sum(-1)


class Task:
    """What has `inside`, as a fitted task does; one letter is one piece."""

    def __init__(self) -> None:
        self.network = Counter()

    def inside(self, text: str, target: None = None, *, at: None = None) -> Inside:
        ids = torch.tensor([[ord(letter) for letter in text]])
        return Inside(
            self.network, list(text), lambda n: n(ids), [("all", 1.0)], lambda out, _: out[0], None, self.never, ""
        )

    def never(self, places: object) -> Inside:
        raise AssertionError(f"nothing is to be taken away, and {places} were")


def nested(seed: int) -> str:
    """Letters and brackets, all closed in the end."""
    dice, text, depth = random.Random(seed), "", 0
    for _ in range(60):
        if dice.random() < 0.2:
            text, depth = text + "(", depth + 1
        elif depth and dice.random() < 0.25:
            text, depth = text + ")", depth - 1
        else:
            text += dice.choice("abcdefgh ")
    return text + ")" * depth


TEXTS = [nested(seed) for seed in range(12)]
MEASURED = np.random.default_rng(0).permutation(12)[:6]
"""Those that units are not chosen on."""


@pytest.mark.parametrize(("follows", "measure"), [("brackets", "auc"), ("depth", "correlation")])
def test_the_planted_unit_is_found(follows: str, measure: str) -> None:
    best, *others = find_units(Task(), TEXTS, follows)
    assert best.name == UnitName("recurrent", 0, "forward", "h", PLANTED)
    assert (best.measure, best.sign, best.units) == (measure, 1, UNITS)
    assert_close(best.held_out, 1.0, SAME)
    assert best.steps == sum(len(TEXTS[k]) for k in MEASURED)
    assert all(other.chosen < 1 for other in others)


def test_a_unit_that_goes_down_is_found_as_well() -> None:
    best, *_ = find_units(Task(), TEXTS, lambda pieces: -bracket_depth(pieces))
    assert (best.name.unit, best.sign) == (PLANTED, -1)
    assert_close(best.held_out, 1.0, SAME)


def test_how_well_is_measured_on_what_it_was_not_chosen_on() -> None:
    """Coins thrown anew for every text: some unit fits those it is chosen on; on others it is as good as a coin."""

    def coins(pieces: list[str]) -> np.ndarray:
        return np.random.default_rng(zlib.crc32("".join(pieces).encode())).random(len(pieces)) < 0.5

    texts = [nested(seed) for seed in range(100, 160)]
    best, *_ = find_units(Task(), texts, coins)
    # Some 2,000 steps a half: the AUC of a coin has a standard deviation of 0.013.
    assert abs(best.held_out - 0.5) < 0.05
    assert best.chosen > 0.5


def test_auc_is_scikit_learns_and_correlation_numpys() -> None:
    from sklearn.metrics import roc_auc_score

    best, *_ = find_units(Task(), TEXTS, lambda pieces: np.array([piece in "abc" for piece in pieces]))
    values = [values_of(record(Task().inside(TEXTS[k])), best.name) for k in MEASURED]
    truth = [[piece in "abc" for piece in TEXTS[k]] for k in MEASURED]
    held_out = roc_auc_score(np.concatenate(truth), best.sign * np.concatenate(values))
    assert_close(best.held_out, held_out, SAME)
    best, *_ = find_units(Task(), TEXTS, "line")
    values = [best.sign * values_of(record(Task().inside(TEXTS[k])), best.name) for k in MEASURED]
    places = [place_in_line(TEXTS[k]) for k in MEASURED]
    assert_close(best.held_out, np.corrcoef(np.concatenate(values), np.concatenate(places))[0, 1], SAME)


def test_values_are_those_of_the_recording() -> None:
    recording = record(Task().inside("a(b)c"))
    assert unit_names(recording.layers) == [UnitName("recurrent", 0, "forward", "h", unit) for unit in range(UNITS)]
    assert_close(values_of(recording, UnitName("recurrent", 0, "forward", "h", PLANTED)), [0, 1, 1, 0, 0], SAME)
    with pytest.raises(ValueError, match=r"h\[99\] came, which the recording does not have"):
        values_of(recording, UnitName("recurrent", 0, "forward", "h", 99))


def test_properties_of_texts() -> None:
    assert inside_quotes('a "b" c').tolist() == [False, False, True, True, False, False, False]
    assert inside_quotes(["他说", "「好", "」", "。"]).tolist() == [False, True, False, False]
    assert inside_quotes(["“it", "'s", "”"]).tolist() == [True, True, False]
    assert bracket_depth("a(b[c])d)").tolist() == [0, 1, 1, 2, 2, 1, 0, 0, 0]
    assert inside_brackets(["f(", "x", ")"]).tolist() == [True, True, False]
    assert bracket_depth("(]").tolist() == [1, 1]
    assert place_in_line(["ab", "c\nd", "ef", "\n"]).tolist() == [2, 1, 3, 0]


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="follows: 'rhymes' came; expected one of quotes, brackets, depth, line"):
        find_units(Task(), TEXTS, "rhymes")
    with pytest.raises(ValueError, match="1 came; expected two or more"):
        find_units(Task(), TEXTS[:1], "depth")
    with pytest.raises(ValueError, match=r"at every step of the inputs to (choose|measure) on: nothing to follow"):
        find_units(Task(), ["abc", "cab"], "brackets")
    with pytest.raises(ValueError, match=r"shape \(1,\); expected one per piece, \(3,\)"):
        find_units(Task(), ["abc", "cab"], lambda pieces: [1.0])
