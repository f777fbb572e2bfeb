"""Many to many, in step: one tag per word."""

from everloop.tasks.tagger.task import Tagger

__all__ = ["Tagger"]
