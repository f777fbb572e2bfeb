"""Rows as a table for the terminal: a line for each comparison."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from everloop.bench.row import OURS, Check, Row


def table(rows: Sequence[Row]) -> Table:
    """Of one class and number of threads."""
    found = Table(box=None, header_style="bold", title=_title(rows[0]), title_justify="left")
    for name, justify in (
        ("cell", "left"), ("B, T, I, H", "left"), ("what", "left"), ("ours", "right"), ("rate", "right"),
        ("against", "left"), ("its figure", "right"), ("value", "right"), ("goal", "right"), ("", "left"),
    ):  # fmt: skip
        found.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        head = _head(row)
        for check in row.checks or [Check("nobody", float("nan"))]:
            found.add_row(*head, *_comparison(row, check))
            head = ("",) * len(head)
    return found


def summary(rows: Sequence[Row]) -> list[str]:
    """How many goals were met, and each that was not."""
    judged = [(row, check) for row in rows for check in row.checks if check.met is not None]
    missed = [(row, check) for row, check in judged if not check.met]
    lines = [f"goals met: {len(judged) - len(missed)} of {len(judged)}"]
    for row, check in missed:
        shape = ", ".join(map(str, row.shape))
        lines.append(
            f"missed: {row.group}, {row.cell} ({shape}) {row.what}, {threads(row.threads)}: "
            f"{check.name} {number(check.value)}, goal {goal(check)}"
        )
    return lines


def goal(check: Check) -> str:
    return "" if check.goal is None else f"{'<=' if check.at_most else '>='} {check.goal:g}"


def number(value: float) -> str:
    """Three digits that count."""
    if value != value:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def amount(value: float, unit: str) -> str:
    """Seconds or bytes, in the unit that reads best."""
    scales = {"s": ((1e-3, 1e6, "us"), (10.0, 1e3, "ms"), (float("inf"), 1.0, "s")), "B": ((float("inf"), 1e-6, "MB"),)}
    factor, name = next((factor, name) for below, factor, name in scales[unit] if value < below)
    return f"{number(value * factor)} {name}"


def _title(row: Row) -> str:
    return f"{row.group}, {threads(row.threads)}, everloop's backend: {row.backend}"


def threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _head(row: Row) -> tuple[str, ...]:
    rate = f"{number(row.rate)} {row.rate_unit}" if row.rate is not None else ""
    shape = ", ".join(map(str, row.shape))
    return row.cell, shape, row.what, amount(row.figures[OURS].median, row.unit), rate


def _comparison(row: Row, check: Check) -> tuple[str | Text, ...]:
    figure = amount(row.figures[check.figure].median, row.unit) if check.figure in row.figures else ""
    verdict = {True: Text("met", "green"), False: Text("missed", "red"), None: Text("")}[check.met]
    return check.name, figure, number(check.value), goal(check), verdict
