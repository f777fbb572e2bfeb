"""Kernels for GPUs, on Triton's interpreter: every cell and every template, against the reference in float64."""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from everloop import cells, explain
from everloop.backends import use_backend
from everloop.backends.reference import ReferenceKernel
from everloop.backends.triton import backend, writer
from everloop.backends.triton.choose import Choice, Device, Loop, choose
from everloop.backends.triton.kernel import H100, TritonKernel
from everloop.backends.triton.loops import kernel_of
from everloop.backends.triton.spelling import NEEDED, function
from everloop.compiler.affine import affine
from everloop.compiler.plan import plan
from everloop.lang import functions as f
from everloop.lang.cell import cell
from everloop.nn import LSTM, Recurrent
from everloop.nn.function import Recurrence
from everloop.testing import BFLOAT16, KERNEL, SAME, Drawn, Trial, assert_close, check_kernel
from everloop.testing import kernel_of as any_kernel

SMALL = {"input": 3, "hidden": 5}
Pick = Callable[[Loop, int, int, Device], Choice]


def made(
    name: Any, dtype: str = "float64", pick: Pick = choose, sizes: dict[str, int] | None = None
) -> tuple[TritonKernel, Recurrence]:
    _, recurrence = any_kernel("reference", cells.get(name), SMALL | (sizes or {}), dtype)
    return TritonKernel(recurrence.graph, recurrence.sizes, "cpu", dtype, pick=pick), recurrence


def check(
    name: Any, *trials: Trial, dtype: str = "float64", pick: Pick = choose, sizes: dict[str, int] | None = None
) -> TritonKernel:
    kernel, recurrence = made(name, dtype, pick, sizes)
    for trial in trials:
        check_kernel(kernel, recurrence.graph, recurrence.sizes, replace(trial, dtype=dtype))
    return kernel


def always(**choice: Any) -> Pick:
    """This template for every loop of products."""

    def pick(loop: Loop, sequences: int, steps: int, device: Device) -> Choice:
        found = choose(loop, sequences, steps, device)
        if found.template in ("scan", "diagonal"):
            return found
        return Choice(**{"template": "split", "reason": "the test wants it", "sequences": 16, "parts": 1, **choice})

    return pick


def templates(kernel: TritonKernel) -> set[str]:
    return {note.split(": ")[1].split(",")[0] for note in kernel.notes}


