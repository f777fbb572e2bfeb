"""`Form`: whatever form a batch comes in, each of its sequences gives what it gives alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence, unpack_sequence

from everloop.lang.cell import cell
from everloop.lang.functions import tanh
from everloop.nn.forms import Form, Masked, Padded
from everloop.nn.function import Recurrence
from everloop.nn.packing import Packing
from everloop.testing import assert_close

DOUBLE = torch.float64
WIDTH, UNITS = 2, 3


@cell(states="h", gates="h", inputs="gap")
def paced(x, h, gap, W, U):
    return tanh(gap * (W.h @ x) + U.h @ h)


RECURRENCE = Recurrence(paced, {"input": WIDTH, "hidden": UNITS})


@dataclass
class Batch:
    """Sequences [n, F] of what x and the gap are, the states before them, and the weights; all to be differentiated."""

    xs: list[Tensor]
    gaps: list[Tensor]
    h: Tensor
    weights: dict[str, Tensor]

    @staticmethod
    def draw(lengths: Sequence[int]) -> Batch:
        torch.manual_seed(len(lengths))

        def leaf(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=DOUBLE, requires_grad=True)

        return Batch(
            [leaf(n, WIDTH) for n in lengths],
            [leaf(n, 1) for n in lengths],
            leaf(len(lengths), UNITS),
            {"W": leaf(UNITS, WIDTH), "U": leaf(UNITS, UNITS)},
        )

    @property
    def leaves(self) -> list[Tensor]:
        return [*self.xs, *self.gaps, self.h, *self.weights.values()]

    def alone(self, reverse: bool) -> tuple[list[Tensor], Tensor]:
        """The outputs [n, UNITS] of each sequence, and the state after each."""
        ys, final = [], []
        for x, gap, h in zip(self.xs, self.gaps, self.h, strict=True):
            y = torch.zeros(len(x), UNITS, dtype=DOUBLE)
            for t in range(len(x))[:: -1 if reverse else 1]:
                h = torch.tanh(gap[t] * (self.weights["W"] @ x[t]) + self.weights["U"] @ h)
                y = y.index_copy(0, torch.tensor([t]), h[None])
            ys.append(y)
            final.append(h)
        return ys, torch.stack(final) if final else self.h

    def together(self, form: Form, gap: Any, reverse: bool) -> tuple[Any, Tensor]:
        inputs = {"x": form.rows, "gap": form.side(gap, 1, "gap", scalar=True)}
        outputs, final = RECURRENCE(inputs, {"h": form.sort(self.h)}, self.weights, form.packing, reverse=reverse)
        return form.back(outputs["y"]), form.original(final["h"])


def check(batch: Batch, form: Form, gap: Any, apart: Callable[[Any], list[Tensor]]) -> None:
    """A batch in a form against its sequences alone: values and gradients, in both directions."""
    for reverse in (False, True):
        y, h = batch.together(form, gap, reverse)
        ys, final = batch.alone(reverse)
        found = apart(y)
        assert len(found) == len(ys)
        for sequence, expected in zip(found, ys, strict=True):
            assert_close(sequence, expected, what="the outputs of a sequence")
        assert_close(h, final, what="the final state")
        for actual, expected in zip(gradients(batch, [*found, h]), gradients(batch, [*ys, final]), strict=True):
            assert_close(actual, expected, what="a gradient")


def gradients(batch: Batch, results: list[Tensor]) -> tuple[Tensor, ...]:
    number = sum(((result * result.detach().cos()).sum() for result in results), torch.zeros((), dtype=DOUBLE))
    return torch.autograd.grad(number, batch.leaves, retain_graph=True, materialize_grads=True)


def padded(sequences: list[Tensor], time: int) -> Tensor:
    """[B, T, F] with padding that shows where it comes through."""
    rows = [torch.cat([s, s.new_full((time - len(s), s.shape[1]), torch.nan)]) for s in sequences]
    return torch.stack(rows) if rows else torch.zeros(0, time, WIDTH, dtype=DOUBLE)


def scattered(sequences: list[Tensor], mask: Tensor) -> Tensor:
    """[B, T, F] with the steps of each sequence where its mask has them."""
    rows = [
        s.new_full((len(steps), s.shape[1]), torch.nan).index_copy(0, steps.nonzero()[:, 0], s)
        for s, steps in zip(sequences, mask, strict=True)
    ]
    return torch.stack(rows)


def nested(sequences: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(sequences, layout=torch.jagged)


def check_lengths(lengths: list[int], time: int) -> None:
    batch = Batch.draw(lengths)
    form = Form.of(padded(batch.xs, time), lengths)

    def apart(y: Tensor) -> list[Tensor]:
        assert y.shape == (len(lengths), time, UNITS)
        for row, n in zip(y, lengths, strict=True):
            assert not row[n:].any()
        return [row[:n] for row, n in zip(y, lengths, strict=True)]

    gap = padded(batch.gaps, time) if lengths else torch.zeros(0, time, 1, dtype=DOUBLE)
    check(batch, form, gap, apart)
    check(batch, form, gap[..., 0], apart)


def check_mask(mask: Tensor) -> None:
    batch = Batch.draw(mask.sum(1).tolist())
    form = Form.of(scattered(batch.xs, mask), mask=mask)

    def apart(y: Tensor) -> list[Tensor]:
        assert y.shape == (*mask.shape, UNITS)
        assert not y[~mask].any()
        return [row[steps] for row, steps in zip(y, mask, strict=True)]

    check(batch, form, scattered(batch.gaps, mask), apart)


def check_packed(lengths: list[int], enforce_sorted: bool = False) -> None:
    batch = Batch.draw(lengths)
    x, gap = (pack_sequence(sequences, enforce_sorted) for sequences in (batch.xs, batch.gaps))

    def apart(y: PackedSequence) -> list[Tensor]:
        assert y.batch_sizes is x.batch_sizes
        assert y.sorted_indices is x.sorted_indices
        assert y.unsorted_indices is x.unsorted_indices
        return unpack_sequence(y)

    form = Form.of(x)
    assert form.rows is x.data
    check(batch, form, gap, apart)
    check(batch, form, PackedSequence(gap.data[:, 0], *gap[1:]), apart)
    check(batch, form, padded(batch.gaps, max(lengths)), apart)


def check_nested(lengths: list[int]) -> None:
    batch = Batch.draw(lengths)
    x = nested(batch.xs)

    def apart(y: Tensor) -> list[Tensor]:
        assert (y + torch.nested.nested_tensor_from_jagged(y.values(), x.offsets())).shape[:2] == x.shape[:2]
        return list(y.unbind())

    form = Form.of(x)
    assert form.rows.shape == (sum(lengths), WIDTH)
    check(batch, form, nested(batch.gaps), apart)
    check(batch, form, nested([gap[:, 0] for gap in batch.gaps]), apart)
    check(batch, form, padded(batch.gaps, max(lengths)), apart)


RAGGED = [[3, 1, 4, 2], [1, 2, 5], [2, 2, 2], [4], [1, 1]]
EMPTY = [[3, 0, 4], [0, 0], [0]]


@pytest.mark.parametrize("lengths", [*RAGGED, *EMPTY, []])
def test_a_padded_batch(lengths: list[int]) -> None:
    check_lengths(lengths, 5)


@pytest.mark.parametrize(("batch", "time"), [(3, 0), (0, 0), (0, 3)])
def test_a_padded_batch_without_steps(batch: int, time: int) -> None:
    check_lengths([0] * batch, time)


@pytest.mark.parametrize("lengths", RAGGED)
def test_a_packed_sequence(lengths: list[int]) -> None:
    check_packed(lengths)
    check_packed(sorted(lengths, reverse=True), enforce_sorted=True)


@pytest.mark.parametrize("lengths", [*RAGGED, *EMPTY])
def test_a_nested_tensor(lengths: list[int]) -> None:
    check_nested(lengths)


@pytest.mark.parametrize(
    "rows", [["1101", "0110", "0000"], ["0000", "0000"], ["1111"], ["1100", "0000", "1110"], ["0"], ["1010", "0101"]]
)
def test_a_mask(rows: list[str]) -> None:
    check_mask(torch.tensor([[step == "1" for step in row] for row in rows]))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_any_lengths(lengths: list[int]) -> None:
    check_lengths(lengths, 6)
    check_nested(lengths)
    check_packed([max(n, 1) for n in lengths])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1)))
def test_any_mask(rows: list[list[bool]]) -> None:
    check_mask(torch.tensor(rows, dtype=torch.bool))


def test_a_nested_tensor_with_holes() -> None:
    """What `torch.nested.narrow` makes: sequences that are parts of a padded batch."""
    whole = torch.randn(3, 5, WIDTH, dtype=DOUBLE)
    begins, lengths = torch.tensor([0, 1, 0]), torch.tensor([2, 0, 5])
    x = torch.nested.narrow(whole, 1, begins, lengths, layout=torch.jagged)
    form = Form.of(x)
    y = form.back(2 * form.rows)
    for row, found in zip((whole[0, :2], whole[1, 1:1], whole[2]), y.unbind(), strict=True):
        assert torch.equal(found, 2 * row)
    assert torch.equal((x + y).lengths(), lengths)
    gap = nested([torch.full((int(n), 1), float(n), dtype=DOUBLE) for n in lengths])
    assert torch.equal(form.side(gap, 1).unique(), torch.tensor([2.0, 5.0], dtype=DOUBLE))


def test_a_gradient_goes_through_a_nested_tensor_and_what_is_added_to_it() -> None:
    x = torch.nested.nested_tensor([torch.randn(n, WIDTH) for n in (2, 3)], layout=torch.jagged, requires_grad=True)
    form = Form.of(x)
    (x + form.back(2 * form.rows)).values().sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad.values(), torch.full((5, WIDTH), 3.0))


def test_what_lies_as_it_should_is_not_copied() -> None:
    x = torch.randn(3, 4, WIDTH)
    front = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    for form in (Form.of(x), Form.of(x, [4, 0, 2]), Form.of(x, mask=front)):
        assert form.rows.data_ptr() == x.data_ptr()
        assert form.rows.shape == (4, 3, WIDTH)
        assert form.side(x, WIDTH).data_ptr() == x.data_ptr()
        assert form.back(form.rows).data_ptr() == x.data_ptr()
    assert Form.of(x, mask=front).packing.batch_sizes == (2, 2, 1, 1)
    assert type(Form.of(x, mask=front)) is Padded
    assert type(Form.of(x, mask=front.flip(1))) is Masked
    assert Form.of(x, mask=front | True).packing == Packing.full(3, 4)


def test_every_sequence_is_turned_from_its_own_end() -> None:
    sequences = [torch.randn(n, WIDTH) for n in (2, 0, 4)]
    x, mask = padded(sequences, 5), torch.arange(5) < torch.tensor([[2], [0], [4]])
    backwards = [sequence.flip(0) for sequence in sequences]
    holes = torch.tensor([[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 1, 1]], dtype=torch.bool)
    for form, expected in (
        (Form.of(x, [2, 0, 4]), padded(backwards, 5)),
        (Form.of(x, mask=mask), padded(backwards, 5)),
        (Form.of(scattered(sequences, holes), mask=holes), scattered(backwards, holes)),
        (Form.of(x), x.flip(1)),
    ):
        assert_close(form.back(form.packing.turned(form.rows)), expected)
    form = Form.of(nested(sequences))
    assert_close(form.back(form.packing.turned(form.rows)).values(), torch.cat(backwards))


def test_a_step_left_out_is_not_run() -> None:
    x = torch.randn(2, 6, WIDTH)
    mask = torch.tensor([[0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    assert Form.of(x, mask=mask).packing.batch_sizes == (2, 1)


def test_lengths_and_masks_say_the_same() -> None:
    lengths = torch.tensor([2, 0, 4])
    x = torch.randn(3, 4, WIDTH)
    by_mask = Form.of(x, mask=torch.arange(4) < lengths[:, None]).packing
    by_lengths = Form.of(x, lengths).packing
    assert by_mask.batch_sizes == by_lengths.batch_sizes
    assert by_mask.given is not None
    assert torch.equal(by_mask.given, lengths)


def test_side_inputs_take_the_type_of_x() -> None:
    sequences = [torch.randn(n, WIDTH) for n in (2, 3)]
    x = pad_sequence(sequences, batch_first=True)
    for given_x, side in (
        (x, x.double()),
        (pack_sequence(sequences, False), pack_sequence([s.double() for s in sequences], False)),
        (nested(sequences), nested([s.double() for s in sequences])),
    ):
        assert Form.of(given_x).side(side, WIDTH).dtype is torch.float32


PADDED = torch.zeros(2, 3, WIDTH)
PACKED = pack_sequence([torch.zeros(3, WIDTH), torch.zeros(1, WIDTH)])
NESTED = nested([torch.zeros(3, WIDTH), torch.zeros(1, WIDTH)])
KEPT = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PADDED[0],), r"x: \(3, 2\) came; expected \[B, T, I\]"),
        ((PADDED.long(),), "x: torch.int64 came; expected numbers of a floating type"),
        ((PACKED._replace(data=PACKED.data.long()),), "x: torch.int64 came; expected numbers of a floating type"),
        ((PACKED._replace(data=PACKED.data[:, 0]),), r"x: \(4,\) came; expected data \[N, I\]"),
        ((nested([torch.zeros(3), torch.zeros(1)]),), r"x: \(4,\) came; expected values \[N, I\]"),
        ((NESTED.transpose(1, 2),), r"x: \(2, 2, j\d+\) came; expected \[B, j, I\]: transpose it back"),
        ((PADDED, [3, 4]), "lengths: values from 3 to 4 came; expected 0 to 3"),
        ((PADDED, [-1, 2]), "lengths: values from -1 to 2 came; expected 0 to 3"),
        ((PADDED, [3]), r"lengths: \(1,\) came; expected one per sequence of the batch, \(2,\)"),
        ((PADDED, [1.5, 2.0]), r"lengths: \[1.5, 2.0\] came; expected whole numbers of steps"),
        ((PADDED, [3, 1], KEPT), "lengths: came with a mask; expected one of them"),
        ((PADDED, None, KEPT.long()), "mask: torch.int64 came; expected torch.bool, True where a step counts"),
        ((PADDED, None, KEPT.T), r"mask: \(3, 2\) came; expected one value for each step, \(2, 3\)"),
        ((PADDED, None, KEPT[0]), r"mask: \(3,\) came; expected one value for each step, \(2, 3\)"),
        ((PACKED, [3, 1]), "lengths: came with a PackedSequence; expected none"),
        ((PACKED, None, KEPT), "mask: came with a PackedSequence; expected none"),
        ((NESTED, [3, 1]), "lengths: came with a nested tensor; expected none"),
        ((NESTED, None, KEPT), "mask: came with a nested tensor; expected none"),
    ],
)
def test_what_is_no_batch_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Form.of(*arguments)


def test_a_nested_tensor_of_another_layout_is_refused() -> None:
    strided = torch.nested.nested_tensor([torch.zeros(3, WIDTH)], layout=torch.strided)
    with pytest.raises(
        ValueError, match=r"x: a nested tensor of layout torch.strided came; expected layout=torch.jagg"
    ):
        Form.of(strided)


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"x: a list came; expected a tensor \[B, T, I\] or a PackedSequence"):
        Form.of([[1.0]])


@pytest.mark.parametrize(
    ("x", "side", "error", "message"),
    [
        (PADDED, PADDED[:, :2], ValueError, r"side gap: \(2, 2, 2\) came; expected \(2, 3, 2\)$"),
        (PADDED, NESTED, TypeError, r"side gap: a nested tensor came; expected a tensor \[B, T, F\]"),
        (PADDED, PACKED, TypeError, r"side gap: a PackedSequence came; expected a tensor \[B, T, F\]"),
        (PADDED, [1.0], TypeError, r"side gap: a list came; expected a tensor \[B, T, F\]"),
        (PACKED, NESTED, TypeError, "side gap: a nested tensor came; expected a tensor"),
        (PACKED, PADDED[:, :2], ValueError, r"side gap: \(2, 2, 2\) came; expected \(2, 3, 2\)$"),
        (PACKED, PACKED._replace(data=torch.zeros(4, 1)), ValueError, r"rows \(4, 1\) came; expected \(4, 2\)"),
        (PACKED, pack_sequence([torch.zeros(2, 2)] * 2), ValueError, "a PackedSequence of other lengths or order came"),
        (NESTED, PACKED, TypeError, "side gap: a PackedSequence came; expected a tensor"),
        (NESTED, nested([torch.zeros(2, 2)] * 2), ValueError, r"of \[2, 2\] steps came; expected .*, \[3, 1\]"),
        (
            NESTED,
            nested([torch.zeros(3), torch.zeros(1)]),
            ValueError,
            r"side gap: rows \(4,\) came; expected \(4, 2\)",
        ),
    ],
)
def test_a_side_input_that_does_not_fit_is_refused(x: Any, side: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Form.of(x).side(side, WIDTH, "gap")


def test_a_number_per_step_may_come_without_its_dimension() -> None:
    with pytest.raises(ValueError, match=r"side gap: \(2, 2\) came; expected \(2, 3, 1\) or \(2, 3\)"):
        Form.of(PADDED).side(torch.zeros(2, 2), 1, "gap", scalar=True)


def test_a_packed_sequence_in_another_order_is_refused_beside_one() -> None:
    a, b = torch.zeros(1, WIDTH), torch.zeros(3, WIDTH)
    with pytest.raises(ValueError, match="a PackedSequence of other lengths or order came; expected those of x"):
        Form.of(pack_sequence([a, b], False)).side(pack_sequence([b, a], False), WIDTH)


# -- where values cannot be looked at ---------------------------------------------------------------------------------


def turned(x: Any, h: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> tuple[Any, ...]:
    """All that a layer does with a form: each sequence turned round and doubled."""
    form = Form.of(x, lengths, mask)
    rows = form.packing.turned(form.rows) + form.side(x, WIDTH)
    return form.back(rows), form.original(2 * form.sort(h))


def steps(y: Any, counting: Tensor | None) -> Tensor:
    """What of a result is no padding."""
    if isinstance(y, PackedSequence):
        return y.data
    return y.values() if y.is_nested else y if counting is None else y[counting]


def trial(form: str, batch: int, time: int, seed: int = 0) -> tuple[tuple[Any, ...], Tensor | None]:
    """Arguments of `turned`, and which steps count."""
    torch.manual_seed(seed)
    lengths = torch.randint(1, time + 1, (batch,))
    x, h = torch.randn(batch, time, WIDTH), torch.randn(batch, UNITS)
    mask = torch.rand(batch, time) < 0.6
    sequences = [row[:n] for row, n in zip(x, lengths, strict=True)]
    match form:
        case "full":
            return (x, h), None
        case "lengths":
            return (x, h, lengths), torch.arange(time) < lengths[:, None]
        case "mask":
            return (x, h, None, mask), mask
        case "packed":
            return (pack_sequence(sequences, enforce_sorted=False), h), None
        case _:
            return (nested(sequences), h), None


AWAY = "cuda"
FORMS = ["full", "lengths", "mask", "packed", "nested"]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_traced_in_one_piece(form: str, backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(turned, backend=backend, fullgraph=True, dynamic=True)
    for batch, time in ((4, 5), (3, 7)):
        arguments, counting = trial(form, batch, time)
        (y, h), (expected_y, expected_h) = compiled(*arguments), turned(*arguments)
        assert torch.equal(steps(y, counting), steps(expected_y, counting))
        assert torch.equal(h, expected_h)


def test_a_padded_side_input_beside_a_nested_tensor_is_not_traced() -> None:
    def number(scale: Tensor) -> Tensor:
        return scale * Form.of(NESTED).side(PADDED, WIDTH, "gap").sum()

    with pytest.raises(TypeError, match="side gap: a Tensor came; expected a nested tensor, as x is, to be traced"):
        torch.func.grad(number)(torch.ones(()))


@pytest.mark.parametrize("form", ["lengths", "mask"])
def test_a_form_is_mapped_over(form: str) -> None:
    found = [trial(form, 3, 5, seed) for seed in range(3)]
    several = [None if group[0] is None else torch.stack(group) for group in zip(*(a for a, _ in found), strict=True)]
    dims = tuple(None if group is None else 0 for group in several)
    y, h = torch.vmap(turned, in_dims=dims)(*several)
    for k, (arguments, counting) in enumerate(found):
        expected_y, expected_h = turned(*arguments)
        assert torch.equal(steps(y[k], counting), steps(expected_y, counting))
        assert torch.equal(h[k], expected_h)


@pytest.mark.parametrize("form", ["lengths", "mask"])
@pytest.mark.parametrize("away", ["x", "lengths"])
def test_lengths_and_masks_may_be_on_another_device(form: str, away: str) -> None:
    """On a device that is made up: what is on it and what is not cannot be mixed."""
    (x, h, *rest), _ = trial(form, 3, 5)
    with FakeTensorMode(allow_non_fake_inputs=True):
        if away == "x":
            x, h = (torch.empty_like(array, device=AWAY) for array in (x, h))
        else:
            rest = [None if array is None else torch.empty_like(array, device=AWAY) for array in rest]
        y, state = turned(x, h, *rest)
    assert y.device.type == state.device.type == (AWAY if away == "x" else "cpu")
    assert y.shape == x.shape
