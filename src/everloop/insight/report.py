"""The report of a training run: one self-contained HTML page, readable by someone who never saw the code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from everloop.insight.metrics import can_be_better, is_share, kind, lower_is_better

MOST_CLASSES = 20
LONGEST_EXAMPLE = 400


@dataclass(frozen=True)
class Report:
    """What a report shows, as plain data. Empty parts are left out of the page."""

    title: str
    summary: str  # one sentence: what the model reaches, and what the best baseline does
    results: list[tuple[str, dict[str, float]]]  # name and metrics on one test split; the model comes first
    history: list[dict[str, float]]  # one per epoch: "epoch", "train_loss", "valid_loss", "lr", "clipped", ...
    baseline_loss: float | None
    best_epoch: int | None
    confusion: tuple[list[str], list[list[int]]] | None  # labels, counts[true][predicted]
    examples: list[tuple[str, str, str]]  # input, truth or "", prediction
    samples: list[str]  # generated texts
    facts: list[tuple[str, str]]
    config_toml: str
    loss_unit: str = "nats"
    more: list[tuple[str, str]] = field(default_factory=list)  # a heading, and HTML of `everloop.insight.parts`


def render(report: Report) -> str:
    """The page as one string of HTML: no script, nothing loaded from elsewhere, every text escaped."""
    sections = [
        _section("Result on the test split", _results(report.results, report.loss_unit)),
        _section("Learning", _learning(report)),
        _section("What is taken for what", _confusion(report.confusion)),
        _section("Examples", _examples(report.examples)),
        _section("Generated texts", _samples(report.samples)),
        *(_section(escape(heading), body) for heading, body in report.more),
        _section("The run", _facts(report.facts)),
        _section("Configuration", _config(report.config_toml)),
    ]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(report.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
            f'<h1 dir="auto">{escape(report.title)}</h1>\n<p class="summary">{escape(report.summary)}</p>',
            *filter(None, sections),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _section(heading: str, body: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n{body}\n</section>" if body else ""


# Numbers and names, the same everywhere on the page.

_PLACES = {"loss": 3, "perplexity": 2, "seconds": 1, "epoch": 0}
_WORDS = {"train": "training", "valid": "validation", "lr": "learning rate", "f1": "F1"}
_UNITS = {"clipped": "updates"}
_MEANINGS = {
    "accuracy": "the share of examples labelled right",
    "macro_f1": "precision and recall in one number, every class counting the same however rare it is",
    "loss": "how surprised the model is by the truth, on average; lower is better",
    "perplexity": "among how many equally likely tokens the model seems to choose; lower is better",
}
_NOTHING = "–"


def _words(name: str) -> str:
    return escape(" ".join(_WORDS.get(word, word) for word in name.split("_")))


def _title(name: str, loss_unit: str) -> str:
    unit = loss_unit if kind(name) == "loss" else _UNITS.get(name, "")
    return _words(name) + (f" ({escape(unit)})" if unit else "")


def _value(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return _NOTHING
    if is_share(name):
        return f"{100 * value:.1f}\u00a0%"
    places = _PLACES.get(kind(name))
    too_small = places is not None and value != 0 and abs(value) < 10 ** (1 - places) and places > 0
    if places is None or too_small or abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.{places}f}"


def _columns(rows: Iterable[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


# Results.


def _results(results: list[tuple[str, dict[str, float]]], loss_unit: str) -> str:
    if not results:
        return ""
    metrics = _columns(row for _, row in results)
    best = {name: _best(name, [row.get(name) for _, row in results]) for name in metrics}
    head = "".join(f'<th scope="col" class="number">{_title(name, loss_unit)}</th>' for name in metrics)
    body = "\n".join(
        f'<tr><th scope="row" dir="auto">{escape(model)}</th>'
        + "".join(_result(name, row.get(name), best[name]) for name in metrics)
        + "</tr>"
        for model, row in results
    )
    meanings = "; ".join(f"{_words(name)} is {_MEANINGS[name]}" for name in metrics if name in _MEANINGS)
    bold = ["In bold the best of each column."] if len(results) > 1 else []
    note = " ".join([*bold, *([f"Here {meanings}."] if meanings else [])])
    return (
        _scroll("Results", f'<table>\n<thead><tr><th scope="col">model</th>{head}</tr></thead>\n<tbody>\n{body}')
        + _verdict(results)
        + (f'\n<p class="note">{note}</p>' if note else "")
    )


def _result(name: str, value: float | None, best: float | None) -> str:
    text = _value(name, value)
    is_best = best is not None and value == best
    return f'<td class="number">{f"<strong>{text}</strong>" if is_best else text}</td>'


def _best(name: str, values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value) and can_be_better(name)]
    choose = min if lower_is_better(name) else max
    return choose(known) if known else None


def _verdict(results: list[tuple[str, dict[str, float]]]) -> str:
    """A plain sentence for every baseline that the model, the first row, does not beat."""
    (model, reached), *baselines = results
    lost: dict[str, list[str]] = {}
    for name, value in reached.items():
        rivals = {rival: row[name] for rival, row in baselines if math.isfinite(row.get(name, math.nan))}
        best = _best(name, rivals.values())
        if best is None or (value != best and _best(name, [value, best]) == value):
            continue
        rival = next(rival for rival, reached_by_it in rivals.items() if reached_by_it == best)
        against = f"by {_words(name)} ({_value(name, value)} against {_value(name, best)})"
        lost.setdefault(rival, []).append(against)
    sentences = [
        f"On this split {escape(model)} does not beat {escape(rival)} {' or '.join(metrics)}."
        for rival, metrics in lost.items()
    ]
    return f'\n<p class="verdict">{" ".join(sentences)}</p>' if sentences else ""


# Learning.


def _learning(report: Report) -> str:
    return "\n".join(filter(None, [_curves(report), _epochs(report)]))


def _epochs(report: Report) -> str:
    if not report.history:
        return ""
    names = _columns(report.history)
    head = "".join(f'<th scope="col" class="number">{_title(name, report.loss_unit)}</th>' for name in names)
    rows = "\n".join(
        f"<tr{_best_mark(row, report.best_epoch)}>"
        + "".join(f'<td class="number">{_value(name, row.get(name))}</td>' for name in names)
        + "</tr>"
        for row in report.history
    )
    # A long run would push everything else off the page.
    is_open = " open" if len(report.history) <= 10 else ""
    table = _scroll("Every epoch", f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}")
    count = f"{len(report.history):,} epochs" if len(report.history) > 1 else "the only epoch"
    bold = ", the best in bold" if report.best_epoch is not None and len(report.history) > 1 else ""
    return f"<details{is_open}>\n<summary>Figures of {count}{bold}</summary>\n{table}\n</details>"


def _best_mark(row: dict[str, float], best_epoch: int | None) -> str:
    return ' class="best"' if best_epoch is not None and row.get("epoch") == best_epoch else ""


_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 626, 38, 262


@dataclass(frozen=True)
class _Scale:
    """Where a value of an axis lies on the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> str:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return f"{self.start + share * (self.end - self.start):.1f}"


