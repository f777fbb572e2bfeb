"""`render_page`: why a model gave an answer, as one page that opens from disk, prints, and needs nothing else.

Readable by someone who never saw the code. A small script lets one pick steps, layers and units; without it, all that
matters is there as well.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np

from everloop.insight.explanation import Answer, Attention, Elsewhere
from everloop.insight.neighbours import around
from everloop.insight.page.data import data_of, fitting
from everloop.insight.page.drawing import deletion_chart, tint
from everloop.insight.page.lanes import Shown, notes, shown, timeline, title_of
from everloop.insight.page.text import coloured, excerpt, percent, small
from everloop.insight.page.units import units_of
from everloop.insight.page.words import Language, Words
from everloop.insight.saliency import DeletionTest, Saliency

ANSWERS_SHOWN, STRONGEST = 5, 5
REACH = 7
"""Pieces around a step of another input that are shown with it."""


def render_page(answer: Answer, *, language: Language = "en") -> str:
    """The page as one string of HTML; every text is escaped. language: "en" or "zh"."""
    words = Words(language)
    layers, gone = fitting([shown(record, answer.row, title_of(answer, record, words)) for record in answer.layers])
    saliency = answer.saliency[answer.best]
    sections = [
        _section("why", words("what speaks"), _saliency(answer, words)),
        _section("inside", words("inside"), _inside(answer, layers, saliency, words)),
        _section("units", words("one unit"), units_of(answer, layers, words)),
        _section("elsewhere", words("elsewhere"), _elsewhere(answer, saliency, words)),
        _section("attention", words("attention"), _attention(answer.attention, words)),
        _section("numbers-used", words("numbers"), _facts(answer, gone, sum(layer.lost for layer in layers), words)),
    ]
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="{"en" if language == "en" else "zh-Hans"}">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(_heading(answer, words))}</title>",
            f"<style>{_file('page.css')}</style>",
            f"<noscript><style>{_WITHOUT_SCRIPT}</style></noscript>",
            f"</head>\n<body>\n<main>\n{_head(answer, words)}",
            *filter(None, sections),
            f"</main>\n{data_of(answer, layers, words)}\n<script>{_file('page.js')}</script>\n</body>\n</html>\n",
        ]
    )


_WITHOUT_SCRIPT = ".needs-script{display:none}.layer[hidden]{display:block}.lane.state[hidden]{display:grid}"


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _section(name: str, heading: str, body: str) -> str:
    return f'<section id="{name}">\n<h2>{escape(heading)}</h2>\n{body}\n</section>' if body else ""


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


# The answer.


def _head(answer: Answer, words: Words) -> str:
    first, amount = answer.answers[0]
    sentences = [words("says value" if answer.unit == "value" else "says", **_given(first, amount, words))]
    if answer.asked != first:
        amount = float(_level(answer, np.array(answer.saliency[0].score)))
        key = "explained value" if answer.unit == "value" else "explained"
        sentences.append(words(key, **_given(answer.asked, amount, words)))
    if answer.target is not None:
        sentences.append(words("truth", target=words.quoted(answer.target)))
    cell = dict(answer.facts).get("cell", "")
    return (
        f'<header>\n<p class="eyebrow">{escape(words.model(answer.model))}{" · " if cell else ""}{escape(cell)}</p>\n'
        f'<h1 dir="auto">{escape(_heading(answer, words))}</h1>\n'
        f'<p class="summary">{escape(" ".join(sentences))}</p>\n{_answers(answer, words)}\n</header>'
    )


def _heading(answer: Answer, words: Words) -> str:
    return words("why", answer=_named(answer.asked, words))


def _named(answer: str, words: Words) -> str:
    """An answer that can be seen: some are a space, or nothing at all."""
    return small(answer) if answer else words("nothing")


def _given(name: str, amount: float, words: Words) -> dict[str, str]:
    return {"answer": words.quoted(_named(name, words)), "share": percent(amount), "value": f"{amount:.4g}"}


def _answers(answer: Answer, words: Words) -> str:
    shown_first, rest = answer.answers[:ANSWERS_SHOWN], answer.answers[ANSWERS_SHOWN:]
    rows = []
    for name, amount in [*shown_first, *(pair for pair in rest if pair[0] == answer.asked)]:
        asked = ' class="asked"' if name == answer.asked else ""
        is_share = answer.unit != "value"
        bar = f'<i style="--w:{amount:.4f}"></i>' if is_share else ""
        number = _amount(answer)(amount)
        rows.append(f'<li{asked}><span dir="auto">{escape(_named(name, words))}</span>{bar}<b>{number}</b></li>')
    return f'<ul class="answers" aria-label="{escape(words("answers"))}">{"".join(rows)}</ul>'


# What speaks for it.


def _saliency(answer: Answer, words: Words) -> str:
    intro = escape(words("colours", answer=words.quoted(_named(answer.asked, words))))
    legend = (
        f'<p class="scale"><span>{escape(words("against"))}</span><i aria-hidden="true"></i>'
        f"<span>{escape(words('for'))}</span></p>"
    )
    tabs, panels = [], []
    for k, (found, test) in enumerate(zip(answer.saliency, answer.tests, strict=True)):
        chosen = " checked" if k == answer.best else ""
        tabs.append(
            f'<label><input type="radio" name="method" value="{k}"{chosen}> {escape(words(found.method))}</label>'
        )
        panels.append(f'<div class="method" data-method="{k}">\n{_method(answer, found, test, words)}\n</div>')
    return (
        f"<p>{intro}</p>\n{legend}\n"
        f'<div class="tabs"><div class="choice" role="radiogroup">{"".join(tabs)}</div>\n{"".join(panels)}</div>'
    )


def _method(answer: Answer, found: Saliency, test: DeletionTest, words: Words) -> str:
    order = np.argsort(-np.abs(found.values), kind="stable")[:STRONGEST]
    strongest = words(
        "strongest", list=", ".join(f"{small(answer.pieces[k])} {_signed(float(found.values[k]))}" for k in order)
    )
    about = words(f"about {found.method}", error=_error(found.error, words), ablation=words.ablation(answer.ablation))
    what = words("the value" if answer.unit == "value" else "the probability")
    verdict = words(
        "convinces" if test.convinces else "does not convince",
        what=what,
        beaten=str(test.beaten),
        orders=str(len(test.random)),
    )
    curves = [_level(answer, scores) for scores in (test.most_first, test.least_first, test.random)]
    names = [words("most first"), words("least first"), words("at random")]
    sign = "yes" if test.convinces else "no"
    return (
        f"{coloured(answer.pieces, found.values)}\n{_note(f'{strongest} {about}')}\n"
        f'<div class="trust {sign}">\n<h3>{escape(words("is it true"))}</h3>\n<p>{escape(verdict)}</p>\n'
        f"{deletion_chart(test.shares, *curves, across=words('gone'), names=names, write=_amount(answer))}\n</div>"
    )


def _level(answer: Answer, scores: np.ndarray) -> np.ndarray:
    """Scores as people read them: probabilities, or the values themselves."""
    return scores if answer.unit == "value" else np.exp(scores)


# Inside.


def _inside(answer: Answer, layers: list[Shown], found: Saliency, words: Words) -> str:
    blocks = []
    for k, layer in enumerate(layers):
        backward = _note(words("about backward")) if layer.record.direction == "backward" else ""
        hidden = " hidden" if k else ""
        blocks.append(
            f'<div class="layer" data-layer="{k}"{hidden}>\n<h3 class="plain">{escape(layer.title)}</h3>\n'
            f"{backward}{timeline(answer, layer, found.values, words)}\n"
            f'<p class="readout needs-script" aria-live="polite">&nbsp;</p>\n'
            f'<div class="note">{notes(answer, layer, words)}</div>\n</div>'
        )
    pick = f' <span class="needs-script">{escape(words("how to pick"))}</span>'
    return f"<p>{escape(words('about inside'))}{pick}</p>\n{_choosers(layers, words)}\n{''.join(blocks)}"


def _choosers(layers: list[Shown], words: Words) -> str:
    fields = []
    if len(layers) > 1:
        options = "".join(f'<option value="{k}">{escape(layer.title)}</option>' for k, layer in enumerate(layers))
        fields.append(f'<label>{escape(words("layer"))} <select id="which-layer">{options}</select></label>')
    names = dict.fromkeys(name for layer in layers for name in layer.values)
    options = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in names)
    fields.append(f'<label>{escape(words("value"))} <select id="which-value">{options}</select></label>')
    return f'<div class="choosers needs-script">{"".join(fields)}</div>'


# Elsewhere, and attention.


def _elsewhere(answer: Answer, found: Saliency, words: Words) -> str:
    other = answer.elsewhere
    if other is None:
        return ""
    shown_first = int(np.abs(found.values).argmax())
    blocks = "".join(
        f'<div class="alike" data-step="{step}"{"" if step == shown_first else " hidden"}>'
        f"<h3>{escape(words('after', piece=words.quoted(small(piece))))}</h3>{_alike(other, step, words)}</div>"
        for step, piece in enumerate(answer.pieces)
    )
    return f"<p>{escape(words('about elsewhere', count=f'{other.inputs:,}'))}</p>\n{blocks}"


def _alike(other: Elsewhere, step: int, words: Words) -> str:
    rows = []
    for one in other.nearest[step]:
        begin, end = around(one.pieces, one.step, REACH)
        label = f'<span class="label">{escape(other.labels[one.input])}</span>' if other.labels else ""
        around_it = f'<span dir="auto">{excerpt(one.pieces, begin, end, one.step)}</span>'
        rows.append(f"<li><b>{one.likeness:.2f}</b> {around_it}{label}</li>")
    return f'<ol class="places">{"".join(rows)}</ol>'


def _attention(seen: Attention | None, words: Words) -> str:
    if seen is None or not seen.weights.size or not seen.weights.any():
        return ""
    columns = "".join(f'<th scope="col"><span>{escape(small(piece))}</span></th>' for piece in seen.read)
    rows = []
    for k, (piece, weights) in enumerate(zip(seen.written, seen.weights, strict=True)):
        cells = "".join(f'<td {tint(float(share))} title="{share:.3f}"></td>' for share in weights)
        copied = "" if seen.copied is None else f'<td class="copied">{percent(float(seen.copied[k]))}</td>'
        rows.append(f'<tr><th scope="row" dir="auto">{escape(small(piece))}</th>{cells}{copied}</tr>')
    about = words("about attention") + ("" if seen.copied is None else " " + words("about copied"))
    end = "" if seen.copied is None else "<th></th>"
    return (
        f'<p>{escape(about)}</p>\n<div class="scroll" tabindex="0"><table class="looked">\n'
        f"<thead><tr><th></th>{columns}{end}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>"
    )


# Facts.


def _facts(answer: Answer, gone: list[str], lost: int, words: Words) -> str:
    made, score = answer.recording, answer.saliency[0].score
    rows = list(answer.facts)
    if answer.target is not None:
        rows.append((words("the truth given"), answer.target))
    rows.append(
        (words("score"), f"{score:.4g}" if answer.unit == "value" else words("score unit", score=f"{score:.4f}"))
    )
    if answer.target is not None and made.loss is not None:
        rows.append((words("loss"), f"{made.loss:.4f}"))
    rows.append((words("runs on"), made.backend))
    if made.left_out:
        rows.append((words("left out"), ", ".join(made.left_out)))
    if gone:
        rows.append((words("not on page"), ", ".join(gone)))
    if lost:
        rows.append((words("lost"), f"{lost:,}"))
    listed = "".join(f"<div><dt>{escape(words.fact(name))}</dt><dd>{escape(value)}</dd></div>" for name, value in rows)
    return f"<p>{escape(words('made'))}</p>\n<dl>{listed}</dl>"


def _amount(answer: Answer) -> Callable[[float], str]:
    """How what the model answers with is written."""
    return percent if answer.unit != "value" else lambda value: f"{value:.4g}"


def _error(value: float, words: Words) -> str:
    return words("less than", value="0.001") if value < 0.001 else f"{value:.2g}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
