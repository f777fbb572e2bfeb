"""The reference backend: torch operations, any device and floating type. It is the definition: every other
backend is right when it agrees with this one in float64.

Sequences come packed: an array [N, F] holds the rows of step 0, then those of step 1, and so on, where step t
has `batch_sizes[t]` rows and the longest sequences come first. So padding is never computed.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from everloop.backends._scan import scan
from everloop.compiler.affine import Affine, affine
from everloop.compiler.describe import describe
from everloop.compiler.differentiate import Adjoint, differentiate
from everloop.compiler.plan import Plan, Stage, plan
from everloop.compiler.saves import save
from everloop.lang.expr import Expr, Shape, Size, toposort
from everloop.lang.graph import Graph
from everloop.lang.param import Param

Value = Tensor | float


def _on_numbers_too(function: Callable[..., Tensor]) -> Callable[..., Value]:
    """The function of tensors for tensors and numbers; of numbers alone, it gives a number."""

    def spelled(*args: Value) -> Value:
        # The most frequent case by far, in a loop where every microsecond is one per step.
        if len(args) == 1 and isinstance(args[0], Tensor):
            return function(args[0])
        like = next((arg for arg in args if isinstance(arg, Tensor)), None)
        if like is None:
            return function(*(torch.tensor(arg, dtype=torch.float64) for arg in args)).item()
        return function(*(arg if isinstance(arg, Tensor) else like.new_tensor(arg) for arg in args))

    return spelled


def _maximum(a: Tensor, b: Tensor) -> Tensor:
    """At a tie the gradient belongs to b; NaN in either wins."""
    return torch.where((a > b) | a.isnan(), a, b)


def _minimum(a: Tensor, b: Tensor) -> Tensor:
    return torch.where((a < b) | a.isnan(), a, b)


SPELLING: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
    "exp": _on_numbers_too(torch.exp),
    "expm1": _on_numbers_too(torch.expm1),
    "log": _on_numbers_too(torch.log),
    "log1p": _on_numbers_too(torch.log1p),
    "sqrt": _on_numbers_too(torch.sqrt),
    "tanh": _on_numbers_too(torch.tanh),
    "sigmoid": _on_numbers_too(torch.sigmoid),
    "sin": _on_numbers_too(torch.sin),
    "cos": _on_numbers_too(torch.cos),
    "floor": _on_numbers_too(torch.floor),
    "stop": _on_numbers_too(torch.detach),
    "maximum": _on_numbers_too(_maximum),
    "minimum": _on_numbers_too(_minimum),
    "gt": _on_numbers_too(lambda a, b: (a > b).to(a.dtype)),
    "ge": _on_numbers_too(lambda a, b: (a >= b).to(a.dtype)),
    "where": _on_numbers_too(lambda condition, a, b: torch.where(condition != 0, a, b)),
    "sum": lambda a: a.sum(-1, keepdim=True),
    "max": lambda a: a.amax(-1, keepdim=True),
    "transpose": torch.t,
    "compose": torch.matmul,
    "expm": lambda a: _expm(a),
    "frechet": lambda a, g: _frechet(a, g),
}


def _frechet(matrix: Tensor, direction: Tensor) -> Tensor:
    """The derivative of the matrix exponential in a direction: a corner of the exponential of a larger matrix."""
    n = matrix.shape[0]
    doubled = torch.cat([torch.cat([matrix, direction], 1), torch.cat([torch.zeros_like(matrix), matrix], 1)])
    return _expm(doubled)[:n, n:]


def _expm(matrix: Tensor) -> Tensor:
    # In single precision at least: torch's series for the half types loses everything.
    wide = torch.promote_types(matrix.dtype, torch.float32)
    return torch.linalg.matrix_exp(matrix.to(wide)).to(matrix.dtype)


def outer(rows: Tensor, columns: Tensor, blocks: int = 1) -> Tensor:
    """The sum over N of the outer products of [N, R] and [N, C]: [R, C], or its diagonal blocks [R, C / blocks]."""
    if blocks == 1:
        return rows.t() @ columns
    parts = torch.einsum("nkr,nkc->krc", rows.unflatten(-1, (blocks, -1)), columns.unflatten(-1, (blocks, -1)))
    return parts.flatten(0, 1)


def _cumulative(value: Value, backwards: bool) -> Tensor:
    assert isinstance(value, Tensor)
    return value.flip(-1).cumsum(-1).flip(-1) if backwards else value.cumsum(-1)


class Weights:
    """The parameters of a graph, one array per stack (Graph.stacks); members are views of their rows. Matrices that
    are made of others are worked out once.

    like: any array of the device and type at work, for matrices made of numbers alone.
    """

    def __init__(
        self, graph: Graph, sizes: Mapping[str, int], stacks: Mapping[str, Tensor], like: Tensor | None = None
    ) -> None:
        self.stacks, self.params, self.sizes, self.like = stacks, graph.params, sizes, like
        self._made: dict[str, Tensor] = {}
        self._rows: dict[str, tuple[str, int, int]] = {}
        for stack, members in graph.stacks.items():
            ends = list(accumulate(length(param.sizes[0], sizes) for param in members))
            for param, begin, end in zip(members, [0, *ends], ends, strict=False):
                self._rows[param.name] = (stack, begin, end)

    def member(self, name: str) -> Tensor:
        formula = self.params[name].made
        if formula is not None:
            if name not in self._made:
                self._made[name] = make_matrix(formula, self.member, self.sizes, self.like)
            return self._made[name]
        stack, begin, end = self._rows[name]
        return self.stacks[stack][begin:end]

    def stacked(self, names: Sequence[str]) -> Tensor:
        """The members' rows over each other: a view where they lie so, otherwise a copy."""
        if len(names) == 1:
            return self.member(names[0])
        if any(self.params[name].made is not None for name in names):
            return torch.cat([self.member(name) for name in names])
        places = [self._rows[name] for name in names]
        (first, begin, _), (_, _, end) = places[0], places[-1]
        if all(a[0] == b[0] and a[2] == b[1] for a, b in pairwise(places)):
            return self.stacks[first][begin:end]
        return torch.cat([self.member(name) for name in names])


