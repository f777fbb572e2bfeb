"""Who notices the order? A feed-forward network beside a recurrent one, on the same words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from everloop.insight.demonstrations.learning import learn
from everloop.insight.demonstrations.problems import WORDS, Sentences, as_sentences, sentences, shuffled
from everloop.insight.figures import Look, label_ends, sheet
from everloop.nn import Recurrent

FEED_FORWARD, RECURRENT = "feed-forward", "recurrent"


class FeedForward(nn.Module):
    """Each word by itself, through two layers; the sum of what is made of them is the answer so far, [B, T]."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(len(WORDS), hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[..., 0].cumsum(1)


class Recurring(nn.Module):
    """A word after the other: the answer so far, [B, T]."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.recurrent, self.head = Recurrent("gru", len(WORDS), hidden), nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0])[..., 0]


@dataclass(frozen=True)
class Order:
    """said: a sentence, and its words in another order. so_far: by network, the probability that the dog bites after
    each word of either, [2, T]. before, after: of test sentences, by network, the probability at the end as they stand
    and shuffled. right: the share of them that is answered right, as they stand and shuffled.
    """

    said: tuple[list[str], list[str]]
    so_far: dict[str, np.ndarray]
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    right: dict[str, tuple[float, float]]

    @property
    def moved(self) -> dict[str, float]:
        """By network, by how much the answer moves at most when the words change places."""
        return {name: float(np.abs(self.after[name] - self.before[name]).max()) for name in self.before}

    @property
    def summary(self) -> str:
        parts = []
        for name, (stands, mixed) in self.right.items():
            moved = self.moved[name]
            says = "never changes its answer" if moved < 1e-5 else f"changes its answer by up to {moved:.2f}"
            parts.append(
                f"the {name} network is right in {stands:.0%} of the sentences ({mixed:.0%} shuffled) and {says}"
            )
        return f"Who bites? With the words in another order, {'; '.join(parts)}."


def run(*, hidden: int = 24, updates: int = 300, count: int = 400, seed: int = 0) -> Order:
    """Train both networks to say who bites whom, and shuffle the words."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    networks: dict[str, nn.Module] = {FEED_FORWARD: FeedForward(hidden), RECURRENT: Recurring(hidden)}

    def draw() -> tuple[Tensor, Tensor]:
        batch = sentences(32, random)
        return batch.x, batch.target

    def loss(answers: Tensor, target: Tensor) -> Tensor:
        # Asked after every word, so that each answers as well as it can with what it has heard so far.
        return nn.functional.binary_cross_entropy_with_logits(answers, target[:, None].expand_as(answers))

    for network in networks.values():
        learn(network, draw, loss, updates=updates, rate=0.01, clip=1.0)
    test = sentences(count, random)
    mixed = shuffled(test, random)
    # One to show: both orders sound, and the truth turns.
    said = ["today", "the", "dog", "loudly", "bites", "the", "man", "here"]
    swapped = [{"dog": "man", "man": "dog"}.get(word, word) for word in said]
    pair = as_sentences([said, swapped])
    before, after = ({name: _says(net, given)[:, -1] for name, net in networks.items()} for given in (test, mixed))
    return Order(
        (pair.words[0], pair.words[1]),
        {name: _says(network, pair) for name, network in networks.items()},
        before,
        after,
        {name: (_right(before[name], test), _right(after[name], mixed)) for name in networks},
    )


def draw(found: Order, look: Look) -> Any:
    figure, (left, middle, right) = sheet("Who bites whom? Only a network with a memory can tell", [3.4, 3.0, 4.2])
    colours = dict(zip(found.so_far, (look.colours[1], look.colours[0]), strict=True))
    for axes, words, row in ((left, found.said[0], 0), (middle, found.said[1], 1)):
        for name, answers in found.so_far.items():
            axes.plot(answers[row], color=colours[name], marker="o", markersize=4)
        axes.set_xticks(range(len(words)), words, rotation=55, ha="right", rotation_mode="anchor")
        axes.set_ylim(-0.05, 1.05)
        axes.set_yticks([0, 0.5, 1], ["man bites", "open", "dog bites"] if row == 0 else [])
        axes.set_title("answers while reading, word by word" if row == 0 else "dog and man swapped")
        for tick, word in zip(axes.get_xticklabels(), words, strict=True):
            if word in ("dog", "man", "bites"):
                tick.set_color(look.ink)
                tick.set_fontweight("bold")
    changes = {name: np.sort(np.abs(found.after[name] - answers)) for name, answers in found.before.items()}
    for name, values in changes.items():
        right.plot(np.linspace(0, 1, len(values)), values, color=colours[name], clip_on=False)
    right.set(xlim=(0, 1), ylim=(-0.05, 1.05), xticks=[0, 0.5, 1], xticklabels=["0", "half of them", "all"])
    right.set(ylabel="change of the answer", xlabel="sentences, from the least moved to the most")
    right.set_title(f"{len(changes[RECURRENT])} new sentences, words shuffled: who notices?")
    ends = [
        (values[-1], f"{name}\n{found.right[name][0]:.0%} right", colours[name]) for name, values in changes.items()
    ]
    label_ends(right, ends)
    return figure


def _says(network: nn.Module, given: Sentences) -> np.ndarray:
    """The probability that the dog bites, after each word: [B, T]."""
    with torch.no_grad():
        return network(given.x).sigmoid().numpy()


def _right(answers: np.ndarray, given: Sentences) -> float:
    return float(((answers > 0.5) == (given.target.numpy() > 0.5)).mean())
