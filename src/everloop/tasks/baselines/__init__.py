"""Honest baselines: what plain counting gets on the same split, beside every trained model. A file a task."""

from everloop.tasks.baselines._baseline import Baseline
from everloop.tasks.baselines.classifier import classifier_baselines
from everloop.tasks.baselines.generator import ngram_baseline

__all__ = ["Baseline", "classifier_baselines", "ngram_baseline"]
