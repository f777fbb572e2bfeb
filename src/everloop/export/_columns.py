"""The columns of a diagram: which block stands in which, in what order and at what height.

Columns by longest path, order by barycentres with few crossings, heights so that lines are straight where they can be.
A wire that passes a column has a place in it as a block has, so that no wire can run through a block.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, permutations
from statistics import fmean

from everloop.export._flow import Block, Wire
from everloop.export._geometry import LEAD, PORT, size_of

GAP, STUB = 12, 9
BEND = 24
"""What a bend costs, in units of length."""
PATIENCE = 4
"""The search for an order ends after so many turns that brought nothing."""
FEW, MANY = 80, 300
"""Items of a diagram for which many arrangements are tried, and for which one is enough."""


@dataclass(eq=False)
class Item:
    """What has a place in a column: a block, or a value that passes it."""

    net: Block
    column: int
    block: Block | None = None
    y: float = 0
    left: list[Link] = field(default_factory=list)
    right: list[Link] = field(default_factory=list)


@dataclass(eq=False)
class Link:
    """A value between a column and the next. `a` is None for an input, that comes from below; `b` for an output."""

    net: Block
    channel: int
    a: Item | None
    b: Item | None
    wire: Wire | None = None
    end: Block | None = None
    stiffness: float = 1


Moves = dict[int, tuple[Item, float]]
"""Items with how far down each goes."""


def arrangements(blocks: list[Block]) -> list[Arrangement]:
    """The best arrangements found, states in the same order at both edges."""
    free = Arrangement(blocks)
    number = len(free.columns[0])
    if free.items > MANY:
        return [free.sort(range(number), turned=False).level()]
    if number <= 3:
        tries = [(order, turned) for order in permutations(range(number)) for turned in (False, True)]
    else:
        orders = permutations(range(number)) if number == 4 else [tuple(range(number)), free.natural()]
        tries = [(order, False) for order in orders]
    sorted_ones = [Arrangement(blocks).sort(order, turned) for order, turned in tries]
    sorted_ones.sort(key=lambda one: one.crossings)
    return [arrangement.level() for arrangement in sorted_ones[: 6 if free.items <= FEW else 2]]


class Arrangement:
    """Blocks in columns. `side` and `offset` say where a wire enters its block."""

    def __init__(self, blocks: list[Block]) -> None:
        self.all = blocks
        self.inner = [block for block in blocks if block.shape not in ("input", "output")]
        self.sizes = {id(block): size_of(block) for block in blocks}
        self.users: dict[int, list[tuple[Block, Wire]]] = {id(block): [] for block in blocks}
        for block in blocks:
            for wire in block.wires:
                self.users[id(wire.source)].append((block, wire))
        self.conveyor = self._conveyor()
        self.column = self._columns()
        self.last = max(self.column.values(), default=0)
        self._even_out()
        self.columns, self.channels = self._items()
        for link in (link for links in self.channels for link in links):
            link.stiffness = self._stiffness_of(link)
        self.side: dict[int, str] = {}
        self.offset: dict[int, float] = {}
        self.crossings = 0

    @property
    def items(self) -> int:
        return sum(map(len, self.columns))

    def natural(self) -> tuple[int, ...]:
        """The rank of each state as they come to lie when nothing holds them."""
        old, new = ([item.net for item in self.columns[k]] for k in (0, -1))
        self._sweep(None)
        position = {id(item.net): k for items in (self.columns[0], self.columns[-1]) for k, item in enumerate(items)}
        order = sorted(range(len(old)), key=lambda k: position[id(old[k])] + position[id(new[k])])
        return tuple(order.index(k) for k in range(len(old)))

    def sort(self, rank: Sequence[int], turned: bool) -> Arrangement:
        """Order the columns. `turned`: the search begins with every column upside down."""
        ends = {id(item.net): rank[k] for items in (self.columns[0], self.columns[-1]) for k, item in enumerate(items)}
        if turned:
            self.columns = [items[::-1] for items in self.columns]
        self._sweep(ends)
        return self

    def level(self) -> Arrangement:
        """Give everything its height."""
        self._heights()
        for _ in range(4):
            if not self._align():
                break
        return self

    def reach(self, item: Item, way: int) -> float:
        """How far an item reaches down (way 1) or up (-1) from its middle."""
        if item.block is None:
            return 5
        half = self.sizes[id(item.block)][1] / 2
        if item.block.shape == "dot":
            half += STUB
        return max(half, 20 if item.block.name and way < 0 else 0)

    def entry(self, link: Link) -> float:
        """The height at which a value enters the item at the right of a link."""
        assert link.b is not None
        return link.b.y + self._offset(link)

    def _conveyor(self) -> set[int]:
        """The wires by which a state goes through circles only to its new value: they are drawn as one line."""
        found: set[int] = set()
        ends = ([block for block in self.all if block.shape == shape] for shape in ("old", "new"))
        for old, new in zip(*ends, strict=True):
            ways: dict[int, tuple[Wire, ...]] = {id(new): ()}
            waiting = [new]
            while waiting and id(old) not in ways:
                block = waiting.pop(0)
                for wire in block.wires:
                    if id(wire.source) not in ways and (wire.source is old or wire.source.shape in ("dot", "pill")):
                        ways[id(wire.source)] = (*ways[id(block)], wire)
                        waiting.append(wire.source)
            found.update(map(id, ways.get(id(old), ())))
        return found

    def _columns(self) -> dict[int, int]:
        column: dict[int, int] = {}
        for block in self.inner:
            if block.shape == "old":
                column[id(block)] = 0
            elif block.shape != "new":
                column[id(block)] = 1 + max((column.get(id(wire.source), 0) for wire in block.wires), default=0)
        self._shorten(column)
        last = 1 + max(column.values(), default=0)
        column.update({id(block): last for block in self.inner if block.shape == "new"})
        return column

    def _even_out(self) -> None:
        """Gates that stand in one column are equally wide."""
        gates = [block for block in self.inner if block.headed and len(block.lines) > 1]
        widest: dict[int, float] = {}
        for block in gates:
            at = self.column[id(block)]
            widest[at] = max(widest.get(at, 0), self.sizes[id(block)][0])
        for block in gates:
            self.sizes[id(block)] = (widest[self.column[id(block)]], self.sizes[id(block)][1])

    def _shorten(self, column: dict[int, int]) -> None:
        """Move blocks to the right where that makes the wires shorter, all in all."""
        movable = [block for block in self.inner if block.shape not in ("old", "new")]
        for _ in range(4):
            for block in reversed(movable):
                users = [user for user, _ in self.users[id(block)] if id(user) in column]
                high = min((column[id(user)] for user in users), default=column[id(block)] + 1) - 1
                here = column[id(block)]
                costs = {place: self._length(block, place, column) for place in range(here, high + 1)}
                column[id(block)] = min(costs, key=lambda place: (costs[place], place)) if costs else here

    def _length(self, block: Block, place: int, column: dict[int, int]) -> int:
        column[id(block)] = place
        total = 0
        for net in [block, *{id(wire.source): wire.source for wire in block.wires}.values()]:
            ends = [column[id(user)] for user, _ in self.users[id(net)] if id(user) in column]
            if ends:
                total += max(ends) - (column[id(net)] if id(net) in column else min(ends))
        return total

    def _items(self) -> tuple[list[list[Item]], list[list[Link]]]:
        columns: list[list[Item]] = [[] for _ in range(self.last + 1)]
        channels: list[list[Link]] = [[] for _ in range(self.last + 1)]
        items = {id(b): Item(b, self.column[id(b)], b) for b in self.inner}
        for block in self.inner:
            columns[self.column[id(block)]].append(items[id(block)])
        for net in self.all:
            users = [(user, wire) for user, wire in self.users[id(net)]]
            ends = [self.column[id(user)] for user, _ in users if user.shape != "output"]
            start = self.column[id(net)] if id(net) in self.column else min(ends, default=1) - 1
            end = max(ends, default=start)
            here = items.get(id(net))
            for channel in range(start, end):
                following = [(user, wire) for user, wire in users if self.column.get(id(user)) == channel + 1]
                links = [Link(net, channel, here, items[id(user)], wire) for user, wire in following]
                if channel + 1 < end:
                    passing = Item(net, channel + 1)
                    columns[channel + 1].append(passing)
                    links.append(Link(net, channel, here, passing))
                    here = passing
                channels[channel] += links
            for end in (user for user, _ in users if user.shape == "output"):
                channels[start].append(Link(net, start, items.get(id(net)), None, end=end))
        for link in (link for links in channels for link in links):
            if link.a is not None:
                link.a.right.append(link)
            if link.b is not None:
                link.b.left.append(link)
        return columns, channels

    def _sweep(self, ends: dict[int, int] | None) -> None:
        best: tuple[int, list[list[Item]]] | None = None
        found = 0
        for turn in range(16):
            self._barycentres(turn % 2 == 0, ends)
            if turn >= 2:
                self._swap(ends)
            count = sum(self._crossings(k) for k in range(self.last))
            if best is None or count < best[0]:
                found, best = turn, (count, [list(items) for items in self.columns])
            elif turn - found == PATIENCE:
                break
        assert best is not None
        self.crossings, self.columns = best

    def _barycentres(self, forward: bool, ends: dict[int, int] | None) -> None:
        """Column by column, order the items by where those lie that they are tied to in the column before."""
        for k in range(self.last + 1) if forward else range(self.last, -1, -1):
            items = self.columns[k]
            if ends is not None and k in (0, self.last):
                items.sort(key=lambda item: ends[id(item.net)])
                continue
            near = k - 1 if forward else k + 1
            beside = self.columns[near] if 0 <= near <= self.last else []
            place = {id(item): p for p, item in enumerate(beside)}
            weight = {
                id(item): _mean_place(item, place, len(beside), p / len(items), forward) for p, item in enumerate(items)
            }
            items.sort(key=lambda item: weight[id(item)])

    def _swap(self, ends: dict[int, int] | None) -> None:
        """Swap neighbours where that takes crossings away."""
        for k, items in enumerate(self.columns):
            if (ends is not None and k in (0, self.last)) or len(items) > 60:
                continue
            left = {id(item): p for p, item in enumerate(self.columns[k - 1])} if k else {}
            right = {id(item): p for p, item in enumerate(self.columns[k + 1])} if k < self.last else {}
            seen = {
                id(item): (
                    sorted(len(left) if link.a is None else left[id(link.a)] for link in item.left),
                    sorted(-1 if link.b is None else right[id(link.b)] for link in item.right),
                )
                for item in items
            }
            for p in range(len(items) - 1):
                a, b = seen[id(items[p])], seen[id(items[p + 1])]
                now = sum(_inversions(x, y) for x, y in zip(a, b, strict=True))
                then = sum(_inversions(y, x) for x, y in zip(a, b, strict=True))
                if then < now:
                    items[p], items[p + 1] = items[p + 1], items[p]

    def _crossings(self, channel: int) -> int:
        left = {id(item): p for p, item in enumerate(self.columns[channel])}
        right = {id(item): p for p, item in enumerate(self.columns[channel + 1])}
        pairs = sorted(
            (len(left) if link.a is None else left[id(link.a)], -1 if link.b is None else right[id(link.b)])
            for link in self.channels[channel]
        )
        seen: list[int] = []
        count = 0
        for _, b in pairs:
            count += len(seen) - bisect_right(seen, b)
            insort(seen, b)
        return count

    def _heights(self) -> None:
        for items in self.columns:
            y = 0.0
            for above, item in zip([None, *items], items, strict=False):
                y += self._distance(above, item) if above else 0
                item.y = y
            for item in items:
                item.y -= y / 2
        for turn in range(24):
            self._level(turn, _pull_mean)
        for item in (item for items in self.columns for item in items):
            item.y = float(round(item.y))
        self._ports()
        for turn in range(12):
            self._level(turn, _pull_median)
            if turn in (3, 7):
                self._ports()

    def _level(self, turn: int, pull: Callable[[list[tuple[float, float]]], float]) -> None:
        forward = turn % 2 == 0
        for items in self.columns if forward else reversed(self.columns):
            wishes = [self._wishes(item, turn) for item in items]
            gaps = [self._distance(a, b) for a, b in pairwise(items)]
            for item, y in zip(items, _spread(wishes, gaps, pull), strict=True):
                item.y = y

    def _align(self) -> bool:
        """Move items that lie on one straight line together, where that makes other lines straight."""
        moved = False
        beside = [
            {id(a): b for items in self.columns for a, b in pairwise(items)},
            {id(b): a for items in self.columns for a, b in pairwise(items)},
        ]
        done: set[int] = set()
        for first in (item for items in self.columns for item in items):
            if id(first) in done:
                continue
            group = self._straight(first)
            inside = set(map(id, group))
            done |= inside
            wanted = dict.fromkeys(
                self._bend(link) * (1 if id(link.b) in inside else -1)
                for link in _links(group)
                if (id(link.a) in inside) != (id(link.b) in inside)
            )
            gains = {move: self._gain(self._pushed(group, move, beside)) for move in wanted if move}
            best = max(gains, key=lambda move: (gains[move], -abs(move)), default=0)
            if best and gains[best] > 0.01:
                moved = True
                for item, by in self._pushed(group, best, beside).values():
                    item.y += by
        return moved

    def _pushed(self, group: list[Item], move: float, beside: list[dict[int, Item]]) -> Moves:
        """The items that move if a group does: it pushes those before it as far as it must."""
        moves: Moves = {id(item): (item, move) for item in group}
        waiting = list(group)
        down = move > 0
        while waiting:
            item = waiting.pop()
            other = beside[0 if down else 1].get(id(item))
            if other is None:
                continue
            upper, lower = (item, other) if down else (other, item)
            at = {key: one.y + moves.get(key, (one, 0.0))[1] for key, one in ((id(upper), upper), (id(lower), lower))}
            lack = self._distance(upper, lower) - (at[id(lower)] - at[id(upper)])
            if lack > 0:
                moves[id(other)] = other, moves.get(id(other), (other, 0.0))[1] + (lack if down else -lack)
                waiting.append(other)
        return moves

    def _gain(self, moves: Moves) -> float:
        gain = 0.0
        for link in _links([item for item, _ in moves.values()]):
            bend, by = self._bend(link), [moves.get(id(item), (item, 0.0))[1] for item in (link.a, link.b)]
            after = abs(bend + by[0] - by[1])
            gain += link.stiffness * (abs(bend) - after + BEND * ((bend != 0) - (after != 0)))
        return gain

    def _straight(self, first: Item) -> list[Item]:
        group, seen = [first], {id(first)}
        for item in group:
            for link in (*item.left, *item.right):
                if link.a is None or link.b is None or self._bend(link):
                    continue
                for other in (link.a, link.b):
                    if id(other) not in seen:
                        seen.add(id(other))
                        group.append(other)
        return group

    def _bend(self, link: Link) -> float:
        """How far down the right end of a line must go to lie level with the left one."""
        assert link.a is not None
        assert link.b is not None
        return link.a.y - link.b.y - self._offset(link)

    def _wishes(self, item: Item, turn: int) -> list[tuple[float, float]]:
        """Where an item would have straight lines, with weights: lines that pass columns are straight first."""
        wishes = [(item.y, 0.01)]
        for link in _links([item]):
            assert link.a is not None
            assert link.b is not None
            other, way = (link.b, 1) if link.a is item else (link.a, -1)
            wishes.append((other.y + way * self._offset(link), link.stiffness))
        return wishes

    def _stiffness_of(self, link: Link) -> float:
        """How much a line should be straight: most where it passes columns or carries a state."""
        if id(link.wire) in self.conveyor:
            return 6
        passing = [item is not None and item.block is None for item in (link.a, link.b)]
        ends = [
            item is not None and item.block is not None and item.block.shape in ("old", "new")
            for item in (link.a, link.b)
        ]
        alone = link.a is not None and link.b is not None and len(link.a.right) == len(link.b.left) == 1
        return 8 if all(passing) else 3 if any(passing) or any(ends) else 2 if alone else 1

    def _offset(self, link: Link) -> float:
        return self.offset.get(id(link.wire), 0) if link.wire is not None else 0

    def _distance(self, above: Item, below: Item) -> float:
        return (
            self.reach(above, 1) + self.reach(below, -1) + GAP - 4 * (above.block is None) - 4 * (below.block is None)
        )

    def _ports(self) -> None:
        """Where each wire enters its block: in the order in which the sources lie."""
        for item in (item for items in self.columns for item in items):
            if item.block is None:
                continue
            links = [link for link in item.left if link.wire is not None]
            far = {id(link): link.a.y - item.y if link.a is not None else float("inf") for link in links}
            height = self.sizes[id(item.block)][1]
            if item.block.shape == "rows":
                rows = [line[0].text.strip() for line in item.block.lines]
                for link in links:
                    assert link.wire is not None
                    self._port(link, "left", (rows.index(link.wire.mark) - (len(rows) - 1) / 2) * LEAD)
            elif item.block.shape == "dot" and len(links) <= 3:
                self._dot_ports(links, far, height / 2)
            else:
                ordered = sorted(links, key=lambda link: far[id(link)])
                step = LEAD if item.block.shape == "dot" else PORT
                for k, link in enumerate(ordered):
                    self._port(link, "left", round((k - (len(links) - 1) / 2) * step))

    def _dot_ports(self, links: list[Link], far: dict[int, float], radius: float) -> None:
        """A circle is entered from the left, from above and from below."""
        fixed = [link for link in links if link.wire is not None and link.wire.below]
        free = sorted((link for link in links if link not in fixed), key=lambda link: far[id(link)])
        sides = ["below"] * len(fixed)
        if len(links) == 1 or fixed:
            order = [*free, *fixed]
            sides = ["left"] * len(free) + sides
        elif len(links) == 3:
            order, sides = free, ["above", "left", "below"]
        else:
            upper, _ = free
            straight = min(free, key=lambda link: (id(link.wire) not in self.conveyor, abs(far[id(link)])))
            order, sides = free, ["left", "below"] if straight is upper else ["above", "left"]
        reach = radius + STUB
        for link, side in zip(order, sides, strict=True):
            self._port(link, side, {"left": 0, "above": -reach, "below": reach}[side])

    def _port(self, link: Link, side: str, offset: float) -> None:
        self.side[id(link.wire)], self.offset[id(link.wire)] = side, offset


def _links(items: Iterable[Item]) -> list[Link]:
    """The lines between items that some of these are at an end of."""
    links = {id(link): link for item in items for link in (*item.left, *item.right)}
    return [link for link in links.values() if link.a is not None and link.b is not None]


def _mean_place(item: Item, place: dict[int, int], beside: int, own: float, forward: bool) -> float:
    """The mean place of what an item is tied to in the column beside; inputs lie below it, outputs above."""
    if forward:
        places = [beside if link.a is None else place[id(link.a)] for link in item.left]
    else:
        places = [-1 if link.b is None else place[id(link.b)] for link in item.right]
    return fmean(places) if places else own * beside


def _inversions(above: list[int], below: list[int]) -> int:
    """How many pairs cross if the first item lies above the second."""
    return sum([bisect_left(below, place) for place in above])


def _pull_mean(wishes: list[tuple[float, float]]) -> float:
    return sum(place * weight for place, weight in wishes) / sum(weight for _, weight in wishes)


def _pull_median(wishes: list[tuple[float, float]]) -> float:
    half = sum(weight for _, weight in wishes) / 2
    for place, weight in sorted(wishes):
        half -= weight
        if half <= 0:
            return place
    raise ValueError("no wishes")


def _spread(
    wishes: list[list[tuple[float, float]]],
    gaps: list[float],
    pull: Callable[[list[tuple[float, float]]], float],
) -> list[float]:
    """The heights nearest to the wishes that keep the order and the gaps: items that meet move as one."""
    pools: list[tuple[list[tuple[float, float]], int, float]] = []
    starts = [0.0, *accumulate(gaps)]
    for start, own in zip(starts, wishes, strict=True):
        pool = [(place - start, weight) for place, weight in own]
        pools.append((pool, 1, pull(pool)))
        while len(pools) > 1 and pools[-2][2] >= pools[-1][2]:
            (upper, m, _), (lower, n, _) = pools[-2:]
            pools[-2:] = [(upper + lower, m + n, pull(upper + lower))]
    places = [place for _, number, place in pools for _ in range(number)]
    return [place + start for place, start in zip(places, starts, strict=True)]
