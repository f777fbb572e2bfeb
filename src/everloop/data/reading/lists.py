"""Inputs and targets in Python lists: which is which."""

from typing import Any

from everloop.data._say import count
from everloop.data.reading import tables
from everloop.data.reading.tables import BadRows


def inputs_and_targets(source: Any, items: list[Any], bad: BadRows) -> tuple[list[Any], list[Any] | None, list[int]]:
    """Inputs, targets if there are any, and row numbers from 1. items: those of the source."""
    if isinstance(source, tuple) and len(items) == 2:
        inputs, targets = (tables.rows_of(item) for item in items)
        if inputs is not None and targets is not None:
            if len(inputs) != len(targets):
                raise ValueError(
                    f"{count(len(inputs), 'text')} and {count(len(targets), 'label')} came; "
                    "expected as many labels as texts"
                )
            if not inputs:
                raise ValueError("lists has no readable example: two empty lists came")
            return inputs, targets, list(range(1, len(inputs) + 1))
    first = items[0]
    if isinstance(first, list | tuple) and not tables.is_numeric(first):
        pairs = [(row, item) for row, item in enumerate(items, start=1) if _is_pair(row, item, bad)]
        return [pair[0] for _, pair in pairs], [pair[1] for _, pair in pairs], [row for row, _ in pairs]
    if isinstance(first, int | float | bytes):
        raise TypeError(
            f"the first item of the list is a {type(first).__name__}; expected a text, a pair (text, label), or a dict"
        )
    return items, None, list(range(1, len(items) + 1))


def _is_pair(row: int, item: Any, bad: BadRows) -> bool:
    if isinstance(item, list | tuple) and len(item) == 2:
        return True
    size = f" of {len(item)}" if isinstance(item, list | tuple) else ""
    bad.add(
        f"row {row}",
        f"a {type(item).__name__}{size} came, a pair (text, label) expected "
        "(two long lists come as a tuple: (texts, labels))",
    )
    return False
