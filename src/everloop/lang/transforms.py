"""From cell to cell: a transform rewrites the graph of any cell, and gives a cell.

    zoneout(lstm, h=0.1, c=0.5)       residual(layer_norm(gru))

A transform knows nothing of the cell that it is given: it changes states, products or parameters by name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from everloop.lang.cell import Cell
from everloop.lang.draw import Draw
from everloop.lang.expr import Expr, rebuild
from everloop.lang.functions import carry_composites, norm
from everloop.lang.graph import Graph
from everloop.lang.param import Param

__all__ = ["layer_norm", "multiplicative_integration", "recurrent_dropout", "residual", "tie", "zoneout"]


def residual(cell: Cell) -> Cell:
    """The input is added to the output: y + x. The states are as before.

    The output takes the size of the input, so a layer of it has as many units as input features.
    He et al. 2015, Deep Residual Learning; for recurrent stacks Wu et al. 2016 (GNMT).
    """
    return cell.rewritten(Residual())


def zoneout(cell: Cell, share: float | None = None, /, **shares: float) -> Cell:
    """In training, each unit of a state keeps its old value with a probability; in evaluation, the mean of both.

    zoneout(gru, 0.1) for all states, zoneout(lstm, h=0.05, c=0.5) for some.
    Krueger et al. 2016, Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations.
    """
    if (share is None) != bool(shares):
        raise TypeError(
            "zoneout: one share for all states, as in zoneout(gru, 0.1), or one by name: zoneout(lstm, c=0.5)"
        )
    given = shares if share is None else dict.fromkeys(cell.states, share)
    for name, part in given.items():
        _check_state("zoneout", cell, name)
        _check_share("zoneout", part)
    return cell.rewritten(Zoneout(tuple(given.items())))


def recurrent_dropout(cell: Cell, share: float, state: str = "") -> Cell:
    """In training, a share of the units of a state is not seen by the step: one mask for the whole sequence.

    state: which one (the first). What is seen is scaled by 1 / (1 - share), so that evaluation needs no change.
    Gal, Ghahramani 2016, A Theoretically Grounded Application of Dropout in Recurrent Neural Networks.
    torch: `dropout` acts between layers only. Keras: recurrent_dropout, with one mask for all gates too.
    """
    _check_share("recurrent_dropout", share)
    name = state or next(iter(cell.states))
    _check_state("recurrent_dropout", cell, name)
    return cell.rewritten(RecurrentDropout(name, share))


def layer_norm(cell: Cell, eps: float = 1e-5) -> Cell:
    """Every product of a matrix is normalised over its features, with a gain of its own that starts at 1.

    The gains of `W.i` are `gain_W.i`. The shift is the bias that the cell has anyway.
    Ba, Kiros, Hinton 2016. There, the gates of an LSTM are normalised jointly: that is the cell `layernorm_lstm`.
    """
    return cell.rewritten(LayerNorm(eps))


def tie(cell: Cell, same: Mapping[str, str]) -> Cell:
    """Some parameters are others: `tie(lstm, {"W.f": "W.i"})`, or whole families, `tie(lstm, {"U": "W"})`.

    Left, what disappears; right, what is used in its place, and whose sizes it takes: with U = W, a layer has as many
    units as input features.
    """
    return cell.rewritten(Tie(tuple(same.items())))


def multiplicative_integration(cell: Cell) -> Cell:
    """Wherever W x and U h are added, alpha W x U h + beta U h + gamma W x is there instead.

    alpha, beta and gamma are vectors with one member per gate; they start at 1, 1 and 1 and are trained.
    Wu et al. 2016, On Multiplicative Integration with Recurrent Neural Networks.
    """
    return cell.rewritten(MultiplicativeIntegration())


@dataclass(frozen=True)
class Residual:
    name = "residual"

    def __call__(self, graph: Graph) -> Graph:
        x, output = graph.inputs["x"], graph.outputs["y"]
        if output.size is None or x.size is None:
            raise TypeError(f"residual: the output of {graph.name} is one number per row")
        output.size.become(x.size)
        y = output + x
        return dataclasses.replace(graph, outputs=graph.outputs | {"y": y}, names=graph.names | {y: "y"})


@dataclass(frozen=True)
class Zoneout:
    shares: tuple[tuple[str, float], ...]
    name = "zoneout"

    def __call__(self, graph: Graph) -> Graph:
        inputs, draws, new, names = dict(graph.inputs), dict(graph.draws), dict(graph.new), dict(graph.names)
        for state, share in self.shares:
            old, made = graph.states[state], graph.new[state]
            mask = Expr("input", (), _fresh(f"keep_{state}", graph), old.size)
            inputs[mask.attr], draws[mask.attr] = mask, Draw("bernoulli", share)
            new[state] = mask * old + (1 - mask) * made
            names |= {made: f"{state}_new", new[state]: state}
        # The step goes on with its own new values, as in the paper: only what is handed on is mixed, and the output.
        mixed = dict(zip(graph.new.values(), new.values(), strict=True))
        outputs = {name: mixed.get(value, value) for name, value in graph.outputs.items()}
        return dataclasses.replace(graph, inputs=inputs, draws=draws, new=new, outputs=outputs, names=names)


@dataclass(frozen=True)
class RecurrentDropout:
    state: str
    share: float
    name = "recurrent_dropout"

    def __call__(self, graph: Graph) -> Graph:
        old = graph.states[self.state]
        mask = Expr("input", (), _fresh(f"mask_{self.state}", graph), old.size)
        draw = Draw("bernoulli", 1 - self.share, 1 / (1 - self.share), "sequence")
        inputs, draws = graph.inputs | {mask.attr: mask}, graph.draws | {mask.attr: draw}
        return dataclasses.replace(graph.replace({old: mask * old}), inputs=inputs, draws=draws)


@dataclass(frozen=True)
class LayerNorm:
    eps: float
    name = "layer_norm"

    def __call__(self, graph: Graph) -> Graph:
        params = dict(graph.params)

        def normalised(product: Expr) -> Expr:
            param = graph.params[product.attr[0]]
            return _vector(params, f"gain_{param.family}", param) * norm(product, self.eps)

        made = _rewritten(graph, {node: normalised for node in graph.nodes if node.op == "matmul"})
        return _with_ones(made, params)


@dataclass(frozen=True)
class Tie:
    pairs: tuple[tuple[str, str], ...]
    name = "tie"

    def __call__(self, graph: Graph) -> Graph:
        if any(param.made is not None for param in graph.params.values()):
            raise TypeError(f"tie: {graph.name} has matrices made of others, which cannot be tied")
        same: dict[str, str] = {}
        for gone, kept in self.pairs:
            same |= self._members(gone, kept, graph)
        for gone, kept in same.items():
            if kept in same or kept not in graph.params:
                left = ", ".join(name for name in graph.params if name not in same)
                raise TypeError(f"tie: {gone} cannot be {kept}; there are {left}")
            self._unify(graph.params[gone], graph.params[kept])

        def renamed(node: Expr) -> Expr:
            if node.op == "vector":
                return Expr("vector", (), same[node.attr], graph.params[same[node.attr]].sizes[0])
            return Expr(node.op, node.args, tuple(same.get(name, name) for name in node.attr), node.size)

        tied = [
            n for n in graph.nodes if (n.op == "vector" and n.attr in same) or (n.op == "matmul" and n.attr[0] in same)
        ]
        made = _rewritten(graph, dict.fromkeys(tied, renamed))
        init = {name: value for name, value in graph.init.items() if name not in same}
        return dataclasses.replace(
            made, params={name: param for name, param in graph.params.items() if name not in same}, init=init
        )

    @staticmethod
    def _members(gone: str, kept: str, graph: Graph) -> dict[str, str]:
        if "." in gone:
            found = {gone: kept} if gone in graph.params else {}
        else:
            found = {p.name: f"{kept}.{p.slot}" for p in graph.params.values() if p.family == gone}
        if not found:
            raise TypeError(f"tie: {graph.name} has no parameter {gone!r}; it has {', '.join(graph.params)}")
        return found

    @staticmethod
    def _unify(gone: Param, kept: Param) -> None:
        if len(gone.sizes) != len(kept.sizes) or gone.blocks != kept.blocks:
            raise TypeError(f"tie: {gone.name} and {kept.name} are not of one form")
        for mine, other in zip(gone.sizes, kept.sizes, strict=True):
            mine.become(other)


@dataclass(frozen=True)
class MultiplicativeIntegration:
    name = "multiplicative_integration"

    def __call__(self, graph: Graph) -> Graph:
        params = dict(graph.params)

        def integrated(sum_of_both: Expr) -> Expr:
            of_x, of_h = sum_of_both.args
            param = graph.params[of_x.attr[0]]
            alpha, beta, gamma = (_vector(params, family, param) for family in ("alpha", "beta", "gamma"))
            return alpha * of_x * of_h + beta * of_h + gamma * of_x

        found = [node for node in graph.nodes if self._meets(node, graph)]
        if not found:
            raise TypeError(f"multiplicative_integration: {graph.name} nowhere adds W x and U h")
        return _with_ones(_rewritten(graph, dict.fromkeys(found, integrated)), params)

    @staticmethod
    def _meets(node: Expr, graph: Graph) -> bool:
        """Whether a node is W x + U h, of one gate."""
        return (
            node.op == "add"
            and all(arg.op == "matmul" for arg in node.args)
            and node.args[0] not in graph.depends
            and node.args[1] in graph.depends
        )


def _rewritten(graph: Graph, changes: Mapping[Expr, Callable[[Expr], Expr]]) -> Graph:
    """The graph with some values changed by a function, from the leaves up: it is given the value rebuilt."""
    done: dict[Expr, Expr] = {}
    for node in graph.nodes:
        made = rebuild(node, tuple(done[arg] for arg in node.args))
        done[node] = changes[node](made) if node in changes else made
    carry_composites(done)
    return dataclasses.replace(
        graph,
        new={name: done[value] for name, value in graph.new.items()},
        outputs={name: done[value] for name, value in graph.outputs.items()},
        names={done.get(value, value): name for value, name in graph.names.items()},
    )


def _vector(params: dict[str, Param], family: str, beside: Param) -> Expr:
    """A vector of its own for each product, as long as what it makes."""
    slot = beside.slot or "h"
    param = Param(re.sub(r"\W", "", family), slot, (beside.sizes[0],))
    if param.name in params and params[param.name].sizes[0].root() is not param.sizes[0].root():
        raise TypeError(f"{param.name} is a parameter of the cell already")
    params.setdefault(param.name, param)
    return Expr("vector", (), param.name, param.sizes[0])


def _with_ones(graph: Graph, params: dict[str, Param]) -> Graph:
    """With more parameters, which start at 1."""
    return dataclasses.replace(
        graph,
        params=params,
        init=dict.fromkeys((name for name in params if name not in graph.params), 1.0) | graph.init,
    )


def _fresh(name: str, graph: Graph) -> str:
    taken = {*graph.inputs, *graph.states, *(param.family for param in graph.params.values())}
    while name in taken:
        name += "_"
    return name


def _check_state(what: str, cell: Cell, name: str) -> None:
    if name not in cell.states:
        raise TypeError(f"{what}: {cell.name} has no state {name!r}; it has {', '.join(cell.states)}")


def _check_share(what: str, share: float) -> None:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise TypeError(f"{what}: {share!r} came; expected a share of 0 or more and less than 1")