def _points(history: list[dict[str, float]], name: str) -> list[tuple[float, float]]:
    pairs = [(row.get("epoch", place), row.get(name)) for place, row in enumerate(history, start=1)]
    return [(epoch, value) for epoch, value in pairs if value is not None and math.isfinite(value)]


def _curves(report: Report) -> str:
    train, valid = _points(report.history, "train_loss"), _points(report.history, "valid_loss")
    if not train and not valid:
        return ""
    level = report.baseline_loss
    baseline = [level] if level is not None and math.isfinite(level) else []
    losses = [loss for _, loss in train + valid] + baseline
    epochs = [epoch for epoch, _ in train + valid]
    ticks = _ticks(min(losses), max(losses))
    across = _Scale(min(epochs), max(epochs), _LEFT + 14, _RIGHT - 14)
    up = _Scale(ticks[0], ticks[-1], _BOTTOM, _TOP)
    best = next(((epoch, loss) for epoch, loss in valid if epoch == report.best_epoch), None)
    parts = [
        _frame(across, up, ticks, _title("loss", report.loss_unit)),
        *(f'<path class="baseline" d="M{_LEFT} {up(value)}H{_RIGHT}"/>' for value in baseline),
        _curve("train", train, across, up),
        _curve("valid", valid, across, up),
        _best_point(best, across, up),
    ]
    return (
        f"<figure>\n{_legend(train, valid, baseline, best)}\n"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Loss after each epoch">\n'
        + "\n".join(filter(None, parts))
        + "\n</svg>\n</figure>"
    )


