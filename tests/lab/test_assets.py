"""The page that is in the package is what its sources make, with the licences of what it contains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from everloop.lab.server import ASSETS

SOURCES = Path(__file__).parents[2] / "lab"

# A page of this size is there in a moment, also on a slow disk.
LARGEST = 2**20


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    if not (SOURCES / "node_modules" / "esbuild").is_dir():
        pytest.skip(f"what the page is built with is not installed: cd {SOURCES.name} && npm ci")
    return found


def test_the_same_sources_make_the_same_page(node, tmp_path):
    """Byte by byte; where this fails, the page was not built after the last change: cd lab && npm run build."""
    subprocess.run([node, "build.mjs", str(tmp_path)], cwd=SOURCES, check=True, capture_output=True, timeout=120)
    built, committed = files(tmp_path), files(ASSETS)
    assert list(built) == list(committed)
    assert [name for name in built if built[name] != committed[name]] == []


def test_the_types_are_right(node):
    compiler = SOURCES / "node_modules" / "typescript" / "bin" / "tsc"
    checked = subprocess.run([node, compiler, "--noEmit"], cwd=SOURCES, capture_output=True, text=True, timeout=240)
    assert checked.returncode == 0, checked.stdout


def test_what_installs_them_is_exact():
    """Versions are exact, every package is known by its contents, and none is bound to one registry."""
    package = json.loads((SOURCES / "package.json").read_text())
    lock = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
    named = package["dependencies"] | package["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in named.values())
    for path, entry in lock.items():
        assert "resolved" not in entry, path
        assert path == "" or entry["integrity"].startswith("sha512-"), path
    assert {name: lock[f"node_modules/{name}"]["version"] for name in named} == named


def test_licences():
    """Of each package that the page contains, and of the fonts."""
    text = (ASSETS / "LICENSES.txt").read_text()
    for name, version in json.loads((SOURCES / "package.json").read_text())["dependencies"].items():
        assert f"{name} {version}" in text
    fonts = {path.name.split("-")[0] for path in (ASSETS / "fonts").iterdir()}
    assert fonts, "formulas need them"
    assert "SIL OPEN FONT LICENSE" in text
    assert all(re.search(rf"\b{font}\b", text) for font in fonts)


def test_nothing_comes_from_elsewhere():
    """Neither the page nor its styles name another server to load from."""
    for name in ("index.html", "lab.css"):
        assert re.findall(r"(?:https?:)?//\w[^\s\"')]*", (ASSETS / name).read_text()) == []
    assert re.findall(r"importScripts|XMLHttpRequest|sendBeacon", (ASSETS / "lab.js").read_text()) == []


def test_it_is_small():
    assert sum(map(len, files(ASSETS).values())) < LARGEST
    assert {path.suffix for path in (ASSETS / "fonts").iterdir()} == {".woff2"}
