"""The process that measures: started once for each number of threads, which many libraries read only when they load.

One line of JSON on standard output for each thing found. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch

from everloop.bench import classes, peers
from everloop.bench.measure import compare
from everloop.bench.options import Options
from everloop.bench.row import Row


def main() -> None:
    asked = json.loads(sys.argv[1])
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        for found in measure(asked["classes"], Options(**asked["options"])):
            out.write(json.dumps(found) + "\n")
            out.flush()


def measure(names: list[str], options: Options) -> Iterator[dict[str, Any]]:
    """{"row": ...}, {"note": "..."}, {"ceilings": ...}, or {"done": name of a class}."""
    torch.set_num_threads(options.threads)
    yield from ({"note": sentence} for sentence in peers.missing())
    yield {"ceilings": ceilings(options)}
    for name in names:
        for found in classes.rows(name, options):
            yield {"row": found.to_json()} if isinstance(found, Row) else {"note": found}
        yield {"done": name}


def ceilings(options: Options) -> dict[str, float]:
    """What torch reaches here on this many threads, to hold the figures against."""
    size = 1024
    a, b, product = (torch.rand(size, size) for _ in range(3))
    source = torch.ones(2**22 if options.quick else 2**25)
    target = torch.zeros_like(source)
    timed = {"product": lambda: torch.mm(a, b, out=product), "copy": lambda: target.copy_(source)}
    found = compare(timed, repeats=options.repeats, seconds=options.seconds, threads=options.threads)
    return {
        "product of 1024 x 1024, GFLOP/s": 2 * size**3 / found["product"].median / 1e9,
        f"copy of {source.nbytes >> 20} MiB, GB/s read and written": 2 * source.nbytes / found["copy"].median / 1e9,
    }


if __name__ == "__main__":
    main()
