"""The chain sums, gradients and best paths against every sequence of tags, one by one."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch

from everloop.tasks.decoding.crf import CRF
from everloop.testing import FINITE_DIFFERENCES, FINITE_STEP, SAME, assert_close

TAGS = 3
LENGTHS = torch.tensor([4, 1, 3, 2])


@pytest.fixture
def chain() -> CRF:
    crf = CRF(TAGS).double()
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    return crf


@pytest.fixture
def scores() -> torch.Tensor:
    found = torch.randn(4, 4, TAGS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return found.requires_grad_()


def one_by_one(crf: CRF, scores: torch.Tensor, length: int) -> dict[tuple[int, ...], torch.Tensor]:
    """The score of every sequence of tags of one sequence of scores [T, K], added up step by step."""
    found = {}
    for tags in product(range(TAGS), repeat=length):
        total = crf.start[tags[0]] + crf.end[tags[-1]]
        for t, tag in enumerate(tags):
            total = total + scores[t, tag]
        for before, after in pairwise(tags):
            total = total + crf.transitions[before, after]
        found[tags] = total
    return found


def test_the_sum_over_all_sequences_and_its_gradients(chain, scores):
    inputs = [scores, *chain.parameters()]
    expected = torch.stack(
        [
            torch.logsumexp(torch.stack(list(one_by_one(chain, scores[b], length).values())), 0)
            for b, length in enumerate(LENGTHS.tolist())
        ]
    )
    found = chain.log_partition(scores, LENGTHS)
    assert_close(found, expected)
    weights = torch.arange(1.0, 5.0, dtype=torch.float64)
    for own, other in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        assert_close(own, other)


def test_log_likelihood_of_every_sequence(chain, scores):
    for b, length in enumerate(LENGTHS.tolist()):
        each = one_by_one(chain, scores[b], length)
        total = torch.logsumexp(torch.stack(list(each.values())), 0)
        for tags, score in each.items():
            padded = torch.tensor([[*tags, *[2] * (4 - length)]])
            assert_close(chain.log_likelihood(scores[b : b + 1], padded, LENGTHS[b : b + 1])[0], score - total)


def test_gradients_of_the_log_likelihood_by_central_differences(chain, scores):
    tags = torch.tensor([[0, 1, 2, 1], [2, 0, 0, 0], [1, 1, 0, 0], [2, 2, 0, 0]])
    inputs = [scores, *chain.parameters()]
    loss = -chain.log_likelihood(scores, tags, LENGTHS).sum()
    for value, gradient in zip(inputs, torch.autograd.grad(loss, inputs), strict=True):
        measured = torch.zeros_like(value)
        with torch.no_grad():
            for place in product(*map(range, value.shape)):
                kept = value[place].item()
                ends = []
                for step in (FINITE_STEP, -FINITE_STEP):
                    value[place] = kept + step
                    ends.append(-chain.log_likelihood(scores, tags, LENGTHS).sum().item())
                value[place] = kept
                measured[place] = (ends[0] - ends[1]) / (2 * FINITE_STEP)
        assert_close(gradient, measured, FINITE_DIFFERENCES)


def test_marginals(chain, scores):
    found = chain.marginals(scores, LENGTHS)
    expected = torch.zeros_like(found)
    for b, length in enumerate(LENGTHS.tolist()):
        each = one_by_one(chain, scores[b], length)
        shares = torch.softmax(torch.stack(list(each.values())), 0)
        for tags, share in zip(each, shares, strict=True):
            for t, tag in enumerate(tags):
                expected[b, t, tag] = expected[b, t, tag] + share
    assert_close(found, expected)
    (gradient,) = torch.autograd.grad(chain.log_partition(scores, LENGTHS).sum(), scores)
    assert_close(found, gradient)


def test_the_best_sequence(chain, scores):
    paths, totals = chain.viterbi(scores, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        each = one_by_one(chain, scores[b], length)
        best = max(each, key=lambda tags: each[tags].item())
        assert paths[b].tolist() == [*best, *[0] * (4 - length)]
        assert_close(totals[b], each[best])


def test_what_lies_beyond_the_lengths_counts_for_nothing(chain, scores):
    inside = torch.arange(4) < LENGTHS[:, None]
    spoilt = torch.where(inside[..., None], scores, 1e6)
    tags = torch.tensor([[0, 1, 2, 1], [2, 0, 0, 0], [1, 1, 0, 0], [2, 2, 0, 0]])
    for name, more in (("log_partition", ()), ("marginals", ()), ("log_likelihood", (tags,))):
        assert_close(getattr(chain, name)(spoilt, *more, LENGTHS), getattr(chain, name)(scores, *more, LENGTHS))
    assert chain.viterbi(spoilt, LENGTHS)[0].equal(chain.viterbi(scores, LENGTHS)[0])
    (gradient,) = torch.autograd.grad(chain.log_partition(scores, LENGTHS).sum(), scores)
    assert (gradient[~inside] == 0).all()


def test_without_transitions_the_steps_are_independent(scores):
    chain = CRF(TAGS).double()
    assert_close(chain.log_partition(scores, LENGTHS)[0], torch.logsumexp(scores[0], -1).sum(), SAME)
    assert_close(chain.marginals(scores, LENGTHS)[0], scores[0].softmax(-1), SAME)
    assert chain.viterbi(scores, LENGTHS)[0][0].equal(scores[0].argmax(-1))


def test_a_transition_that_cannot_be(chain, scores):
    with torch.no_grad():
        chain.transitions[0, 1] = -1e9
    paths, _ = chain.viterbi(scores, LENGTHS)
    for path, length in zip(paths.tolist(), LENGTHS.tolist(), strict=True):
        assert (0, 1) not in pairwise(path[:length])
    (gradient,) = torch.autograd.grad(chain.log_partition(scores, LENGTHS).sum(), scores)
    assert torch.isfinite(gradient).all()


def test_shapes_and_lengths_that_do_not_fit(chain, scores):
    with pytest.raises(ValueError, match=r"scores of shape \[4, 4, 3\] and lengths of shape \[2\] came"):
        chain.log_partition(scores, torch.tensor([1, 2]))
    for lengths in (torch.tensor([4, 0, 1, 1]), torch.tensor([5, 1, 1, 1])):
        with pytest.raises(ValueError, match="for 4 steps; expected 1 to that many"):
            chain.viterbi(scores, lengths)
