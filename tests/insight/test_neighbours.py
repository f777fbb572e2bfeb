"""Nearest states, against a search written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from everloop import Recurrent
from everloop.insight.inside import Inside
from everloop.insight.neighbours import Places, around, collect, nearest, reading_layers, top_outputs
from everloop.insight.recording import record
from everloop.testing import FLOAT32, SAME, assert_close

LETTERS = 128


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(LETTERS, 3), Recurrent("gru", 3, 4, 2, bidirectional=True))


def inside_of(network: nn.Module, text: str) -> Inside:
    ids = torch.tensor([[ord(letter) for letter in text]])

    def without(places: object) -> Inside:
        raise AssertionError(f"nothing is to be taken away, and {places} were")

    return Inside(network, list(text), lambda n: n(ids), [("", 1.0)], lambda out, _: out[0].sum(), None, without, "")


def outputs(network: nn.Module, text: str) -> np.ndarray:
    inside = inside_of(network, text)
    return top_outputs(reading_layers(record(inside), inside.reads))


TEXTS = ["abcab", "xyz", "cabbage", "abcax"]


def test_places_are_what_the_top_layer_puts_out(network: nn.Module) -> None:
    places = collect(inside_of(network, text) for text in TEXTS)
    assert places.pieces == [list(text) for text in TEXTS]
    assert places.inputs.tolist() == [k for k, text in enumerate(TEXTS) for _ in text]
    assert places.steps.tolist() == [step for text in TEXTS for step in range(len(text))]
    for k, text in enumerate(TEXTS):
        with torch.no_grad():
            y, _ = inside_of(network, text).run(network)
        assert_close(places.vectors[places.inputs == k], y[0], FLOAT32)


def test_nearest_is_the_search_by_hand(network: nn.Module) -> None:
    places = collect(inside_of(network, text) for text in TEXTS)
    asked = outputs(network, "cabs")
    found = nearest(places, asked, count=2)
    middle = places.vectors.mean(0)
    for vector, row in zip(asked, found, strict=True):
        a, b = vector - middle, places.vectors - middle
        cosines = b @ a / (np.linalg.norm(a) * np.linalg.norm(b, axis=1))
        best = sorted(range(len(TEXTS)), key=lambda k: -cosines[places.inputs == k].max())[:2]
        assert [one.input for one in row] == best
        for one in row:
            of_it = cosines[places.inputs == one.input]
            assert one.step == of_it.argmax()
            assert_close(one.likeness, of_it.max(), FLOAT32)
            assert one.pieces == tuple(TEXTS[one.input])


def test_the_same_beginning_is_the_same_state() -> None:
    """A layer that reads forwards has read the same so far."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(LETTERS, 3), Recurrent("lstm", 3, 4))
    places = collect(inside_of(network, text) for text in ["hello there", "goodbye", "help"])
    found = nearest(places, outputs(network, "helium"), count=1)
    assert [(one.input, one.step) for (one,) in found[:3]] == [(0, 0), (0, 1), (0, 2)]
    assert_close([one.likeness for (one,) in found[:3]], np.ones(3), FLOAT32)


def test_no_more_steps_than_asked_for(network: nn.Module) -> None:
    assert collect((inside_of(network, text) for text in TEXTS), most=9).pieces == [list(text) for text in TEXTS[:2]]
    assert len(collect([inside_of(network, TEXTS[0])], most=2).vectors) == 5, "one input at least"


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="no inputs came"):
        collect([])
    places = Places(np.zeros((2, 3)), np.zeros(2, int), np.arange(2), [["a", "b"]])
    with pytest.raises(ValueError, match=r"vectors: \(4, 2\) came; expected \[T, 3\]"):
        nearest(places, np.zeros((4, 2)))
    assert_close([one.likeness for (one,) in nearest(places, np.ones((2, 3)), count=1)], np.zeros(2), SAME)


def test_surroundings_end_where_the_input_does() -> None:
    pieces = list("abcdef")
    assert [around(pieces, step, 2) for step in (0, 3, 5)] == [(0, 3), (1, 6), (3, 6)]
