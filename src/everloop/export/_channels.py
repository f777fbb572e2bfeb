"""The vertical lines between two columns of a diagram, and their tracks: no line lies on another."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from everloop.export._flow import Block

TRACK = 12
NEAR = 7
"""Lines of different values that run beside each other are at least so far apart."""
FAR = 1e9
"""The height of what comes from below the diagram or leaves it above."""


@dataclass(eq=False)
class Trunk:
    """The vertical line of a value in a channel, with the heights at which it is left to either side."""

    net: Block
    left: float | None
    rights: list[float]
    low: float
    high: float
    width: float = TRACK
    x: float = 0


def tracks(trunks: list[Trunk]) -> list[list[Trunk]]:
    """The vertical lines by track, left to right."""
    return _packed(_untangled(_sorted(trunks)))


def _must_precede(a: Trunk, b: Trunk) -> bool:
    """Whether a must lie left of b: it is reached at the height at which b is left."""
    return a.left is not None and any(abs(a.left - y) < NEAR for y in b.rights)


def _cost(a: Trunk, b: Trunk) -> int:
    """Crossings if a lies left of b, and a thousand if lines would lie on each other."""
    count = sum(b.low < y < b.high for y in a.rights)
    count += b.left is not None and a.low < b.left < a.high
    return count + 1000 * _must_precede(b, a)


def _sorted(trunks: list[Trunk]) -> list[Trunk]:
    """From left to right with few crossings: each is taken out and put where it fits best, until none moves."""
    order = list(trunks)
    for _ in range(6):
        moved = False
        for trunk in trunks:
            here = order.index(trunk)
            rest = order[:here] + order[here + 1 :]
            cost = sum(_cost(trunk, other) for other in rest)
            costs = [cost]
            for other in rest:
                cost += _cost(other, trunk) - _cost(trunk, other)
                costs.append(cost)
            best = min(range(len(costs)), key=lambda k: (costs[k], abs(k - here)))
            if costs[best] < costs[here]:
                order, moved = [*rest[:best], trunk, *rest[best:]], True
        if not moved:
            break
    return order


def _untangled(order: list[Trunk]) -> list[Trunk]:
    """Where two values would need to lie left of each other, one of them steps aside at the left first."""
    taken = [y for trunk in order for y in (trunk.left, *trunk.rights) if y is not None]
    aside: list[Trunk] = []
    for k, trunk in enumerate(order):
        if trunk.left is None or not any(_must_precede(trunk, before) for before in order[:k]):
            continue
        tries = (trunk.left + sign * step * NEAR for step in count(1) for sign in (1, -1))
        y = next(y for y in tries if all(abs(y - other) >= NEAR for other in taken))
        taken.append(y)
        aside.append(Trunk(trunk.net, trunk.left, [y], min(trunk.left, y), max(trunk.left, y)))
        heights = [y, *trunk.rights]
        trunk.left = y
        trunk.low = trunk.low if trunk.low < -FAR / 2 else min(heights)
        trunk.high = max(heights)
    return [*aside, *order]


def _packed(order: list[Trunk]) -> list[list[Trunk]]:
    """Trunks that do not meet share a track."""
    lanes: list[list[Trunk]] = []
    place: list[int] = []
    for k, trunk in enumerate(order):
        lane = 0
        for other, at in zip(order[:k], place, strict=True):
            apart = trunk.low - NEAR > other.high or other.low - NEAR > trunk.high
            if not apart or _must_precede(other, trunk) or other.net is trunk.net:
                lane = max(lane, at + 1)
        place.append(lane)
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append(trunk)
    return lanes
