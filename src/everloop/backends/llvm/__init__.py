"""Kernels for the processor: the graph of a cell as machine code of this host."""

from __future__ import annotations

from typing import Any

from everloop.lang.graph import Graph


class Llvm:
    """Floating types on the processor, in one compiled call for forward and one for backward."""

    name = "llvm"
    rank = 10

    def refuses(self, graph: Graph, device: str, dtype: str) -> str:
        if device != "cpu":
            return f"it makes code for the processor, not for {device}"
        if dtype not in ("torch.float32", "torch.float64", "torch.bfloat16", "torch.float16"):
            return f"it runs float32, float64, bfloat16 and float16, not {dtype.removeprefix('torch.')}"
        from everloop.backends.llvm.kernel import refusal

        return refusal(graph)

    def compile(self, graph: Graph, sizes: dict[str, int], device: str, dtype: str) -> Any:
        from everloop.backends.llvm.halves import HALVES, HalfKernel
        from everloop.backends.llvm.kernel import LlvmKernel

        if dtype in HALVES:
            return HalfKernel(LlvmKernel(graph, sizes, "float32"), dtype)
        return LlvmKernel(graph, sizes, dtype.removeprefix("torch."))


backend = Llvm()