def make_matrix(
    formula: Expr, member: Callable[[str], Tensor], sizes: Mapping[str, int], like: Tensor | None = None
) -> Tensor:
    """A matrix made of others: [rows, columns]. member: gives the array of a parameter by name."""
    values: dict[Expr, Value] = {}
    assert isinstance(formula.size, Shape)
    for node in toposort([formula]):
        match node.op:
            case "matrix":
                values[node] = like = member(node.attr)
            case "const":
                values[node] = node.attr
            case "count":
                values[node] = float(length(node.attr, sizes))
            case "row" | "column":
                assert isinstance(node.size, Shape)
                rows, columns = length(node.size.rows, sizes), length(node.size.columns, sizes)
                options: Any = {} if like is None else {"dtype": like.dtype, "device": like.device}
                places = torch.arange(rows if node.op == "row" else columns, **options)
                values[node] = (places[:, None] if node.op == "row" else places[None, :]).expand(rows, columns)
            case _:
                values[node] = SPELLING[node.op](*(values[arg] for arg in node.args))
    made = values[formula]
    assert isinstance(made, Tensor)
    return made


def multiply_blocks(matrix: Tensor, vector: Tensor, op: str, blocks: int, members: int) -> Tensor:
    """Block-diagonal matrices of equal size, over each other in [R, C / blocks], times the rows of a vector.

    matmul: vector [N, C] gives [N, R]; matmul_t, the transposed: [N, R] gives [N, C], summed over the members.
    """
    kept = matrix.reshape(members, blocks, -1, matrix.shape[1])
    rows = torch.atleast_2d(vector)
    if op == "matmul":
        made = torch.einsum("nkc,gkrc->ngkr", rows.unflatten(-1, (blocks, -1)), kept)
    else:
        made = torch.einsum("ngkr,gkrc->nkc", rows.unflatten(-1, (members, blocks, -1)), kept)
    return made.reshape(*vector.shape[:-1], math.prod(made.shape[1:]))


