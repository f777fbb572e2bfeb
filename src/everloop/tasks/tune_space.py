"""Which values of an option a search tries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from everloop.data._say import did_you_mean, names_of
from everloop.tasks.task import Share, Task

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Choices:
    """One of these values."""

    values: tuple[Any, ...]

    def choose(self, trial: optuna.Trial, name: str) -> Any:
        return trial.suggest_categorical(name, self.values)


@dataclass(frozen=True)
class Between:
    """A number; log: drawn by its logarithm."""

    low: float
    high: float
    log: bool = False

    def choose(self, trial: optuna.Trial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log)


Space = Choices | Between

# Changing these changes what is measured, or on what: the figures of two trials could not be compared.
FIXED = frozenset(
    ("seed", "valid", "test", "split", "gap", "duplicates", "unit", "vocabulary", "min_count", "device", "threads")
)


def _among(*values: Any) -> Callable[[Any], Space]:
    """These, and the task's own."""
    return lambda own: Choices(tuple(dict.fromkeys((own, *values))))


def _times(*factors: float) -> Callable[[Any], Space]:
    """Whole numbers, as multiples of the task's own."""
    return lambda own: Choices(tuple(sorted({max(1, round(own * factor)) for factor in (1, *factors)})))


def _around(down: float, up: float) -> Callable[[Any], Space]:
    return lambda own: Between(own / down, own * up, log=True)


def _share(most: float) -> Callable[[Any], Space]:
    return lambda own: Between(0.0, max(most, own))


USUAL: Mapping[str, Callable[[Any], Space]] = {
    "lr": _around(8, 4),
    "hidden": _times(0.5, 2, 4),
    "layers": _among(1, 2),
    "cell": _among("lstm", "gru"),
    "batch": _times(0.5, 2),
    "dropout": _share(0.7),
    "embedding_dropout": _share(0.4),
    "word_dropout": _among(0.0, 0.1, 0.3),
    "weight_decay": lambda own: Between(min(1e-4, own or 1e-4), max(0.3, own), log=True),
    "pooling": _among("max+mean", "last"),
    "averaging": _among(0.0, 0.99),
}
"""What is searched if nobody says, of those that the task has, from the task's own value."""


def space_of(task: Task, search: Sequence[str] = (), fixed: Sequence[str] = ()) -> dict[str, Space]:
    """The values to try of every option to search. search: names; none: the usual ones. fixed: names left out."""
    own = task.get_params()
    for name in (*search, *fixed):
        if name not in own:
            raise ValueError(
                f"{name!r} is not an option of a {task.name}; it has {names_of(list(own), 99)}{did_you_mean(name, own)}"
            )
        if name in search and name in FIXED:
            raise ValueError(f"{name} cannot be searched: it changes what is measured, and nothing could be compared")
    names = search or [name for name in USUAL if name in own]
    found = {name: _space(task, name, own[name]) for name in names if name not in fixed}
    found = {name: space for name, space in found.items() if not (isinstance(space, Choices) and len(space.values) < 2)}
    if not found:
        raise ValueError("no option is left to search; name some (--search lr,hidden), or fix fewer")
    return found


def _space(task: Task, name: str, own: Any) -> Space:
    if name in USUAL and isinstance(own, str | int | float):
        return USUAL[name](own)
    kind = get_type_hints(type(task), include_extras=True)[name]
    if kind is bool:
        return Choices((own, not own))
    if get_origin(kind) is Literal:
        return Choices(tuple(dict.fromkeys((own, *get_args(kind)))))
    if kind == Share:
        return _share(0.7)(own)
    if isinstance(own, int) and own > 0:
        return _times(0.5, 2, 4)(own)
    if isinstance(own, float) and own > 0:
        return _around(8, 8)(own)
    raise ValueError(
        f"{name} = {own!r} says nothing about which values to try; options that can be searched have "
        "a few values by name, are true or false, or numbers above 0"
    )