def _frame(across: _Scale, up: _Scale, ticks: list[float], what: str) -> str:
    lines = [
        f'<path class="grid" d="M{_LEFT} {up(tick)}H{_RIGHT}"/>'
        f'<text x="{_LEFT - 8}" y="{up(tick)}" dy="0.35em" text-anchor="end">{_tick(tick, ticks)}</text>'
        for tick in ticks
    ]
    whole = [tick for tick in _ticks(across.low, across.high, whole=True) if across.low <= tick <= across.high]
    lines += [
        f'<path class="grid" d="M{across(tick)} {_BOTTOM}v5"/>'
        f'<text x="{across(tick)}" y="{_BOTTOM + 12}" dy="0.9em" text-anchor="middle">{_tick(tick, whole)}</text>'
        for tick in whole
    ]
    lines.append(f'<text x="0" y="4" dy="0.75em">{what}</text>')
    lines.append(f'<text x="0" y="{_BOTTOM + 12}" dy="0.9em">epoch</text>')
    return "\n".join(lines)


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """About five round numbers, the first at or below `low` and the last at or above `high`."""
    if not whole and high - low <= 1e-3 * abs(high):
        # A flat line: a closer look would only enlarge noise, and give ticks that all read the same.
        margin = 0.1 * abs(high) or 0.1
        low, high = low - margin, high + margin
    rough = (high - low) / (8 if whole else 5) or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def _tick(tick: float, ticks: list[float]) -> str:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    if max(abs(ticks[0]), abs(ticks[-1])) >= 1e5:
        return f"{tick:.3g}"
    if step < 1e-4:
        return f"{tick:.4g}"
    return f"{tick:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _curve(name: str, points: list[tuple[float, float]], across: _Scale, up: _Scale) -> str:
    if not points:
        return ""
    line = "L".join(f"{across(epoch)} {up(loss)}" for epoch, loss in points)
    # Few epochs are seen as points; one alone would not be seen at all.
    dots = "".join(f'<circle class="{name}" cx="{across(epoch)}" cy="{up(loss)}" r="3"/>' for epoch, loss in points)
    return f'<path class="{name}" d="M{line}"/>' + (dots if len(points) <= 30 else "")


def _best_point(best: tuple[float, float] | None, across: _Scale, up: _Scale) -> str:
    if best is None:
        return ""
    x, y = across(best[0]), up(best[1])
    return f'<path class="mark" d="M{x} {_TOP}V{_BOTTOM}"/>\n<circle class="mark" cx="{x}" cy="{y}" r="6.5"/>'


def _legend(
    train: Sequence[object], valid: Sequence[object], baseline: list[float], best: tuple[float, float] | None
) -> str:
    """Beside the drawing and not on it, so that no curve can run through a word."""
    line, ring = '<path class="{}" d="M1 8H27"/>', '<circle class="mark" cx="14" cy="8" r="6"/>'
    entries = [
        (bool(train), line.format("train"), "training"),
        (bool(valid), line.format("valid"), "validation"),
        *((True, line.format("baseline"), f"baseline, {_value('loss', value)}") for value in baseline),
    ]
    if best is not None:
        entries.append((True, ring, f"best epoch {best[0]:.0f}, validation {_value('loss', best[1])}"))
    items = "".join(
        f'<li><svg viewBox="0 0 28 16" width="28" height="16" aria-hidden="true">{sign}</svg> {text}</li>'
        for is_there, sign, text in entries
        if is_there
    )
    return f'<ul class="legend">{items}</ul>'


# Confusion.


def _confusion(confusion: tuple[list[str], list[list[int]]] | None) -> str:
    if confusion is None or not confusion[0]:
        return ""
    labels, counts = confusion
    if [len(row) for row in counts] != [len(labels)] * len(labels):
        raise ValueError(
            f"confusion has {len(labels)} labels and rows of {[len(row) for row in counts]} counts; "
            "give one row per label and one count per label in each"
        )
    shown = _most_confused(counts) if len(labels) > MOST_CLASSES else list(range(len(labels)))
    names, table = _fold(labels, counts, shown)
    others = len(labels) - len(shown)
    columns = [sum(column) for column in zip(*table, strict=True)]
    head = "".join(f'<th scope="col" class="number"><span>{escape(name)}</span></th>' for name in names)
    rows = "\n".join(_confusion_row(place, names[place], row, others) for place, row in enumerate(table))
    foot = "".join(f'<td class="number">{total:,}</td>' for total in [*columns, sum(columns)])
    kind = "confusion upright" if len(names) > 8 else "confusion"
    body = (
        f'<table class="{kind}">\n<thead><tr><th scope="col">taken for →<br>truth ↓</th>{head}'
        f'<th scope="col" class="number"><span>in all</span></th></tr></thead>\n<tbody>\n{rows}\n</tbody>\n'
        f'<tfoot><tr><th scope="row">in all</th>{foot}</tr></tfoot>'
    )
    note = "A row holds the examples of one class; the stronger the colour of a field, the larger its share of the row."
    if others:
        note += f" Of {len(labels):,} classes the {len(shown)} most confused are shown, the rest taken together."
    return _scroll("Confusion matrix", body, closed=True) + f'\n<p class="note">{note}</p>'


