"""The reference's scans give what its loop gives, however they are cut: values, gradients, and what is not a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from everloop import cells
from everloop.backends import _scan, reference, use_backend
from everloop.backends._scan import scan
from everloop.compiler.ahead import plan_ahead
from everloop.lang.cell import Cell, cell
from everloop.lang.functions import cos, exp, mean, sigmoid, sin, tanh
from everloop.nn import Recurrent
from everloop.testing import FLOAT32, SAME, assert_close, check_cell


@pytest.fixture(autouse=True)
def on_the_reference() -> Iterator[None]:
    with use_backend("reference"):
        yield


CELLS: dict[str, Cell] = {
    name: cells.get(name) for name in cells.names() if plan_ahead(cells.get(name).graph).kind == "scan"
}


def scanned(made: Cell) -> Cell:
    CELLS[made.name] = made
    return made


@scanned
@cell(states="h g", gates="a b y")
def rotation(x, h, g, W, u):  # a complex number per unit, turned and shrunk by a vector
    size = exp(-exp(u.a))
    re, im = size * cos(u.b), size * sin(u.b)
    return W.y @ x + h - g, re * h - im * g + W.a @ x, re * g + im * h + W.b @ x


@scanned
@cell(states="h g", gates="a b")
def turning(x, h, g, W):  # the same, turned by the input
    turn = W.a @ x
    return 0.9 * (cos(turn) * h - sin(turn) * g) + W.b @ x, 0.9 * (cos(turn) * g + sin(turn) * h)


@scanned
@cell(states="h", gates="i f n")
def shares(x, h, W, b):  # gates that are shares of a whole
    a = W @ x + b
    i, f = sigmoid(a.i), sigmoid(a.f)
    return (f * h + i * a.n) / (i + f)


@scanned
@cell(states="h p q", gates="a n")
def chain(x, h, p, q, W):  # states handed on, and one that is made of the last
    return h + p - q, sigmoid(W.a @ x) * h + W.n @ x, h, 0.5 * p + 0.1 * q


@scanned
@cell(states="h", gates="a")
def vector(x, h, W, u):  # a coefficient that is the same at every step
    return sigmoid(u.a) * h + W.a @ x


@scanned
@cell(states="h:input", gates="a")
def number(x, h):  # a coefficient that is a number, and no parameter at all
    return 0.9 * h + 0.1 * x


@scanned
@cell(states="h", gates="a")
def total(x, h, W):  # a coefficient of one
    return h + W.a @ x


@scanned
@cell(states="h", gates="a")
def decay(x, h, W):  # no offset
    return W.a @ x * h, sigmoid(W.a @ x) * h


@scanned
@cell(states="h c", gates="a")
def freed(x, h, c, W, u):  # a state that needs no other, one that is a vector
    return h * sigmoid(W.a @ x) + c, u.a


@scanned
@cell(states="h c:wide", gates="a b")
def apart(x, h, c, W, V, u):  # two states that never meet, of different sizes
    return h + V.a @ c, u.a * h - W.a @ x, 1 - c * 0.5 + tanh(W.b @ x)


@scanned
@cell(states="h c", gates="a")
def exchanged(x, h, c, W):  # states that change places
    return h - 2 * c, c, 0.9 * h + W.a @ x


@scanned
@cell(states="h", gates="a")
def per_row(x, h, W):  # a coefficient and an offset of one number per row
    return h * (W.a @ x), sigmoid(mean(x)) * h + mean(x)


@scanned
@cell(states="h c", gates="a")
def resting(x, h, c, W):  # a state that stays as it is
    return h + c, 0.5 * h + W.a @ x, c


LOOP: Callable[..., None] = lambda *_, **__: None  # noqa: E731
CUTS = {"as chosen": scan, "of 1": partial(scan, length=1), "of 7": partial(scan, length=7)}
LENGTHS: dict[str, list[int] | None] = {"even": None, "ragged": [0, 60, 1, 59, 14, 7, 60, 2], "unequal": [1, 60] * 4}


@dataclass
class Run:
    y: Tensor
    state: tuple[Tensor, ...]
    grads: tuple[Tensor, ...]

    def equal(self, other: Run) -> None:
        assert_close(self.y, other.y, SAME, "y")
        for a, b in zip(self.state, other.state, strict=True):
            assert_close(a, b, SAME, "final state")
        for a, b in zip(self.grads, other.grads, strict=True):
            assert_close(a, b, SAME, "gradient")


def layer_of(made: Cell, **options: Any) -> Recurrent:
    torch.manual_seed(0)
    sizes = {name: 5 for name in made.graph.size_names if name not in ("input", "hidden")}
    layer = Recurrent(
        made,
        3,
        4 if "hidden" in made.graph.size_names else 3,
        sizes=sizes or None,
        **{"dtype": torch.float64, **options},
    )
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def run(layer: Recurrent, steps: int, lengths: list[int] | None = None, batch: int = 8) -> Run:
    """A forward and a backward pass on drawn values, from a drawn state."""
    torch.manual_seed(1)
    dtype = next(iter(layer.start_state(1))).dtype
    x = torch.randn(batch, steps, 3, dtype=dtype, requires_grad=True)
    state = [torch.randn_like(array).requires_grad_() for array in layer.start_state(batch)]
    y, final = layer(x, state, lengths)
    number = sum((array * torch.cos(torch.arange(array.numel()).view(array.shape))).mean() for array in (y, *final))
    leaves = [x, *state, *layer.parameters()]
    grads = torch.autograd.grad(number, leaves, allow_unused=True, materialize_grads=True)
    return Run(y.detach(), tuple(array.detach() for array in final), grads)


class Spy:
    """Stands for `scan` and counts what comes of it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.done, self.left = function, 0, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        found = self.function(*args, **options)
        self.done, self.left = self.done + (found is not None), self.left + (found is None)
        return found


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], Spy]:
    """Let layers run by this function rather than by `scan`."""

    def put(function: Callable[..., Any]) -> Spy:
        spy = Spy(function)
        monkeypatch.setattr(reference, "scan", spy)
        return spy

    return put


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("name", CELLS)
def test_layers_are_as_the_loop(name: str, lengths: str, by: Callable[..., Spy]) -> None:
    layer = layer_of(CELLS[name], bidirectional=True)
    by(LOOP)
    expected = run(layer, 60, LENGTHS[lengths])
    for function in CUTS.values():
        spy = by(function)
        run(layer, 60, LENGTHS[lengths]).equal(expected)
        assert (spy.done, spy.left) == (4, 0)  # two directions, forward and backward


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 39, 40, 41, 64, 65, 128, 300])
@pytest.mark.parametrize("name", ["mingru", "rotation"])
def test_any_number_of_steps(name: str, steps: int, by: Callable[..., Spy]) -> None:
    layer = layer_of(CELLS[name])
    by(LOOP)
    expected = run(layer, steps, batch=2)
    spy = by(scan)
    run(layer, steps, batch=2).equal(expected)
    assert spy.done == (2 if steps > 1 else 0)


