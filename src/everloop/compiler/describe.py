"""A plan as text: what runs before, in and after the loop."""

from __future__ import annotations

from collections.abc import Mapping

from everloop.compiler.cost import measure
from everloop.compiler.plan import Plan, Stage, label
from everloop.lang.expr import Expr
from everloop.lang.param import write_matrix

KINDS = {
    "recurrent": "recurrent: units meet inside the loop",
    "diagonal": "diagonal: each unit's loop is its own; no matrix product in it",
    "scan": "scan: affine in the state, with coefficients free of it; parallel in time",
}


def describe(schedule: Plan, sizes: Mapping[str, int] | None = None) -> str:
    """The schedule, one line a product or value: names are the cell's own, the others t1, t2, ...

    sizes: lengths of the sizes by name; with them, what a step costs.
    """
    graph = schedule.graph
    labels = label(graph)
    lines = [KINDS[schedule.kind], "", "parameters, one array per line"]
    for stack, members in graph.stacks.items():
        rows = " + ".join(str(param.sizes[0]) for param in members)
        columns = f" x {members[0].sizes[1]}" if members[0].is_matrix else ""
        heads = f" in {members[0].blocks} blocks" if members[0].blocks > 1 else ""
        lines.append(f"  {stack:<4} [{rows}{columns}]{heads}  {' '.join(param.name for param in members)}")
    made = [param for param in graph.params.values() if param.made is not None]
    delayed = [name for name in graph.inputs if name in schedule.early]
    if delayed:
        lines += ["", "states that need no past, known for all steps before the loop: " + ", ".join(delayed)]
    if made:
        lines += ["", "matrices made of others, once for all steps"]
        lines += [f"  {param.name} = {write_matrix(param.made)}" for param in made if param.made is not None]
    parts = (
        ("before the loop, for all steps at once", schedule.before),
        ("in the loop, step by step", schedule.stages),
        ("after the loop, for all steps at once", schedule.after),
    )
    for title, stages in parts:
        lines += ["", title + ("" if stages else ": nothing")]
        for number, stage in enumerate(stages, 1):
            if len(stages) > 1:
                lines.append(f"  stage {number}")
            lines += [f"  {line}" for line in _stage(stage, labels)]
    new = ", ".join(f"{name} <- {_show(node, labels)}" for name, node in graph.new.items())
    lines += ["", f"new states: {new}"]
    return "\n".join(lines if sizes is None else [*lines, "", *_costs(schedule, sizes)])


def _costs(schedule: Plan, sizes: Mapping[str, int]) -> list[str]:
    cost = measure(schedule, sizes)
    lines = [
        f"for {', '.join(f'{name} {length}' for name, length in sizes.items())}, in numbers of 4 bytes",
        f"  parameters                {cost.parameters:>12,}",
    ]
    for title, work in (("before the loop", cost.before), ("in the loop", cost.loop), ("after the loop", cost.after)):
        of = f"of products {work.products:,}, of divisions, exp and the like {work.costly:,}"
        lines.append(f"  FLOPs {title:<20}{work.flops:>12,}   a step; {of}")
    return [
        *lines,
        f"  bytes of weights read     {cost.weights:>12,}   a step, once for all sequences of a batch",
        f"  bytes read, fed to loop   {cost.fed:>12,}   a step and sequence",
        f"  bytes of state, old, new  {cost.state:>12,}   a step and sequence",
        f"  bytes of history kept     {cost.kept:>12,}   a step and sequence",
    ]


def _stage(stage: Stage, labels: dict[Expr, str]) -> list[str]:
    lines = []
    for product in stage.products:
        stacked = ", ".join(product.matrices)
        mark = "ᵀ" if product.op == "matmul_t" else ""
        vectors = ", ".join(_show(arg, labels) for arg in product.args)
        plus = f" + [{', '.join(_show(node, labels) for node in product.plus)}]" if product.plus else ""
        results = ", ".join(_show(node, labels) for node in product.results)
        lines.append(f"[{results}] = [{stacked}]{mark} @ [{vectors}]{plus}")
    return lines + [
        f"{labels[node]} = {node.op}({', '.join(_show(arg, labels) for arg in node.args)})" for node in stage.nodes
    ]


def _show(node: Expr, labels: dict[Expr, str]) -> str:
    if node.op == "const":
        return f"{node.attr:g}"
    return {"count": "n", "index": "position"}.get(node.op) or labels[node]
