"""The reference backend: torch operations, any device and floating type. It is the definition: every other
backend is right when it agrees with this one in float64.

Sequences come packed: an array [N, F] holds the rows of step 0, then those of step 1, and so on, where step t
has `batch_sizes[t]` rows and the longest sequences come first. So padding is never computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain

import torch
from torch import Tensor

from everloop.backends._scan import scan
from everloop.backends._spelling import SPELLING, cumulative, multiply_blocks, outer
from everloop.backends._values import Values, Weights, length
from everloop.compiler.affine import Affine, affine
from everloop.compiler.describe import describe
from everloop.compiler.differentiate import Adjoint, differentiate
from everloop.compiler.plan import Plan, Stage, plan
from everloop.compiler.saves import save
from everloop.lang.expr import Expr, toposort
from everloop.lang.graph import Graph
from everloop.lang.param import Param


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
                values[node] = cumulative(values[node.args[0]], node.attr)
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
    final = None
    if form is not None and not _differentiated(values, states):
        final = run_scan(form, values, states, batch_sizes, history, backwards=backwards)
    return run_loop(schedule, values, states, batch_sizes, history, backwards=backwards) if final is None else final


def _differentiated(values: Values, states: Mapping[str, Tensor]) -> bool:
    """Whether torch keeps a record of the run, to differentiate it."""
    given = chain(values.values(), states.values(), values.weights.stacks.values())
    return torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in given)


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