@pytest.mark.parametrize("name", ["mingru", "turning", "chain", "apart"])
def test_the_contract_holds_in_chunks_of_two(name: str, by: Callable[..., Spy]) -> None:
    spy = by(lambda *args, **options: scan(*args, **options, length=2) if args[3] else None)
    check_cell(CELLS[name])
    assert spy.done > 30


def test_sequences_in_parts_with_the_state_carried_over() -> None:
    layer = layer_of(CELLS["rotation"])
    x = torch.randn(2, 200, 3, dtype=torch.float64)
    with torch.no_grad():
        whole, end = layer(x)
        state, parts = None, []
        for part in x.split([50, 1, 100, 49], 1):
            y, state = layer(part, state)
            parts.append(y)
    assert_close(torch.cat(parts, 1), whole, SAME, "y")
    assert state is not None
    for a, b in zip(state, end, strict=True):
        assert_close(a, b, SAME, "final state")


@pytest.mark.parametrize("lengths", LENGTHS)
def test_single_precision(lengths: str) -> None:
    single, double = (layer_of(CELLS["mingru"], dtype=dtype) for dtype in (torch.float32, torch.float64))
    double.load_state_dict(single.state_dict())
    x = torch.randn(8, 60, 3)
    with torch.no_grad():
        assert_close(single(x, lengths=LENGTHS[lengths])[0], double(x.double(), lengths=LENGTHS[lengths])[0], FLOAT32)


def test_what_is_wide_goes_in_one_chunk_and_ragged_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scan, "WIDE_ON_CPU", 4)
    start, rows = {"h": torch.ones(2, 4)}, torch.ones(99, 4)
    assert scan({("h", "h"): 0.5}, {"h": rows}, start, [2] * 49 + [1]) is None
    found = scan({("h", "h"): 0.5}, {"h": rows[:98]}, start, [2] * 49)
    assert found is not None
    assert_close(found.final["h"], start["h"] * (2 - 0.5**49), FLOAT32)


def test_torch_differentiates_the_loop_not_the_scan(by: Callable[..., Spy]) -> None:
    """The second derivative is torch's, through the steps."""
    layer = layer_of(CELLS["mingru"])
    x = torch.randn(2, 50, 3, dtype=torch.float64, requires_grad=True)
    spy = by(scan)
    (once,) = torch.autograd.grad(layer(x)[0].sin().sum(), x, create_graph=True)
    assert (spy.done, spy.left) == (1, 0)
    (twice,) = torch.autograd.grad(once.square().sum(), x)
    by(LOOP)
    (expected,) = torch.autograd.grad(layer(x)[0].sin().sum(), x, create_graph=True)
    assert_close(once, expected, SAME, "gradient")
    assert_close(twice, torch.autograd.grad(expected.square().sum(), x)[0], SAME, "second gradient")


