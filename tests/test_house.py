"""The house keeps its own laws: who imports whom, what importing costs, what is public."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import everloop
from everloop.lang import functions, transforms

SOURCE = Path(everloop.__file__).parent

# What each folder may import, of ours: the table of the design. What is allowed to a folder that one may import
# is allowed too ("downward only"), so that a task may name a type of the language that a layer hands it.
TABLE: dict[str, set[str]] = {
    "lang": set(),
    "cells": {"lang"},
    "compiler": {"lang"},
    "backends": {"compiler", "lang"},
    "export": {"compiler", "lang"},
    "stream": {"backends", "compiler", "lang", "cells"},
    "nn": {"backends", "compiler", "lang", "stream", "cells"},
    "data": set(),
    "insight": {"nn", "compiler", "export"},
    "tasks": {"nn", "stream", "data", "insight"},
    "testing": {"nn", "export", "data", "insight", "tasks", "cells", "backends", "compiler", "lang", "stream"},
}
EVERYTHING = {"bench", "cli", "demo", "inspecting", "serve", "lab", "__main__"}

# Folders that may import none of these, however late. Type hints count as well: what only they need is needed.
WITHOUT = {
    "lang": {"torch", "numpy"},
    "cells": {"torch", "numpy"},
    "compiler": {"torch", "numpy"},
    "stream": {"torch"},
}


def allowed(folder: str) -> set[str]:
    found, waiting = {folder}, [folder]
    while waiting:
        new = TABLE[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def folder_of(file: Path) -> str:
    part = file.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Every module that a file imports anywhere in it, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: -node.level or None], *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                yield node.lineno, str(argument.value)


def ours(name: str) -> str | None:
    """The folder of ours that an imported name belongs to; names of the package itself count as their home."""
    parts = name.split(".")
    if parts[0] != "everloop" or len(parts) == 1 or parts[1].startswith("__"):
        return None
    home = everloop._HOME.get(parts[1])
    return home.split(".")[1] if home and not (SOURCE / parts[1]).is_dir() else parts[1]


def found_imports(file: Path) -> list[tuple[int, str]]:
    package = ".".join(("everloop", *file.relative_to(SOURCE).with_suffix("").parts))
    return list(imports(ast.parse(file.read_text(encoding="utf-8")), package))


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_downward_only(file: Path) -> None:
    folder = folder_of(file)
    if folder == "__init__" or folder in EVERYTHING:
        return
    assert folder in TABLE, f"{folder} is not in the table of the design: say there what it may import"
    wrong = [
        f"{file.relative_to(SOURCE)}:{line}: {folder} must not import {name}"
        for line, name in found_imports(file)
        if (home := ours(name)) is not None and home not in allowed(folder)
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", WITHOUT)
def test_folders_without_torch_have_none(folder: str) -> None:
    wrong = [
        f"{file.relative_to(SOURCE)}:{line}: {name}"
        for file in files()
        if folder_of(file) == folder
        for line, name in found_imports(file)
        if name.partition(".")[0] in WITHOUT[folder]
    ]
    assert wrong == []


def test_the_language_is_standard_library_only() -> None:
    outside = {
        name
        for file in files()
        if folder_of(file) == "lang"
        for _, name in found_imports(file)
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "everloop"}
    }
    assert outside == set()


def test_the_law_can_be_broken() -> None:
    text = """
def late():
    from everloop import Recurrent, cells
    import everloop.tasks.run
if TYPE_CHECKING:
    from ..backends import choose
"""
    found = {ours(name) for _, name in imports(ast.parse(text), "everloop.lang.made_up")}
    assert found == {"nn", "cells", "tasks", "backends"}
    assert allowed("lang") == {"lang"}
    assert allowed("backends") == {"backends", "compiler", "lang"}


# -- what importing costs ---------------------------------------------------------------------------------------------


def heavy_after(code: str) -> list[str]:
    """Which heavy packages are loaded once the code has run in a fresh interpreter."""
    heavy = ("torch", "numpy", "pandas", "pyarrow", "sklearn", "tokenizers")
    report = f"\nimport sys\nsys.stderr.write(','.join(m for m in {heavy!r} if m in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return [name for name in ran.stderr.strip().split(",") if name]


def test_importing_everloop_loads_nothing_heavy() -> None:
    assert heavy_after("import everloop") == []
    assert heavy_after("from everloop import cell, tanh, norm\nfrom everloop.cells import get\nget('lstm').graph") == []


@pytest.mark.parametrize("words", [["--help"], ["cells"], ["show", "lstm"]], ids=" ".join)
def test_commands_that_train_nothing_load_nothing_heavy(words: list[str]) -> None:
    code = f"import sys\nsys.argv = ['everloop', *{words!r}]\nfrom everloop.cli import main\n"
    assert heavy_after(code + "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code") == []


def test_importing_everloop_is_quick() -> None:
    """Under 0.3 s, the start of the interpreter left out; the best of five, for machines that are busy."""
    code = "import time\nt = time.perf_counter()\nimport everloop\nprint(time.perf_counter() - t)"
    times = [float(subprocess.check_output([sys.executable, "-c", code], text=True)) for _ in range(5)]
    assert min(times) < 0.3


# -- what is public ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", everloop.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(everloop, name) is not None
    assert name in dir(everloop)


def test_every_public_name_has_a_home_and_the_other_way_round() -> None:
    assert set(everloop._HOME) == set(everloop.__all__)
    assert everloop.__all__ == sorted(everloop.__all__)


def test_all_functions_and_transforms_of_the_language_are_public() -> None:
    assert set(functions.__all__) | set(transforms.__all__) < set(everloop.__all__)
    defined = {
        name
        for name, value in vars(functions).items()
        if callable(value) and value.__module__ == functions.__name__ and not name.startswith("_")
    }
    assert defined - set(functions.__all__) == {"Composite", "carry_composites", "composite"}
    for name, home in everloop._HOME.items():
        assert hasattr(importlib.import_module(home), name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'everloop' has no attribute 'nothing'"):
        everloop.nothing  # noqa: B018


def test_the_package_is_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(file.relative_to(SOURCE))
        for file in files()
        if file.name != "__main__.py" and ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []
