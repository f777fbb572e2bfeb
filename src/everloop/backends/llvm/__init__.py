"""Kernels for the processor: the graph of a cell as machine code of this host."""

from __future__ import annotations

from typing import Any

from everloop.lang.graph import Graph


class Llvm:
    """float32 and float64 on the processor, in one compiled call for forward and one for backward."""

    name = "llvm"
    rank = 10

    def refuses(self, graph: Graph, device: str, dtype: str) -> str:
        if device != "cpu":
            return f"it makes code for the processor, not for {device}"
        if dtype not in ("torch.float32", "torch.float64"):
            return f"it computes in float32 and float64, not in {dtype.removeprefix('torch.')}"
        from everloop.backends.llvm.kernel import refusal

        return refusal(graph)

    def compile(self, graph: Graph, sizes: dict[str, int], device: str, dtype: str) -> Any:
        from everloop.backends.llvm.kernel import LlvmKernel

        return LlvmKernel(graph, sizes, dtype.removeprefix("torch."))


backend = Llvm()
