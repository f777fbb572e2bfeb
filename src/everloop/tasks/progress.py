"""What a training shows: a line of news, a bar with metrics and time left, a row per epoch, the table of results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text


class Progress:
    """Speaks on standard error, so that results can be piped; `quiet` says nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, emoji=False)

    @contextmanager
    def training(self, epochs: int, first: int) -> Iterator[_Shown]:
        bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        with bar:
            yield _Shown(self, bar, epochs, first)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Something that takes a while and has no steps to count."""
        if self.console.is_terminal and not self.console.quiet:
            with self.console.status(what):
                yield
        else:
            yield


class _Shown:
    def __init__(self, progress: Progress, bar: Bar, epochs: int, first: int) -> None:
        self.progress, self.bar, self.epochs = progress, bar, epochs
        self.task = bar.add_task("", total=epochs, completed=first - 1, loss="")
        self.last = 0.0

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        now = time.monotonic()
        if now - self.last < 0.1 and step < steps:
            return
        self.last = now
        text = f"epoch {epoch}/{self.epochs} update {step}/{steps}"
        self.bar.update(self.task, completed=epoch - 1 + step / steps, description=text, loss=f"{loss:.4f}")

    def epoch(self, row: Mapping[str, float], *, best: bool) -> None:
        metrics = "  ".join(
            f"{name.replace('_', ' ')} {value:.4f}"
            for name, value in row.items()
            if name.startswith(("train_", "valid_"))
        )
        clipped = f"  clipped {row['clipped']:.0%}" if row["clipped"] else ""
        mark = "  best so far" if best else ""
        self.progress.say(f"epoch {row['epoch']:>3.0f}  {metrics}{clipped}  {row['seconds']:.0f} s{mark}")


def results_table(results: Sequence[tuple[str, Mapping[str, float]]]) -> Table:
    """A row for the model and one for each baseline, a column for each metric."""
    metrics = list(dict.fromkeys(name for _, row in results for name in row))
    title = "test split" if len(results) > 1 else ""
    table = Table(title, *(name.replace("_", " ") for name in metrics), box=None, header_style="bold")
    for name, row in results:
        table.add_row(Text(name), *(_figure(row.get(metric)) for metric in metrics))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
