"""Every application in full, on real data: python benchmarks/applications.py, or `make applications`.

Each seed is a process of its own. What it found lies in build/applications/NAME-SEED.json, and is not computed again;
docs/results.md is written from all that lie there. With its run folder, build/applications/runs/NAME-SEED, what was cut
off goes on.

    python benchmarks/applications.py                      all that are not there yet, then the page
    python benchmarks/applications.py tags-en music        those whose name begins so
    python benchmarks/applications.py --seeds 0 --fresh    anew, one seed each
    python benchmarks/applications.py --page               the page alone

Data: files of --data (default ../shared/data) and datasets that `everloop datasets get NAME` fetches when needed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from application_list import APPLICATIONS, Application

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "applications"
PAGE = ROOT / "docs" / "results.md"


def main() -> None:
    options = _options()
    chosen = [one for one in APPLICATIONS if not options.names or one.name.startswith(tuple(options.names))]
    if options.one is not None:
        _run_here(chosen[0], options.one, options.data)
        return
    if not options.page:
        for application in chosen:
            for seed in options.seeds or application.seeds:
                _run(application, seed, options)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} is written")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names of applications; all if none is given")
    parser.add_argument("--seeds", type=int, nargs="+", help="those of each application unless given")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the plain files")
    parser.add_argument("--fresh", action="store_true", help="run again what was run before")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(application: Application, seed: int, options: argparse.Namespace) -> None:
    path = _result_path(application, seed)
    if path.is_file() and not options.fresh:
        return
    print(f"{application.name}, seed {seed}", flush=True)
    if options.fresh:
        shutil.rmtree(BUILD / "runs" / f"{application.name}-{seed}", ignore_errors=True)
    command = [sys.executable, __file__, application.name, "--one", str(seed), "--data", str(options.data)]
    done = subprocess.run(command, check=False)
    if done.returncode:
        print(f"{application.name}, seed {seed}: stopped with {done.returncode}; going on with the next", flush=True)


def _run_here(application: Application, seed: int, data: Path) -> None:
    """Train, measure and write down; in a process of its own, so that time and memory are its own."""
    from everloop import tasks

    source, how = application.data(data, seed)
    if source is None:
        raise SystemExit(f"{application.name}: {how}")
    began, used = time.perf_counter(), time.process_time()
    model = tasks.get(application.task)(**{**application.options, "seed": seed})
    run = BUILD / "runs" / f"{application.name}-{seed}"
    model.fit(source, out=run, resume=(run / "run.json").is_file(), **how)
    more = application.also(model) if application.also is not None else {}
    result = {
        "name": application.name,
        "seed": seed,
        "results": model.results_,
        "also": more,
        "train_seconds": round(model.outcome_.seconds, 1),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "facts": model.facts(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    BUILD.mkdir(parents=True, exist_ok=True)
    _result_path(application, seed).write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
    for name, metrics in model.results_:
        print(f"  {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in metrics.items()), flush=True)


def _result_path(application: Application, seed: int) -> Path:
    return BUILD / f"{application.name}-{seed}.json"


# The page


def page() -> str:
    """docs/results.md, of what was measured: nothing that was not run is in it."""
    found = {one.name: _results(one) for one in APPLICATIONS}
    done = [one for one in APPLICATIONS if found[one.name]]
    missing = [one.title for one in APPLICATIONS if not found[one.name]]
    head = [
        "# Results",
        "",
        "Every application on real data, each beside its baseline on the same test split. `make applications` runs "
        "them all and writes this page from what it finds; a row is what was measured, also where it falls short of "
        "what we want. One thread of a shared 2-core machine each; minutes are those of its processor, baselines and "
        "all. Options were chosen on validation, but those of the forecaster, of the recognizer, of vowels and of the "
        "networks for pictures and clips were tried out while figures of the test were in sight, which may flatter "
        "theirs a little.",
        "",
        "| application | measured | seeds | wanted | best baseline | published | minutes |",
        "|---|---|---|---|---|---|---|",
        *(_row(one, found[one.name]) for one in done),
    ]
    if missing:
        head += ["", f"Not measured on this code: {', '.join(missing)}."]
    return "\n".join([*head, "", *(line for one in done for line in _section(one, found[one.name]))]).rstrip() + "\n"


def _results(application: Application) -> list[dict[str, Any]]:
    paths = sorted(BUILD.glob(f"{application.name}-*.json"))
    read = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return [one for one in read if one["name"] == application.name]


def _row(application: Application, results: list[dict[str, Any]]) -> str:
    metric = application.metric
    own = [_metric(one, metric) for one in results]
    name, best = _best_baseline(application, results)
    reached = statistics.mean(own)
    wanted = "" if application.wanted is None else _figure(application.wanted, metric)
    minutes = statistics.mean(one["cpu_seconds"] for one in results) / 60
    beaten = "" if application.wanted is None or application.reaches(reached) else " (short of it)"
    return (
        f"| [{application.title}](#{application.name}) | {metric.replace('_', ' ')} **{_figure(reached, metric)}**"
        f"{beaten} | {_each(own, metric)} | {wanted} | {f'{_figure(best, metric)}, {name}' if name else ''} | "
        f"{application.published} | {minutes:.1f} |"
    )


def _section(application: Application, results: list[dict[str, Any]]) -> list[str]:
    metrics = list(dict.fromkeys(key for one in results for _, row in one["results"] for key in row))
    names = list(dict.fromkeys(name for one in results for name, _ in one["results"]))
    rows = []
    for name in names:
        cells = []
        for metric in metrics:
            values = [row[metric] for one in results for key, row in one["results"] if key == name and metric in row]
            cells.append(_figure(statistics.mean(values), metric) if values else "")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    also = {key: value for one in results for key, value in one["also"].items()}
    return [
        f"## {application.name}",
        "",
        f"{application.about} `{application.command}`",
        "",
        "| test split, mean over seeds | " + " | ".join(metric.replace("_", " ") for metric in metrics) + " |",
        "|---|" + "---|" * len(metrics),
        *rows,
        "",
        "; ".join(f"{name}: {value}" for name, value in results[0]["facts"])
        + f"; {statistics.mean(one['peak_mb'] for one in results):.0f} MB at most.",
        "",
        *([line for key, value in also.items() for line in (f"{key}: {value}", "")]),
    ]


def _metric(result: dict[str, Any], metric: str) -> float:
    return result["results"][0][1][metric]


def _best_baseline(application: Application, results: list[dict[str, Any]]) -> tuple[str, float]:
    """The strongest on average over the seeds."""
    by_name: dict[str, list[float]] = {}
    for one in results:
        for name, row in one["results"][1:]:
            if application.metric in row:
                by_name.setdefault(name, []).append(row[application.metric])
    if not by_name:
        return "", 0.0
    means = {name: statistics.mean(values) for name, values in by_name.items()}
    best = (min if application.lower_is_better else max)(means, key=lambda name: means[name])
    return best, means[best]


def _each(values: Sequence[float], metric: str) -> str:
    return ", ".join(_figure(value, metric) for value in values)


def _figure(value: float, metric: str) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


if __name__ == "__main__":
    main()