def test_inference_with_gradients_enabled_is_a_scan(by: Callable[..., Spy]) -> None:
    spy = by(scan)
    layer_of(CELLS["mingru"]).requires_grad_(False)(torch.randn(2, 50, 3, dtype=torch.float64))
    assert (spy.done, spy.left) == (1, 0)


# -- the scan by itself -----------------------------------------------------------------------------------------------


@dataclass
class Recurrence:
    """Coefficients, offsets and a start, with the loop that says what should come of them."""

    coefficients: dict[tuple[str, str], Any]
    offsets: dict[str, Any]
    start: dict[str, Tensor]
    batch_sizes: list[int]

    def loop(self, backwards: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """States before every step, after it, and at the end."""
        begins = [0, *accumulate(self.batch_sizes)]
        now = {name: array.clone() for name, array in self.start.items()}
        before, after = ({name: [] for name in now} for _ in range(2))
        order = range(len(self.batch_sizes))
        for t in reversed(order) if backwards else order:
            n, begin = self.batch_sizes[t], begins[t]
            new = {}
            for name, array in now.items():
                parts = [self.at(a, begin, n) * now[j][:n] for (i, j), a in self.coefficients.items() if i == name]
                parts += [self.at(self.offsets[name], begin, n)] if name in self.offsets else []
                new[name] = torch.zeros_like(array[:n]) + sum(parts)
                before[name].append(array[:n])
                after[name].append(new[name])
            now = {name: torch.cat([new[name], array[n:]]) for name, array in now.items()}
        packed = [
            {name: torch.cat(steps[::-1] if backwards else steps) for name, steps in found.items()}
            for found in (before, after)
        ]
        return packed[0], packed[1], now

    def at(self, value: Any, begin: int, rows: int) -> Any:
        per_row = isinstance(value, Tensor) and value.dim() == 2
        return value[begin : begin + rows] if per_row else value

    def compare(self, length: int | None, backwards: bool) -> None:
        found = scan(self.coefficients, self.offsets, self.start, self.batch_sizes, backwards=backwards, length=length)
        assert found is not None
        before, after, final = self.loop(backwards)
        for name in self.start:
            assert_close(found.before(name), before[name], SAME, f"{name} before")
            assert_close(found.after(name), after[name], SAME, f"{name} after")
            assert_close(found.final[name], final[name], SAME, f"{name} at the end")


KINDS: dict[str, Callable[[int], Any]] = {
    "rows": lambda n: torch.rand(n, 3, dtype=torch.float64) - 0.5,
    "row numbers": lambda n: torch.rand(n, 1, dtype=torch.float64) - 0.5,
    "vector": lambda n: torch.rand(3, dtype=torch.float64) - 0.5,
    "vector number": lambda n: torch.rand(1, dtype=torch.float64) - 0.5,
    "number": lambda n: 0.4,
    "one": lambda n: 1.0,
}
SYSTEMS = st.dictionaries(st.tuples(*[st.sampled_from("hcd")] * 2), st.sampled_from(list(KINDS)), max_size=5)
OFFSETS = st.dictionaries(st.sampled_from("hcd"), st.sampled_from(list(KINDS)))


def rows_of(lengths: Sequence[int]) -> list[int]:
    return [sum(length > t for length in lengths) for t in range(max(lengths))]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    SYSTEMS, OFFSETS, st.lists(st.integers(0, 25), min_size=1, max_size=5), st.booleans(), st.integers(1, 30),
    st.booleans(),
)  # fmt: skip
@example({}, {}, [5, 5], False, 2, True)
@example({("h", "c"): "one", ("c", "h"): "one"}, {}, [9, 9], True, 4, False)
@example({("h", "h"): "rows"}, {"h": "rows"}, [4, 4, 4], False, 4, True)
def test_random_recurrences(
    system: Mapping[tuple[str, str], str],
    offsets: Mapping[str, str],
    lengths: list[int],
    even: bool,
    length: int,
    backwards: bool,
) -> None:
    torch.manual_seed(0)
    lengths = [max(lengths)] * len(lengths) if even else sorted(lengths, reverse=True)
    if sum(lengths) < 2:
        return
    n = sum(lengths)
    made = Recurrence(
        {pair: KINDS[kind](n) for pair, kind in system.items()},
        {name: KINDS[kind](n) for name, kind in offsets.items()},
        {name: torch.randn(len(lengths), 3, dtype=torch.float64) for name in "hcd"},
        rows_of(lengths),
    )
    made.compare(length, backwards)


