"""The loop of a plan in torch, one time step after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from everloop.backends._evaluate import evaluate
from everloop.backends._values import Values, width
from everloop.compiler.plan import Plan
from everloop.lang.expr import Expr


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
        return values.like.new_empty(self.total, sum(width(node.size, values.sizes) for node in nodes))

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