def _most_confused(counts: list[list[int]]) -> list[int]:
    def confused_then_frequent(place: int) -> tuple[int, int]:
        seen, taken = sum(counts[place]), sum(row[place] for row in counts)
        return seen + taken - 2 * counts[place][place], seen

    return sorted(sorted(range(len(counts)), key=confused_then_frequent, reverse=True)[:MOST_CLASSES])


def _fold(labels: list[str], counts: list[list[int]], shown: list[int]) -> tuple[list[str], list[list[int]]]:
    """The chosen rows and columns, and one more of each for all others, so that totals stay true."""
    if len(shown) == len(labels):
        return labels, counts
    rest = [place for place in range(len(labels)) if place not in set(shown)]
    groups = [*([place] for place in shown), rest]
    table = [[sum(counts[t][p] for t in true for p in taken) for taken in groups] for true in groups]
    return [*(labels[place] for place in shown), f"{len(rest):,} others"], table


def _confusion_row(place: int, name: str, row: list[int], others: int) -> str:
    total = sum(row)
    cells = []
    for column, count in enumerate(row):
        share = count / total if total else 0.0
        # Right and wrong answers within the others cannot be told apart: no shade, no weight.
        is_mixed = bool(others) and place == column == len(row) - 1
        mark = ' class="number right"' if place == column and not is_mixed else ' class="number"'
        shade = "" if is_mixed or not count else f' style="--share:{share:.3f}" title="{100 * share:.1f}&nbsp;%"'
        cells.append(f"<td{mark}{shade}>{count:,}</td>")
    cells.append(f'<td class="number">{total:,}</td>')
    return f'<tr><th scope="row" dir="auto"><span>{escape(name)}</span></th>{"".join(cells)}</tr>'


# Texts.


def _examples(examples: list[tuple[str, str, str]]) -> str:
    if not examples:
        return ""
    has_truth = any(truth for _, truth, _ in examples)
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("input", *(["truth"] if has_truth else []), "prediction")
    )
    rows = "\n".join(_example(text, truth, guess, has_truth) for text, truth, guess in examples)
    return f'<table class="examples">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>'


def _example(text: str, truth: str, guess: str, has_truth: bool) -> str:
    sign = ' <span class="wrong">wrong</span>' if truth and truth != guess else ""
    cells = [_cell(text), *([_cell(truth or _NOTHING)] if has_truth else []), _cell(guess, sign)]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(text: str, sign: str = "") -> str:
    return f'<td dir="auto">{escape(_short(text))}{sign}</td>'


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_EXAMPLE else text[:LONGEST_EXAMPLE].rstrip() + " …"


def _samples(samples: list[str]) -> str:
    return "\n".join(f'<pre class="sample" dir="auto">{escape(text)}</pre>' for text in samples)


def _facts(facts: list[tuple[str, str]]) -> str:
    if not facts:
        return ""
    rows = "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f"<dl>\n{rows}\n</dl>"


def _config(config_toml: str) -> str:
    return f"<pre>{escape(config_toml.strip())}</pre>" if config_toml.strip() else ""


def _scroll(label: str, table: str, *, closed: bool = False) -> str:
    """A table that scrolls by itself when it is wider than the page."""
    end = "\n</table>" if closed else "\n</tbody>\n</table>"
    return f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">\n{table}{end}\n</div>'


