"""What happens inside a `Generator`, of text and of music."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.data.notes import KEYS, key_name
from everloop.insight.inside import Inside
from everloop.tasks.inside import UNKNOWN, as_batch, pieces_of, place_of, ranked, step_at, unknown_at, with_more

if TYPE_CHECKING:
    from everloop.tasks.generator.task import Generator

NOTES = [key_name(key) for key in range(KEYS)]


def look(task: Generator, given: Any, target: Any = None, at: int | None = None) -> Inside:
    """A prompt. Answers are what may come next after the step `at`, the last of the prompt where nobody says. target:
    how it goes on, which is read, too, and of which the loss is, nats for each of its pieces."""
    find = _text if task.codec_.modality == "text" else _notes
    return find(task, given, target, at, frozenset())


def _text(task: Generator, given: str, target: str | None, at: int | None, hidden: frozenset[int]) -> Inside:
    codec, network = task.codec_, task.network_
    ids, pieces = _prompt(task, given)
    count = len(ids)
    following = np.zeros(0, np.int64) if target is None else _following(codec, target)
    if len(following):
        pieces += pieces_of(codec, str(target), following)[:-1]
        ids = np.concatenate([ids, following[:-1]])
    read = unknown_at(ids, hidden, codec.unknown)
    step = step_at(at, count - 1, len(ids), "the step after which something is asked for")
    names = [codec.piece(k) for k in range(len(codec))]

    def run(network: nn.Module) -> Tensor:
        """The scores [1, T, V] of what comes after each step."""
        network.eval()
        return network(as_batch(read, network))[0]

    def score(scores: Tensor, answer: str | None) -> Tensor:
        found = scores[0, step].log_softmax(-1)
        return found.max() if answer is None else found[place_of(answer, names, "a piece of the vocabulary")]

    def loss(scores: Tensor) -> Tensor:
        return F.cross_entropy(scores[0, count - 1 :], torch.from_numpy(following).to(scores.device))

    with torch.no_grad():
        answers = ranked(names, run(network)[0, step].double().softmax(-1).cpu().numpy())
    without = with_more(lambda more: _text(task, given, target, at, more), hidden, len(pieces))
    return Inside(network, pieces, run, answers, score, loss if len(following) else None, without, UNKNOWN[codec.unit])


def _prompt(task: Generator, given: str) -> tuple[np.ndarray, list[str]]:
    """The ids of a prompt as it is read, and their names: texts that end begin where another ended."""
    codec = task.codec_
    end = np.array([codec.end])
    if not given:
        first = end if task.ends_ else codec.encode("\n")
        first = end if first[0] == codec.unknown else first
        return first, [codec.piece(int(first[0]))]
    ids = codec.encode(given)
    pieces = pieces_of(codec, given, ids)
    if not task.ends_:
        return ids, pieces
    return np.concatenate([end, ids]), [codec.piece(codec.end), *pieces]


def _following(codec: Any, target: str) -> np.ndarray:
    if not isinstance(target, str) or not target:
        raise ValueError(f"inside: target={target!r} came; expected the text that follows the prompt")
    return codec.encode(target)


# -- music -----------------------------------------------------------------------------------------------------------


def _notes(task: Generator, given: Any, target: Any, at: int | None, hidden: frozenset[int]) -> Inside:
    """Answers are keys, each with the probability that it sounds, given the keys below it: those that sound there, and
    after the end of what is given those that are more probable than not."""
    network, codec = task.network_, task.codec_
    (roll,) = codec.encode_batch([given])
    count, goes_on = len(roll), target is not None
    if goes_on:
        roll = np.concatenate([roll, *codec.encode_batch([target])])
    # Before the first chord there is silence. The last of what is known is read only where it is not the target.
    before = np.concatenate([np.zeros((1, KEYS), np.float32), roll])[: len(roll) + (not goes_on)]
    names = ["start", *(f"{k + 1}: {_chord(row)}" for k, row in enumerate(before[1:]))]
    read = before.copy()
    read[sorted(hidden)] = 0
    step = step_at(at, count, len(read), "the step after which something is asked for")
    sound = roll if goes_on else np.concatenate([roll, _probable(network, read, roll)])

    def run(network: nn.Module) -> Tensor:
        """The scores [1, T, 88] of the keys that sound after each step."""
        network.eval()
        return network(as_batch(read, network), as_batch(sound, network), torch.tensor([len(read)]))

    def score(scores: Tensor, answer: str | None) -> Tensor:
        found = F.logsigmoid(scores[0, step])
        return found.max() if answer is None else found[place_of(answer, NOTES, "a key")]

    def loss(scores: Tensor) -> Tensor:
        truth = as_batch(sound, network)[0, count:].to(scores)
        return F.binary_cross_entropy_with_logits(scores[0, count:], truth, reduction="none").sum(-1).mean()

    with torch.no_grad():
        answers = ranked(NOTES, run(network)[0, step].double().sigmoid().cpu().numpy())
    without = with_more(lambda more: _notes(task, given, target, at, more), hidden, len(names))
    return Inside(network, names, run, answers, score, loss if goes_on else None, without, "silence")


@torch.no_grad()
def _probable(network: nn.Module, read: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """The chord [1, 88] after the last step, of the keys that are more probable than not, from the lowest on."""
    network.eval()
    steps, lengths = as_batch(read, network), torch.tensor([len(read)])
    sound = torch.cat([as_batch(roll, network), torch.zeros_like(steps[:, :1])], 1)
    # Of a key only those below it are heard: each time round, the lowest that was not right yet is.
    for _ in range(KEYS):
        chord = (network(steps, sound, lengths)[:, -1] > 0).to(sound)
        if torch.equal(chord, sound[:, -1]):
            break
        sound[:, -1] = chord
    return sound[0, -1:].cpu().numpy()


def _chord(row: np.ndarray) -> str:
    return " ".join(NOTES[key] for key in np.flatnonzero(row)) or "-"
