"""Many to many, out of step, in order: what was said."""

from everloop.tasks.recognizer.task import Recognizer

__all__ = ["Recognizer"]