class Values(dict[Expr, Value]):
    """The values worked out so far; several that lie side by side in one array are known as a pack, too.

    like: any array of the device and type at work. `room` may hold arrays to put packs into that have to be made.
    """

    def __init__(self, weights: Weights, sizes: Mapping[str, int], like: Tensor) -> None:
        super().__init__()
        self.weights, self.sizes, self.like = weights, sizes, like
        self._packs: dict[tuple[Expr, ...], Tensor] = {}
        self.room: dict[tuple[Expr, ...], Tensor] = {}

    def __missing__(self, node: Expr) -> Value:
        """Leaves that need no telling: numbers and parameters."""
        match node.op:
            case "const":
                value: Value = node.attr
            case "count":
                value = float(length(node.attr, self.sizes))
            case "vector":
                value = self.weights.member(node.attr)
            case "index":
                places = range(length(node.size, self.sizes))
                value = torch.tensor(places, dtype=self.like.dtype, device=self.like.device)
            case _:
                raise KeyError(node)
        self[node] = value
        return value

    def put(self, nodes: tuple[Expr, ...], array: Tensor) -> None:
        if len(nodes) == 1:
            self[nodes[0]] = array
            return
        self._packs[nodes] = array
        widths = [length(node.size, self.sizes) for node in nodes]
        self.update(zip(nodes, array.split(widths, dim=-1), strict=True))

    def pack(self, nodes: tuple[Expr, ...], rows: int) -> Tensor:
        """The values side by side: [rows, F]."""
        return self.join(nodes, rows).expand(rows, -1)

    def join(self, nodes: tuple[Expr, ...], rows: int) -> Tensor:
        """The values side by side: [rows, F], or [F] if none of them has rows."""
        if nodes in self._packs:
            return self._packs[nodes]
        if all(node.op == "vector" for node in nodes):
            return self.weights.stacked([node.attr for node in nodes])
        values = [self[node] for node in nodes]
        if all(isinstance(value, Tensor) and value.dim() == 1 for value in values):
            arrays: list[Tensor] = values  # type: ignore[assignment]
        else:
            arrays = [self.rows(node, rows) for node in nodes]
        if len(arrays) == 1:
            return arrays[0]
        return torch.cat(arrays, dim=-1, out=self.room.get(nodes))

    def rows(self, node: Expr, rows: int) -> Tensor:
        """The value as an array [rows, F], repeated where it is less."""
        return self._tensor(node).expand(rows, 1 if node.size is None else length(node.size, self.sizes))

    def spread(self, node: Expr, width: int) -> Tensor:
        """One number per row, repeated: [rows, F], or [F] where all rows have the same."""
        value = self._tensor(node)
        return value.expand(*value.shape[:-1], width)

    def _tensor(self, node: Expr) -> Tensor:
        value = self[node]
        return value if isinstance(value, Tensor) else self.like.new_tensor(value)


def length(size: Size | None, sizes: Mapping[str, int]) -> int:
    assert size is not None
    assert size.name is not None
    return sizes[size.name]


def evaluate(stages: Iterable[Stage], values: Values, rows: int) -> None:
    """Work out the values of some stages for `rows` rows at once."""
    for stage in stages:
        for product in stage.products:
            matrix = values.weights.stacked(product.matrices)
            vector = values.join(product.args, rows)
            weight = matrix.t() if product.op == "matmul" else matrix
            blocks = values.weights.params[product.matrices[0]].blocks
            if blocks > 1:
                made = multiply_blocks(matrix, vector, product.op, blocks, len(product.matrices))
                plus = values.join(product.plus, rows) if product.plus else 0.0
                values.put(product.results, made + plus)
            elif product.plus:
                plus = values.join(product.plus, rows)
                values.put(
                    product.results, torch.addmm(plus, vector, weight) if vector.dim() == 2 else plus + vector @ weight
                )
            else:
                values.put(product.results, vector @ weight)
        for node in stage.nodes:
            if node.op == "spread":
                values[node] = values.spread(node.args[0], length(node.size, values.sizes))
            elif node.op == "cumsum":
                values[node] = _cumulative(values[node.args[0]], node.attr)
            else:
                values[node] = SPELLING[node.op](*[values[arg] for arg in node.args])


