"""The site: a page for every cell, and a check of links that can fail."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from everloop import cells

ROOT = Path(__file__).parents[1]


def tool(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of docs/site, which is no package."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


# -- pages of cells ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cellpages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    tool("equations", monkeypatch)
    return tool("cellpages", monkeypatch)


def test_every_cell_has_a_page(cellpages: ModuleType, tmp_path: Path) -> None:
    kinds = cellpages.write(tmp_path)
    assert sorted(name for names in kinds.values() for name in names) == sorted(cells.names())
    index = (tmp_path / "index.md").read_text(encoding="utf-8")
    for name in cells.names():
        cell, text = cells.get(name), (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        assert f"[`{name}`]({name}.md)" in index
        assert text.startswith(f"# {name}\n")
        assert f"def {name}(" in text
        for part in ("## Equations", "## What runs when", "## Parameters", "## Backward", "## Source"):
            assert part in text
        assert text.count("<math ") == 2
        # An array holds some members of the cell's families, and all arrays together hold all of them.
        assert all(f"`{param}`" in text for param in cell.graph.held)


def test_the_page_of_the_lstm(cellpages: ModuleType) -> None:
    page = cellpages.page(cells.get("lstm"))
    assert "131,584 numbers for input = 128, hidden = 128." in page
    assert "| `b` | `b.i` `b.f` `b.g` `b.o` | 4 hidden | 512 | 512 | 0, 1 (`b.f`) |" in page
    assert "<mi>δ</mi>" in page
    assert "- **Keras**: i f c o, one bias." in page


def test_notes_are_read_apart(cellpages: ModuleType) -> None:
    doc = "Keeps c, as `lstm`;\nnot * so_x.\n\nOption: act (tanh).\ntorch, Keras: none such. ONNX: LSTM.\nUsed in a."
    assert cellpages.notes(doc) == (
        "Keeps c, as [`lstm`](lstm.md); not \\* so\\_x.\n\n- **Option**: act (tanh).\n"
        "- **torch, Keras**: none such.\n- **ONNX**: LSTM.\n- Used in a."
    )


def test_a_formula_without_mathml_is_an_error(cellpages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    equations = tool("equations", monkeypatch)
    assert "<mtext>norm_if</mtext>" in equations.table([r"a &= \operatorname{norm\_if}(x)"])
    with pytest.raises(ValueError, match="no MathML for"):
        equations.table([r"a &= \unheardof{x}"])


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return tool("links", monkeypatch)


def site(folder: Path, links: ModuleType, head: str = "", body: str = "", policy: str | None = None) -> Path:
    policy = links.POLICY if policy is None else policy
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    (folder / "sub").mkdir()
    (folder / "index.html").write_text(f"<html><head>{meta}{head}</head><body>{body}</body></html>", encoding="utf-8")
    (folder / "sub" / "page.html").write_text(f'{meta}<h1 id="top">up <a href="../index.html">x</a></h1>')
    (folder / "style.css").write_text("body { color: red }")
    return folder


def test_a_sound_site_has_no_problems(links: ModuleType, tmp_path: Path) -> None:
    body = (
        '<a href="sub/page.html#top">a</a> <a href="#here">b</a> <p id="here"></p> <a href="https://elsewhere.org">c</a>'
        '<img src="data:image/png;base64,AA=="> <a href="mailto:a@b.org">d</a>'
    )
    made = site(tmp_path, links, '<link rel="stylesheet" href="style.css">', body)
    assert links.problems(made) == []
    assert links.main(made) == 0


@pytest.mark.parametrize(
    ("head", "body", "problem"),
    [
        ("", '<a href="gone.html">x</a>', "index.html: gone.html leads to no file"),
        ("", '<a href="sub/">x</a>', "index.html: sub/ leads to no file"),
        ("", '<a href="sub/page.html#gone">x</a>', "index.html: sub/page.html#gone leads to no anchor of that page"),
        ("", '<a href="#gone">x</a>', "index.html: #gone leads to no anchor of that page"),
        ("", '<a href="../../x.html">x</a>', "index.html: ../../x.html leads out of the site"),
        ('<link rel="stylesheet" href="gone.css">', "", "index.html: gone.css leads to no file"),
        ('<link rel="preconnect" href="https://f.org">', "", "index.html: asks another host for https://f.org"),
        ('<script src="//cdn.org/a.js"></script>', "", "index.html: asks another host for //cdn.org/a.js"),
        ("", '<img srcset="http://a.org/1.png 2x">', "index.html: asks another host for http://a.org/1.png"),
        ("<style>@import 'https://a.org/b.css';</style>", "", "index.html: asks another host for https://a.org/b.css"),
        ("", '<p style="background: url(https://a.org/c)">', "index.html: asks another host for https://a.org/c"),
    ],
)
def test_what_is_wrong_with_a_site_is_found(
    links: ModuleType, tmp_path: Path, head: str, body: str, problem: str
) -> None:
    made = site(tmp_path, links, head, body)
    assert links.problems(made) == [problem]
    assert links.main(made) == 1


def test_style_sheets_and_policies_are_looked_at(links: ModuleType, tmp_path: Path) -> None:
    made = site(tmp_path, links, policy="default-src *")
    (made / "style.css").write_text('@font-face { src: url("https://fonts.org/f.woff2"), url(data:x) }')
    *policies, style = links.problems(made)
    expected = f"its content security policy is 'default-src *'; expected {links.POLICY!r}"
    assert policies == [f"index.html: {expected}", f"sub/page.html: {expected}"]
    assert style == "style.css: asks another host for https://fonts.org/f.woff2"


def test_no_pages_are_a_problem(links: ModuleType, tmp_path: Path) -> None:
    assert links.problems(tmp_path) == [f"{tmp_path}: no pages"]