_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #1c1d1f; --quiet: #5c6066; --line: #dcdcd6; --accent: 0 91 166;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171a; --ink: #e7e6e2; --quiet: #a3a8b0; --line: #33373d; --accent: 122 182 242; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font: 1rem/1.55 system-ui, "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif;
}
main { max-width: 46rem; margin: 0 auto; padding: 4rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; font-weight: 650; margin: 0 0 0.75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; font-weight: 650; margin: 0 0 0.9rem; }
section { margin-top: 3.25rem; }
p { margin: 0.9rem 0 0; }
.summary { font-size: 1.2rem; line-height: 1.5; margin: 0; max-width: 36em; overflow-wrap: anywhere; }
.note, .legend, summary { color: var(--quiet); font-size: 0.875rem; }
.verdict { border-left: 3px solid rgb(var(--accent)); padding-left: 0.9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.45rem 0.9rem 0.45rem 0; border-bottom: 1px solid var(--line); }
th, td { text-align: start; vertical-align: top; }
th:last-child, td:last-child { padding-inline-end: 0; }
thead th { color: var(--quiet); font-weight: 400; font-size: 0.875rem; vertical-align: bottom; }
tbody th { font-weight: 400; }
.number { text-align: end; white-space: nowrap; }
thead .number { white-space: normal; }
strong { font-weight: 700; }
details { margin-top: 1.25rem; }
details table { font-size: 0.875rem; margin-top: 0.5rem; }
summary { cursor: pointer; }
tr.best td { font-weight: 700; }
figure { margin: 0; }
figure > svg { display: block; width: 100%; height: auto; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; }
.legend { margin: 0 0 0.75rem; padding: 0; }
.legend svg { vertical-align: -3px; }
svg text { fill: var(--quiet); font-size: 13px; font-variant-numeric: tabular-nums; }
svg path, svg circle { fill: none; stroke-linejoin: round; stroke-linecap: round; vector-effect: non-scaling-stroke; }
svg path.grid { stroke: var(--line); }
svg path.train { stroke: var(--quiet); stroke-width: 1.5; }
svg path.valid { stroke: rgb(var(--accent)); stroke-width: 2.5; }
svg path.baseline { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 2 5; }
svg path.mark { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 1 4; }
svg circle.train { fill: var(--quiet); }
svg circle.valid { fill: rgb(var(--accent)); }
svg circle.mark { stroke: var(--ink); stroke-width: 1.5; }
.confusion { width: max-content; }
.confusion th, .confusion td { padding: 0.4rem 0.7rem; border: 1px solid var(--paper); }
.confusion th:first-child { padding-left: 0; position: sticky; left: 0; background: var(--paper); }
.confusion tfoot th { font-weight: 400; }
.confusion th span { display: inline-block; max-width: 11rem; overflow-wrap: anywhere; }
.confusion td[style] {
  background: rgb(var(--accent) / calc(0.04 + var(--share) * 0.34));
  print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
.confusion .right { font-weight: 700; }
.confusion tfoot, .confusion td:not([style]) { color: var(--quiet); }
.upright, .upright thead th { font-size: 0.75rem; }
.upright td, .upright th { padding: 0.2rem 0.3rem; }
.upright thead .number span { writing-mode: vertical-rl; text-orientation: sideways; transform: rotate(180deg); }
.upright thead .number span { max-height: 9rem; text-align: start; }
.examples td { overflow-wrap: break-word; white-space: pre-line; }
.examples td:first-child { overflow-wrap: anywhere; }
.wrong { color: var(--quiet); font-size: 0.8125rem; border-bottom: 1px solid currentColor; }
pre {
  margin: 0; padding: 1rem 1.1rem; border: 1px solid var(--line); border-radius: 4px;
  overflow-wrap: anywhere; white-space: pre-wrap;
  font: 0.8125rem/1.6 ui-monospace, "SF Mono", Menlo, Consolas, "Noto Sans Mono CJK SC", monospace;
}
pre.sample { font: inherit; margin-bottom: 0.9rem; }
dl { margin: 0; }
dl div { display: grid; grid-template-columns: 11rem 1fr; gap: 0.25rem 1rem; padding: 0.4rem 0; }
dl div { border-bottom: 1px solid var(--line); }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (min-width: 60rem) {
  .scroll:has(.upright) { margin-inline-end: calc(24rem - 50vw); }
}
@media (max-width: 34rem) {
  main { padding-top: 2.25rem; }
  h1 { font-size: 1.5rem; }
  .summary { font-size: 1.0625rem; }
  figure > svg text { font-size: 20px; }
  th, td { padding-inline-end: 0.6rem; }
  .confusion th, .confusion td { padding-inline: 0.4rem; }
  dl div { grid-template-columns: 1fr; gap: 0; }
}
@media print {
  :root { color-scheme: light; }
  :root { --paper: #ffffff; --ink: #1c1d1f; --quiet: #5c6066; --line: #dcdcd6; --accent: 0 91 166; }
  main { max-width: none; padding: 0; }
  section { margin-top: 2rem; break-inside: avoid-page; }
  h2 { break-after: avoid; }
  .scroll { overflow: visible; }
  .upright, .upright thead th { font-size: 0.5625rem; }
}
"""