def one_state(lengths: list[int]) -> Recurrence:
    torch.manual_seed(0)
    rows = torch.rand(sum(lengths), 3, dtype=torch.float64)
    start = {"h": torch.randn(len(lengths), 3, dtype=torch.float64)}
    return Recurrence({("h", "h"): rows}, {"h": torch.randn_like(rows)}, start, rows_of(lengths))


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["coefficient", "offset", "start"])
@pytest.mark.parametrize("lengths", [[50, 50, 50], [50, 33, 8, 0]], ids=["even", "ragged"])
def test_what_is_not_a_number_stays_where_it_is(lengths: list[int], where: str, bad: float, backwards: bool) -> None:
    made = one_state(lengths)
    {"coefficient": made.coefficients["h", "h"], "offset": made.offsets["h"], "start": made.start["h"]}[where][2, 1] = (
        bad
    )
    _, after, _ = made.loop(backwards)
    assert not after["h"].isfinite().all()
    assert after["h"][:, [0, 2]].isfinite().all()
    made.compare(7, backwards)


@pytest.mark.parametrize("lengths", [[50, 50], [50, 33, 8, 0]], ids=["even", "ragged"])
def test_sequences_never_read_each_other(lengths: list[int]) -> None:
    """The first state of a sequence may be anything, with steps or without."""
    made = one_state(lengths)
    made.start["h"][-1] = torch.nan
    for backwards in (False, True):
        made.compare(7, backwards)


UNSTABLE = {
    "products overflow, states stay zero": ([1e200] * 6, 0.0),
    "products overflow, a gate closes": ([1e200, 1e200, 0.0] * 2, 1e-300),
    "products vanish and should not": ([1e-200] * 2 + [1e200] * 2, 1e150),
}


@pytest.mark.parametrize("lengths", [[12, 12], [12, 7]], ids=["even", "ragged"])
@pytest.mark.parametrize("case", UNSTABLE)
def test_unstable_coefficients_are_refused(case: str, lengths: list[int]) -> None:
    pattern, start = UNSTABLE[case]
    made = one_state(lengths)
    steps = [pattern[t % len(pattern)] for t, n in enumerate(made.batch_sizes) for _ in range(n)]
    made.coefficients["h", "h"] = torch.tensor(steps, dtype=torch.float64)[:, None].expand(-1, 3)
    made.offsets["h"].zero_()
    made.start["h"].fill_(start)
    assert made.loop(False)[1]["h"].isfinite().all()
    for length in (4, 6):
        assert scan(made.coefficients, made.offsets, made.start, made.batch_sizes, length=length) is None
    if lengths[0] == lengths[1]:
        made.compare(12, False)  # one chunk is the loop


def test_a_layer_whose_products_overflow_is_as_the_loop(by: Callable[..., Spy]) -> None:
    @cell(states="h:input", gates="a")
    def product(x, h):
        return x * h

    layer = Recurrent(product, 3, 3, dtype=torch.float64)
    x = torch.tensor([1e200, 1e200, 0.0, 1.0] * 20, dtype=torch.float64)[None, :, None].expand(1, -1, 3)
    start = torch.full((1, 1, 3), 1e-300, dtype=torch.float64)
    spy = by(scan)
    y, final = layer(x, [start])
    assert (spy.done, spy.left) == (0, 1)
    assert_close(y[0, :4, 0], [1e-100, 1e100, 0.0, 0.0], SAME)
    assert_close(final[0], torch.zeros(1, 1, 3), SAME)


def test_states_too_small_for_normal_numbers_are_no_reason_to_refuse() -> None:
    """A unit that forgets quickly has nothing but such numbers at the ends of its chunks."""
    decay = torch.linspace(0.4, 0.5, 64)
    found = scan({("h", "h"): decay.repeat(128 * 4, 1)}, {}, {"h": torch.randn(1, 64)}, [1] * 512, length=128)
    assert found is not None
    assert found.after("h")[127].abs().max() < torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("name", ["mingru", "rotation"])
def test_long_sequences(name: str) -> None:
    """Forward and backward over 16,384 steps; the end is that of the last steps alone, all else being forgotten."""
    layer = layer_of(CELLS[name])
    x = torch.randn(1, 16384, 3, dtype=torch.float64, requires_grad=True)
    y, _ = layer(x)
    assert_close(y[:, -1], layer(x[:, -2000:])[0][:, -1], SAME)
    (grad,) = torch.autograd.grad(y[:, -1].sum(), x)
    (short,) = torch.autograd.grad(layer(x[:, -2000:])[0][:, -1].sum(), x)
    assert_close(grad, short, SAME)
