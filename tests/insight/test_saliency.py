"""Saliency against what is known to be true: sums that must come out, and models made so that one piece decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from everloop import Recurrent
from everloop.insight.inside import Inside
from everloop.insight.saliency import Saliency, area, deletion_test, integrated_gradients, occlusion, score_of
from everloop.testing import SAME, assert_close

ANSWERS = ["no", "yes"]


class Reader(nn.Module):
    """Ids [1, T] -> scores [1, 2]; id 0 is the unknown piece."""

    def __init__(self, cell: str = "lstm", *, seed: int = 0, **how: Any) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(12, 5)
        self.recurrent = Recurrent(cell, 5, 6, **how)
        self.linear = nn.Linear(self.recurrent.output_size, 2)

    def forward(self, ids: Tensor) -> Tensor:
        y, _ = self.recurrent(self.embedding(ids))
        return self.linear(y.mean(1)).log_softmax(-1)


class Telling(nn.Module):
    """Says yes as surely as its inputs say it: what the layer puts out is what it is given, with weights made so."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(table)
        self.recurrent = Recurrent("irnn", table.shape[1], table.shape[1], dtype=table.dtype)
        layer: Any = self.recurrent.layers[0][0]  # type: ignore[index]
        with torch.no_grad():
            for name, array in layer.named_parameters():
                array.copy_(torch.eye(len(array), dtype=array.dtype) if name in ("W", "U") else torch.zeros_like(array))

    def forward(self, ids: Tensor) -> Tensor:
        y, _ = self.recurrent(self.embedding(ids))
        total = y[:, -1].sum(-1)
        return torch.stack([-total, total], -1)


def inside_of(network: nn.Module, ids: Sequence[int]) -> Inside:
    network = network.double().eval()

    def run(used: nn.Module) -> Tensor:
        return used(torch.tensor([list(ids)]))

    def score(output: Tensor, answer: str | None) -> Tensor:
        return output[0, ANSWERS.index(answer)] if answer else output[0].max()

    def without(places: Sequence[int]) -> Inside:
        gone = set(places)
        return inside_of(network, [0 if k in gone else id for k, id in enumerate(ids)])

    with torch.no_grad():
        found = run(network)[0]
    order = found.argsort(descending=True).tolist()
    answers = [(ANSWERS[k], float(found[k].exp())) for k in order]
    return Inside(network, [f"w{id}" for id in ids], run, answers, score, None, without, "an unknown word")


IDS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.mark.parametrize(
    ("cell", "how"),
    [("lstm", {}), ("gru", {"bidirectional": True}), ("elman", {"num_layers": 2}), ("mingru", {})],
    ids=["one layer", "both directions", "two layers", "a scan"],
)
def test_integrated_gradients_are_complete(cell: str, how: dict[str, Any]) -> None:
    """What the pieces add sums up to the score less the score of nothing, whatever the cell."""
    inside = inside_of(Reader(cell, **how), IDS)
    found = integrated_gradients(inside)
    assert found.values.shape == (len(IDS),)
    assert_close(found.values.sum(), found.score - found.empty, SAME)
    assert found.error == abs(found.values.sum() - (found.score - found.empty))
    assert_close(found.score, score_of(inside, found.answer), SAME)
    assert found.answer == inside.answers[0][0]


