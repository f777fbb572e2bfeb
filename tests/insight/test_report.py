"""The report of a run: sound HTML, nothing lost, nothing run, and drawings that stay inside their frame."""

import dataclasses
import math
import re
from html.parser import HTMLParser

import pytest

from everloop.insight.report import Report, render

EMPTY = Report("Nothing yet", "", [], [], None, None, None, [], [], [], "")

FULL = Report(
    title="Sentiment of reviews.csv",
    summary="The model gets 78.1 % of 1,066 test examples right.",
    results=[
        ("lstm", {"accuracy": 0.7812, "macro_f1": 0.7804, "loss": 0.4512}),
        ("majority class", {"accuracy": 0.5, "macro_f1": 0.3333, "loss": 0.6931}),
        ("logistic regression", {"accuracy": 0.7684, "macro_f1": 0.7683, "loss": 0.4791}),
    ],
    history=[
        {"epoch": 1, "train_loss": 0.6123, "valid_loss": 0.5432, "lr": 0.002, "clipped": 0.125, "seconds": 4.21},
        {"epoch": 2, "train_loss": 0.4987, "valid_loss": 0.4876, "lr": 0.001, "clipped": 0.031, "seconds": 4.37},
    ],
    baseline_loss=0.4791,
    best_epoch=2,
    confusion=(["negative", "positive"], [[1410, 123], [132, 401]]),
    examples=[("a fine film", "positive", "positive"), ("not the worst", "positive", "negative")],
    samples=["ROMEO:\nWhat light is this?"],
    facts=[("parameters", "1,234,567"), ("cell", "lstm, 2 layers of 128 units")],
    config_toml='seed = 1\n[model]\ncell = "lstm"\n',
)

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed by its own end tag, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open, f"{tag} closes itself outside a drawing"
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def find(self, tag: str, name: str | None = None) -> list[dict[str, str | None]]:
        return [attrs for found, attrs in self.tags if found == tag and name in (None, attrs.get("class"))]


def page(**changes) -> Page:
    return Page(render(dataclasses.replace(FULL, **changes)))


def history(epochs: int) -> list[dict[str, float]]:
    return [{"epoch": epoch, "train_loss": 3 / epoch, "valid_loss": 0.5 + 3 / epoch} for epoch in range(1, epochs + 1)]


def coordinates(path: str) -> list[tuple[str, float]]:
    """The absolute coordinates of the path commands that the drawing uses, each with its axis."""
    found = []
    for command, rest in re.findall(r"([MLHVv])([^MLHVv]*)", path):
        numbers = [float(number) for number in rest.split()]
        if command in "ML":
            found += list(zip("xy", numbers, strict=True))
        elif command in "HV":
            found.append(("x" if command == "H" else "y", *numbers))
        else:
            found.append(("y", found[-1][1] + numbers[0]))
    return found


def assert_inside(drawn: Page) -> None:
    width, height = 640, 300
    assert {"viewbox": f"0 0 {width} {height}"}.items() <= drawn.find("svg")[-1].items()
    shapes = drawn.tags[[tag for tag, _ in drawn.tags].index("figure") :]
    points = []
    for tag, attrs in shapes:
        if tag == "path":
            points += coordinates(attrs["d"] or "")
        elif tag in ("circle", "text"):
            points += [(name[-1], float(attrs[name] or "")) for name in ("cx", "cy", "x", "y") if name in attrs]
    assert points
    for axis, value in points:
        assert 0 <= value <= (width if axis == "x" else height)


def test_every_figure_of_the_input_is_on_the_page():
    text = page().text
    figures = "78.1 % 78.0 % 0.451 50.0 % 33.3 % 0.693 76.8 % 0.479"
    figures += " 0.612 0.543 0.002 12.5 % 4.2 0.499 0.488 0.001 3.1 % 4.4"
    figures += " 1,410 123 132 401 1,533 533 1,542 524 2,066 1,234,567 128"
    missing = [figure for figure in figures.replace(" %", "%").split() if figure not in text.replace(" %", "%")]
    assert not missing


