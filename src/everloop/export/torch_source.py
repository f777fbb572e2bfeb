"""A cell as a module of torch alone: a loop over time in torch's own operations, whose gradient is torch's own.

Slow and plain: what a layer does, without anything of ours, to be read, changed and taken elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from everloop.compiler.differentiate import differentiate
from everloop.compiler.weights import through_made
from everloop.export._program import Program, is_zero
from everloop.export._source import Spelling, Writer
from everloop.export._spelled import UNTOLD, spelled
from everloop.export._text import hand_on, indented, listed, with_or_without
from everloop.lang.cell import Cell
from everloop.lang.expr import toposort
from everloop.lang.graph import Graph
from everloop.lang.param import Param

SPELLING = Spelling(
    ops={
        "exp": "torch.exp({})", "expm1": "torch.expm1({})", "log": "torch.log({})", "log1p": "torch.log1p({})",
        "sqrt": "torch.sqrt({})", "tanh": "torch.tanh({})", "sigmoid": "torch.sigmoid({})", "sin": "torch.sin({})",
        "cos": "torch.cos({})", "floor": "torch.floor({})", "stop": "{}.detach()", "maximum": "maximum({}, {})",
        "minimum": "minimum({}, {})", "where": "torch.where({}, {}, {})", "sum": "torch.sum({}, -1, keepdim=True)",
        "max": "torch.amax({}, -1, keepdim=True)", "cumsum": "torch.cumsum({}, -1)",
        "cumsum_back": "cumsum_back({})", "blocks_matmul": "in_blocks({}, {}, {})",
        "expm": "torch.linalg.matrix_exp({})", "comparison": "({}).to(x.dtype)",
    },
    numbers={
        "exp": "math.exp({})", "expm1": "math.expm1({})", "log": "math.log({})", "log1p": "math.log1p({})",
        "sqrt": "math.sqrt({})", "tanh": "math.tanh({})", "sigmoid": "(1 / (1 + math.exp(-({}))))",
        "sin": "math.sin({})", "cos": "math.cos({})", "floor": "math.floor({})", "stop": "{}",
        "maximum": "max({}, {})", "minimum": "min({}, {})", "comparison": "float({})",
    },
    functions={
        "relu": "torch.relu({})", "softplus": "torch.logaddexp({}, x.new_zeros(()))",
        "logsigmoid": "nn.functional.logsigmoid({})", "silu": "nn.functional.silu({})",
        "softmax": "torch.softmax({}, -1)",
    },
    choice="torch.where({}, x.new_tensor({}), {})",
    ones="x.new_ones({})",
    index="torch.arange({}, dtype=x.dtype, device=x.device)",
    row="torch.arange({0}, dtype=x.dtype, device=x.device)[:, None].expand({0}, {1})",
    column="torch.arange({1}, dtype=x.dtype, device=x.device).expand({0}, {1})",
    infinity="math.inf",
    zeros="x.new_zeros(B, {})",
    full="x.new_full((B, T, {}), {})",
    reshape="{}.reshape(B, T, 1)",
)  # fmt: skip

HELPERS = {
    "maximum": '''
def maximum(a, b):
    """The larger one. At a tie the gradient goes to b, where torch.maximum would halve it."""
    return torch.where((a > b) | (a != a), a, b)
''',
    "minimum": '''
def minimum(a, b):
    """The smaller one. At a tie the gradient goes to b, where torch.minimum would halve it."""
    return torch.where((a < b) | (a != a), a, b)
''',
    "cumsum_back": '''
def cumsum_back(v):
    """The running sum from the last feature to the first."""
    return v.flip(-1).cumsum(-1).flip(-1)
''',
    "in_blocks": '''
def in_blocks(v, M, heads):
    """v times the transposed block-diagonal matrix, whose blocks lie over each other in M."""
    v, M = v.reshape(*v.shape[:-1], heads, -1), M.reshape(heads, -1, M.shape[1])
    return torch.einsum("...kc,krc->...kr", v, M).flatten(-2)
''',
    "each": '''
def each(n, first):
    """A start value for each of n features: of a draw u from 0 to 1, the position k and n."""
    return torch.tensor([first(u, k, n) for k, u in enumerate(torch.rand(n).tolist())])
''',
}

STARTED = {
    "identity": "nn.init.eye_({})",
    "orthogonal": "nn.init.orthogonal_({})",
    "glorot": "nn.init.xavier_uniform_({})",
    "normal": "{0}.normal_(0, {0}.shape[1] ** -0.5)",
}

# Names that the program uses itself, beside those that it takes as they come free.
OWN = (
    *HELPERS, "torch", "nn", "math", "sys", "self", "state", "ys", "B", "T", "t", "x", "x_t", "block", "module",
    "loss", "part", "name", "parameter", "side",
)  # fmt: skip

ABOUT = """{title}: a loop over time in torch's own operations.
{source}
Parameters are named as in everloop's Recurrent: one array per family, its members' rows over each other in the order
of the step. Those of one of its layers and directions fit here, without their prefix:

    state = layer.state_dict()
    module.load_state_dict({{name.removeprefix("layers.0.0."): value for name, value in state.items()}})

