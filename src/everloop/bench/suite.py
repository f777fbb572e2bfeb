"""The suite: a process for each number of threads, tables as they come, and everything in one JSON file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from everloop import cells
from everloop.bench.classes import NAMES, ONCE
from everloop.bench.machine import cores, environment, machine, versions
from everloop.bench.options import Options
from everloop.bench.row import Row
from everloop.bench.table import summary, table, threads

QUICK: dict[str, Any] = {"repeats": 3, "seconds": 1.0}


def run(names: Sequence[str], counts: Sequence[int], options: Options, file: Path | None, out: Console) -> bool:
    """Measure, show, and write to the file after every row what there is. Whether all peers agreed with us."""
    if find_spec("torch") is None:
        raise ModuleNotFoundError("the benchmarks compare with torch", name="torch")
    if options.cell is not None:
        cells.get(options.cell)
    if options.quick:
        options = replace(options, **QUICK)
    found: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": machine(),
        "versions": versions(),
        "options": asdict(options) | {"classes": list(names), "threads": list(counts)},
        "ceilings": {},
        "notes": [],
        "rows": [],
    }
    where = found["machine"]
    out.print(f"{where['processor']}, {where['cores']} cores, {where['system']}, {found['date']}")
    out.print(", ".join(f"{name} {number}" for name, number in found["versions"].items()))
    every: list[Row] = []
    for count in counts:
        wanted = [name for name in names if name not in ONCE or count == counts[-1]]
        every += _with_threads(wanted, replace(options, threads=count), found, file, out)
    for line in summary(every):
        out.print(line, markup=False)
    wrong = [line for row in every for line in row.wrong]
    for line in wrong:
        out.print(line, style="red", markup=False)
    return not wrong


def _with_threads(
    names: list[str], options: Options, found: dict[str, Any], file: Path | None, out: Console
) -> list[Row]:
    every: list[Row] = []
    with Console(stderr=True).status(f"{threads(options.threads)}: measuring") as status:
        for news in _worker(names, options):
            match news:
                case {"row": row}:
                    every.append(Row.from_json(row))
                    found["rows"].append(row)
                    status.update(f"{threads(options.threads)}: {row['group']}, {row['cell']}, {row['what']} done")
                case {"ceilings": ceilings}:
                    found["ceilings"][str(options.threads)] = ceilings
                    words = ", ".join(f"{name}: {value:.0f}" for name, value in ceilings.items())
                    out.print(f"\n{threads(options.threads)}, torch: {words}")
                case {"note": note}:
                    found["notes"].append(note)
                    out.print(escape(note))
                case {"done": name} if rows := [row for row in every if row.group == name]:
                    out.print()
                    out.print(table(rows))
            if file is not None:
                file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return every


def _worker(names: list[str], options: Options) -> Iterator[dict[str, Any]]:
    asked = json.dumps({"classes": names, "options": asdict(options)})
    words = [sys.executable, "-m", "everloop.bench.worker", asked]
    with subprocess.Popen(words, env=environment(options.threads), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield from map(json.loads, process.stdout)
        except BaseException:  # whoever reads has stopped: so does what is measured for them
            process.kill()
            raise
    if process.returncode:
        raise ChildProcessError(f"the benchmarks ended with code {process.returncode}; what they said is above")


def checked_classes(text: str | None) -> list[str]:
    """Names of classes out of a list with commas; all if there is none."""
    names = [name.strip() for name in text.split(",")] if text else list(NAMES)
    for name in names:
        if name not in NAMES:
            raise ValueError(f"--class {name}: expected {', '.join(NAMES)}, or several with commas")
    return names


def checked_threads(text: str | None) -> list[int]:
    """Numbers of threads out of a list with commas; one, and two where there are two cores, if there is none."""
    if text is None:
        return [1, 2][: min(2, cores())]
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= cores() for part in parts):
        raise ValueError(f"--threads {text}: expected numbers from 1 to {cores()}, the cores here, with commas")
    return [int(part) for part in parts]
