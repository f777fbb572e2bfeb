"""Kernels for GPUs, in Triton: experimental, and taken only where they are asked for by name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from everloop.lang.graph import Graph


class Triton:
    """The loop of a cell, forward and backward, as one kernel each; what needs no past stays in torch.

    Its rank is below the reference's: until it has been measured, nobody gets it who has not asked for it, by
    `use_backend("triton")`.
    """

    name = "triton"
    rank = -1

    def refuses(self, graph: Graph, device: str, dtype: str) -> str:
        if find_spec("triton") is None:
            return "Triton is not installed: pip install everloop[gpu]"
        if dtype not in ("torch.float32", "torch.float64", "torch.bfloat16", "torch.float16"):
            return f"it runs float32, float64, bfloat16 and float16, not {dtype.removeprefix('torch.')}"
        from everloop.backends.triton.kernel import interpreted, unsuited

        if device == "cpu" and interpreted():
            bad = dtype == "torch.bfloat16"
            return "Triton's interpreter multiplies the bits of bfloat16 as if they were integers" if bad else ""
        if device != "cuda":
            return f"it makes code for GPUs; on {device} only Triton's interpreter runs it (TRITON_INTERPRET=1)"
        return unsuited()

    def compile(self, graph: Graph, sizes: dict[str, int], device: str, dtype: str) -> Any:
        from everloop.backends.triton.kernel import TritonKernel

        return TritonKernel(graph, sizes, device, dtype)


backend = Triton()