A state is [B, its size] here; there it is [layers * directions, B, its size].
"""

MAIN = """
if __name__ == "__main__":
    torch.manual_seed(0)
    module = {name}({sizes})
    x = torch.randn(2, 5, {input})
    side = {side}  #side
    y, state = module(x)  #no side
    y, state = module(x, **side)  #side
    print("y", tuple(y.shape))
    for name, part in zip([{states}], state):
        print(name, tuple(part.shape))
    loss = y.square().mean() + sum(part.square().mean() for part in state)
    loss.backward()  #trained
    for name, parameter in module.named_parameters():
        if parameter.grad is None:  #whole
        if parameter.grad is None and name not in {untrained}:  #no whole
            sys.exit(f"no gradient reaches {{name}}")
        print(name, tuple(parameter.shape))
"""


def source(step: Cell | Graph) -> str:
    """The program. Of a cell, parameters start as the cell says; of a graph alone, as is usual for their kind."""
    return _Source(step).text()


class _Source:
    def __init__(self, step: Cell | Graph) -> None:
        self.program = program = Program(step, OWN)
        self.graph, self.names = program.graph, program.names
        words = re.sub(r"\W+", "_", self.graph.name).split("_")
        self.name = self.names.fresh("".join(word[:1].upper() + word[1:] for word in words) or "Layer")
        self.init_helpers: dict[Any, tuple[str, str]] = {}
        leaves = {leaf: program.steps[name] for name, leaf in self.graph.inputs.items()}
        leaves |= {leaf: program.states[name] for name, leaf in self.graph.states.items()}
        self.writer = Writer(SPELLING, program, self.names, self.graph, leaves, dict(program.labels), program.hint)
        self.writer.write(program.order, [*program.made_for(self.graph), *self.graph.roots])

    def text(self) -> str:
        layer = "\n\n".join([self._head(), indented(self._reset()), indented(self._forward())])
        parts = [*(text for _, text in self.init_helpers.values()), layer]
        body = "\n".join(parts)
        helpers = [HELPERS[name].strip("\n") for name in HELPERS if re.search(rf"(?<!\.)\b{name}\(", body)]
        about = ABOUT.format(title=self.graph.name, source=self.program.cited)
        imports = "import math\nimport sys" if "math." in body else "import sys"
        head = f'"""{about}"""\n\n{imports}\n\nimport torch\nfrom torch import nn'
        return "\n\n\n".join([head, *helpers, *parts, self._main()]) + "\n"

    def _head(self) -> str:
        program, graph = self.program, self.graph
        names = program.held_sizes + [name for name in program.state_sizes if name not in program.held_sizes]
        lines = ["super().__init__()"]
        lines += [f"self.{own} = {own}" for own in (program.size(name) for name in names)]
        for stack, members in graph.stacks.items():
            heights = [program.shape(param)[0] for param in members]
            rows = " + ".join(
                f"{heights.count(own)} * {own}" if heights.count(own) > 1 else own for own in dict.fromkeys(heights)
            )
            shape = ", ".join([rows, *program.shape(members[0])[1:]])
            lines.append(f"self.{stack} = nn.Parameter(torch.empty({shape}))")
        lines += ["self.reset_parameters()"] if graph.stacks else []
        arguments = ", ".join(["self", *program.signature(names)])
        shapes = f"x [B, T, {program.size('input')}] -> y [B, T, {program.width(graph.outputs['y'].size)}], state."
        return (
            f"class {self.name}(nn.Module):\n"
            f'    """{shapes}\n\n    state: {", ".join(program.states.values())}, [B, its size] each.\n    """\n\n'
            f"    def __init__({arguments}):\n{indented(chr(10).join(lines), 2)}"
        )

    def _reset(self) -> str:
        """Start values; members that start alike share a line."""
        alike: dict[str, list[str]] = {}
        for name, param in self.graph.held.items():
            alike.setdefault(self._started(param), []).append(self.program.params[name])
        lines = ['"""Parameters as they are before training."""', *self._unpacked(self.graph.held)]
        for template, names in alike.items():
            if len(names) == 1:
                lines.append(template.format(names[0]))
            else:
                lines += [listed("for part in ", names, ":"), indented(template.format("part"))]
        if not self.graph.held:
            lines.append("pass")
        return f"@torch.no_grad()\ndef reset_parameters(self):\n{indented(chr(10).join(lines))}"

    def _started(self, param: Param) -> str:
        given = self.program.first(param)
        if isinstance(given, tuple):
            return f"{{}}.uniform_({given[0]!r}, {given[1]!r})"
        if isinstance(given, int | float):
            return f"{{}}.fill_({float(given)!r})" if given else "{}.zero_()"
        if callable(given):
            each = spelled(given, self.names, self.init_helpers)
            if each:
                each = each.replace("{", "{{").replace("}", "}}")
                return f"{{0}}.copy_(each(len({{0}}), {each}))"
            return f"{{}}.zero_()  # {UNTOLD}"
        if not param.is_matrix:
            return "{}.zero_()"
        template = STARTED[given if isinstance(given, str) else self.program.start_of(param)]
        if param.blocks == 1:
            return template
        return (
            f"for block in {{0}}.chunk({param.blocks}):\n    {template.replace('{}', 'block').replace('{0}', 'block')}"
        )

    def _forward(self) -> str:
        program, writer, graph = self.program, self.writer, self.graph
        output = graph.outputs["y"]
        step = [*writer.at_step(program.inputs), *writer.step_lines(), f"ys.append({writer.row(output)})"]
        step += hand_on(program.states, {name: writer.row(node) for name, node in graph.new.items()})
        side, width = writer.side_lines(), program.width(output.size)
        starts = [self._start(name) for name in graph.states]
        own = list(program.states.values())
        lines = ["B, T = x.shape[:2]", *self._unpacked(writer.params_read)]
        lines += [f"{size} = self.{size}" for size in self._lengths(width, starts)]
        if len(own) < 3:
            chosen = f"({', '.join(starts)})" if len(own) > 1 else f"({starts[0]},)"
            lines.append(listed("", own, f" = {chosen} if state is None else state"))
        else:
            lines += ["if state is None:", indented(listed("state = ", starts)), listed("", own, " = state")]
        lines += [*side, *writer.fixed_lines(), "ys = []", "for t in range(T):", *map(indented, step)]
        lines.append(f"{program.y} = torch.stack(ys, 1) if ys else x.new_zeros(B, 0, {width})")
        lines.append(f"return {program.y}, {listed('', own)}")
        about = f'"""state: as returned, or None for the start.{program.side_line}"""'
        if "\n" in about:
            about = about.removesuffix('"""') + '\n"""'
        body = "\n".join([about, *lines])
        return f"def forward(self, x, state=None{program.side_arguments}):\n{indented(body)}"

    def _lengths(self, width: str, starts: Iterable[str]) -> list[str]:
        """The lengths that forward speaks of."""
        text = " ".join([width, *starts])
        program = self.program
        known = [program.size(name) for name in dict.fromkeys([*self.graph.size_names, *self.writer.sizes])]
        noted = set(self.writer.sizes.values())
        return [own for own in known if own in noted or re.search(rf"\b{own}\b", text)]

    def _start(self, name: str) -> str:
        value, width = self.graph.start.get(name, 0.0), self.program.width(self.graph.states[name].size)
        return f"x.new_full((B, {width}), {value!r})" if value else f"x.new_zeros(B, {width})"

    def _unpacked(self, read: Iterable[str]) -> list[str]:
        """The members of the families that are read, out of their arrays."""
        wanted, lines = set(read), []
        for stack, members in self.graph.stacks.items():
            if wanted.isdisjoint(param.name for param in members):
                continue
            own = [self.program.params[param.name] for param in members]
            rows = [self.program.shape(param)[0] for param in members]
            if len(own) == 1:
                lines.append(f"{own[0]} = self.{stack}")
            elif len(set(rows)) == 1:
                lines.append(listed("", own, f" = self.{stack}.chunk({len(own)})"))
            else:
                lines.append(listed("", own, f" = self.{stack}.split([{', '.join(f'self.{row}' for row in rows)}])"))
        return lines

    def _main(self) -> str:
        program, small = self.program, self.program.small()
        names = program.held_sizes + [name for name in program.state_sizes if name not in program.held_sizes]
        side = [
            f'"{program.inputs[name]}": torch.rand(2, 5, {small[str(leaf.size)] if leaf.size else 1}) + 0.5'
            for name, leaf in self.graph.inputs.items()
            if name != "x"
        ]
        untrained = self._untrained()
        text = MAIN.strip("\n").format(
            name=self.name,
            sizes=", ".join(f"{program.size(name)}={small[name]}" for name in names),
            input=small["input"],
            side="{" + ", ".join(side) + "}",
            states=", ".join(f'"{own}"' for own in program.states.values()),
            untrained="[" + ", ".join(f'"{name}"' for name in untrained) + "]",
        )
        return with_or_without(
            text, side=bool(side), trained=len(untrained) < len(self.graph.stacks), whole=not untrained
        )

    def _untrained(self) -> list[str]:
        """The arrays of parameters that no gradient reaches."""
        adjoint = differentiate(self.graph)
        outputs = adjoint.graph.outputs
        reached = {name for name, key in adjoint.vectors.items() if not is_zero(outputs[key])}
        reached |= {
            name for name, pairs in adjoint.matrices.items() if any(not is_zero(outputs[rows]) for rows, _ in pairs)
        }
        for name, formula in through_made(self.graph).items():
            if any(node.op == "matrix" and node.attr[2:] in reached for node in toposort([formula])):
                reached.add(name)
        return [s for s, members in self.graph.stacks.items() if reached.isdisjoint(param.name for param in members)]
