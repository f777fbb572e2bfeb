"""Which backend runs a layer: by rank, by name, by environment; what happens when one fails; what `explain` says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from everloop import Recurrent, backends, explain, use_backend
from everloop.backends.reference import ReferenceKernel
from everloop.lang.graph import Graph
from everloop.testing import SAME, assert_close


class Watched(ReferenceKernel):
    """The reference, which notes how it is called."""

    def __init__(self, graph: Graph, sizes: dict[str, int], calls: list[tuple[str, frozenset[str]]]) -> None:
        super().__init__(graph, sizes)
        self.calls = calls

    def forward(self, *args: Any, keep: bool, wanted: frozenset[str]) -> Any:  # type: ignore[override]
        self.calls.append(("forward and keep" if keep else "forward", wanted))
        return super().forward(*args, keep=keep, wanted=wanted)

    def backward(self, *args: Any) -> Any:
        self.calls.append(("backward", args[-1]))
        return super().backward(*args)


@dataclass
class MadeUp:
    """A backend of another package."""

    name: str = "made_up"
    rank: int = 99
    reason: str = ""
    failing: BaseException | None = None
    unprepared: Exception | None = None
    calls: list[tuple[str, frozenset[str]]] = field(default_factory=list)

    def load(self) -> MadeUp:
        return self

    def refuses(self, graph: Graph, device: str, dtype: str) -> str:
        return self.reason

    def compile(self, graph: Graph, sizes: dict[str, int], device: str, dtype: str) -> Watched:
        if self.failing:
            raise self.failing
        kernel = Watched(graph, sizes, self.calls)
        if self.unprepared:
            kernel.prepare = self.prepare  # type: ignore[attr-defined]
        return kernel

    def prepare(self, wanted: frozenset[str] | None) -> None:
        assert self.unprepared
        raise self.unprepared


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeUp]:
    """Among the backends, and preferred; nothing is asked for."""
    made = MadeUp()
    found = (backends.names, backends.backends, backends._loaded)
    monkeypatch.setattr(backends, "_outside", lambda: {"made_up": made})
    monkeypatch.setattr(backends, "_warned", set())
    monkeypatch.setattr(backends, "_process", [""])
    monkeypatch.delenv("EVERLOOP_BACKEND", raising=False)
    for function in found:
        function.cache_clear()
    yield made
    for function in found:
        function.cache_clear()


def layer(cell: str = "lstm", **more: Any) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(cell, 3, 4, dtype=torch.float64, **more)


X = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(2, 5, 3)


def runs_on(one: Recurrent) -> str:
    return explain(one).parts[0].backend


# -- by rank and by name ---------------------------------------------------------------------------------------------


def test_the_backend_of_the_highest_rank_that_does_not_refuse_runs(made_up: MadeUp) -> None:
    assert runs_on(layer()) == "made_up"
    layer()(X)
    assert len(made_up.calls) == 1
    made_up.reason = "it rains"
    assert runs_on(layer()) != "made_up"
    layer()(X)
    assert len(made_up.calls) == 1


def test_all_backends_are_known_by_the_name_they_are_loaded_by() -> None:
    assert {"reference", "made_up"} <= set(backends.names())
    assert {backend.name for backend in backends.backends()} == set(backends.names())
    # Behind the reference, which refuses nothing, is what has to be asked for.
    assert [backend.name for backend in backends.backends()][-2:] == ["reference", "triton"]


def test_the_environment_names_one(made_up: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    one = layer()
    monkeypatch.setenv("EVERLOOP_BACKEND", "reference")
    one(X)
    assert made_up.calls == []
    monkeypatch.setenv("EVERLOOP_BACKEND", "auto")
    one(X)
    assert len(made_up.calls) == 1


def test_a_name_loads_that_backend_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_outside", lambda: {"broken": None})
    monkeypatch.setenv("EVERLOOP_BACKEND", "reference")
    layer()(X)


def test_a_block_counts_more_than_the_process_and_that_more_than_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVERLOOP_BACKEND", "made_up")
    assert backends.asked() == "made_up"
    use_backend("reference")
    assert backends.asked() == "reference"
    with use_backend("made_up"):
        assert backends.asked() == "made_up"
        with use_backend(None):
            assert backends.asked() == "auto"
        assert backends.asked() == "made_up"
    assert backends.asked() == "reference"
    with pytest.raises(ZeroDivisionError), use_backend("made_up"):
        raise ZeroDivisionError
    assert backends.asked() == "reference"
    use_backend("auto")
    assert backends.asked() == "auto"


def in_a_thread(question: Callable[[], str]) -> str:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(question()))
    thread.start()
    thread.join()
    return found[0]


def test_a_block_is_of_its_thread_and_a_call_of_the_process() -> None:
    with use_backend("reference"):
        assert in_a_thread(backends.asked) == "auto"
    use_backend("reference")
    assert in_a_thread(backends.asked) == "reference"


def test_an_unknown_name_is_answered_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    words = r"no backend is named 'refrence'; there are .*made_up, reference, triton, and 'auto'"
    with pytest.raises(ValueError, match=words):
        use_backend("refrence")
    assert backends.asked() == "auto"
    monkeypatch.setenv("EVERLOOP_BACKEND", "refrence")
    with pytest.raises(ValueError, match=words):
        layer()(X)


def test_one_that_is_asked_for_and_refuses_says_why(made_up: MadeUp) -> None:
    made_up.reason = "it rains"
    with use_backend("made_up"), pytest.raises(NotImplementedError, match=r"made_up .* does not run lstm: it rains$"):
        layer()(X)


def test_no_backend_at_all_says_why(made_up: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.reason = "it rains"
    monkeypatch.setattr(backends, "backends", lambda: (made_up,))
    with pytest.raises(NotImplementedError, match=r"no backend runs lstm on cpu in torch.float64: made_up: it rains$"):
        layer()(X)


# -- failing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["at once", "when first called"])
def test_where_compiling_fails_the_reference_runs_and_one_warning_says_so(made_up: MadeUp, late: bool) -> None:
    with use_backend("reference"):
        expected = layer()(X)[0]
    setattr(made_up, "unprepared" if late else "failing", RuntimeError("no such register"))

    def run(one: Recurrent) -> None:
        one(X)[0].sum().backward()
        with torch.no_grad():
            one(X)

    with pytest.warns(RuntimeWarning) as warned:
        list(map(run, (layer(), layer(), layer("gru"))))
    assert [str(warning.message).partition(":")[0] for warning in warned] == [
        "backend made_up failed to compile lstm",
        "backend made_up failed to compile gru",
    ]
    assert "RuntimeError: no such register" in str(warned[0].message)
    one = layer()
    assert_close(one(X)[0], expected, SAME)
    assert runs_on(one) == "reference"
    assert "made_up    the fastest that can, but failed to compile it" in str(explain(one))
    assert "reference  runs it, because made_up failed" in str(explain(one))


@pytest.mark.filterwarnings("error")
def test_an_interruption_is_no_failure(made_up: MadeUp) -> None:
    made_up.failing = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        layer()(X)


# -- what a kernel is asked for ----------------------------------------------------------------------------------------


def test_a_kernel_is_told_whose_gradient_is_wanted(made_up: MadeUp) -> None:
    one = layer()
    one.get_parameter("layers.0.0.W").requires_grad_(False)
    one(X)[0].sum().backward()
    assert made_up.calls == [("forward and keep", frozenset("Ub")), ("backward", frozenset("Ub"))]
    made_up.calls.clear()
    state = [torch.zeros(1, 2, 4, dtype=torch.float64) for _ in range(2)]
    one.requires_grad_(False)(X.clone().requires_grad_(), [state[0].requires_grad_(), state[1]])[0].sum().backward()
    assert made_up.calls == [("forward and keep", frozenset("xh")), ("backward", frozenset("xh"))]
    made_up.calls.clear()
    one(X)
    with torch.no_grad():
        one.requires_grad_()(X)
    assert made_up.calls == [("forward", frozenset())] * 2


def test_what_nobody_used_has_no_gradient_to_hand_on() -> None:
    one = layer(num_layers=1)
    y, state = one(X)
    results = [y, *state]
    for used in results:
        grads = torch.autograd.grad(used.sum(), list(one.parameters()), retain_graph=True)
        whole = torch.autograd.grad(
            torch.stack([(result * (result is used)).sum() for result in results]).sum(),
            list(one.parameters()),
            retain_graph=True,
        )
        for a, b in zip(grads, whole, strict=True):
            assert_close(a, b, SAME)


def test_backward_runs_where_forward_ran(made_up: MadeUp) -> None:
    one = layer()
    number = one(X)[0].sum()
    with use_backend("reference"):
        number.backward()
        other = one(X)[0].sum()
    other.backward()
    assert [call for call, _ in made_up.calls] == ["forward and keep", "backward"]


def test_the_gradient_of_a_gradient_runs_on_the_reference(made_up: MadeUp) -> None:
    def first_and_second() -> tuple[Tensor, Tensor]:
        x = X.clone().requires_grad_()
        (first,) = torch.autograd.grad(layer()(x)[0].square().sum(), x, create_graph=True)
        assert "backward" not in [call for call, _ in made_up.calls]
        return first, torch.autograd.grad(first.square().sum(), x)[0]

    with use_backend("reference"):
        expected = first_and_second()
    for a, b in zip(first_and_second(), expected, strict=True):
        assert_close(a, b, SAME)
    assert made_up.calls[0][0] == "forward and keep"


def test_arrays_of_several_types_are_refused(made_up: MadeUp) -> None:
    with pytest.raises(ValueError, match=r"float32 came; expected torch.float64"):
        layer()(X.float())
    assert made_up.calls == []


# -- what is said ------------------------------------------------------------------------------------------------------


def test_explain_says_what_runs_and_why(made_up: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "backends", lambda: (made_up, backends._loaded("reference")))
    one = layer(num_layers=2, bidirectional=True)
    assert (
        str(explain(one))
        == """\
Recurrent(lstm, 3, 4, num_layers=2, bidirectional=True) on cpu in float64
recurrent: units meet inside the loop

  made_up    runs it: the fastest that can
  reference  could run it; made_up is preferred

  layer  direction  input  hidden  runs on
  0      forward    3      4       made_up
  0      reverse    3      4       made_up
  1      forward    8      4       made_up
  1      reverse    8      4       made_up"""
    )
    made_up.reason = "it rains"
    assert "  made_up    refuses: it rains\n  reference  runs it: the fastest that can\n" in str(explain(one))
    with use_backend("made_up"):
        found = explain(one)
    assert "  made_up    asked for, and refuses: it rains\n  reference  could run it; made_up" in str(found)
    assert {part.backend for part in found.parts} == {""}
    assert explain(layer("mingru")).kind == "scan"


def test_explain_takes_layers() -> None:
    with pytest.raises(TypeError, match=r"^explain: a LSTM came; expected a layer, an everloop\.Recurrent$"):
        explain(torch.nn.LSTM(1, 1))  # type: ignore[arg-type]