def run_loop(
    schedule: Plan,
    values: Values,
    states: Mapping[str, Tensor],
    batch_sizes: Sequence[int],
    history: Sequence[Expr],
    *,
    backwards: bool = False,
) -> dict[str, Tensor]:
    """Run the stages over time; give back the final states. `values` holds the feeds for all steps and whatever is
    fixed, and receives the history, [N, F] for each of its values.

    Sequences end (forwards) or begin (backwards) where `batch_sizes` changes: their state is put aside, or
    taken from `states`, at that step.
    """
    graph = schedule.graph
    fed = [(pack, values.pack(pack, sum(batch_sizes)).split(list(batch_sizes))) for pack in schedule.feeds]
    now = Values(values.weights, values.sizes, values.like)
    now.update({node: values[node] for node in schedule.fixed})
    record = _Record(schedule, values, history, sum(batch_sizes))
    state = dict(states)
    ended: dict[str, list[Tensor]] = {name: [] for name in states}
    rows = next(iter(states.values())).shape[0] if not backwards else 0
    offsets = [0, *accumulate(batch_sizes)]
    for t in reversed(range(len(batch_sizes))) if backwards else range(len(batch_sizes)):
        n = batch_sizes[t]
        if n != rows:
            for name, array in state.items():
                if n < rows:
                    ended[name].append(array[n:])
                    state[name] = array[:n]
                else:
                    state[name] = torch.cat([array[:rows], states[name][rows:n]])
            rows = n
        for name, leaf in graph.states.items():
            now[leaf] = state[name]
        for pack, slices in fed:
            now.put(pack, slices[t])
        record.make_room(now, offsets[t], n)
        evaluate(schedule.stages, now, n)
        record.take(now, offsets[t], n)
        state = {name: now.rows(node, n) for name, node in graph.new.items()}
    if backwards:
        final = {name: torch.cat([array[:rows], states[name][rows:]]) for name, array in state.items()}
    else:
        final = {name: torch.cat([array, *reversed(ended[name])]) for name, array in state.items()}
    record.finish(values, backwards)
    return final


class _Record:
    """The history of a loop's values: written into one array each as the loop goes, or, where torch is to
    differentiate it, collected and joined at the end. What a product takes side by side is kept side by side.
    """

    def __init__(self, schedule: Plan, values: Values, history: Sequence[Expr], total: int) -> None:
        wanted = set(history)
        products = [product.args for stage in schedule.stages for product in stage.products]
        self.joint = [args for args in products if len(args) > 1 and wanted.issuperset(args)]
        if torch.is_grad_enabled():
            self.joint = []
        together = {node for args in self.joint for node in args}
        self.single = [node for node in history if node not in together]
        self.steps: dict[Expr, list[Tensor]] = {node: [] for node in self.single}
        self.total, self.grown = total, torch.is_grad_enabled()
        kept = self.joint if self.grown else [*self.joint, *((node,) for node in self.single)]
        self.arrays = {nodes: self._empty(nodes, values) for nodes in kept}

    def _empty(self, nodes: tuple[Expr, ...], values: Values) -> Tensor:
        width = sum(1 if node.size is None else length(node.size, values.sizes) for node in nodes)
        return values.like.new_empty(self.total, width)

    def make_room(self, now: Values, begin: int, rows: int) -> None:
        now.room = {args: self.arrays[args][begin : begin + rows] for args in self.joint}

    def take(self, now: Values, begin: int, rows: int) -> None:
        for node in self.single:
            if self.grown:
                self.steps[node].append(now.rows(node, rows))
            else:
                self.arrays[(node,)][begin : begin + rows] = now[node]

    def finish(self, values: Values, backwards: bool) -> None:
        """Hand the histories over."""
        for node, steps in self.steps.items():
            if steps:
                self.arrays[(node,)] = torch.cat(steps[::-1] if backwards else steps)
            elif self.grown:
                self.arrays[(node,)] = self._empty((node,), values)
        for nodes, array in self.arrays.items():
            values.put(nodes, array)


