"""The Triton source of one loop: templates, which say how a program goes over sequences, steps and units."""

from __future__ import annotations

from collections.abc import Sequence

from everloop.backends._evaluate import below
from everloop.backends.triton.choose import Choice, Loop
from everloop.backends.triton.writer import Writer, both, past
from everloop.lang.expr import Expr


class Source(Writer):
    """text: a module with one kernel, `loop`. After its arrays come lengths, offsets, arrived, failed, the number of
    sequences, and the first of them that this launch runs.
    """

    def __init__(
        self, loop: Loop, choice: Choice, history: Sequence[Expr], real: str, held: str, backwards: bool
    ) -> None:
        super().__init__(loop, choice, history, real, held, backwards)
        if choice.template == "scan":
            self._scan()
        else:
            self._over_time()
        self.text = self.module()

    def _over_time(self) -> None:
        """One program per block of sequences and part of the units, one step after another."""
        choice, graph = self.choice, self.graph
        self.line(f"b = begin + tl.program_id(0) * {choice.sequences} + tl.arange(0, {choice.sequences})[:, None]")
        self.line("present = b < sequences")
        self.line("length = tl.load(lengths + b, mask=present, other=0)")
        self.line(f"longest = tl.load(lengths + begin + tl.program_id(0) * {choice.sequences})")
        self.keep_matrices()
        constants = self.read_constants()
        states = self._states()
        if choice.template == "split":
            self.line("slot = 0")
            self.line("all_here = 0")
            for name, leaf in graph.states.items():
                self.hand_out(leaf, states[name])
        stale = set(self.stale)
        # Where units do not meet, nothing but memory is waited for: loads are in flight some steps ahead.
        ahead = ", num_stages=4" if choice.template == "diagonal" else ""
        self.line(f"for k in tl.range(0, longest{ahead}):")
        self.indent += 1
        self.line("t = longest - 1 - k" if self.backwards else "t = k")
        self.line("on = t < length")
        self.line("row = tl.load(offsets + t) + b")
        known = constants | {leaf: states[name] for name, leaf in graph.states.items()}
        self._stages(known, "row", "on")
        news = {name: self.tile(node, known, "row", "on") for name, node in graph.new.items()}
        shaped = [f"new{k}" for k in range(len(news))]
        for new, (name, value) in zip(shaped, news.items(), strict=True):
            self.line(f"{new} = tl.where(on, {value}, {states[name]})")
        for new, name in zip(shaped, news, strict=True):
            self.line(f"{states[name]} = {new}")
        if choice.template == "split":
            assert not self.stale, "what is handed out is read in the same step"
            self.line("slot = 1 - slot")
            for name, leaf in graph.states.items():
                self.hand_out(leaf, states[name])
            assert self.stale == stale
        self.indent -= 1
        self._finish(states)

    def _states(self) -> dict[str, str]:
        """The states, as they begin."""
        found: dict[str, str] = {}
        taken: dict[Expr, str] = {}
        for k, (name, leaf) in enumerate(self.graph.states.items()):
            axis = self.axis(leaf.size)
            found[name] = self.name_of(leaf, taken)
            taken[leaf] = found[name]
            at = f"first{k} + b * {self.width(leaf.size)} + {axis.units}"
            self.line(f"{found[name]} = tl.load({at}, mask={both('present', axis.inside)}, other=0).to({self.real})")
        return found

    def _finish(self, states: dict[str, str]) -> None:
        for k, (name, leaf) in enumerate(self.graph.states.items()):
            axis = self.axis(leaf.size)
            at = f"last{k} + b * {self.width(leaf.size)} + {axis.units}"
            self.line(f"tl.store({at}, {states[name]}, mask={both('present', axis.inside)})")

    def _stages(self, known: dict[Expr, str], row: str, on: str) -> None:
        for node in self.graph.states.values():
            self._write_down(node, known[node], row, on)
        for stage in self.plan.stages:
            for product in stage.products:
                self.multiply(product, known, row, on)
                for result in product.results:
                    self._made(result, known, row, on)
            for node in stage.nodes:
                self.work_out(node, known, row, on)
                self._made(node, known, row, on)

    def _made(self, node: Expr, known: dict[Expr, str], row: str, on: str) -> None:
        self._write_down(node, known[node], row, on)
        self.hand_out(node, known[node])

    def _write_down(self, node: Expr, value: str, row: str, on: str) -> None:
        if node in self.stores:
            name, offset = self.stores[node]
            axis = self.axis(node.size)
            at = f"{name} + {row} * {name}_row + {past(offset, axis.units)}"
            self.line(f"tl.store({at}, {value}, mask={both(on, axis.inside)})")

    # The scan.

    def _scan(self) -> None:
        """One program per sequence and part of the units; within a chunk, all steps at once."""
        steps, graph = self.choice.steps, self.graph
        self.needed |= dict.fromkeys(("plus",))
        self.line("sequence = begin + tl.program_id(0)")
        self.line("length = tl.load(lengths + sequence)")
        self.line("b = sequence + tl.full([1, 1], 0, tl.int32)")
        self.line("present = b < sequences")
        self.line(f"place = tl.arange(0, {steps})[:, None]")
        constants = self.read_constants()
        states = self._states()
        self.line(f"for first in tl.range(0, length, {steps}):")
        self.indent += 1
        before = self._old_states(states, constants)
        self.prefix = ""
        self.line("k = first + place")
        self.line("on = k < length")
        self.line("t = length - 1 - k" if self.backwards else "t = k")
        self.line("row = tl.load(offsets + t, mask=on, other=0) + b")
        self.line("if tl.reduce(tl.reduce(broken, 1, plus), 0, plus) == 0:")
        self.indent += 1
        known = constants | {leaf: before[name] for name, leaf in graph.states.items()}
        self._stages(known, "row", "on")
        news = {name: self.tile(node, known, "row", "on") for name, node in graph.new.items()}
        self.line(f"is_last = k == tl.minimum(first + {steps}, length) - 1")
        for name, value in news.items():
            tile = f"[{steps}, {self.axis(graph.states[name].size).tile}]"
            picked = f"tl.broadcast_to(tl.where(is_last, {value}, 0), {tile})"
            self.line(f"{states[name]} = tl.reduce({picked}, 0, plus)[None, :]")
        self.indent -= 1
        self.line("else:")
        self.indent += 1
        self._one_by_one(states, constants)
        self.indent -= 2
        self._finish(states)

    def _old_states(self, states: dict[str, str], constants: dict[Expr, str]) -> dict[str, str]:
        """The states before each step of the chunk: of the steps before it, each as a factor and an offset."""
        form, graph = self.loop.form, self.graph
        assert form is not None
        names = list(graph.states)
        self.line("# The steps before each, from the state that the chunk begins with.")
        self.line("k = first + place - 1")
        self.line("on = (place > 0) & (k < length)")
        self.line("t = length - 1 - k" if self.backwards else "t = k")
        self.line("row = tl.load(offsets + t, mask=on, other=0) + b")
        self.prefix = "before_"
        known = dict(constants)
        roots = [*form.coefficients.values(), *form.offsets.values()]
        given = {node for pack in self.plan.feeds for node in pack} | {*self.plan.fixed}
        for node in below(roots, given):
            if node.args and node not in given:
                self.work_out(node, known, "row", "on")
        tile = self.axis(next(iter(graph.states.values())).size).tile
        shape = f"[{self.choice.steps}, {tile}]"
        parts: list[str] = []
        for i, new in enumerate(names):
            for j, old in enumerate(names):
                same = "1" if i == j else "0"
                node = form.coefficients.get((new, old))
                value = "0" if node is None else self.tile(node, known, "row", "on")
                parts.append(f"a{i}{j}")
                self.line(f"a{i}{j} = tl.broadcast_to(tl.where(on, {value}, {same}).to({self.real}), {shape})")
        for i, new in enumerate(names):
            node = form.offsets.get(new)
            value = "0" if node is None else self.tile(node, known, "row", "on")
            parts.append(f"b{i}")
            self.line(f"b{i} = tl.broadcast_to(tl.where(on, {value}, 0).to({self.real}), {shape})")
        self.needed[f"then{len(names)}"] = None
        self.line(f"{', '.join(parts)} = tl.associative_scan(({', '.join(parts)}), 0, then)")
        found: dict[str, str] = {}
        for i, new in enumerate(names):
            terms = [f"a{i}{j} * {states[old]}" for j, old in enumerate(names)]
            found[new] = f"old{i}"
            self.line(f"old{i} = {' + '.join(terms)} + b{i}")
        # A product of coefficients beyond all numbers says nothing: those steps are taken one by one.
        broken = " | ".join(f"({part} - {part} != 0)" for part in parts)
        self.line(f"broken = tl.where({broken}, 1, 0)")
        return found

    def _one_by_one(self, states: dict[str, str], constants: dict[Expr, str]) -> None:
        graph, self.prefix = self.graph, "one_"
        self.line(f"for step in range(first, tl.minimum(first + {self.choice.steps}, length)):")
        self.indent += 1
        self.line(
            "its_row = tl.load(offsets + (length - 1 - step)) + b"
            if self.backwards
            else "its_row = tl.load(offsets + step) + b"
        )
        known = constants | {leaf: states[name] for name, leaf in graph.states.items()}
        row, on = "its_row", "present"
        self._stages(known, row, on)
        news = {name: self.tile(node, known, row, on) for name, node in graph.new.items()}
        for k, (name, value) in enumerate(news.items()):
            shape = f"[1, {self.axis(graph.states[name].size).tile}]"
            self.line(f"new{k} = tl.broadcast_to({value}, {shape})")
        for k, name in enumerate(news):
            self.line(f"{states[name]} = new{k}")
        self.indent -= 1
