"""The encoder and decoder as modules: one step at a time against all at once, attention, copying, the loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from everloop.nn import Recurrent
from everloop.tasks.seq2seq.network import Attention, Decoder, Encoder, EncoderDecoder, Memory, Pieces, Source
from everloop.tasks.seq2seq.search import Search, search
from everloop.testing import SAME

PIECES, HIDDEN, END, UNKNOWN = 7, 6, 2, 1
LENGTHS = [5, 3, 1]


def make(kind: str = "general", *, copy: bool = False, tie: bool = True, cell: str = "gru") -> EncoderDecoder:
    torch.manual_seed(0)
    embedding = nn.Embedding(PIECES, 4)
    encoder = Encoder(Pieces(nn.Embedding(9, 4)), Recurrent(cell, 4, HIDDEN // 2, bidirectional=True), 0.0)
    decoder = Decoder(
        embedding,
        Recurrent(cell, 4, HIDDEN),
        Recurrent(cell, 2 * HIDDEN, HIDDEN, 2),
        Attention(kind, HIDDEN, HIDDEN),
        memory=HIDDEN,
        copy=copy,
        tie=tie,
        dropout=0.0,
        unknown=UNKNOWN,
    )
    return EncoderDecoder(encoder, decoder).double().eval()


def sources(copied: bool = False) -> Source:
    torch.manual_seed(1)
    steps = torch.randint(3, 9, (3, 5))
    for row, length in enumerate(LENGTHS):
        steps[row, length:] = 0
    # The 7 and the 8 are pieces that the target lacks.
    return Source(steps, torch.tensor(LENGTHS), steps if copied else None)


BEFORE = torch.tensor([[END, 3, 4, 8], [END, 5, 3, 3], [END, 6, UNKNOWN, 4]])


def equal(value: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=SAME.relative, atol=SAME.absolute)


@pytest.mark.parametrize("kind", ["general", "dot", "additive", "none"])
@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_steps_one_at_a_time_are_those_all_at_once(kind, copy, cell):
    network = make(kind, copy=copy, cell=cell)
    decoded, memory = network(sources(copy), BEFORE)
    expected = network.log_probabilities(decoded, memory)
    state = None
    for t in range(BEFORE.shape[1]):
        one, state = network.decoder.step(BEFORE[:, t : t + 1], memory, state)
        equal(network.log_probabilities(one, memory)[:, 0], expected[:, t])
        equal(one.weights[:, 0], decoded.weights[:, t])


@pytest.mark.parametrize("kind", ["general", "dot", "additive", "none"])
def test_what_pads_a_batch_is_not_seen(kind):
    network = make(kind)
    decoded, _ = network(sources(), BEFORE)
    for row, length in enumerate(LENGTHS):
        alone = Source(sources().steps[row : row + 1, :length], torch.tensor([length]))
        one, _ = network(alone, BEFORE[row : row + 1])
        equal(decoded.features[row], one.features[0])
        equal(decoded.weights[row, :, :length], one.weights[0])
        assert not decoded.weights[row, :, length:].any()


@pytest.mark.parametrize("kind", ["general", "dot", "additive"])
def test_attention_by_its_formula(kind):
    attention = Attention(kind, HIDDEN, HIDDEN).double()
    torch.manual_seed(2)
    queries, values = torch.randn(2, 3, HIDDEN).double(), torch.randn(2, 4, HIDDEN).double()
    padding = torch.tensor([[False, False, False, True], [False] * 4])
    memory = Memory(values, attention.keys(values), padding, values[:, 0], None)
    context, weights = attention(queries, memory)
    weight = dict(attention.named_parameters())
    for b in range(2):
        for t in range(3):
            scores = []
            for s in range(4 - int(padding[b, 3])):
                q, m = queries[b, t], values[b, s]
                scores.append(
                    {
                        "dot": lambda q=q, m=m: q @ m,
                        "general": lambda q=q, m=m: q @ weight["key.weight"] @ m,
                        "additive": lambda q=q, m=m: (
                            weight["sum.weight"][0]
                            @ torch.tanh(weight["query.weight"] @ q + weight["key.weight"] @ m + weight["key.bias"])
                        ),
                    }[kind]()
                )
            expected = torch.stack(scores).softmax(0)
            equal(weights[b, t, : len(expected)], expected)
            equal(context[b, t], expected @ values[b, : len(expected)])


def test_without_attention_the_context_is_the_summary():
    network = make("none")
    decoded, memory = network(sources(), BEFORE)
    assert not decoded.weights.any()
    context, _ = network.decoder.attention(torch.zeros(3, 2, HIDDEN), memory)
    equal(context, memory.summary[:, None].expand(-1, 2, -1))


def test_the_summary_is_the_last_output_of_both_directions():
    network = make()
    memory = network.remember(sources())
    for row, length in enumerate(LENGTHS):
        equal(memory.summary[row, : HIDDEN // 2], memory.values[row, length - 1, : HIDDEN // 2])
        equal(memory.summary[row, HIDDEN // 2 :], memory.values[row, 0, HIDDEN // 2 :])


@pytest.mark.parametrize("tie", [False, True])
def test_copying_by_its_formula(tie):
    network = make(copy=True, tie=tie)
    decoded, memory = network(sources(True), BEFORE)
    found = network.log_probabilities(decoded, memory).exp()
    assert found.shape[-1] == PIECES + 2
    drawn = network.decoder.scores(decoded.features).exp()
    assert decoded.written is not None
    for b, t in [(0, 0), (1, 2), (2, 3)]:
        share = decoded.written[b, t]
        expected = torch.zeros(PIECES + 2).double()
        expected[:PIECES] = share * drawn[b, t]
        for s in range(LENGTHS[b]):
            expected[sources().steps[b, s]] += (1 - share) * decoded.weights[b, t, s]
        equal(found[b, t], expected.clamp_min(1e-9))
        assert math.isclose(float(found[b, t].sum()), 1.0, rel_tol=1e-7)


@pytest.mark.parametrize("copy", [False, True])
def test_the_loss_is_that_of_the_probabilities(copy):
    network = make(copy=copy).train()
    target = torch.tensor([[3, 8, END, 0], [5, END, 0, 0], [4, 3, 6, END]])
    if not copy:
        target[0, 1] = UNKNOWN
    decoded, memory = network(sources(copy), BEFORE)
    probabilities = network.log_probabilities(decoded, memory)
    expected = -probabilities.gather(-1, target[..., None])[..., 0][target != 0]
    losses, _ = network.loss(decoded, memory, target, 0.0)
    assert len(losses) == 9
    torch.testing.assert_close(losses, expected, rtol=1e-7, atol=1e-9)
    smoothed, hits = network.loss(decoded, memory, target, 0.2)
    scores = network.decoder.scores(decoded.features)[target != 0]
    torch.testing.assert_close(smoothed, 0.8 * losses - 0.2 * scores.mean(-1))
    assert hits.tolist() == (scores.argmax(-1) == target[target != 0]).tolist(), "in training: of the vocabulary"
    _, hits = network.eval().loss(decoded, memory, target, 0.0)
    assert hits.tolist() == (probabilities.argmax(-1) == target)[target != 0].tolist()


def test_looking_twice_costs():
    network = make()
    decoded, _ = network(sources(), BEFORE)
    weights = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]]).double()
    again = network.looked_again(decoded._replace(weights=weights), torch.tensor([[3, 4, END, 0]]))
    # Of the second piece 0.5 was looked at before, of the third 0.5; the fourth is padding.
    assert float(again) == pytest.approx((0.0 + 0.5 + 0.5) / 3)


def test_dot_needs_one_width():
    with pytest.raises(ValueError, match="queries of 6 features and a memory of 8 came; expected the same"):
        Attention("dot", 6, 8)


@pytest.mark.parametrize("copy", [False, True])
def test_searching_many_at_once_is_searching_each(copy):
    """Sentences that end early leave the batch, their memory and states with them."""
    network = make(copy=copy)
    how = Search(beam=3, longest=6, alpha=1.0, end=END, never=(0, UNKNOWN), best=3)
    together = search(network, sources(copy), how)
    for row, length in enumerate(LENGTHS):
        steps = sources().steps[row : row + 1, :length]
        (alone,) = search(network, Source(steps, torch.tensor([length]), steps if copy else None), how)
        assert [one.pieces for one in alone] == [one.pieces for one in together[row]]
        for one, other in zip(alone, together[row], strict=True):
            assert math.isclose(one.log_probability, other.log_probability, rel_tol=1e-9)
            before = torch.tensor([[END, *one.pieces]])
            after = [*one.pieces, END] if one.ended else list(one.pieces)
            decoded, memory = network(Source(steps, torch.tensor([length]), steps if copy else None), before)
            scores = network.log_probabilities(decoded, memory)[0]
            total = sum(float(scores[t, piece]) for t, piece in enumerate(after))
            assert math.isclose(one.log_probability, total, rel_tol=1e-9)
