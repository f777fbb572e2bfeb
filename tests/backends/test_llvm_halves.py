"""bfloat16 and float16 in the llvm backend: what float32 gives, rounded once, and so closer to float64 than what rounds
at every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from everloop import Recurrent, cells, use_backend
from everloop.backends.reference import ReferenceKernel
from everloop.testing import BFLOAT16, Drawn, Trial, assert_close, kernel_of

HALVES = ("bfloat16", "float16")
FEW = ("lstm", "mogrifier_lstm", "layernorm_lstm", "slstm", "mingru", "gru_d", "projection_lstm")
RAGGED = (5, 5, 4, 2, 2, 1)


def drawn_for(name: str, dtype: str, batch_sizes: tuple[int, ...] = RAGGED) -> tuple[Any, Drawn, ReferenceKernel]:
    """A kernel, what it may be called with, in float64 (numbers that the type has), and the reference."""
    kernel, found = kernel_of("llvm", cells.get(name), {"input": 5, "hidden": 7}, dtype)
    drawn = Drawn.of(found.graph, found.sizes, Trial(batch_sizes, idle=1, dtype=dtype))
    drawn = drawn.to(getattr(torch, dtype)).to(torch.float64)
    return kernel, drawn, ReferenceKernel(found.graph, found.sizes)


def same_bits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.equal(expected[name]), name


# One cell of each kind in every run, the rest of the catalogue in the slow one.
SMALL = [
    "elman",
    "lstm",
    "gru",
    "projection_lstm",
    "layernorm_lstm",
    "mingru",
    "qrnn",
    "slstm",
    "lmu",
    "antisymmetric",
    "gru_d",
    "mogrifier_lstm",
]
EVERY = [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in cells.names()]


@pytest.mark.parametrize("name", EVERY)
def test_every_cell_is_the_reference_as_far_as_bfloat16_goes(name: str) -> None:
    kernel, drawn, reference = drawn_for(name, "bfloat16")
    expected = drawn.run(reference)
    for what, array in drawn.to(torch.bfloat16).run(kernel).items():
        assert array.dtype is torch.bfloat16, what
        assert_close(array, expected[what], BFLOAT16, f"{name}: {what}")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", FEW)
def test_what_float32_gives_rounded_once(name: str, dtype: str) -> None:
    kernel, drawn, _ = drawn_for(name, dtype)
    kind = getattr(torch, dtype)
    wide, _ = kernel_of("llvm", cells.get(name), {"input": 5, "hidden": 7}, "float32")
    expected = {what: array.to(kind) for what, array in drawn.to(torch.float32).run(wide).items()}
    same_bits(drawn.to(kind).run(kernel), expected)
    without = drawn.to(kind).forward(kernel)
    same_bits(without, {what: expected[what] for what in without})


@pytest.mark.parametrize("dtype", HALVES)
def test_arrays_of_the_caller_in_reverse_and_in_a_room(dtype: str) -> None:
    """[T, B, F] with sequences in an order of their own."""
    kind = getattr(torch, dtype)
    cell, shape = cells.get("lstm"), {"input": 5, "hidden": 7}
    kernel, wide = (kernel_of("llvm", cell, shape, one)[0] for one in (dtype, "float32"))
    torch.manual_seed(0)
    x, grad = torch.randn(3, 6, 5).to(kind).transpose(0, 1), torch.randn(3, 6, 7).to(kind).transpose(0, 1)
    states = {name: torch.randn(3, 7).to(kind) for name in cell.graph.states}
    weights = {"W": torch.randn(28, 5).to(kind), "U": torch.randn(28, 7).to(kind), "b": torch.randn(28).to(kind)}
    sizes, wanted = (3, 2, 2, 1, 1, 1), frozenset(["x", "W", "U", "b", *states])
    more = {"order": torch.tensor([1, 2, 0]), "reverse": True}
    results = []
    for one, to in ((kernel, kind), (wide, torch.float32)):
        given = [{"x": x.to(to)}, *({name: array.to(to) for name, array in part.items()} for part in (states, weights))]
        room = torch.empty(one.keeps(wanted, 3, 18), dtype=getattr(torch, one.kept_dtype.removeprefix("torch.")))
        assert room.dtype is torch.float32
        outputs, final, saved = one.forward(*given, sizes, keep=True, wanted=wanted, room=room, **more)
        grads = {"y": grad.to(to)}, given[1]
        kept = one.kept_in(room, given[0], 3, (6, 3))
        made = [one.backward(some, *grads, given[2], sizes, wanted, **more) for some in (saved, kept)]
        results.append([outputs, final, *made[0], *made[1]])
    for narrow, full in zip(*results, strict=True):
        same_bits(narrow, {name: array.to(kind) for name, array in full.items()})


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["lstm", "gru", "mingru"])
def test_nearer_to_float64_than_what_rounds_at_every_step(name: str, dtype: str) -> None:
    kernel, drawn, reference = drawn_for(name, dtype, (4,) * 100)
    expected = drawn.run(reference)

    def off(found: Mapping[str, Tensor]) -> float:
        return sum((array.double() - expected[what]).abs().sum().item() for what, array in found.items())

    given = drawn.to(getattr(torch, dtype))
    assert off(given.run(kernel)) < off(given.run(reference))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_layer_learns_in_half_precision(dtype: torch.dtype, bidirectional: bool) -> None:
    torch.manual_seed(0)
    layer = Recurrent("gru", 5, 7, num_layers=2, bidirectional=bidirectional, dtype=dtype)
    exact = Recurrent("gru", 5, 7, num_layers=2, bidirectional=bidirectional, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(3, 6, 5).to(dtype)
    found = []
    for one, backend in ((layer, "llvm"), (exact, "reference")):
        given = x.to(next(one.parameters()).dtype).detach().requires_grad_()
        with use_backend(backend):
            y, state = one(given, lengths=[4, 6, 1])
            (y.sum() + state[0].sum()).backward()
        found.append([y, state[0], given.grad, *(parameter.grad for parameter in one.parameters())])
    for narrow, full in zip(*found, strict=True):
        assert narrow.dtype is dtype
        assert_close(narrow, full, BFLOAT16)