def test_every_text_of_the_input_is_on_the_page():
    text = page().text
    said = [
        FULL.title,
        FULL.summary,
        *(name for name, _ in FULL.results),
        *(part for fact in FULL.facts for part in fact),
    ]
    said += [part for example in FULL.examples for part in example] + ["negative", "positive"]
    said += ["ROMEO: What light is this?", 'seed = 1 [model] cell = "lstm"']
    assert [words for words in said if words not in text] == []


def test_the_page_is_self_contained():
    html = render(FULL)
    assert not re.search(r"<(script|link|img|iframe)|https?:|url\(|@import|\son\w+=", html)
    assert html.startswith("<!DOCTYPE html>")
    assert "prefers-color-scheme: dark" in html


def test_nothing_of_the_input_is_taken_for_html():
    evil = "<script>alert('x')</script>&\"<b>"
    html = render(
        Report(
            title=evil,
            summary=evil,
            results=[(evil, {evil: 1.0}), ("other" + evil, {evil: 2.0})],
            history=[{"epoch": 1, "valid_loss": 1.0, "valid_" + evil: 2.0}],
            baseline_loss=None,
            best_epoch=None,
            confusion=([evil, "b"], [[1, 2], [3, 4]]),
            examples=[(evil, evil, evil)],
            samples=[evil],
            facts=[(evil, evil)],
            config_toml=evil,
        )
    )
    read = Page(html)
    assert not read.find("script")
    assert not read.find("b")
    assert read.text.count("<script>alert('x')</script>&\"<b>") >= 13


def test_an_empty_report_has_its_title_and_no_empty_sections():
    read = Page(render(EMPTY))
    assert read.text.strip() == "Nothing yet"
    assert not read.find("section")
    assert not read.find("table")


@pytest.mark.parametrize("epochs", [1, 2, 9, 40, 200])
@pytest.mark.parametrize("baseline", [None, 0.1, 9.0])
def test_curves_stay_inside_the_drawing(epochs, baseline):
    drawn = page(history=history(epochs), baseline_loss=baseline, best_epoch=epochs)
    assert_inside(drawn)
    assert len(drawn.find("circle", "train")) == (epochs if epochs <= 30 else 0)
    assert len(drawn.find("path", "baseline")) == (0 if baseline is None else 2)  # the line and its key
    assert f"best epoch {epochs}, validation {0.5 + 3 / epochs:.3f}" in drawn.text


@pytest.mark.parametrize(
    "losses", [[0.0], [0.0, 0.0], [2.0, 2.0 + 1e-15], [-3.0, 4.0], [1e-7, 2e-7], [1e30, 1.0], [0.50001, 0.50002]]
)
def test_odd_losses_are_drawn_too(losses):
    rows = [{"epoch": epoch, "train_loss": loss} for epoch, loss in enumerate(losses)]
    drawn = page(history=rows, baseline_loss=None, best_epoch=None)
    assert_inside(drawn)
    ticks = re.findall(r'text-anchor="end">([^<]*)<', render(dataclasses.replace(FULL, history=rows)))
    assert len(ticks) == len(set(ticks)) >= 2


def test_ticks_are_round():
    html = render(dataclasses.replace(FULL, history=history(12), baseline_loss=None))
    assert re.findall(r'text-anchor="end">([^<]*)<', html) == ["0", "1", "2", "3", "4"]
    assert re.findall(r'text-anchor="middle">([^<]*)<', html) == ["2", "4", "6", "8", "10", "12"]


def test_what_is_not_a_number_is_dropped_from_the_drawing_and_dashed_in_the_table():
    rows = history(3)
    rows[0]["train_loss"], rows[1]["valid_loss"] = math.inf, math.nan
    drawn = page(history=rows, baseline_loss=math.nan, best_epoch=2)
    assert_inside(drawn)
    assert len(drawn.find("circle", "train")) == len(drawn.find("circle", "valid")) == 2
    assert not drawn.find("circle", "mark")
    assert drawn.text.count("–") == 2
    assert not re.search(r"\b(nan|inf)\b", drawn.text)