class TestCells:
    @pytest.mark.parametrize("name", cells.names())
    def test_every_one_is_the_reference(self, name: str) -> None:
        check(name, Trial((3, 3, 2, 1), idle=1))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", cells.names())
    def test_every_one_divided(self, name: str) -> None:
        """In single precision, and, where units meet, with units divided among programs that take turns."""
        check(name, Trial((3, 3, 2, 1), idle=1), dtype="float32", pick=always(resident=False))

    @pytest.mark.parametrize("name", ["lstm", "layernorm_lstm", "cfc", "lru", "indrnn"])
    def test_in_single_precision(self, name: str) -> None:
        check(name, Trial((3, 2, 2), idle=1), Trial((2, 1), strided=True), dtype="float32")

    @pytest.mark.parametrize("name", ["lstm", "mingru"])
    def test_what_is_not_wanted_is_not_computed(self, name: str) -> None:
        kernel, recurrence = made(name)
        graph = recurrence.graph
        for frozen in ({"x"}, graph.states, graph.stacks, {*graph.inputs, *graph.states}):
            check_kernel(kernel, graph, recurrence.sizes, Trial((2, 2, 1), frozen=frozenset(frozen)))
        check_kernel(kernel, graph, recurrence.sizes, Trial((2, 1), unused=frozenset({"y"})))

    @pytest.mark.parametrize("name", ["lstm", "gru", "mingru"])
    def test_half_types(self, name: str) -> None:
        """Products of halves, sums and states in float32."""
        kernel, recurrence = made(name, "float16")
        drawn = Drawn.of(recurrence.graph, recurrence.sizes, Trial((3, 3, 2), dtype="float16"))
        expected = drawn.run(ReferenceKernel(recurrence.graph, recurrence.sizes))
        found = drawn.to(torch.float16).run(kernel)
        for key, right in expected.items():
            assert found[key].dtype == torch.float16
            assert_close(found[key].double(), right, BFLOAT16, key)

    @pytest.mark.parametrize("sizes", [{"hidden": 1}, {"hidden": 17, "input": 1}, {"hidden": 33}])
    def test_odd_sizes(self, sizes: dict[str, int]) -> None:
        check("lstm", Trial((2, 1)), sizes=sizes)
        check("lru", Trial((2, 1)), sizes=sizes)

    @pytest.mark.parametrize(
        ("name", "sizes"),
        [
            ("projection_lstm", {"proj": 3}),
            ("lmu", {"memory": 18}),
            ("cfc", {"backbone": 1}),
            ("scrn", {"context": 17}),
        ],
    )
    def test_sizes_of_their_own(self, name: str, sizes: dict[str, int]) -> None:
        check(name, Trial((2, 1)), sizes=sizes)
        check(name, Trial((2, 1)), sizes=sizes, pick=always())

    def test_many_sequences(self) -> None:
        kernel = check("gru", Trial((33, 33, 17, 1)))
        assert templates(kernel) == {"whole"}

    def test_no_steps_and_no_sequences(self) -> None:
        check("lstm", Trial((), idle=2))
        check("mingru", Trial((), idle=2))

    def test_nan_stays_with_its_sequence(self) -> None:
        for name in ("lstm", "mingru"):
            kernel, recurrence = made(name)
            drawn = Drawn.of(recurrence.graph, recurrence.sizes, Trial((3, 3, 3)))
            drawn.inputs["x"][1] = math.nan
            outputs, _, _ = kernel.forward(drawn.inputs, drawn.states, drawn.weights, (3, 3, 3), keep=False)
            assert outputs["y"].isnan().any(1).tolist() == [False, True, False] * 3


@cell(states="h", gates="h")
def heads(x, h, W, V, u):  # type: ignore[no-untyped-def]
    """Block-diagonal matrices alone: parts that never meet."""
    return f.tanh(W.h @ x + f.blocks(V, 3).h @ h + u.h)


