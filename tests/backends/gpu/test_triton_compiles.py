"""Kernels are compiled for real GPUs, down to machine code: the compiler needs no GPU, only to run them does."""

from __future__ import annotations

from typing import Any

import pytest

from everloop import cells
from everloop.backends.triton.choose import Choice
from everloop.backends.triton.kernel import H100, TritonKernel
from everloop.backends.triton.loops import PRECISE, kernel_of
from everloop.backends.triton.source import Source
from everloop.testing import kernel_of as any_kernel

TYPES = {"float32": "fp32", "bfloat16": "bf16", "float64": "fp64"}
HOPPER, AMPERE = 90, 80


@pytest.fixture(autouse=True)
def compiled(interpreted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")


def machine_code(source: Source, choice: Choice, dtype: str, capability: int) -> Any:
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    for one in source.arguments:
        real = "fp64" if dtype == "float64" else "fp32"
        signature[one.name] = "*" + (real if one.kind == "exchange" else TYPES[dtype])
        signature |= {f"{one.name}_row": "i32"} if one.strided else {}
    signature |= {"lengths": "*i32", "offsets": "*i64", "arrived": "*i32", "failed": "*i32"}
    signature |= {"sequences": "i32", "begin": "i32"}
    aligned = [k for k, kind in enumerate(signature.values()) if kind.startswith("*")]
    return compile(
        ASTSource(
            kernel_of(source.text), signature, {"TF32": PRECISE}, {(k,): [["tt.divisibility", 16]] for k in aligned}
        ),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": choice.warps, "launch_cooperative_grid": choice.template == "split"},
    )


def compile_both(name: str, hidden: int, dtype: str, batch: int, capability: int = HOPPER) -> tuple[str, str]:
    """The templates of the loops forward and backward."""
    _, recurrence = any_kernel("reference", cells.get(name), {"input": 16, "hidden": hidden}, "float64")
    graph = recurrence.graph
    kernel = TritonKernel(graph, recurrence.sizes, "", f"torch.{dtype}", facts=H100)
    wanted = frozenset([*graph.inputs, *graph.states, *graph.stacks])
    found = []
    for schedule, backwards in zip(kernel.training_schedules(wanted), (False, True), strict=True):
        choice, source = kernel._triton.source(schedule, batch, 128, backwards=backwards)
        made = machine_code(source, choice, dtype, capability)
        assert made.asm["cubin"]
        assert made.metadata.shared <= H100.on_chip, source.text
        found.append(choice.template)
    return found[0], found[1]


@pytest.mark.parametrize(
    ("name", "hidden", "dtype", "batch", "templates"),
    [
        ("lstm", 64, "float32", 16, ("whole", "whole")),
        ("lstm", 128, "bfloat16", 16, ("whole", "whole")),
        ("gru", 256, "bfloat16", 64, ("split", "split")),
        ("mingru", 64, "bfloat16", 16, ("scan", "scan")),
        ("indrnn", 100, "float32", 16, ("diagonal", "diagonal")),
    ],
)
def test_for_hopper(name: str, hidden: int, dtype: str, batch: int, templates: tuple[str, str]) -> None:
    assert compile_both(name, hidden, dtype, batch) == templates


def test_for_ampere() -> None:
    compile_both("gru", 64, "bfloat16", 16, AMPERE)


def test_products_use_tensor_cores() -> None:
    _, recurrence = any_kernel("reference", cells.get("gru"), {"input": 16, "hidden": 64}, "float64")
    for dtype in ("bfloat16", "float32"):
        kernel = TritonKernel(recurrence.graph, recurrence.sizes, "", f"torch.{dtype}", facts=H100)
        schedule = kernel.forward_schedule
        choice, source = kernel._triton.source(schedule, 16, 128, backwards=False)
        code = machine_code(source, choice, dtype, HOPPER).asm["ptx"]
        assert "mma" in code
        assert ("tf32" in code) == (dtype == "float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", cells.names())
def test_every_cell(name: str) -> None:
    compile_both(name, 128, "bfloat16", 16)
