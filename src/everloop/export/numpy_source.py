"""A cell as a program in NumPy alone: one step forward, one step back, and the loops over time around them.

The program is complete: it starts parameters, runs over a batch of sequences, gives the gradient of everything by
back-propagation through time, and, when run, checks that gradient by finite differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from everloop.compiler.differentiate import Adjoint, differentiate
from everloop.compiler.saves import save
from everloop.compiler.weights import through_made
from everloop.export._names import Names
from everloop.export._program import Program, bare, is_zero
from everloop.export._source import ATOM, POWER, Spelling, Writer
from everloop.export._spelled import UNTOLD, spelled
from everloop.export._text import hand_on, indented, listed, with_or_without, wrapped
from everloop.lang.cell import Cell
from everloop.lang.expr import Expr, toposort
from everloop.lang.graph import Graph, reached
from everloop.lang.param import Param

SPELLING = Spelling(
    ops={
        "exp": "np.exp({})", "expm1": "np.expm1({})", "log": "np.log({})", "log1p": "np.log1p({})",
        "sqrt": "np.sqrt({})", "tanh": "np.tanh({})", "sigmoid": "sigmoid({})", "sin": "np.sin({})",
        "cos": "np.cos({})", "floor": "np.floor({})", "stop": "stop({})", "maximum": "np.maximum({}, {})",
        "minimum": "np.minimum({}, {})", "where": "np.where({}, {}, {})", "sum": "np.sum({}, -1, keepdims=True)",
        "max": "np.max({}, -1, keepdims=True)", "cumsum": "np.cumsum({}, -1)", "cumsum_back": "cumsum_back({})",
        "blocks_matmul": "in_blocks({}, {}, {})", "blocks_matmul_t": "in_blocks_back({}, {}, {})",
        "expm": "expm({})", "frechet": "frechet({}, {})", "comparison": "np.where({}, 1.0, 0.0)",
    },
    numbers={},
    functions={
        "absolute": "np.abs({})", "relu": "np.maximum({}, 0)", "softplus": "np.logaddexp({}, 0)",
        "logsigmoid": "-np.logaddexp(-({}), 0)",
    },
    choice="np.where({}, {}, {})",
    ones="np.ones({})",
    index="np.arange({})",
    row="np.indices(({}, {}))[0]",
    column="np.indices(({}, {}))[1]",
    infinity="np.inf",
    zeros="np.zeros((B, {}))",
    full="np.full((B, T, {}), {})",
    reshape="np.reshape({}, (B, T, 1))",
)  # fmt: skip

HELPERS = {
    "sigmoid": '''
def sigmoid(v):
    """1 / (1 + exp(-v)), without overflow at either end."""
    e = np.exp(-np.abs(v))
    return np.where(v >= 0, 1.0, e) / (1 + e)
''',
    "stop": '''
constants = None  # while check() runs: what holds the values of stop() still


def stop(v):
    """The value itself, as a constant: no gradient flows through it."""
    return v if constants is None else constants(v)
''',
    "cumsum_back": '''
def cumsum_back(v):
    """The running sum from the last feature to the first."""
    return np.cumsum(v[..., ::-1], -1)[..., ::-1]
''',
    "in_blocks": '''
def in_blocks(v, M, heads):
    """v times the transposed block-diagonal matrix, whose blocks lie over each other in M."""
    v, M = v.reshape(*v.shape[:-1], heads, -1), M.reshape(heads, -1, M.shape[1])
    product = np.einsum("...kc,krc->...kr", v, M)
    return product.reshape(*product.shape[:-2], M.shape[0] * M.shape[1])
''',
    "in_blocks_back": '''
def in_blocks_back(v, M, heads):
    """v times the block-diagonal matrix, whose blocks lie over each other in M."""
    M = M.reshape(heads, -1, M.shape[1])
    product = np.einsum("...kr,krc->...kc", v.reshape(*v.shape[:-1], heads, M.shape[1]), M)
    return product.reshape(*product.shape[:-2], heads * M.shape[2])
''',
    "in_blocks_outer": '''
def in_blocks_outer(rows, columns, heads):
    """The gradient of a block-diagonal matrix: for each block the sum over the batch of outer products."""
    rows = rows.reshape(len(rows), heads, -1)
    columns = np.broadcast_to(columns, (len(rows), columns.shape[-1])).reshape(len(rows), heads, -1)
    product = np.einsum("bkr,bkc->krc", rows, columns)
    return product.reshape(-1, product.shape[-1])
''',
    "expm": '''
def expm(M):
    """The matrix exponential: M is halved until it is small, its series summed, the result squared as often."""
    halvings = max(0, int(np.ceil(np.log2(max(np.abs(M).sum(0).max(), 1.0)))) + 1)
    M = M / 2.0**halvings
    term = result = np.eye(len(M))
    for k in range(1, 19):
        term = term @ M / k
        result = result + term
    for _ in range(halvings):
        result = result @ result
    return result
''',
    "frechet": '''
def frechet(A, G):
    """The derivative of the matrix exponential at A in the direction G: a block of a larger exponential."""
    n = len(A)
    return expm(np.block([[A, G], [np.zeros((n, n)), A]]))[:n, n:]
''',
    "orthogonal": '''
def orthogonal(rng, rows, columns):
    """A random matrix with orthogonal rows or columns (Saxe et al. 2014)."""
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T
''',
    "glorot": '''
def glorot(rng, rows, columns):
    """Uniform in +-sqrt(6 / (rows + columns)) (Glorot, Bengio 2010)."""
    limit = np.sqrt(6 / (rows + columns))
    return rng.uniform(-limit, limit, (rows, columns))
''',
}
HELPERS["each"] = '''
def each(rng, n, first):
    """A start value for each of n features: of a draw u from 0 to 1, the position k and n."""
    return np.array([first(u, k, n) for k, u in enumerate(rng.uniform(size=n))])
'''
NEEDS = {"frechet": ("expm",)}

# Backward, a value through which no gradient flows is a value like any other.
BACKWARD = replace(SPELLING, ops={**SPELLING.ops, "stop": "{}"})

# Names that the program uses itself, beside those that it takes as they come free.
OWN = (
    *HELPERS, "np", "sys", "math", "init", "start", "forward", "backward", "check", "params", "state", "tape",
    "steps", "dstate", "grads", "rng", "seed", "B", "T", "t", "x", "x_t", "dx", "constants",
)  # fmt: skip


def source(step: Cell | Graph) -> str:
    """The program. Of a cell, parameters start as the cell says; of a graph alone, as is usual for their kind."""
    return _Source(step).text()


ABOUT = """{title}: forward, and backward through time, in NumPy alone.
{source}
Arrays hold one sequence of the batch per row, so that `x_t @ W.T` is what papers write as W x.
B sequences, T steps: x is [B, T, input_size], a state [B, its size].