def run(
    schedule: Plan,
    form: Affine | None,
    values: Values,
    states: Mapping[str, Tensor],
    batch_sizes: Sequence[int],
    history: Sequence[Expr],
    *,
    backwards: bool = False,
) -> dict[str, Tensor]:
    """What `run_loop` does: in parallel over time where the plan has an affine form, torch does not differentiate
    the run itself, and it gains something.
    """
    given = [*values.values(), *states.values(), *values.weights.stacks.values()]
    watched = torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in given)
    final = None
    if form is not None and not watched:
        final = run_scan(form, values, states, batch_sizes, history, backwards=backwards)
    return run_loop(schedule, values, states, batch_sizes, history, backwards=backwards) if final is None else final


def run_scan(
    form: Affine,
    values: Values,
    states: Mapping[str, Tensor],
    batch_sizes: Sequence[int],
    history: Sequence[Expr],
    *,
    backwards: bool = False,
) -> dict[str, Tensor] | None:
    """What `run_loop` does, for all steps at once; None, and nothing done, where it has to go step by step."""
    scratch = Values(values.weights, values.sizes, values.like)
    scratch.update(values)
    work_out([*form.coefficients.values(), *form.offsets.values()], scratch)
    found = scan(
        {pair: scratch[node] for pair, node in form.coefficients.items()},
        {name: scratch[node] for name, node in form.offsets.items()},
        states,
        batch_sizes,
        backwards=backwards,
    )
    if found is None:
        return None
    scratch = Values(values.weights, values.sizes, values.like)
    scratch.update(values)
    new = {node: name for name, node in form.graph.new.items() if node.args}
    needed = below(history, {*values, *new})
    scratch.update({node: found.after(name) for node, name in new.items() if node in needed})
    scratch.update({leaf: found.before(name) for name, leaf in form.graph.states.items() if leaf in needed})
    work_out(history, scratch)
    values.update({node: scratch[node] for node in history})
    return found.final


def work_out(wanted: Sequence[Expr], values: Values) -> None:
    """The wanted values from those known, elementwise; what only they needed is forgotten as soon as may be."""
    nodes = [node for node in below(wanted, values) if node.args and node not in values]
    uses = Counter(arg for node in nodes for arg in node.args)
    uses.update(wanted)
    made = set(nodes)
    for node in nodes:
        evaluate([Stage((), (node,))], values, 1)
        uses.subtract(node.args)
        for arg in made.intersection(node.args):
            if not uses[arg]:
                del values[arg]


def below(wanted: Sequence[Expr], known: Container[Expr]) -> list[Expr]:
    """What the wanted values are made of, themselves included, down to what is known; arguments first."""
    order, needed = toposort(wanted), set(wanted)
    for node in reversed(order):
        if node in needed and node not in known:
            needed.update(node.args)
    return [node for node in order if node in needed]


