"""The classic demonstrations, smaller than they are shown: what each claims is measured, and its figure is drawn."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

from everloop import cells
from everloop.insight.demonstrations import NAMES, clipping, demonstrate, exploding, order, vanishing
from everloop.insight.demonstrations.carrying import Carrying
from everloop.insight.demonstrations.carrying import run as carrying_run
from everloop.insight.demonstrations.learning import KEEPING, Reader, keeping, learn
from everloop.insight.demonstrations.problems import (
    ADDING_TRIVIAL,
    WORDS,
    adding,
    copying,
    sentences,
    shuffled,
)
from everloop.insight.dynamics import half_life, lyapunov
from everloop.insight.recording import record
from everloop.nn import Recurrent
from everloop.testing import FLOAT32, SAME, assert_close

SMALL = {
    "order": {"hidden": 12, "updates": 60, "count": 50},
    "vanishing": {"delay": 20, "hidden": 8, "updates": 20},
    "exploding": {"hidden": 12, "steps": 30, "points": 5},
    "clipping": {"hidden": 8, "updates": 30, "delay": 10},
    "carrying": {"cells": ("elman", "lstm"), "delays": (2, 6), "hidden": 8, "updates": 60},
}


# -- problems ---------------------------------------------------------------------------------------------------------


def test_a_shuffled_sentence_has_the_same_words() -> None:
    random = np.random.default_rng(0)
    given = sentences(40, random)
    mixed = shuffled(given, random)
    for said, other in zip(given.words, mixed.words, strict=True):
        assert sorted(said) == sorted(other)
    assert_close(given.x.sum(1), mixed.x.sum(1))
    assert given.x.sum(-1).eq(1).all()
    for said, dog_bites in zip(given.words, given.target, strict=True):
        bites = said.index("bites")
        assert (said.index("dog") < bites) == (said.index("man") > bites) == bool(dog_bites)
    assert 0.2 < given.target.mean() < 0.8
    assert [WORDS[place] for place in given.x[0].argmax(-1)] == given.words[0]


def test_adding_asks_for_the_ends() -> None:
    x, target = adding(3000, 7, np.random.default_rng(0))
    assert x.shape == (3000, 8, 2)
    assert x[..., 1].sum(1).eq(2).all()
    assert_close((x[..., 0] * x[..., 1]).sum(1), target, FLOAT32)
    known = x[:, -1, 0] + 0.5
    assert abs(((known - target) ** 2).mean() - ADDING_TRIVIAL) < 0.01


@pytest.mark.parametrize("delay", [1, 5])
def test_copying_asks_for_what_was_shown_after_the_signal(delay: int) -> None:
    x, target = copying(20, delay, np.random.default_rng(0), length=3, symbols=4)
    written = x.argmax(-1)
    assert x.shape == (20, 6 + delay, 6)
    assert written[:, :3].equal(target)
    assert (written[:, 2 + delay] == 5).all()
    assert ((written == 5).sum(1) == 1).all()
    assert ((written == 4).sum(1) == delay + 2).all()


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KEEPING)
def test_gates_that_are_mostly_open_keep_for_as_long_as_asked(name: str) -> None:
    """Without input and matrices, f of a unit is 1 - 1/n for a time of n steps."""
    layer = Recurrent(keeping(name, 50), 2, 8, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim() == 2:
                parameter.zero_()
    (one,) = record(layer, torch.zeros(1, 5, 2, dtype=torch.float64)).layers
    times = 1 + (np.arange(8) + 0.5) / 8 * 48
    (found, *_) = half_life(one).values()
    assert_close(found, math.log(2) / np.log((times + 1) / times))


def test_a_cell_without_such_a_bias_comes_as_it_is() -> None:
    assert keeping("elman", 50).init == cells.get("elman").init


def test_learning_is_by_its_own_loss_and_stops_where_told() -> None:
    torch.manual_seed(0)
    network, random = Reader("gru", 2, 16, 1), np.random.default_rng(0)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        return adding(16, 3, random)

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(output[:, 0, 0], target)

    found = learn(network, draw, loss, updates=40, rate=0.01, clip=1.0)
    assert found.loss.shape == found.norm.shape == (40,)
    assert found.loss[-10:].mean() < found.loss[:10].mean() / 2
    stopped = learn(network, draw, loss, updates=500, rate=0.01, enough=1.0)
    assert len(stopped.loss) == 50


def test_an_exploded_gradient_ends_it() -> None:
    network = Reader("irnn", 1, 4, 1)
    found = learn(
        network, lambda: (torch.full((1, 3, 1), 1e30), torch.zeros(1)), lambda y, _: (y**3).sum(), updates=9, rate=1.0
    )
    assert len(found.norm) < 9
    assert not math.isfinite(found.norm[-1])


# -- what they claim --------------------------------------------------------------------------------------------------


def test_only_the_recurrent_network_notices_the_order() -> None:
    found = order.run(hidden=16, updates=200, count=200)
    assert found.moved["feed-forward"] < 1e-5
    assert found.moved["recurrent"] > 0.5
    assert found.right["recurrent"][0] > 0.9
    assert abs(found.right["feed-forward"][0] - 0.5) < 0.2
    assert "never changes its answer" in found.summary


def test_tanh_vanishes_and_gates_carry() -> None:
    found = vanishing.run(delay=60, hidden=16, updates=1)
    assert found.norms["elman"][-1] < found.norms["lstm"][-1] / 5
    assert found.norms["elman"][-1] < found.norms["gru"][-1] / 5
    # The exponent, found on the way there, tells what is left of a gradient on its way back.
    assert abs(math.log(found.norms["elman"][-1]) / 60 - found.exponent["elman"]) < 0.03
    assert found.singular["elman"].max() <= 1 + FLOAT32.relative
    assert all((np.diff(values) <= 0).all() for values in found.singular.values())


def test_large_weights_explode_and_small_ones_vanish() -> None:
    found = exploding.run(shown=(0.5, 3.0), hidden=32, steps=60, points=7)
    small, large = found.norms[0.5][-1], found.norms[3.0][-1]
    assert small < 1e-6 < 1e2 < large
    assert found.apart[0.5][-1] < exploding.APART < 1e2 * exploding.APART < found.apart[3.0][-1]
    assert found.edge is not None
    assert 0.7 < found.edge < 1.7


def test_the_exponent_of_weights_without_tanh_is_their_gain() -> None:
    """At rest, tanh is the identity: the exponent is the logarithm of the largest eigenvalue."""
    layer = Recurrent("elman", 1, 5, dtype=torch.float64)
    matrix = torch.diag(torch.tensor([0.9, 0.5, 0.3, 0.2, 0.1], dtype=torch.float64))
    found = lyapunov(exploding._with(layer, matrix), torch.zeros(1, 40, 1, dtype=torch.float64), count=1)
    assert_close(found, [[math.log(0.9)]])


def test_clipping_keeps_what_would_be_thrown() -> None:
    found = clipping.run(updates=250, delay=15)
    assert found.descents["free"].max() > 5
    assert found.descents["clipped"].max() <= 2
    assert np.abs(np.diff(found.descents["clipped"])).max() <= clipping.CLIFF_RATE * clipping.CLIFF_CLIP + SAME.absolute
    assert found.trainings["clipped"].loss[-50:].mean() < found.trainings["free"].loss[-50:].mean()
    # Both begin alike: the first gradient is the same, before it is shortened.
    assert found.trainings["clipped"].norm[0] == found.trainings["free"].norm[0] > found.clip


def test_the_cliff_is_the_loss_of_a_tanh_unit() -> None:
    unit = Recurrent("elman", 1, 1, dtype=torch.float64)
    for weight in (1.3, 1.8):
        h = clipping.START
        for _ in range(clipping.STEPS):
            h = math.tanh(weight * h + clipping.BIAS)
        assert_close(clipping._height(unit, weight)[0], (h - clipping.TARGET) ** 2)


def test_carrying_scores_memory() -> None:
    found = carrying_run(cells=("gru", "mingru"), delays=(3,), hidden=16, updates=300)
    assert found.scores["adding"]["gru"][0] > 0.9
    assert found.carried("adding", "gru") == 3
    assert found.scores["copying"]["gru"][0] > found.scores["copying"]["mingru"][0]
    scores = np.array([0.99, 0.95, 0.3, 0.97])
    made = Carrying((1, 2, 4, 8), {"adding": {"a": scores, "b": scores[::-1] * 0, "c": scores * 0 + 1}})
    assert [made.carried("adding", cell) for cell in "abc"] == [2, 0, 8]
    assert "a 2, b 0, c 8" in made.summary


# -- figures of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_is_one_call(name: str, tmp_path) -> None:
    found = demonstrate(name, tmp_path / f"{name}.svg", SMALL[name])
    assert found.summary.endswith(".")
    assert found.path == tmp_path / f"{name}.svg"
    drawing = ElementTree.fromstring(found.path.read_text(encoding="utf-8"))
    texts = ["".join(element.itertext()).strip() for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert len(texts) > 20
    assert all(math.isfinite(float(part)) for part in drawing.get("viewBox", "").split())


@pytest.mark.parametrize("name", sorted({*NAMES} - {"carrying"}))
def test_it_can_be_repeated(name: str) -> None:
    before = torch.random.get_rng_state()
    first, second = (demonstrate(name, options=SMALL[name]).summary for _ in range(2))
    assert first == second
    assert torch.random.get_rng_state().equal(before)


def test_the_same_seed_finds_the_same() -> None:
    first, second, other = (
        demonstrate("vanishing", options=SMALL["vanishing"] | {"seed": seed}).data for seed in (0, 0, 1)
    )
    for name, norms in first.norms.items():
        assert norms.tolist() == second.norms[name].tolist() != other.norms[name].tolist()
        assert first.loss[name].tolist() == second.loss[name].tolist()


@pytest.mark.parametrize(("cells", "delays"), [("gru, lstm", "2,3"), (["gru", "lstm"], [2, 3]), ("gru,lstm", ("2", 3))])
def test_several_can_be_said_in_a_text(cells, delays) -> None:
    options = {"cells": cells, "delays": delays, "hidden": "4", "updates": 2}
    found = demonstrate("carrying", options=options).data
    assert found.delays == (2, 3)
    assert list(found.scores["copying"]) == ["gru", "lstm"]


def test_what_is_not_there_is_said(tmp_path) -> None:
    with pytest.raises(ValueError, match="'nothing' came; there are order, vanishing"):
        demonstrate("nothing")
    with pytest.raises(ValueError, match="option 'speed' came; there are hidden, updates, count, seed"):
        demonstrate("order", options={"speed": 1})
    for wrong in ("fast", 1.5, None, [1]):
        with pytest.raises(ValueError, match=r"order: option hidden: .* came; expected something like 24"):
            demonstrate("order", options={"hidden": wrong})
    with pytest.raises(ValueError, match="option cells: none came"):
        demonstrate("carrying", options={"cells": []})
    with pytest.raises(ValueError, match="cells: 8 came; expected at most 7"):
        demonstrate("carrying", options={"cells": ["gru"] * 8})
    with pytest.raises(ValueError, match="theme: 'blue' came"):
        demonstrate("order", theme="blue")
    with pytest.raises(ValueError, match=r"expected \.png or \.svg"):
        demonstrate("order", tmp_path / "order.gif", SMALL["order"])
