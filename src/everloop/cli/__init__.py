"""The command `everloop`. Thin: every verb is a few calls of the library."""

# In the order in which help lists them.
from everloop.cli import learning, using, looking, cells, data  # noqa: F401, I001
from everloop.cli._app import app, main

__all__ = ["app", "main"]