class ReferenceKernel:
    """The loop of a cell, forward and backward, in torch operations: step by step, or, where it is a scan and torch
    does not differentiate it, in parallel over time.
    """

    def __init__(self, graph: Graph, sizes: dict[str, int]) -> None:
        self.plan = plan(graph)
        self.sizes = sizes

    @property
    def source(self) -> str:
        return describe(self.plan)

    @cached_property
    def adjoint(self) -> Adjoint:
        return save(differentiate(self.plan.graph), self.plan.graph)

    @cached_property
    def backward_plan(self) -> Plan:
        return plan(self.adjoint.graph)

    @cached_property
    def affine(self) -> Affine | None:
        return affine(self.plan.graph) if self.plan.kind == "scan" else None

    @cached_property
    def backward_affine(self) -> Affine | None:
        return affine(self.backward_plan.graph) if self.backward_plan.kind == "scan" else None

    def forward(
        self,
        inputs: Mapping[tuple[str, ...], Tensor],
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        *,
        keep: bool,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """The outputs [N, F], the final states [B, F], and (with `keep`) what `backward` reads.

        inputs: packs of inputs by their names, side by side in one [N, F]. weights: one array per stack.
        """
        graph = self.plan.graph
        values = Values(Weights(graph, self.sizes, weights), self.sizes, next(iter(states.values())))
        for names, array in inputs.items():
            values.put(tuple(graph.inputs[name] for name in names), array)
        evaluate(self.plan.before, values, 1)
        wanted = self.adjoint.saved if keep else {}
        inner = [node for node in [*graph.outputs.values(), *wanted.values()] if node in self.plan.looped]
        final = run(self.plan, self.affine, values, states, batch_sizes, list(dict.fromkeys(inner)))
        total = sum(batch_sizes)
        outputs = {name: values.rows(node, total) for name, node in graph.outputs.items()}
        saved = {name: values.rows(node, total) for name, node in wanted.items()}
        if keep:
            used = set(self.adjoint.graph.inputs)
            saved |= {name: values.rows(leaf, total) for name, leaf in graph.inputs.items() if name in used}
        return outputs, final, saved

    def backward(
        self,
        saved: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
        final_grads: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        packs: Sequence[tuple[str, ...]],
    ) -> tuple[list[Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """The gradients of the packs of inputs [N, F], of the initial states [B, F], and of each stack of weights."""
        adjoint, schedule, graph = self.adjoint, self.backward_plan, self.backward_plan.graph
        values = Values(Weights(graph, self.sizes, weights), self.sizes, next(iter(final_grads.values())))
        total = sum(batch_sizes)
        for name, leaf in graph.inputs.items():
            values[leaf] = saved[name] if name in saved else grads[name.removeprefix("d:")]
        evaluate(schedule.before, values, total)
        states = {f"d:{name}": array for name, array in final_grads.items()}
        final = run(schedule, self.backward_affine, values, states, batch_sizes, schedule.history, backwards=True)
        evaluate(schedule.after, values, total)
        inputs = [values.pack(tuple(graph.outputs[adjoint.inputs[name]] for name in pack), total) for pack in packs]
        initial = {name.removeprefix("d:"): array for name, array in final.items()}
        stacks = {stack: self._stack_grad(stack, values, total) for stack in weights}
        return inputs, initial, stacks

    def _stack_grad(self, stack: str, values: Values, total: int) -> Tensor:
        """One large product after the loop, rather than a small one in every step."""
        adjoint, outputs = self.adjoint, self.backward_plan.graph.outputs
        members = self.plan.graph.stacks[stack]
        if not members[0].is_matrix:
            return torch.cat([values.rows(outputs[adjoint.vectors[p.name]], total).sum(0) for p in members])
        pairs = [adjoint.matrices.get(param.name, ()) for param in members]
        whole = members[0].blocks == 1
        if whole and all(len(found) == 1 for found in pairs) and len({outputs[found[0][1]] for found in pairs}) == 1:
            rows = values.pack(tuple(outputs[found[0][0]] for found in pairs), total)
            return rows.t() @ values.rows(outputs[pairs[0][0][1]], total)
        return torch.cat([self._matrix_grad(param, values, total) for param in members])

    def _matrix_grad(self, param: Param, values: Values, total: int) -> Tensor:
        outputs = self.backward_plan.graph.outputs
        rows_of, columns_of = (length(size, self.sizes) for size in param.sizes)
        grad = values.like.new_zeros(rows_of, columns_of // param.blocks)
        for rows, columns in self.adjoint.matrices.get(param.name, ()):
            grad = grad + outer(values.rows(outputs[rows], total), values.rows(outputs[columns], total), param.blocks)
        return grad


class Reference:
    name = "reference"
    rank = 0

    def refuses(self, graph: Graph, device: str, dtype: str) -> str:
        return ""

    def compile(self, graph: Graph, sizes: dict[str, int]) -> ReferenceKernel:
        return ReferenceKernel(graph, sizes)


backend = Reference()
