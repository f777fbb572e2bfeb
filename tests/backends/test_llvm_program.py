"""From a graph to passes, and from passes to code that can be read: what is computed where, what is kept, what is
refused, and what makes two programs different ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everloop import cells
from everloop.backends.llvm import backend
from everloop.backends.llvm.emit import write
from everloop.backends.llvm.engine import fingerprint
from everloop.backends.llvm.kernel import LlvmKernel
from everloop.backends.llvm.lower import Program
from everloop.backends.llvm.vectors import Numbers
from everloop.lang import functions as f
from everloop.lang.cell import Cell, cell
from everloop.testing import Trial, check_kernel, kernel_of

GOLDEN = Path(__file__).parent / "golden"

WIDE, NARROW = Numbers("float", 16, 32), Numbers("double", 2, 16)


def kernel(found: str | Cell, **sizes: int) -> LlvmKernel:
    made, _ = kernel_of("llvm", cells.get(found), {"input": 5, "hidden": 7} | sizes)
    assert isinstance(made, LlvmKernel)
    return made


def programs(made: LlvmKernel) -> dict[str, Program]:
    graph = made.graph
    trained = made._trained(frozenset([*graph.inputs, *graph.states, *graph.stacks]))
    return {
        "inference": made._inference.program,
        "forward": trained.forward.program,
        "backward": trained.backward.program,
    }


def described(program: Program) -> list[str]:
    """What each pass makes, and where it puts what lasts."""
    lines = []
    for phase, one in program.passes():
        made = []
        for node in one.made:
            places = ", ".join(f"{buffer.where} {buffer.name}" for buffer in program.targets.get(node, []))
            made.append(f"{program.name(node)} = {node.op}" + (f" -> {places}" if places else ""))
        lines += [f"{phase}, {one.width} units:", *(f"    {line}" for line in made)]
    for outer in program.request.outers:
        lines.append(f"sums: {outer.matrix} += {program.name(outer.rows)} by {program.name(outer.columns)}")
    lines += [f"sums: {vector} += {program.name(node)}" for vector, node in program.request.sums.items()]
    return lines


@pytest.mark.parametrize("name", ["elman", "lstm", "gru", "layernorm_lstm", "mingru"])
def test_programs_are_as_they_were(name: str) -> None:
    """Held letter for letter in golden/. To accept a change, look at it and run EVERLOOP_WRITE_GOLDEN=1 pytest on this
    file, which fails all the same.
    """
    lines = []
    for title, program in programs(kernel(name)).items():
        lines += [title, *(f"  {line}" for line in described(program)), ""]
    text, file = "\n".join(lines), GOLDEN / f"{name}.program.txt"
    if os.environ.get("EVERLOOP_WRITE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
        pytest.fail(f"{file} written; look at it, then run without EVERLOOP_WRITE_GOLDEN")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", cells.names())
def test_no_cell_of_the_catalogue_is_refused(name: str) -> None:
    _, recurrence = kernel_of("reference", cells.get(name), {"input": 5, "hidden": 7})
    for dtype in ("torch.float32", "torch.float64", "torch.bfloat16", "torch.float16"):
        assert backend.refuses(recurrence.graph, "cpu", dtype) == ""


@pytest.mark.parametrize("numbers", [WIDE, NARROW], ids=["wide", "narrow"])
def test_code_is_read_with_the_names_of_the_cell(numbers: Numbers) -> None:
    code = write(programs(kernel("lstm"))["inference"], numbers)
    assert code.startswith("; lstm\n")
    for name in ("%x = ", "%a_f = ", "%f = ", "%c = ", "%c_new = ", "%h_new = ", "%b_i = ", "@el.tanh", "@el.sigmoid"):
        assert name in code, name
    for weights in ("W.o", "U.f"):
        assert re.search(rf"; weights .*{re.escape(weights)}", code), weights
    assert f"<{numbers.lanes} x {numbers.scalar}>" in code


def test_the_input_product_is_not_in_the_loop() -> None:
    for name in ("lstm", "gru", "elman", "peephole_lstm"):
        program = programs(kernel(name))["inference"]
        assert {node.op for one in program.before for group in one.groups for node in group.results} == {"matmul"}
        matrices = {m for one in program.loop for g in one.groups for s in g.segments for m in s.matrices}
        assert not any(matrix.startswith("W") for matrix in matrices)


def test_all_gates_of_one_vector_are_one_product() -> None:
    loop = programs(kernel("lstm"))["inference"].loop
    assert [[len(group.results) for group in one.groups] for one in loop] == [[4]]


def test_nothing_is_kept_for_inference_and_no_product_is_done_twice() -> None:
    found = programs(kernel("gru"))
    assert not found["inference"].kept
    again = {node.op for _, one in found["backward"].passes() for group in one.groups for node in group.results}
    assert again == {"matmul_t"}


# What is refused


@cell(states="h", gates="a")
def of_parameters_alone(x, h, W, U, b):  # type: ignore[no-untyped-def]
    return f.tanh(W.a @ x + U.a @ h + f.cumsum(b.a))


@cell(states="h", gates="a")
def product_of_parameters(x, h, W, U, b):  # type: ignore[no-untyped-def]
    return f.tanh(W.a @ x + U.a @ h + U.a @ b.a)


@pytest.mark.parametrize(
    ("made_up", "reason"),
    [(of_parameters_alone, "cumsum of parameters alone"), (product_of_parameters, "matmul of parameters alone")],
)
def test_what_cannot_be_run_is_refused_with_the_reason(made_up: Cell, reason: str) -> None:
    _, recurrence = kernel_of("reference", made_up, {"input": 5, "hidden": 7})
    assert reason in backend.refuses(recurrence.graph, "cpu", "torch.float32")
    with pytest.raises(NotImplementedError, match=f"llvm was asked for and does not run {made_up.name}: .*{reason}"):
        kernel_of("llvm", made_up, {"input": 5, "hidden": 7})


def test_devices_and_types_that_it_knows_nothing_of() -> None:
    graph = cells.get("lstm").graph
    assert "not for cuda" in backend.refuses(graph, "cuda", "torch.float32")
    assert "not float8_e5m2" in backend.refuses(graph, "cpu", "torch.float8_e5m2")


# Which programs are the same


def two_states(size: str) -> Cell:
    """Two states that never meet, of one size or of two, which have the same length here."""

    @cell(states=f"h m{size}", gates="h m")
    def apart(x, h, m, W, U, V):  # type: ignore[no-untyped-def]
        return f.tanh(W.h @ x + U.h @ h), f.tanh(W.m @ x + V.m @ m)

    return apart


def test_sizes_of_one_length_are_not_one_size() -> None:
    """Their passes are others, so that the code of one must not run in the memory of the other."""
    one, other = kernel(two_states("")), kernel(two_states(":memory"), memory=7)
    a, b = one._inference.program, other._inference.program
    assert len(list(a.passes())) != len(list(b.passes()))
    assert fingerprint(a) != fingerprint(b)
    for made, size in ((one, ""), (other, ":memory")):
        _, recurrence = kernel_of("reference", two_states(size), {"input": 5, "hidden": 7, "memory": 7})
        check_kernel(made, recurrence.graph, recurrence.sizes, Trial((3, 2, 2)))


@pytest.mark.parametrize(
    "change",
    [
        lambda: kernel("lstm", hidden=8),
        lambda: kernel("lstm", input=6),
        lambda: kernel("cifg_lstm"),
        lambda: kernel("peephole_lstm"),
    ],
)
def test_other_programs_have_other_names(change: Callable[[], Any]) -> None:
    names = {fingerprint(program) for made in (kernel("lstm"), change()) for program in programs(made).values()}
    assert len(names) == 6
    assert {fingerprint(program) for program in programs(kernel("lstm")).values()} < names
