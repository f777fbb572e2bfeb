"""One problem, everybody who can solve it, one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from everloop import explain
from everloop.bench import peers
from everloop.bench.goals import goal
from everloop.bench.measure import compare
from everloop.bench.options import Options
from everloop.bench.problem import Problem, disagreements, ours
from everloop.bench.row import OURS, Check, Figure, Row


def contest(
    group: str, problem: Problem, options: Options, beside: Mapping[str, Callable[[], object]] | None = None
) -> Row:
    """Ours and all peers: who computes the same is timed. beside: what is timed too, but solves something else."""
    mine = ours(problem)
    rivals = peers.rivals(problem)
    wrong = disagreements(problem, rivals, mine)
    timed: dict[str, Callable[[], object]] = {OURS: mine.run}
    timed |= {name: rival.run for name, rival in rivals.items() if name not in wrong}
    figures = measured(timed | dict(beside or {}), options)
    checks = [check(name, problem, figures) for name in figures if name in rivals]
    rate = problem.flops / figures[OURS].median / 1e9
    return row(group, problem, options, figures, checks, rate=rate, rate_unit="GFLOP/s", wrong=list(wrong.values()))


def measured(timed: Mapping[str, Callable[[], object]], options: Options) -> dict[str, Figure]:
    return compare(timed, repeats=options.repeats, seconds=options.seconds, threads=options.threads)


def check(peer: str, problem: Problem, figures: Mapping[str, Figure]) -> Check:
    """The peer's time over ours, and what was promised of it."""
    batch, _, _, units = problem.shape
    promised = goal(peer, problem.cell.name, problem.what, batch, units)
    return Check(peer, figures[peer].median / figures[OURS].median, promised, figure=peer)


def row(
    group: str, problem: Problem, options: Options, figures: dict[str, Figure], checks: list[Check], **more: Any
) -> Row:
    """What every row says of its problem."""
    name, what = problem.cell.name, problem.what
    return Row(group, name, problem.shape, what, options.threads, figures, checks, backend=backend(problem), **more)


def backend(problem: Problem) -> str:
    """Who computes ours: once it has run, the reference where the preferred one failed to compile it."""
    if problem.what == "step":
        engine = problem.layer.stream(batch=1).engine  # type: ignore[operator]
        return type(engine.step).__module__.rpartition(".")[2]
    return explain(problem.layer).parts[0].backend
