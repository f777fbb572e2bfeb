"""The reference backend: torch operations, any device and floating type. It is the definition: every other
backend is right when it agrees with this one in float64.

Sequences come packed: an array [N, F] holds the rows of step 0, then those of step 1, and so on, where step t
has `batch_sizes[t]` rows and the longest sequences come first. So padding is never computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor

from everloop.backends._evaluate import below, passes, work_out
from everloop.backends._loop import run_loop
from everloop.backends._scan import scan
from everloop.backends._spelling import outer
from everloop.backends._values import Values, Weights, length, width
from everloop.compiler.affine import Affine, affine
from everloop.compiler.describe import describe
from everloop.compiler.differentiate import Adjoint, differentiate
from everloop.compiler.kernel import only, part, stacks_read
from everloop.compiler.plan import Plan, plan
from everloop.compiler.saves import save
from everloop.lang.expr import Expr
from everloop.lang.graph import Graph
from everloop.lang.param import Param

NOTHING: frozenset[str] = frozenset()


class ReferenceKernel:
    """A cell, forward and backward, in torch operations. What its parameters alone decide is worked out first, as one
    row, and given to the rest like a parameter.
    """

    def __init__(self, graph: Graph, sizes: dict[str, int], loops: Loops | None = None) -> None:
        self.graph = graph
        fixed, rest = part(graph)
        loops = loops or Loops()
        self._fixed, self._rest = _Step(fixed, sizes, loops), _Step(rest, sizes, loops)

    @property
    def forward_schedule(self) -> Schedule:
        """Of the step, where nothing is kept for a backward step."""
        return self._rest.forward_schedule

    def training_schedules(self, wanted: frozenset[str]) -> tuple[Schedule, Schedule]:
        """Of the step that keeps what the gradients of these need, and of the backward step."""
        found = self._rest.backward_of(self._shared(wanted)[1])
        return found.forward, found.schedule

    @property
    def source(self) -> str:
        return describe(plan(self.graph))

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        *,
        keep: bool,
        wanted: frozenset[str] = NOTHING,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        like = inputs["x"]
        if not self._fixed.graph.outputs:
            return self._rest.forward(inputs, states, weights, batch_sizes, like, wanted if keep else None)
        of_fixed, of_rest = self._shared(wanted)
        made, _, more = self._fixed.forward({}, {}, weights, (1,), like, of_fixed if keep else None)
        vectors = {name: array[0] for name, array in made.items()}
        outputs, final, saved = self._rest.forward(
            inputs, states, {**weights, **vectors}, batch_sizes, like, of_rest if keep else None
        )
        if keep:
            saved |= {f"{FIXED}{name}": array for name, array in more.items()}
            saved |= {f"{VECTOR}{name}": array for name, array in vectors.items()}
        return outputs, final, saved

    def backward(
        self,
        saved: Mapping[str, Tensor],
        grads: Mapping[str, Tensor | None],
        final_grads: Mapping[str, Tensor | None],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        wanted: frozenset[str],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        if not self._fixed.graph.outputs:
            return self._rest.backward(saved, grads, final_grads, weights, batch_sizes, wanted)
        of_fixed, of_rest = self._shared(wanted)
        vectors = _marked(VECTOR, saved)
        inputs, initial, stacks = self._rest.backward(
            saved, grads, final_grads, {**weights, **vectors}, batch_sizes, of_rest
        )
        if of_fixed:
            handed = {name: stacks.pop(name)[None] for name in vectors}
            _, _, more = self._fixed.backward(_marked(FIXED, saved), handed, {}, weights, (1,), of_fixed)
            stacks |= {stack: stacks[stack] + grad if stack in stacks else grad for stack, grad in more.items()}
        return inputs, initial, stacks

    def _shared(self, wanted: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
        """What is wanted of the fixed values, and of the rest."""
        of_fixed = wanted & self._fixed.read
        handed = frozenset(self._fixed.graph.outputs) if of_fixed else NOTHING
        return of_fixed, wanted - (frozenset(self.graph.stacks) - self._rest.read) | handed


class Loops:
    """How the loops of plans run: here in torch, which may differentiate what runs."""

    def arrange(self, found: Plan) -> Plan:
        """The plan itself, or the same with its work divided otherwise."""
        return found

    def run(
        self,
        schedule: Schedule,
        values: Values,
        states: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        *,
        backwards: bool,
    ) -> dict[str, Tensor]:
        """What `run_loop` does: in parallel over time where the plan has an affine form, torch does not differentiate
        the run itself, and it gains something.
        """
        given, final = (values, states, batch_sizes, schedule.history), None
        if schedule.form is not None and not _differentiated(values, states):
            final = run_scan(schedule.form, *given, backwards=backwards)
        return run_loop(schedule.plan, *given, backwards=backwards) if final is None else final


# How the names of what is kept begin: for the backward step of the fixed values, and these themselves.
FIXED, VECTOR = "fixed:", "vector:"


def _marked(mark: str, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(mark): array for name, array in saved.items() if name.startswith(mark)}


# Among what is kept: a first state, which has a row for every sequence, also for those without any step.
BEGAN = "began:"


class _Step:
    """A graph forward and backward over time: what needs no past for all steps at once, the loop step by step, or,
    where it is a scan and torch does not differentiate it, in parallel over time.
    """

    def __init__(self, graph: Graph, sizes: dict[str, int], loops: Loops) -> None:
        self.plan, self.sizes, self.loops = loops.arrange(plan(graph)), sizes, loops
        self.graph = self.plan.graph
        self.read = stacks_read(self.graph)
        self._backward: dict[frozenset[str], _Backward] = {}

    @cached_property
    def forward_schedule(self) -> Schedule:
        return Schedule(self.plan, [list(self.graph.outputs.values())], self.loops)

    @cached_property
    def _adjoint(self) -> Adjoint:
        return differentiate(self.graph)

    def backward_of(self, wanted: frozenset[str]) -> _Backward:
        """The backward step for some inputs, states and stacks."""
        if wanted not in self._backward:
            adjoint = save(only(self._adjoint, self.graph, wanted), self.graph)
            self._backward[wanted] = _Backward(adjoint, self.plan, wanted, self.loops)
        return self._backward[wanted]

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        like: Tensor,
        wanted: frozenset[str] | None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """wanted: what `backward` is to find the gradient of; None: it is not to be called."""
        graph, total = self.graph, sum(batch_sizes)
        values = Values(Weights(graph, self.sizes, weights), self.sizes, like)
        values.update({leaf: inputs[name] for name, leaf in graph.inputs.items()})
        backward = None if wanted is None else self.backward_of(wanted)
        schedule = backward.forward if backward else self.forward_schedule
        final = schedule.loop(values, states, batch_sizes)
        schedule.after[0].run(values, total)
        outputs = {name: values.rows(node, total) for name, node in graph.outputs.items()}
        saved: dict[str, Tensor] = {}
        if backward:
            adjoint = backward.adjoint
            saved |= {name: values.rows(node, total) for name, node in adjoint.saved.items()}
            saved |= {name: inputs[name] for name in graph.inputs if name in adjoint.graph.inputs}
            saved[BEGAN] = next(iter(states.values()), like)
        return outputs, final, saved

    def backward(
        self,
        saved: Mapping[str, Tensor],
        grads: Mapping[str, Tensor | None],
        final_grads: Mapping[str, Tensor | None],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        wanted: frozenset[str],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        backward, total = self.backward_of(wanted), sum(batch_sizes)
        adjoint, graph = backward.adjoint, backward.graph
        like = next(grad for grad in (*grads.values(), *final_grads.values()) if grad is not None)
        values = Values(Weights(graph, self.sizes, weights), self.sizes, like)
        given = {f"d:{name}": grad for name, grad in grads.items()}
        for name, leaf in graph.inputs.items():
            values[leaf] = saved[name] if name in saved else self._or_zero(given[name], leaf, total, like)
        states = {
            name: self._or_zero(final_grads[name.removeprefix("d:")], leaf, saved[BEGAN].shape[0], like)
            for name, leaf in graph.states.items()
        }
        final = backward.schedule.loop(values, states, batch_sizes, backwards=True)
        found: dict[str, Tensor] = {}
        for name, part_of_it in zip(backward.groups, backward.schedule.after, strict=True):
            part_of_it.run(values, total)
            found[name] = (
                values.rows(graph.outputs[adjoint.inputs[name]], total)
                if name in adjoint.inputs
                else self._stack_grad(self.graph.stacks[name], backward, values, total)
            )
        initial = {name: final[f"d:{name}"] for name in self.graph.states if name in wanted}
        stacks = {name: grad for name, grad in found.items() if name not in adjoint.inputs}
        return {name: found[name] for name in adjoint.inputs}, initial, stacks

    def _or_zero(self, grad: Tensor | None, leaf: Expr, rows: int, like: Tensor) -> Tensor:
        if grad is not None:
            return grad
        return like.new_zeros(()).expand(rows, width(leaf.size, self.sizes))

    def _stack_grad(self, members: Sequence[Param], backward: _Backward, values: Values, total: int) -> Tensor:
        """One large product after the loop, rather than a small one in every step."""
        adjoint, outputs = backward.adjoint, backward.graph.outputs
        if not members[0].is_matrix:
            return torch.cat([values.rows(outputs[adjoint.vectors[p.name]], total).sum(0) for p in members])
        pairs = [adjoint.matrices.get(param.name, ()) for param in members]
        whole = members[0].blocks == 1
        if whole and all(len(found) == 1 for found in pairs) and len({outputs[found[0][1]] for found in pairs}) == 1:
            rows = values.together(tuple(outputs[found[0][0]] for found in pairs), total)
            return rows.t() @ values.rows(outputs[pairs[0][0][1]], total)
        return torch.cat([self._matrix_grad(param, backward, values, total) for param in members])

    def _matrix_grad(self, param: Param, backward: _Backward, values: Values, total: int) -> Tensor:
        outputs = backward.graph.outputs
        rows_of, columns_of = (length(size, self.sizes) for size in param.sizes)
        grad = values.like.new_zeros(rows_of, columns_of // param.blocks)
        for rows, columns in backward.adjoint.matrices.get(param.name, ()):
            grad = grad + outer(values.rows(outputs[rows], total), values.rows(outputs[columns], total), param.blocks)
        return grad


class _Backward:
    """A backward step, its schedule, and that of the forward step which keeps what it reads.

    groups: stack or input -> the outputs that its gradient is made of.
    """

    def __init__(self, adjoint: Adjoint, forward: Plan, wanted: frozenset[str], loops: Loops) -> None:
        self.adjoint, found = adjoint, loops.arrange(plan(adjoint.graph))
        self.graph = found.graph
        self.groups: dict[str, list[Expr]] = {}
        for stack, members in forward.graph.stacks.items():
            if stack in wanted:
                self.groups[stack] = [self.graph.outputs[key] for param in members for key in _keys(adjoint, param)]
        self.groups |= {name: [self.graph.outputs[key]] for name, key in adjoint.inputs.items()}
        self.schedule = Schedule(found, list(self.groups.values()), loops)
        self.forward = Schedule(forward, [[*forward.graph.outputs.values(), *adjoint.saved.values()]], loops)


def _keys(adjoint: Adjoint, param: Param) -> list[str]:
    if not param.is_matrix:
        return [adjoint.vectors[param.name]]
    return [key for pair in adjoint.matrices.get(param.name, ()) for key in pair]


class Schedule:
    """A plan ready to run. form: that of a scan. history: the values of the loop that are needed for every step.
    after: for each group of values that are wanted, what is left to do after the loop.
    """

    def __init__(self, found: Plan, groups: Sequence[Sequence[Expr]], loops: Loops) -> None:
        self.plan, self._loops, graph = found, loops, found.graph
        self.form = affine(graph) if found.kind == "scan" and graph.states else None
        fed = [*chain(*found.feeds), *found.fixed, *graph.new.values()]
        self._before, *self.after = passes((*found.before, *found.after), [fed, *groups], found.looped)
        read = self.after[0].read if self.after else set()
        self.history = [node for node in graph.nodes if node in found.looped and node in read]

    def loop(
        self, values: Values, states: Mapping[str, Tensor], batch_sizes: Sequence[int], *, backwards: bool = False
    ) -> dict[str, Tensor]:
        """Run it; the final states."""
        self._before.run(values, sum(batch_sizes))
        if not states:
            return {}
        return self._loops.run(self, values, states, batch_sizes, backwards=backwards)


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
    work_out([*form.coefficients.values(), *form.offsets.values()], scratch, sum(batch_sizes))
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
    work_out(history, scratch, sum(batch_sizes))
    values.update({node: scratch[node] for node in history})
    return found.final


class Reference:
    name = "reference"
    rank = 0

    def refuses(self, graph: Graph, device: str, dtype: str) -> str:
        return ""

    def compile(self, graph: Graph, sizes: dict[str, int], device: str, dtype: str) -> ReferenceKernel:
        return ReferenceKernel(graph, sizes)


backend = Reference()
