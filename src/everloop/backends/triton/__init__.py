"""Kernels for GPUs, in Triton: experimental, and taken only where they are asked for by name."""

from __future__ import annotations

import os
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
        interpreted = device == "cpu" and os.environ.get("TRITON_INTERPRET", "0") != "0"
        if device != "cuda" and not interpreted:
            return f"it makes code for GPUs, not for {device}"
        if find_spec("triton") is None:
            return "Triton is not installed: pip install everloop[gpu]"
        if dtype not in ("torch.float32", "torch.float64", "torch.bfloat16", "torch.float16"):
            return f"it runs float32, float64, bfloat16 and float16, not {dtype.removeprefix('torch.')}"
        if interpreted:
            bad = dtype == "torch.bfloat16"
            return "Triton's interpreter multiplies the bits of bfloat16 as if they were integers" if bad else ""
        from everloop.backends.triton.kernel import unsuited

        return unsuited()

    def compile(self, graph: Graph, sizes: dict[str, int], device: str, dtype: str) -> Any:
        from everloop.backends.triton.kernel import TritonKernel

        return TritonKernel(graph, sizes, device, dtype)


backend = Triton()