class TestTemplates:
    def test_heads(self) -> None:
        kernel = check(heads, Trial((3, 2, 1)), sizes={"hidden": 15})
        assert templates(kernel) == {"heads"}

    def test_heads_on_one_processor(self) -> None:
        kernel = check(heads, Trial((3, 2, 1)), sizes={"hidden": 15}, pick=always(template="whole"))
        assert templates(kernel) == {"whole"}

    @pytest.mark.parametrize("resident", [True, False])
    @pytest.mark.parametrize("name", ["lstm", "gru", "ltc", "layernorm_gru", "on_lstm", "lmu"])
    def test_units_in_one_part(self, name: str, resident: bool) -> None:
        kernel = check(name, Trial((3, 2, 1), idle=1), pick=always(resident=resident))
        assert templates(kernel) == {"split"}

    @pytest.mark.parametrize(
        ("name", "resident", "seeds"),
        [
            ("lstm", True, 2),
            ("lstm", False, 2),
            ("gru", True, 2),
            ("layernorm_gru", True, 1),
            pytest.param("on_lstm", False, 1, marks=pytest.mark.slow),
        ],
    )
    def test_units_divided(
        self, name: str, resident: bool, seeds: int, side_by_side: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Programs that go on in any order, one load or store at a time, see what the others have written."""
        monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
        for seed in range(seeds):
            with side_by_side(seed) as counts:
                check(name, Trial((17, 2)), sizes={"hidden": 33}, pick=always(parts=3, resident=resident))
            assert set(counts) == {6}

    def test_a_missing_barrier_is_found(self, side_by_side: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of the test above: it fails where programs do not wait."""
        monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
        monkeypatch.setattr(writer.Writer, "wait_for", lambda self, node: self.stale.clear())
        with pytest.raises(AssertionError), side_by_side():
            check("lstm", Trial((2, 2)), sizes={"hidden": 33}, pick=always(parts=3))

    def test_nobody_waits_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Programs that run one after another wait for those that have not begun: they give up, and it is said."""
        monkeypatch.setattr(writer, "TRIES", 3)
        with pytest.raises(RuntimeError, match="waited for each other in vain"):
            check("gru", Trial((1, 1)), sizes={"hidden": 33}, pick=always(parts=3))

    def test_groups_that_come_later(self, side_by_side: Any) -> None:
        """More groups than there are multiprocessors for."""
        kernel, recurrence = made("gru", pick=always(parts=2))
        kernel._triton._device = Device(multiprocessors=4, on_chip=1024)
        with side_by_side() as counts:
            check_kernel(kernel, recurrence.graph, recurrence.sizes, Trial((70, 20)))
        assert set(counts) == {4, 2}

    @pytest.mark.parametrize("name", ["mingru", "lru", "hgrn", "qrnn_ifo"])
    def test_scans_of_several_chunks(self, name: str) -> None:
        chunks = lambda *given: replace(choose(*given), steps=4)  # noqa: E731
        kernel = check(name, Trial((3, 3, 3, 3, 3, 3, 2, 2, 1, 1)), pick=chunks)
        assert templates(kernel) == {"scan"}

    def test_a_scan_that_overflows_goes_step_by_step(self) -> None:
        """Factors whose product is beyond all numbers, though no state ever is."""
        kernel, recurrence = made(growing)
        drawn = Drawn.of(recurrence.graph, recurrence.sizes, Trial((2,) * 8))
        drawn.inputs["x"][:] = 1e100
        drawn.inputs["x"][-4:] = 0.0
        drawn.states["h"][:] = 1e-300
        drawn.weights["W"][:] = 1.0
        expected = drawn.run(ReferenceKernel(recurrence.graph, recurrence.sizes))
        assert expected["y"].isfinite().all()
        found = drawn.run(kernel)
        assert templates(kernel) == {"scan"}
        for key in expected:
            assert_close(found[key], expected[key], SAME, key)

    @pytest.mark.parametrize("name", ["mingru", "sru", "indrnn"])
    def test_units_that_do_not_meet(self, name: str) -> None:
        def pick(loop: Loop, sequences: int, steps: int, device: Device) -> Choice:
            return Choice("diagonal", "the test wants it", 4, 2)

        kernel = check(name, Trial((5, 3, 1), idle=1), sizes={"hidden": 70}, pick=pick)
        assert templates(kernel) == {"diagonal"}

    def test_one_that_needs_too_much_gets_another_template(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel, recurrence = made("lstm")
        launch, tried = kernel._triton._launch, []

        def refuse(text: str, choice: Choice, *rest: Any) -> None:
            tried.append(choice.template)
            if choice.template == "whole":
                raise OutOfResources("out of resource: shared memory")
            launch(text, replace(choice, parts=1), *rest)

        monkeypatch.setattr(kernel._triton, "_launch", refuse)
        check_kernel(kernel, recurrence.graph, recurrence.sizes, Trial((2, 1)))
        assert {"whole", "split"} == set(tried)


class OutOfResources(Exception):
    """By its name as Triton's."""


@cell(states="h", gates="h")
def growing(x, h, W):  # type: ignore[no-untyped-def]
    """A state that grows by whatever comes."""
    return (W.h @ x) * h + h


def poisoned(like: torch.Tensor, *shape: Any, **how: Any) -> torch.Tensor:
    """In the place of memory that has not been written to."""
    return like.new_full(shape[0] if isinstance(shape[0], tuple) else shape, math.nan, **how)


def loop_of(name: str, hidden: int, number: int = 2) -> Loop:
    _, recurrence = any_kernel("reference", cells.get(name), {"input": 8, "hidden": hidden})
    found = plan(recurrence.graph)
    form = affine(found.graph) if found.kind == "scan" else None
    return Loop(found, form, recurrence.sizes, number, 2 * number)


class TestMemory:
    @pytest.mark.skipif(sys.platform != "linux", reason="memory is fenced by mprotect")
    @pytest.mark.parametrize(
        ("name", "pick"),
        [
            ("lstm", choose),
            ("layernorm_gru", choose),
            ("lru", choose),
            ("indrnn", choose),
            ("gru", always(resident=True)),
            ("gru", always(resident=False)),
        ],
    )
    def test_nothing_beside_what_is_given_is_touched(
        self, name: str, pick: Pick, fence: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Arrays end where no memory is, and begin as NaN: one number too far ends the process."""
        kernel, recurrence = made(name, pick=pick)
        monkeypatch.setattr(
            Drawn, "to", lambda drawn, kind, device="cpu": drawn.each(lambda array: fence.moved(array.to(kind)))
        )
        check_kernel(fence.around(kernel), recurrence.graph, recurrence.sizes, Trial((3, 3, 1), idle=1))


class TestChoice:
    @pytest.mark.parametrize(
        ("name", "hidden", "sequences", "template", "parts"),
        [
            ("lstm", 64, 16, "whole", 1),
            ("lstm", 768, 16, "split", 48),
            ("gru", 1024, 256, "split", 64),
            ("mingru", 256, 16, "scan", 4),
            ("mingru", 1024, 1024, "diagonal", 16),
            ("indrnn", 64, 16, "diagonal", 1),
        ],
    )
    def test_of_a_template(self, name: str, hidden: int, sequences: int, template: str, parts: int) -> None:
        found = choose(loop_of(name, hidden), sequences, 128, H100)
        assert (found.template, found.parts) == (template, parts)

    @pytest.mark.parametrize("name", ["lstm", "ltc", "elman"])
    @pytest.mark.parametrize("hidden", [200, 512, 1024, 1500])
    @pytest.mark.parametrize("sequences", [1, 16, 256, 4096])
    def test_programs_that_wait_for_each_other_run_at_once(self, name: str, hidden: int, sequences: int) -> None:
        found = choose(loop_of(name, hidden), sequences, 128, H100)
        assert found.parts <= H100.multiprocessors

    def test_is_explained(self) -> None:
        layer = Recurrent("gru", 3, 4)
        with use_backend("triton"):
            layer(torch.randn(5, 2, 3))
            said = str(explain(layer))
        assert "triton     runs it: asked for" in said
        assert "forward, 5 x 2 steps: whole, 6,144 bytes of recurrent weights fit into 232,448" in said

    def test_nobody_gets_it_who_has_not_asked(self) -> None:
        layer = Recurrent("gru", 3, 4)
        layer(torch.randn(5, 2, 3))
        assert {part.backend for part in explain(layer).parts} == {"llvm"}
        assert "could run it" in explain(layer).plans[0].reasons["triton"]

    def test_is_refused_with_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        graph = cells.get("gru").graph
        assert "not int8" in backend.refuses(graph, "cpu", "torch.int8")
        assert "as if they were integers" in backend.refuses(graph, "cpu", "torch.bfloat16")
        monkeypatch.delenv("TRITON_INTERPRET")
        assert backend.refuses(graph, "cpu", "torch.float32") == "it makes code for GPUs, not for cpu"
        if not torch.cuda.is_available():
            assert backend.refuses(graph, "cuda", "torch.float32") == "torch finds no GPU"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
        assert "7.5; 8.0 is needed" in backend.refuses(graph, "cuda", "torch.float32")
        monkeypatch.setattr("everloop.backends.triton.find_spec", lambda name: None)
        assert "not installed" in backend.refuses(graph, "cuda", "torch.float32")


class TestLayers:
    def test_a_drop_in(self) -> None:
        """Two layers, both directions, ragged, trained: as torch's own."""
        torch.manual_seed(0)
        ours = LSTM(3, 6, num_layers=2, bidirectional=True).double()
        theirs = torch.nn.LSTM(3, 6, num_layers=2, bidirectional=True).double()
        theirs.load_state_dict(ours.state_dict())
        x = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(5, 3, 3).double(), torch.tensor([5, 3, 1]))
        found = []
        for layer in (ours, theirs):
            with use_backend("triton"):
                y, (h, c) = layer(x)
                (y.data.square().sum() + h.sum() + c.sum()).backward()
            found.append([y.data, h, c, *(p.grad for p in layer.parameters())])
        for mine, right in zip(*found, strict=True):
            assert_close(mine, right, KERNEL["float64"])

    def test_gradients_of_gradients(self) -> None:
        layer = Recurrent("gru", 2, 3, dtype=torch.float64)
        x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
        found = []
        for name in ("triton", "reference"):
            with use_backend(name):
                (grad,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
                found.append(torch.autograd.grad(grad.square().sum(), x)[0])
        assert_close(found[0], found[1], KERNEL["float64"])

    def test_compiled_by_torch(self) -> None:
        layer = Recurrent("lstm", 3, 4)
        x = torch.randn(5, 2, 3)
        with use_backend("triton"):
            found = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)[0]
            found.sum().backward()
            grads = [param.grad.clone() for param in layer.parameters() if param.grad is not None]
            layer.zero_grad()
            right = layer(x)[0]
            right.sum().backward()
            assert {part.backend for part in explain(layer).parts} == {"triton"}
        assert torch.equal(found, right)
        assert grads
        for grad, param in zip(grads, layer.parameters(), strict=True):
            assert param.grad is not None
            assert torch.equal(grad, param.grad)

    def test_in_a_process_that_asks_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EVERLOOP_BACKEND", "triton")
        layer = Recurrent("mingru", 3, 4)
        y, state = layer(torch.randn(4, 2, 3))
        first, _ = layer(torch.zeros(4, 1, 3), state)
        assert {part.backend for part in explain(layer).parts} == {"triton"}
        assert y.shape == (4, 2, 4)
        assert first.shape == (4, 1, 4)

    def test_names_of_a_cell_are_no_code(self) -> None:
        """What is made of a name is a name, or text in quotes."""
        kernel, _ = made("lstm")
        strange = replace(kernel.graph, name='""" + print("!") + """', names={})
        text = TritonKernel(strange, {"input": 3, "hidden": 4}, "cpu", "float32").source
        tree = ast.parse(text)
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "print"]


