"""Layers under torch.export: one program for any batch and any number of steps, which can be kept in a file."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves, tree_structure

from everloop import cells
from everloop.nn import LSTM, Recurrent
from everloop.testing import SAME, assert_close

DOUBLE = torch.float64
BATCH, TIME = Dim("batch", min=1, max=1000), Dim("time", min=1, max=100_000)


def exported(subject: Any, strict: bool) -> ExportedProgram:
    beside = subject.beside()
    per_step = {0: BATCH, 1: TIME}
    shapes: dict[str, Any] = {"x" if isinstance(subject.module, Recurrent) else "input": per_step}
    if not subject.steps:
        shapes["input"] = {0: BATCH}
    for name in beside:
        shapes[name] = {"lengths": {0: BATCH}, "mask": per_step}.get(name)
    return torch.export.export(subject.module, (subject.x(),), beside, dynamic_shapes=shapes, strict=strict)


def kept(program: ExportedProgram) -> ExportedProgram:
    """The program from a file."""
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def assert_runs_as(program: ExportedProgram, subject: Any) -> None:
    module = program.module()
    for batch, steps in ((1, 1), (5, 2), (2, 300)):
        x, beside = subject.x(batch, steps), subject.beside(batch, steps)
        found, expected = module(x, **beside), subject.module(x, **beside)
        assert tree_structure(found) == tree_structure(expected)
        for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
            assert_close(one, other, SAME, f"batch {batch}, {steps} steps")


def test_any_batch_and_any_number_of_steps(subject: Any) -> None:
    program = exported(subject, strict=False)
    assert_runs_as(program, subject)
    assert_runs_as(kept(program), subject)


@pytest.mark.parametrize("subject", ["deep", "mask", "LSTM"], indirect=True)
def test_strictly(subject: Any) -> None:
    assert_runs_as(kept(exported(subject, strict=True)), subject)


@pytest.mark.parametrize("subject", ["lengths", "scan", "LSTM"], indirect=True)
def test_a_program_can_be_trained(subject: Any) -> None:
    program = exported(subject, strict=False)
    module, x = program.module(), subject.x(4, 9)
    parameters = [module.get_parameter(name) for name, _ in subject.module.named_parameters()]
    for one, other in zip(subject.gradients(x, module, parameters), subject.gradients(x), strict=True):
        assert_close(one, other)


def test_a_program_keeps_nothing_for_gradients() -> None:
    program = torch.export.export(LSTM(3, 4), (torch.randn(5, 2, 3),))
    (node,) = [node for node in program.graph.nodes if "everloop" in str(node.target)]
    assert not any(node.args[-1])
    assert len(node.meta["val"]) == 3


SMALL = ["lstm", "gru", "elman", "qrnn", "lmu", "sru"]
EVERY = [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in cells.names()]


@pytest.mark.parametrize("name", EVERY)
def test_cells_of_the_catalogue(name: str) -> None:
    torch.manual_seed(0)
    graph = cells.get(name).graph
    sizes = {size: 5 for size in graph.size_names if size not in ("input", "hidden", *graph.sizes)}
    units = 4
    layer = Recurrent(name, units, units, sizes=sizes, dtype=DOUBLE).eval()
    needed = [one for one in graph.inputs if one != "x" and one not in graph.start and one not in graph.draws]
    sizes |= {"input": units, "hidden": units} | graph.sizes

    def beside(batch: int, steps: int) -> dict[str, Any]:
        widths = {one: sizes[str(graph.inputs[one].size)] if graph.inputs[one].size else 1 for one in needed}
        side = {one: torch.rand(batch, steps, width, dtype=DOUBLE) for one, width in widths.items()}
        return {"side": side} if side else {}

    x, given = torch.randn(3, 6, units, dtype=DOUBLE), beside(3, 6)
    shapes: dict[str, Any] = {"x": {0: BATCH, 1: TIME}}
    if given:
        shapes["side"] = {one: {0: BATCH, 1: TIME} for one in given["side"]}
    program = kept(torch.export.export(layer, (x,), given, dynamic_shapes=shapes))
    x, given = torch.randn(2, 9, units, dtype=DOUBLE), beside(2, 9)
    expected = tree_leaves(layer(x, **given))
    for one, other in zip(tree_leaves(program.module()(x, **given)), expected, strict=True):
        assert_close(one, other, SAME, name)


class Classifier(torch.nn.Module):
    """What comes out are plain tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.above = LSTM(3, 4, batch_first=True), Recurrent("gru", 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, state = self.above(self.below(x)[0])
        return torch.cat([y[:, -1], state.h[0]], 1)


ELSEWHERE = """
import sys, torch, everloop.nn
from everloop.testing import FLOAT32, assert_close
x, y = torch.load(sys.argv[1])
# Not to the last bit: another process may have another number of threads.
assert_close(torch.export.load(sys.argv[2]).module()(x).detach(), y, FLOAT32)
"""


def test_a_program_runs_in_another_process(tmp_path: Path) -> None:
    model, x = Classifier(), torch.randn(2, 5, 3)
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: BATCH, 1: TIME}})
    torch.export.save(program, tmp_path / "program.pt2")
    x = torch.randn(3, 8, 3)
    torch.save((x, program.module()(x).detach()), tmp_path / "values.pt")
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "values.pt"), str(tmp_path / "program.pt2")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
