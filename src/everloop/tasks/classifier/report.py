"""What came out of a classifier: its metrics, and what its report says of every class and of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from everloop.insight import parts
from everloop.tasks.classifier.calibration import Bin
from everloop.tasks.classifier.data import as_text

MOST_CLASSES = 100


def class_section(names: Sequence[str], confusion: np.ndarray) -> tuple[str, str]:
    """Precision, recall and F1 of each class; confusion: [C, C], truths by predictions."""
    hits, truths, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    rows = [
        (name, _share(hits[k], said[k]), _share(hits[k], truths[k]), _share(2 * hits[k], said[k] + truths[k]), truth)
        for k, (name, truth) in enumerate(zip(names, truths.tolist(), strict=True))
    ]
    columns = ("class", "precision", "recall", "F1", "examples")
    cut = parts.note(f"The first {MOST_CLASSES} of {len(rows):,}.") if len(rows) > MOST_CLASSES else ""
    return "Every class", parts.table(columns, rows[:MOST_CLASSES]) + cut


def calibration_section(table: Sequence[Bin], error: float) -> tuple[str, str]:
    """Probabilities beside how often they came true."""
    rows = [
        (f"{row.low:.1f} to {row.high:.1f}", row.count, f"{100 * row.confidence:.1f} %", f"{100 * row.accuracy:.1f} %")
        for row in table
    ]
    curves = {
        "as it should be": [(row.confidence, row.confidence) for row in table],
        "as it is": [(row.confidence, row.accuracy) for row in table],
    }
    told = (
        f"The expected calibration error is {100 * error:.1f} %: so far are the probability of a prediction and how "
        "often such predictions are right apart, on average."
    )
    drawn = parts.lines(curves, label="share that is right", across="probability") if len(table) > 1 else ""
    columns = ("probability", "predictions", "its mean", "share that is right")
    return "What a probability means", parts.note(told) + drawn + parts.table(columns, rows)


def metrics_of(scores: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, macro F1 over the classes that occur, and loss in nats."""
    from sklearn.metrics import f1_score

    log_probability = scores[np.arange(len(labels)), labels] - np.logaddexp.reduce(scores, axis=1)
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "loss": float(-log_probability.mean()),
    }


def confusion_of(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def telling_rows(scores: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> list[int]:
    """The mistakes that the model is surest of, and as many of what it got right. scores: [B, C]"""
    margin = scores.max(1) - scores[np.arange(len(labels)), labels]
    mistakes = np.flatnonzero(predicted != labels)
    wrong = mistakes[np.argsort(-margin[mistakes], kind="stable")][:4]
    return [*wrong.tolist(), *np.flatnonzero(predicted == labels)[:4].tolist()]


def shown(value: Any, steps: np.ndarray, place: int) -> str:
    """An input as text; steps: its ids [T] or values [T, F]."""
    if isinstance(value, str | tuple):
        return as_text(value)[:300]
    where = value.name if isinstance(value, Path) else f"input {place + 1} of the test split"
    return f"{where}: {len(steps):,} steps of {steps.shape[1]:,} values"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
