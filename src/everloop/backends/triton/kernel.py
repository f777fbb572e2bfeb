"""A cell on a GPU: the reference, with its loops in Triton."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from everloop.backends.reference import ReferenceKernel
from everloop.backends.triton.choose import Choice, Device, choose
from everloop.backends.triton.loops import TritonLoops
from everloop.compiler.ahead import ahead
from everloop.compiler.describe import describe
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.lang.graph import Graph

OLDEST = (8, 0)
"""The least compute capability: products of bfloat16, and shared memory of a hundred kilobytes and more."""
H100 = Device(multiprocessors=132, on_chip=227 * 1024)
"""What the device is taken to be where there is none: in the interpreter, and for sources that are only shown."""
SHOWN = (16, 128)
"""Sequences and steps of the call whose source is shown."""


class TritonKernel(ReferenceKernel):
    """device: "cuda", or "cpu" for the interpreter. facts: of the device. pick: which template a loop gets."""

    def __init__(
        self,
        graph: Graph,
        sizes: Mapping[str, int],
        device: str,
        dtype: str,
        *,
        facts: Device | None = None,
        pick: Callable[..., Choice] = choose,
    ) -> None:
        numbers: torch.dtype = getattr(torch, dtype.removeprefix("torch."))
        self._triton = TritonLoops(sizes, numbers, facts or device_facts(device), pick)
        super().__init__(graph, dict(sizes), self._triton)

    @property
    def source(self) -> str:
        """The forward loop for 16 sequences of 128 steps; where there is none, the plan."""
        found = self.forward_schedule
        if not found.plan.graph.states:
            return describe(plan(self.graph))
        return self._triton.source(found, *SHOWN, backwards=False)[1].text

    @property
    def notes(self) -> tuple[str, ...]:
        """The templates that have run, and why."""
        return self._triton.notes


def source(graph: Graph, sizes: Mapping[str, int]) -> str:
    """What `TritonKernel.source` is for a cell, in bfloat16 on an H100."""
    return TritonKernel(kernel_graph(ahead(graph).graph), sizes, "", "bfloat16", facts=H100).source


def unsuited() -> str:
    """Why the GPU at hand cannot run the kernels; empty if it can."""
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    if torch.version.hip:
        return "it was written for GPUs of NVIDIA"
    found = torch.cuda.get_device_capability()
    if found < OLDEST:
        return f"the GPU has compute capability {found[0]}.{found[1]}; {OLDEST[0]}.{OLDEST[1]} is needed"
    return ""


def device_facts(device: str) -> Device:
    if device != "cuda":
        return H100
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Device(found.multi_processor_count, found.shared_memory_per_block_optin)
