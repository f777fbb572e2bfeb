"""How many threads kernels use."""

from __future__ import annotations

import os
import sys

_set = [0]


def set_num_threads(count: int) -> None:
    """Use so many threads for what comes; 0: as many as torch is set to, or, without torch, as there are cores."""
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"threads: {count!r} came; expected a whole number, 0 for the usual")
    _set[0] = count


def get_num_threads() -> int:
    """The threads that a kernel may use: those set here; else torch's, where torch is in use; else OMP_NUM_THREADS, or
    the cores that this process may run on.
    """
    if _set[0]:
        return _set[0]
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return torch.get_num_threads()
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
