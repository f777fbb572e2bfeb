"""One to many: text or music, step by step."""

from everloop.tasks.generator.task import Generator

__all__ = ["Generator"]