def test_without_any_loss_there_is_no_drawing():
    assert not page(history=[{"epoch": 1, "train_loss": math.nan}]).find("figure")


def test_the_best_of_each_metric_is_bold():
    html = render(FULL)
    assert re.findall(r"<strong>(.*?)</strong>", html) == ["78.1\u00a0%", "78.0\u00a0%", "0.451"]


def test_a_model_that_wins_is_not_said_to_lose():
    assert "does not beat" not in page().text
    assert "does not beat" not in page(results=FULL.results[:1]).text


def test_a_model_that_does_not_beat_the_baseline_is_said_not_to():
    worse = ("lstm", {"accuracy": 0.7684, "macro_f1": 0.79, "loss": 0.6})
    text = page(results=[worse, *FULL.results[1:]]).text.replace("\u00a0", " ")
    assert (
        "On this split lstm does not beat logistic regression by accuracy (76.8 % against 76.8 %) "
        "or by loss (0.600 against 0.479)." in text
    )


def test_metrics_that_only_some_rows_have_are_dashed():
    text = page(results=[("lstm", {"loss": 1.0, "perplexity": 2.718}), ("3-gram", {"loss": 1.2})]).text
    assert "3-gram 1.200 –" in text
    assert "2.72" in text


def test_wrong_predictions_are_marked_in_words():
    assert page().text.count("wrong") == 1
    unknown_truth = page(examples=[("To be", "", "or not to be")])
    assert "wrong" not in unknown_truth.text
    assert "truth" not in unknown_truth.text.split("Examples")[1].split("Generated")[0]


def test_a_long_example_is_cut_and_a_sample_is_not():
    text = page(examples=[("word " * 500, "a", "a")], samples=["token " * 500]).text
    assert text.count("word ") < 100
    assert text.count("token ") == 500


def test_shades_are_shares_of_the_row():
    shades = [attrs["style"] for attrs in page().find("td") if "style" in attrs]
    assert shades == ["--share:0.920", "--share:0.080", "--share:0.248", "--share:0.752"]
    assert len(page(confusion=(["a", "b"], [[0, 0], [0, 3]])).find("td", "number right")) == 2


def test_many_classes_are_cut_to_the_most_confused_and_totals_stay_true():
    labels = [f"class{number}" for number in range(50)]
    counts = [[7 if true == taken else 0 for taken in range(50)] for true in range(50)]
    for place in range(25, 45):
        counts[place][place - 1] = place
    read = page(confusion=(labels, counts))
    assert "Of 50 classes the 20 most confused are shown" in read.text
    assert "class44" in read.text
    assert "class3 " not in read.text
    assert "30 others" in read.text
    assert f"{sum(map(sum, counts)):,}" in read.text


def test_a_confusion_matrix_must_be_square():
    with pytest.raises(ValueError, match="2 labels and rows of"):
        page(confusion=(["a", "b"], [[1, 2]]))


def test_chinese_is_written_as_it_is():
    html = render(dataclasses.replace(FULL, title="酒店评论", confusion=(["好评", "差评"], [[1, 2], [3, 4]])))
    assert '<meta charset="utf-8">' in html
    assert all(word in html for word in ("酒店评论", "好评", "差评"))


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_has_contrast_on_paper_and_on_the_strongest_shade(scheme):
    variables = re.findall(r":root \{\s*(?:color-scheme: light dark;)?\s*--paper: ([^}]*)\}", render(FULL))[scheme]
    colours = dict(re.findall(r"--(\w+): ([^;]+);", "--paper: " + variables))
    paper, ink, quiet = (rgb(colours[name]) for name in ("paper", "ink", "quiet"))
    accent = [int(part) for part in colours["accent"].split()]
    shade = [0.38 * over + 0.62 * under for over, under in zip(accent, paper, strict=True)]
    assert min(contrast(ink, paper), contrast(quiet, paper), contrast(ink, shade), contrast(accent, paper)) >= 4.5


def rgb(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def contrast(one: list[int] | list[float], other: list[int] | list[float]) -> float:
    """The contrast ratio of two colours as WCAG 2 defines it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[int] | list[float]) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (c / 255 for c in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
