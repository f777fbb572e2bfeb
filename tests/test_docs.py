"""Documents are true: what README and the examples show runs, and both languages say the same."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

from everloop.lang import functions, transforms
from everloop.nn import GRU

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
READMES = ("README.md", "README.zh-CN.md")
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md") if "```python" in path.read_text(encoding="utf-8"))


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def without_comments(code: str) -> list[str]:
    return [line.split("#")[0].rstrip() for line in code.splitlines()]


def steps(page: str) -> list[tuple[int, str, str]]:
    """The blocks of Python of a page: first line, code, and the block of text that follows at once, "" if none does."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.finditer(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", text, re.DOTALL)
    return [(text[: match.start(1)].count("\n"), match[1], match[2] or "") for match in found]


@pytest.mark.parametrize("page", PAGES)
def test_pages_print_what_they_show(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks of a page run in order, in one namespace, and each prints the text shown after it."""
    given: dict[str, object] = {"__name__": page}
    for line, code, shown in steps(page):
        # Empty lines before the code, so that errors and messages name the line of the page.
        exec(compile("\n" * line + code, f"docs/{page}", "exec"), given)
        assert capsys.readouterr().out.rstrip() == shown.rstrip(), f"docs/{page}, line {line + 1}"


def test_the_tour_and_the_language_are_among_them() -> None:
    assert {"compiler.md", "index.md", "language.md"} <= set(PAGES)
    assert [step[2] for step in steps("compiler.md") if step[2]]


def test_the_language_page_has_every_function() -> None:
    text = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b([a-z]\w*)\b", " ".join(re.findall(r"`([^`\n]+)`", text))))
    assert {*functions.__all__, *transforms.__all__, "read_cell"} <= named


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without arguments: on data that it makes, or a slice of what a package brings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_examples_are_listed() -> None:
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert EXAMPLES
    for example in EXAMPLES:
        assert f"`{example.name}`" in listed


@pytest.mark.parametrize("name", READMES)
def test_readme_python_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{word} film {k},{label}" for k in range(30) for word, label in (("great", "positive"), ("dull", "negative"))
    ]
    Path("reviews.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    lengths = [5, 3]
    given = {"x": torch.randn(2, 5, 32), "lengths": lengths}
    code = blocks(name, "python")
    assert len(code) == 7
    for block in code:
        exec(compile(block, name, "exec"), given)
    assert given["y"].shape == (2, 5, 128)
    assert given["heard"].shape == (5, 64)
    assert given["branch"].push(torch.zeros(32).numpy()).shape == (64,)
    assert given["deep"].cell.name == "residual(layer_norm(zoneout(gru)))"
    assert given["state"].c.shape == (4, 2, 64)
    assert [len(array) for array in given["each"].values()] == [2] * 8
    assert type(given["reader"][1]) is GRU
    assert (given["out"].shape, given["end"].last.h.shape) == ((2, 5, 96), (2, 96))
    assert given["history"][0]["c"].shape == (2, 5, 64)
    assert given["first"].values["c"].shape == given["first"].gradients["a_f"].shape == (2, 5, 64)
    assert (tmp_path / "runs" / "reviews" / "report.html").is_file()


def test_readmes_show_the_same() -> None:
    english, chinese = READMES
    for language in ("python", "sh"):
        assert [without_comments(b) for b in blocks(english, language)] == [
            without_comments(b) for b in blocks(chinese, language)
        ]
    assert blocks(english, "text") == blocks(chinese, "text")
    assert [line.count("|") for line in tables(english)] == [line.count("|") for line in tables(chinese)]
    assert numbers(english) == numbers(chinese)


def tables(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line.startswith("|")]


def numbers(name: str) -> list[list[str]]:
    return [re.findall(r"\d+\.\d+", line) for line in tables(name)]


def test_readme_commands_exist() -> None:
    from typer.main import get_command

    from everloop.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    mentioned = set(re.findall(r"everloop ([a-z]+)", "\n".join(blocks(READMES[0], "sh"))))
    assert mentioned
    assert mentioned <= known


def test_glossary_words_are_used() -> None:
    words = re.findall(
        r"^\| ([a-z][a-z ,()]*?) \|", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for word in words:
        if word in ("letter", "word"):
            continue
        first = re.split(r"[ ,(]", word)[0]
        assert re.search(rf"\b{first}", source), f"{word} is in the glossary, and nowhere in the code"