class Torch(nn.Module):
    """The same with a layer of torch, which reads padded or packed steps, the batch or the time first."""

    def __init__(self, batch_first: bool, packed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.packed = nn.Embedding(12, 5), packed
        self.layer = nn.LSTM(5, 6, batch_first=batch_first)
        self.linear = nn.Linear(6, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids if self.layer.batch_first else ids.T)
        if self.packed:
            x = pack_padded_sequence(x, torch.tensor([ids.shape[1]]), batch_first=self.layer.batch_first)
        _, (h, _) = self.layer(x)
        return self.linear(h[-1]).log_softmax(-1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_layers_of_torch_do_as_well(batch_first: bool, packed: bool) -> None:
    inside = inside_of(Torch(batch_first, packed), IDS)
    found = integrated_gradients(inside)
    assert found.values.shape == (len(IDS),)
    assert_close(found.values.sum(), found.score - found.empty, SAME)
    assert_close(found.values, integrated_gradients(inside_of(Torch(True, False), IDS)).values, SAME)


def test_the_score_of_nothing_is_that_of_zeros() -> None:
    network = Reader("gru")
    found = integrated_gradients(inside_of(network, IDS), "yes")
    with torch.no_grad():
        y, _ = network.recurrent(torch.zeros(1, len(IDS), 5, dtype=torch.float64))
        expected = network.linear(y.mean(1)).log_softmax(-1)[0, 1]
    assert_close(found.empty, expected, SAME)


def test_integrated_gradients_of_a_linear_model_are_what_each_piece_adds() -> None:
    """Of a sum, every method knows the truth, and one step of the way is enough."""
    table = torch.rand(12, 3, dtype=torch.float64)
    inside = inside_of(Telling(table), IDS)
    true = table[IDS].sum(-1)
    for steps in (1, 8):
        assert_close(integrated_gradients(inside, "yes", steps=steps).values, true, SAME)
        assert_close(integrated_gradients(inside, "no", steps=steps).values, -true, SAME)
    assert_close(occlusion(inside, "yes").values, true - table[0].sum(), SAME)


def test_they_are_those_of_a_hand_written_sum() -> None:
    """The mean of gradients along the way, times the way, for a network written by hand."""
    network = Reader("elman")
    inside = inside_of(network, IDS)
    x = network.embedding(torch.tensor([IDS])).detach()
    total = torch.zeros_like(x)
    points, weights = np.polynomial.legendre.leggauss(16)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        there = (point * x).requires_grad_()
        y, _ = network.recurrent(there)
        network.linear(y.mean(1)).log_softmax(-1)[0, 1].backward()
        total += weight * there.grad
    expected = (total * x).sum(-1)[0]
    assert_close(integrated_gradients(inside, "yes", steps=16).values, expected, SAME)


def telling(strong: int, count: int = 10) -> Inside:
    """One of so many pieces decides."""
    table = torch.full((12, 3), 0.01, dtype=torch.float64)
    table[0], table[7] = 0.0, 2.0
    return inside_of(Telling(table), [7 if k == strong else 1 for k in range(count)])


@pytest.mark.parametrize("method", [integrated_gradients, occlusion])
@pytest.mark.parametrize("strong", [0, 4, 9])
def test_the_piece_that_decides_is_most_salient(method: Callable[..., Saliency], strong: int) -> None:
    found = method(telling(strong), "yes")
    assert found.values.argmax() == strong
    assert found.values[strong] > 0.9 * np.abs(found.values).sum()
    assert method(telling(strong), "no").values.argmin() == strong


def test_occlusion_of_neighbours_finds_the_same_place() -> None:
    found = occlusion(telling(4), "yes", width=3)
    assert found.values.argmax() == 4
    assert_close(occlusion(telling(4), "yes", width=10).values, np.full(10, (6 + 9 * 0.03) / 10), SAME)


# Deletion.


def test_a_deletion_test_beats_chance_where_a_piece_decides() -> None:
    inside = telling(4, 60)
    found = deletion_test(inside, integrated_gradients(inside, "yes"), levels=60)
    assert found.convinces
    assert found.beaten == len(found.random)
    assert found.most_first[1] < found.random[:, 1].min()
    assert area(found.shares, found.most_first) < area(found.shares, found.least_first)
    for curve in (found.most_first, found.least_first, *found.random):
        assert_close(curve[0], score_of(inside, "yes"), SAME)
        assert_close(curve[-1], score_of(inside.without(range(60)), "yes"), SAME)


def test_nothing_is_claimed_where_all_pieces_are_alike() -> None:
    """Nothing speaks for one piece more than for another: no order is better than any other."""
    table = torch.full((12, 3), 0.5, dtype=torch.float64)
    table[0] = 0.0
    inside = inside_of(Telling(table), [1] * 10)
    found = deletion_test(inside, integrated_gradients(inside, "yes"))
    assert found.chance == 1.0
    assert not found.convinces
    assert found.beaten == 0


def test_values_drawn_at_random_convince_no_more_often_than_chance() -> None:
    table = torch.rand(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inside = inside_of(Telling(table), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    dice = np.random.default_rng(0)
    chances = []
    for seed in range(40):
        drawn = Saliency("occlusion", "yes", dice.random(10), 0.0, np.nan, np.nan)
        chances.append(deletion_test(inside, drawn, orders=19, levels=5, seed=seed).chance)
    # At most one in twenty by the test's own promise: of 40, six or more have a probability under 2 %.
    assert sum(chance <= 0.05 for chance in chances) < 6
    assert 0.3 < np.mean(chances) < 0.7


def test_wrong_requests_are_refused() -> None:
    inside = telling(4)
    found = occlusion(inside, "yes")
    with pytest.raises(ValueError, match="steps: 0 came"):
        integrated_gradients(inside, steps=0)
    with pytest.raises(ValueError, match="width: 11 came; expected 1 to 10"):
        occlusion(inside, width=11)
    with pytest.raises(ValueError, match="orders: 5 came; expected 19 or more"):
        deletion_test(inside, found, orders=5)
    with pytest.raises(ValueError, match=r"values of shape \(3,\) came; expected one per piece, \(10,\)"):
        deletion_test(inside, Saliency("occlusion", "yes", np.zeros(3), 0.0, 0.0, 0.0))
    other = inside_of(nn.Sequential(nn.Embedding(12, 2), nn.Flatten(), nn.Linear(20, 2)), [1] * 10)
    with pytest.raises(ValueError, match="no recurrent layer ran"):
        integrated_gradients(other)
    inside.pieces.pop()
    with pytest.raises(ValueError, match="the layers read 10 steps and there are 9 pieces"):
        integrated_gradients(inside)
