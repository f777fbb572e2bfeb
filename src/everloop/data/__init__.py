"""Data: reading examples from files and tables, splitting them, and one codec per modality.

Nothing is imported until it is used, so that `import everloop.data` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from everloop.data import datasets
    from everloop.data.datasets import Dataset
    from everloop.data.files import Examples, drop_duplicates, read_examples
    from everloop.data.split import Split, length_buckets, split_blocks, split_rows
    from everloop.data.text import Decoder, TextCodec, Unit, choose_unit

__all__ = [
    "Dataset",
    "Decoder",
    "Examples",
    "Split",
    "TextCodec",
    "Unit",
    "choose_unit",
    "datasets",
    "drop_duplicates",
    "length_buckets",
    "read_examples",
    "split_blocks",
    "split_rows",
]

_HOME = {
    "files": ("Examples", "drop_duplicates", "read_examples"),
    "split": ("Split", "length_buckets", "split_blocks", "split_rows"),
    "text": ("Decoder", "TextCodec", "Unit", "choose_unit"),
    "datasets": ("Dataset",),
}


def __getattr__(name: str) -> object:
    if name == "datasets":  # the module: `datasets.get("chinese-reviews").read()`
        return import_module("everloop.data.datasets")
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"everloop.data.{module}"), name)
    raise AttributeError(f"module 'everloop.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
