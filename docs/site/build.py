"""Build the site: written pages and generated ones side by side in build/docs, the site in build/site.

python docs/site/build.py            build, with every warning an error, and check every link
python docs/site/build.py --serve    build once, then serve it at http://localhost:8000
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import cellpages
import links
import tomli_w

HERE = Path(__file__).parent
WRITTEN, BUILD = HERE.parent, HERE.parents[1] / "build"
PAGES, SITE, CONFIG = BUILD / "docs", BUILD / "site", BUILD / "zensical.toml"


def gather() -> None:
    """Lay out everything that the site is made of, and its configuration."""
    for folder in (PAGES, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(WRITTEN, PAGES, ignore=shutil.ignore_patterns("site"))
    shutil.copy(HERE / "style.css", PAGES / "style.css")
    for page in (PAGES / "reference").glob("*.md"):
        page.write_text(_with_modules(page.read_text(encoding="utf-8")), encoding="utf-8")
    kinds = cellpages.write(PAGES / "cells")
    config = tomllib.loads((HERE / "zensical.toml").read_text(encoding="utf-8"))
    config["project"] |= {"docs_dir": PAGES.name, "site_dir": SITE.name, "nav": _navigation(kinds)}
    CONFIG.write_text(tomli_w.dumps(config), encoding="utf-8")


def _with_modules(text: str) -> str:
    """A page with `::: everloop.compiler.*` written out: one such line for each module."""

    def modules(found: re.Match[str]) -> str:
        folder = WRITTEN.parent / "src" / found[1].replace(".", "/")
        names = sorted(file.stem for file in folder.glob("[!_]*.py"))
        return "\n\n".join(f"::: {found[1]}.{name}" for name in names)

    return re.sub(r"(?m)^::: ([\w.]+)\.\*$", modules, text)


def _navigation(kinds: dict[str, list[str]]) -> list[dict]:
    by_kind = [
        {kind.capitalize(): [{name: f"cells/{name}.md"} for name in names]} for kind, names in kinds.items() if names
    ]
    return [
        {"Everloop": "index.md"},
        {"From a file to a model": "applications.md"},
        {"Results": "results.md"},
        {"Why this answer": "insight.md"},
        {"Gradients through time": "gradients.md"},
        {"The lab": "lab.md"},
        {"Coming from torch": "torch.md"},
        {"The language": "language.md"},
        {"Cells": ["cells/index.md", *by_kind]},
        {"Inside the compiler": "compiler.md"},
        {"Inside the CPU kernels": "kernels.md"},
        {"GPU kernels": "gpu.md"},
        {"The operator": "operator.md"},
        {"Benchmarks": "benchmarks.md"},
        {"Reference": ["reference/index.md", *_reference()]},
        {"Glossary": "glossary.md"},
    ]


def _reference() -> list[dict]:
    files = [file for file in sorted((WRITTEN / "reference").glob("*.md")) if file.stem != "index"]
    return [{_heading(file): f"reference/{file.name}"} for file in files]


def _heading(file: Path) -> str:
    return file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def build() -> int:
    gather()
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", str(CONFIG)]
    ran = subprocess.run(command, check=False)
    return ran.returncode or links.main(SITE)


def serve() -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("localhost", 8000), handler) as server:
        print("http://localhost:8000")
        server.serve_forever()


if __name__ == "__main__":
    status = build()
    if status == 0 and "--serve" in sys.argv:
        serve()
    sys.exit(status)