Run as a program, it checks its own gradient by finite differences.
"""

CHECK = '''
def check(seed=0):
    """The largest difference between the gradient and central differences, on a small random problem."""
    global constants  #stop
    rng = np.random.default_rng(seed)
    B, T = 2, 4
    params = init({sizes})
    params = {{name: value + 0.1 * rng.normal(size=value.shape) for name, value in params.items()}}
    x = rng.normal(size=(B, T, {input}))
    side = {side}  #side
    # From a state such as the step itself comes to, a little off: at its start, functions may have a kink.
    _, state, _ = forward(params, x, start(B, {states}))  #no side
    _, state, _ = forward(params, x, start(B, {states}), **side)  #side
    state = tuple(part + 0.01 * rng.normal(size=part.shape) for part in state)
    kept = []  #stop
    constants = lambda v: kept.append(np.array(v)) or v  #stop
    y, last, tape = forward(params, x, state)  #no side
    y, last, tape = forward(params, x, state, **side)  #side
    dy, dlast = rng.normal(size=y.shape), [rng.normal(size=part.shape) for part in last]
    grads, dx, dstate = backward(params, tape, dy, dlast)  #no side
    grads, dx, *dside, dstate = backward(params, tape, dy, dlast)  #side

    def loss():
        global constants  #stop
        again = iter(kept)  #stop
        constants = lambda v: next(again)  #stop
        y, last, _ = forward(params, x, state)  #no side
        y, last, _ = forward(params, x, state, **side)  #side
        return np.sum(y * dy) + sum(np.sum(part * weight) for part, weight in zip(last, dlast))

    pairs = [(x, dx), *zip(state, dstate), *((params[name], grads[name]) for name in params)]
    pairs += zip(side.values(), dside)  #side
    worst, step = 0.0, 1e-5
    for values, gradient in pairs:
        for place in np.ndindex(values.shape):
            value = values[place]
            values[place] = value + step
            above = loss()
            values[place] = value - step
            below = loss()
            values[place] = value
            difference = (above - below) / (2 * step)
            worst = np.maximum(worst, abs(difference - gradient[place]) / max(1.0, abs(difference)))
    constants = None  #stop
    return worst


if __name__ == "__main__":
    worst = check()
    print(f"largest difference between the gradient and finite differences: {{worst:.1e}}")
    sys.exit(0 if worst < 1e-6 else 1)
'''


class _Source:
    def __init__(self, step: Cell | Graph) -> None:
        self.program = program = Program(step, OWN)
        self.init_helpers: dict[Any, tuple[str, str]] = {}
        self.graph, self.names = program.graph, program.names
        inputs = [name for name in self.graph.inputs if name != "x"]
        self.dy = self.names.fresh(f"d{program.y}")
        self.dy_t = self.names.fresh(f"{self.dy}_t")
        self.gradients = {"x": "dx"} | {name: self.names.fresh(f"d{program.inputs[name]}") for name in inputs}
        self.next = {name: self.names.fresh(f"d{own}_next") for name, own in program.states.items()}
        self.made = {name: self.names.fresh(f"d{program.params[name]}") for name in program.made}
        self.adjoint, self.back = self._backward_step()
        self.taped = self._taped()
        self.forth = self._forward_step()

    def text(self) -> str:
        init = self._init()
        parts = [
            *(text for _, text in self.init_helpers.values()),
            init,
            self._start(),
            self._forward(),
            self._backward(),
        ]
        body = "\n".join(parts)
        used = {name for name in HELPERS if re.search(rf"\b{name}\(", body)}
        used |= {needed for name in used for needed in NEEDS.get(name, ())}
        helpers = [HELPERS[name].strip("\n") for name in HELPERS if name in used]
        return "\n\n\n".join([self._head("math." in body), *helpers, *parts, self._check("stop" in used)]) + "\n"

    def _forward_step(self) -> Writer:
        program, graph = self.program, self.graph
        leaves = {leaf: program.steps[name] for name, leaf in graph.inputs.items()}
        leaves |= {leaf: program.states[name] for name, leaf in graph.states.items()}
        writer = Writer(SPELLING, program, self.names, graph, leaves, dict(program.labels), program.hint)
        writer.write(program.order, [*program.made_for(graph), *self.taped, *graph.roots])
        return writer

    def _taped(self) -> list[Expr]:
        """The values of the forward step that the backward step reads: old states, then others in their order."""
        read = set(self.adjoint.saved.values())
        states = list(self.graph.states.values())
        return [node for node in [*states, *(n for n in self.program.written if n not in states)] if node in read]

    def _backward_step(self) -> tuple[Adjoint, Writer]:
        """The backward step. A value whose gradient needs a line of its own gets one itself, and so a name."""
        program = self.program
        chosen = dict(program.labels)
        found: set[Expr] = set()
        while True:
            names = self.names.copy()
            program.labels = dict(chosen)
            for node in program.written:
                if node in found:
                    program.labels[node] = names.fresh(program.hint(node))
            nodes = [node for node in self.graph.nodes if node.args and node not in program.labels]
            marks = {node: f"?{k}" for k, node in enumerate(nodes) if not program.is_term(node)}
            named = replace(self.graph, names=program.labels | marks)
            adjoint = save(differentiate(named), named)
            writer, used = self._write_backward(adjoint, names)
            new = {node for node in adjoint.saved.values() if node.args} | {nodes[k] for k in used}
            if new <= program.labels.keys():
                self.names.taken |= names.taken
                return adjoint, writer
            found |= new - chosen.keys()

    def _write_backward(self, adjoint: Adjoint, names: Names) -> tuple[Writer, list[int]]:
        """The lines of the backward step; and the marks of those values that turned out to need a line."""
        program, graph = self.program, adjoint.graph
        leaves = {leaf: program.steps[name] for name, leaf in graph.inputs.items() if name in program.steps}
        leaves |= {leaf: self.dy_t for name, leaf in graph.inputs.items() if name.startswith("d:")}
        leaves |= {leaf: self.next[name.removeprefix("d:")] for name, leaf in graph.states.items()}
        for name, node in adjoint.saved.items():
            leaves[graph.inputs[name]] = (
                program.states[name] if name in program.states else program.labels.get(node, "")
            )
        gradients = _gradients(graph)
        labels = program.made_labels()
        marks: dict[Expr, int] = {}
        for node, name in graph.names.items():
            if node.args and "?" in name:
                marks[node] = int(name.partition("?")[2])
            elif node.args:
                labels[node] = names.fresh(name) if node in gradients else name
        for name, own in program.states.items():
            node = bare(graph.new[f"d:{name}"])
            if node in gradients and node.args and node not in labels:
                labels[node] = names.fresh(f"d{own}")
        used: list[int] = []

        def suggest(node: Expr) -> str:
            if node in marks:
                used.append(marks[node])
            return "g" if node in gradients else ""

        writer = Writer(BACKWARD, program, names, graph, leaves, labels, suggest)
        rank = {f"d{program.labels[node]}": k for k, node in enumerate(program.order)}
        back = sorted((node for node in graph.names if node in gradients), key=lambda n: -rank.get(graph.names[n], -1))
        order = [*program.order, *back]
        writer.write(order, [*program.made_for(graph), *_results(adjoint)])
        return writer, used

    def _head(self, math: bool) -> str:
        imports = "import math\nimport sys" if math else "import sys"
        about = ABOUT.format(title=self.graph.name, source=self.program.cited)
        return f'"""{about}"""\n\n{imports}\n\nimport numpy as np'

    def _init(self) -> str:
        program = self.program
        lines = []
        for name, param in self.graph.held.items():
            first = self._first(param)
            note = f"  # {UNTOLD}" if callable(program.first(param)) and not first.startswith("each(") else ""
            lines.append(f'"{program.params[name]}": {first},{note}')
        body = ['"""The parameters, by name, as they are before training."""', "rng = np.random.default_rng(seed)"]
        body += ["return {", *(f"    {line}" for line in lines), "}"]
        arguments = ", ".join([*program.signature(program.held_sizes), "seed=0"])
        return f"def init({arguments}):\n{indented(chr(10).join(body))}"

    def _first(self, param: Param) -> str:
        given = self.program.first(param)
        shape = self.program.shape(param)
        written = f"({', '.join(shape)})" if param.is_matrix else shape[0]
        if isinstance(given, tuple):
            return f"rng.uniform({given[0]!r}, {given[1]!r}, {written})"
        if isinstance(given, int | float):
            return f"np.full({written}, {float(given)!r})" if given else f"np.zeros({written})"
        if callable(given):
            each = spelled(given, self.names, self.init_helpers)
            if each:
                return f"each(rng, {shape[0]}, {each})"
        if not param.is_matrix:
            return f"np.zeros({written})"
        rows = f"{shape[0]} // {param.blocks}" if param.blocks > 1 else shape[0]
        place = f"{rows}, {shape[1]}"
        match given or self.program.start_of(param):
            case "identity":
                one = f"np.eye({place})"
            case "normal":
                width = f"({shape[1]})" if param.blocks > 1 else shape[1]
                one = f"rng.normal(0, {width}**-0.5, ({place}))"
            case named:
                one = f"{named}(rng, {place})"
        return f"np.concatenate([{one} for _ in range({param.blocks})])" if param.blocks > 1 else one

    def _start(self) -> str:
        program = self.program
        arrays = []
        for name, leaf in self.graph.states.items():
            value = self.graph.start.get(name, 0.0)
            shape = f"(B, {program.width(leaf.size)})"
            arrays.append(f"np.full({shape}, {value!r})" if value else f"np.zeros({shape})")
        return (
            f"def start({', '.join(['B', *program.signature(program.state_sizes)])}):\n"
            f'    """The state before the first step: {", ".join(program.states.values())}."""\n'
            f"{indented(listed('return ', arrays))}"
        )

    def _forward(self) -> str:
        program, writer = self.program, self.forth
        output = self.graph.outputs["y"]
        taped = [writer.text(node) for node in self.taped]
        step = [*writer.at_step(program.inputs), *writer.step_lines()]
        step += [f"{program.y}[:, t] = {writer.text(output)}", listed("steps.append(", taped, ")")]
        step += hand_on(program.states, {n: writer.row(node) for n, node in self.graph.new.items()})
        width = "1" if output.size is None else writer.note_size(output.size)
        side = writer.side_lines()
        before = [
            *self._unpacked(writer),
            "B, T = x.shape[:2]",
            listed("", program.states.values(), " = state"),
            *self._sizes(writer, program.states),
            *side,
            *writer.fixed_lines(),
            f"{program.y}, steps = np.zeros((B, T, {width})), []",
        ]
        tape = listed("", [*program.inputs.values(), "steps"])
        about = (
            f'"""All steps: {program.y} [B, T, {width}], the last state, and a tape of what backward needs.\n\n'
            f'state: {", ".join(program.states.values())}.{program.side_line}\n"""'
        )
        body = [about, *before, "for t in range(T):", *(indented(line) for line in step)]
        body += [f"return {program.y}, {listed('', program.states.values())}, {tape}"]
        return f"def forward(params, x, state{program.side_arguments}):\n{indented(chr(10).join(body))}"

    def _backward(self) -> str:
        program, writer, adjoint = self.program, self.back, self.adjoint
        graph = adjoint.graph
        step = []
        if self.taped:
            taped = [self.forth.text(node) for node in self.taped]
            step.append(listed("", taped, " = steps[t]"))
        step += writer.at_step(program.inputs)
        given = [leaf for name, leaf in graph.inputs.items() if name.startswith("d:")]
        if any(leaf in writer.read for leaf in given):
            step.append(f"{self.dy_t} = {self.dy}[:, t]")
        gradients = _gradients(graph)
        again = writer.step_lines(lambda node: node not in gradients)
        step += ["# Of the forward step, worked out again.", *again] if again else []
        step.append("# Back through the step: from what it gave to what it took.")
        step += writer.step_lines(lambda node: node in gradients)
        step += self._gathered(writer)
        new = {name: writer.row(graph.new[f"d:{name}"]) for name in program.states}
        step += hand_on(self.next, new)
        before = [
            *self._unpacked(writer),
            f"{', '.join(program.inputs.values())}, steps = tape",
            "B, T = x.shape[:2]",
            listed("", self.next.values(), " = dstate"),
            *self._sizes(writer, self.next),
            *writer.fixed_lines(),
            "grads = {name: np.zeros(value.shape) for name, value in params.items()}",
            *(f"{own} = np.zeros({program.params[name]}.shape)" for name, own in self.made.items()),
            *(f"{own} = np.zeros({program.inputs[name]}.shape)" for name, own in self.gradients.items()),
        ]
        about = (
            f'"""From the gradients of {program.y} and of the last state, those of the parameters, of '
            f"{' and '.join(program.inputs.values())},\nand of the first state. "
            f'The gradient of the loss by v is called dv.\n"""'
        )
        body = [about, *before, "for t in reversed(range(T)):", *(indented(line) for line in step)]
        body += self._through_made()
        body += [f"return grads, {', '.join(self.gradients.values())}, {listed('', self.next.values())}"]
        return f"def backward(params, tape, {self.dy}, dstate):\n{indented(chr(10).join(body))}"

    def _check(self, with_stop: bool) -> str:
        """The program's test of itself."""
        program, small = self.program, self.program.small()
        lengths = {name: program.size(name) for name in small}

        def given(names: Iterable[str]) -> str:
            return ", ".join(f"{lengths[name]}={small[name]}" for name in names)

        side = [
            f'"{program.inputs[name]}": rng.uniform(0.5, 1.5, (B, T, {small[str(leaf.size)] if leaf.size else 1}))'
            for name, leaf in self.graph.inputs.items()
            if name != "x"
        ]
        lines = CHECK.strip("\n").format(
            sizes=given(program.held_sizes),
            states=given(program.state_sizes),
            input=small["input"],
            side="{" + ", ".join(side) + "}",
        )
        return with_or_without(lines, side=bool(side), stop=with_stop)

    def _unpacked(self, writer: Writer) -> list[str]:
        """The parameters that the function reads, by families."""
        families: dict[str, list[str]] = {}
        for name, param in self.graph.held.items():
            if name in writer.params_read:
                families.setdefault(param.family, []).append(self.program.params[name])
        lines = []
        for names in families.values():
            for begin in range(0, len(names), 5):
                own = names[begin : begin + 5]
                values = [f'params["{name}"]' for name in own]
                lines.append(f"{', '.join(own)} = {', '.join(values)}")
        return lines

    def _sizes(self, writer: Writer, vectors: dict[str, str]) -> list[str]:
        """The lengths that the function needs, as the arrays that it was given tell them."""
        return [f"{own} = {self._length(name, vectors)}" for name, own in writer.sizes.items()]

    def _length(self, name: str, vectors: dict[str, str]) -> str:
        for state, own in vectors.items():
            if str(self.graph.states[state].size) == name:
                return f"{own}.shape[-1]"
        for key, leaf in self.graph.inputs.items():
            if leaf.size is not None and str(leaf.size) == name and not self.program.default(key):
                return f"{self.program.inputs[key]}.shape[-1]"
        for key, param in self.graph.held.items():
            for axis, size in enumerate(param.sizes):
                if str(size) == name:
                    times = f" * {param.blocks}" if axis and param.blocks > 1 else ""
                    return f'params["{self.program.params[key]}"].shape[{axis}]{times}'
        return str(self.graph.sizes.get(name, self.program.small()[name]))

    def _gathered(self, writer: Writer) -> list[str]:
        """What a step adds to the gradients."""
        adjoint, outputs = self.adjoint, self.adjoint.graph.outputs
        lines = []
        for name, param in self.graph.params.items():
            target = self.made.get(name, f'grads["{self.program.params[name]}"]')
            if not param.is_matrix:
                node = outputs[adjoint.vectors[name]]
                lines += [] if is_zero(node) else [wrapped(target, f"{writer.text(node, ATOM)}.sum(0)", "+=")]
                continue
            for rows, columns in adjoint.matrices.get(name, ()):
                if not is_zero(outputs[rows]):
                    lines.append(f"{target} += {self._outer(writer, outputs[rows], outputs[columns], param.blocks)}")
        if lines:
            lines.insert(0, "# The parameters: summed over the batch here, over the steps by the loop.")
        for name, key in adjoint.inputs.items():
            if not is_zero(outputs[key]):
                lines.append(wrapped(f"{self.gradients[name]}[:, t]", writer.text(outputs[key])))
        return lines

    def _outer(self, writer: Writer, rows: Expr, columns: Expr, blocks: int) -> str:
        """The gradient of a matrix: the sum over the batch of outer products."""
        if blocks > 1:
            return f"in_blocks_outer({writer.whole(rows)}, {writer.whole(columns)}, {blocks})"
        if writer.is_timed(columns):
            return f"{writer.whole(rows, ATOM)}.T @ {writer.whole(columns, POWER)}"
        return f"np.outer({writer.whole(rows, ATOM)}.sum(0), {writer.whole(columns)})"

    def _through_made(self) -> list[str]:
        """What the matrices that are made of others hand on to those."""
        formulas = through_made(self.graph)
        if not formulas:
            return []
        program = self.program
        names = self.names.copy()
        leaves = {}
        for formula in formulas.values():
            for node in toposort([formula]):
                if node.op == "matrix" and node.attr.startswith("d:"):
                    leaves[node] = self.made[node.attr[2:]]
        known = {node: name for node, name in self.back.labels.items() if node in program.made_labels()}
        writer = Writer(BACKWARD, program, names, self.graph, leaves | known, {}, program.hint)
        writer.write([], formulas.values())
        lines = ["# What the matrices that are made of parameters hand on to them."]
        lines += [wrapped(line.name, line.text) for line in writer.lines]
        return lines + [wrapped(f'grads["{program.params[n]}"]', writer.text(f), "+=") for n, f in formulas.items()]


def _gradients(graph: Graph) -> set[Expr]:
    """The values of a backward step that are gradients; the others are those of the forward step."""
    given = [leaf for name, leaf in graph.inputs.items() if name.startswith("d:")]
    return reached(graph.nodes, [*given, *graph.states.values()])


def _results(adjoint: Adjoint) -> list[Expr]:
    """What a backward step gives, as far as it is not nothing."""
    outputs = adjoint.graph.outputs
    wanted = [outputs[key] for key in (*adjoint.inputs.values(), *adjoint.vectors.values())]
    for pairs in adjoint.matrices.values():
        wanted += [outputs[key] for pair in pairs if not is_zero(outputs[pair[0]]) for key in pair]
    return [node for node in [*wanted, *adjoint.graph.new.values()] if not is_zero(node)]