class TestFunctions:
    @pytest.mark.parametrize("real", ["float32", "float64"])
    @pytest.mark.parametrize("name", ["expm1", "log1p", "tanh", "sigmoid"])
    def test_lose_no_digits(self, name: str, real: str) -> None:
        kind = getattr(torch, real)
        x = torch.cat([torch.linspace(-0.99, 12, 3001), torch.linspace(-1e-3, 1e-3, 500), torch.linspace(-12, 0, 500)])
        x = torch.cat([x, torch.tensor([math.inf, -math.inf, math.nan, 0.0])]).to(kind)
        x = x[(x > -1) | x.isnan()] if name == "log1p" else x
        y = torch.full_like(x, math.nan)
        kernel_of(elementwise(name, f"tl.{real}"))[(1,)](x, y, len(x), SIZE=8192)
        right = getattr(torch, name)(x.double())
        ulps = (y.double() - right).abs() / (right.abs() * torch.finfo(kind).eps)
        assert ulps[right.isfinite() & (right != 0)].max() < 4
        assert torch.equal(y[~right.isfinite()].double().nan_to_num(7.0), right[~right.isfinite()].nan_to_num(7.0))
        assert (y[right == 0] == 0).all()


def elementwise(name: str, real: str) -> str:
    functions = "".join(function(one, real) for one in NEEDED[name])
    return f'''
import triton
import triton.language as tl
{functions}
@triton.jit
def loop(x, y, n, SIZE: tl.constexpr):
    """A test."""
    k = tl.arange(0, SIZE)[None, :]
    v = tl.load(x + k, mask=k < n, other=0)
    tl.store(y + k, {name}(v), mask=k < n)
'''
