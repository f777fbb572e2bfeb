"""Every cell keeps the contract; and the contract can be broken."""

from __future__ import annotations

from typing import Any

import pytest

from everloop import cells
from everloop.backends import use_backend
from everloop.backends._spelling import SPELLING
from everloop.backends.reference import ReferenceKernel
from everloop.lang.functions import relu, sigmoid
from everloop.lang.ops import GRADIENT
from everloop.nn.packing import Packing
from everloop.testing import check_cell


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_keeps_the_contract(name: str) -> None:
    check_cell(name)


@pytest.mark.parametrize("act", [relu, sigmoid])
def test_options_of_a_cell_keep_the_contract(act: Any) -> None:
    check_cell(cells.get("elman")(act=act))


def test_sizes_can_be_chosen() -> None:
    check_cell("projection_lstm", sizes={"proj": 1, "hidden": 2, "input": 1})


def test_one_unit_and_one_feature() -> None:
    for name in ("lstm", "gru", "layernorm_lstm"):
        check_cell(name, sizes={"hidden": 1, "input": 1})


def test_a_wrong_gradient_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRADIENT, "tanh", lambda g, y, a: (g * (1 - y),))
    with pytest.raises(AssertionError, match=r"elman: the derived gradient of x in one step, against torch: "):
        check_cell("elman")


def test_a_wrong_operation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that differs from what its gradient rule belongs to."""
    right = SPELLING["sigmoid"]
    monkeypatch.setitem(SPELLING, "sigmoid", lambda a: right(a) * 1.001)
    with pytest.raises(AssertionError, match="derived gradient"):
        check_cell("lstm")


def test_a_kernel_that_forgets_an_initial_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ReferenceKernel.backward

    def wrong(self: ReferenceKernel, *args: Any) -> Any:
        packs, initial, stacks = right(self, *args)
        return packs, {name: grad * 0 for name, grad in initial.items()}, stacks

    monkeypatch.setattr(ReferenceKernel, "backward", wrong)
    with (
        use_backend("reference"),
        pytest.raises(AssertionError, match="step by step from a running state: the gradient of h"),
    ):
        check_cell("gru")


def test_padding_that_leaks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths that are disregarded: NaN of the padding comes through."""
    monkeypatch.setattr(Packing, "of", staticmethod(lambda lengths, batch, time, device: Packing.full(batch, time)))
    with pytest.raises(AssertionError, match="against each alone: y: "):
        check_cell("mingru")


def test_a_reverse_direction_that_runs_forwards_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Packing.backwards
    monkeypatch.setattr(Packing, "backwards", lambda self, device: right(self, device).sort().values)
    # Compiled kernels read backwards themselves.
    with use_backend("reference"), pytest.raises(AssertionError, match=r"lengths|direction"):
        check_cell("elman")
