"""Names that Python accepts, and that nothing else in the program has."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterable


class Names:
    """Python names, each given once. Taken from the start: Python's own, and those that the program uses itself."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = {*taken, *keyword.kwlist, *keyword.softkwlist, *dir(builtins)}

    def fresh(self, wanted: str) -> str:
        """The wanted name, or the nearest that is free."""
        base = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", wanted)).strip("_") or "v"
        base = f"v{base}" if base[0].isdigit() else base
        name, k = base, 1
        while name in self.taken:
            k += 1
            name = f"{base}_{k}"
        self.taken.add(name)
        return name

    def copy(self) -> Names:
        return Names(self.taken)
