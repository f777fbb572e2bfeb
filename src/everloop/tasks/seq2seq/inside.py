"""What happens inside a `Seq2Seq`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.data.text import TextCodec
from everloop.insight.inside import Inside
from everloop.tasks.inside import MEAN, UNKNOWN, mean_at, place_of, ranked, step_at, step_names, unknown_at, with_more
from everloop.tasks.seq2seq.network import Decoded, EncoderDecoder, Memory
from everloop.tasks.seq2seq.pairs import EncodedSource

END = TextCodec.end

if TYPE_CHECKING:
    from everloop.tasks.seq2seq.task import Seq2Seq


class Ran(NamedTuple):
    """What a network made of a source, and of the pieces that it was given to write, ids [T] with the end."""

    network: EncoderDecoder
    memory: Memory
    decoded: Decoded
    ids: tuple[int, ...]


def look(
    task: Seq2Seq, given: Any, target: str | None = None, at: int | None = None, hidden: frozenset[int] = frozenset()
) -> Inside:
    """One source. Answers are the best texts; with `at`, the pieces that may stand at that place of the output, after
    those before it: of the target, or without one of the best text."""
    codec, writer = task.codec_, task._writer
    (plain,) = codec.encode_sources([given])
    if codec.reads_text:
        pieces, ablation = codec.source_pieces(given), UNKNOWN[codec.source.unit]
        source = _unknown(task, plain, hidden)
    else:
        front = writer.network.encoder.front
        pieces, ablation = step_names(codec.source, front, len(plain.steps)), MEAN
        source = EncodedSource(mean_at(plain.steps, hidden, front))
    with torch.no_grad():
        (found,) = writer.search([source], task.beam, task.beam)
    # Of two that are spelled alike, the better one.
    texts = {codec.decode(one.pieces, source): one for one in reversed(found)}
    best = codec.decode(found[0].pieces, source)

    def ids_of(text: str) -> tuple[int, ...]:
        if text not in texts:
            return _ids(task, text, source)
        # What is cut at the longest that is written has no end.
        pieces = texts[text].pieces
        return (*pieces, *((END,) * (len(pieces) < task.longest_)))

    asked = ids_of(best) if target is None else _ids(task, target, source)
    place = None if at is None else step_at(at, 0, len(asked), "the place of a piece of the output")

    def run(network: nn.Module) -> Ran:
        assert isinstance(network, EncoderDecoder)
        network.eval()
        device = next(network.parameters()).device
        decoded, memory, _ = replace(writer, network=network, device=device).decode(([source], [np.array(asked)]))
        return Ran(network, memory, decoded, asked)

    def score(ran: Ran, answer: str | None) -> Tensor:
        if place is not None:
            shares = ran.network.log_probabilities(ran.decoded, ran.memory)[0, place]
            return shares.max() if answer is None else shares[place_of(answer, _names(task, source), "a piece")]
        return _log_probability(ran, ids_of(best if answer is None else answer))

    def loss(ran: Ran) -> Tensor:
        wanted = torch.tensor([ran.ids], device=ran.decoded.features.device)
        return ran.network.loss(ran.decoded, ran.memory, wanted, 0.0)[0].mean()

    if place is None:
        answers = [(text, float(np.exp(one.log_probability))) for text, one in reversed(texts.items())]
    else:
        with torch.no_grad():
            ran = run(writer.network)
            shares = ran.network.log_probabilities(ran.decoded, ran.memory)[0, place].double().exp()
        answers = ranked(_names(task, source), shares.cpu().numpy())
    return Inside(
        writer.network,
        pieces,
        run,
        answers,
        score,
        None if target is None else loss,
        with_more(lambda more: look(task, given, target, at, more), hidden, len(pieces)),
        ablation,
        reads="encoder.recurrent",
    )


def _unknown(task: Seq2Seq, source: EncodedSource, hidden: frozenset[int]) -> EncodedSource:
    unknown = task.codec_.source.unknown
    copied = None if source.copied is None else unknown_at(source.copied, hidden, unknown)
    return replace(source, steps=unknown_at(source.steps, hidden, unknown), copied=copied)


def _names(task: Seq2Seq, source: EncodedSource) -> list[str]:
    """Of every piece that can be written, those that the source alone has last."""
    codec = task.codec_
    return codec.target_pieces(range(len(codec.target) + len(source.unseen)), source)


def _ids(task: Seq2Seq, text: str, source: EncodedSource) -> tuple[int, ...]:
    if not isinstance(text, str):
        raise TypeError(f"inside: a {type(text).__name__} came; expected the text that is written")
    return tuple(int(k) for k in task.codec_.encode_targets([text], [source])[0])


def _log_probability(ran: Ran, ids: tuple[int, ...]) -> Tensor:
    """Of a text; what was decoded already is not decoded again."""
    decoded, wanted = ran.decoded, torch.tensor([ids], device=ran.decoded.features.device)
    if ids != ran.ids:
        before = F.pad(wanted[:, :-1], (1, 0), value=END)
        decoded, _ = ran.network.decoder(before, ran.memory)
    return -ran.network.loss(decoded, ran.memory, wanted, 0.0)[0].sum()
