"""Parts of a report: whatever comes is text on the page, never markup."""

from html.parser import HTMLParser

import pytest

from everloop.insight import parts

EVIL = "<script>alert('x')</script> & \"quoted\""


class Seen(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    "page",
    [
        parts.table([EVIL, "n"], [[EVIL, 1], ["b", 2]]),
        parts.note(EVIL),
        parts.lines({EVIL: [(0, 1), (1, 2)], "model": [(0, 1.5)]}, label=EVIL, across=EVIL),
        parts.heat([EVIL], [EVIL, "b"], [[0.25, 0.75]]),
        parts.pictures([(b"png", EVIL)]),
    ],
    ids=["table", "note", "lines", "heat", "pictures"],
)
def test_texts_are_escaped(page: str) -> None:
    seen = Seen(page)
    assert "script" not in seen.tags
    assert EVIL in seen.text


def test_numbers_stand_right() -> None:
    page = parts.table(["name", "value"], [["a", 1234567], ["b", 3]])
    assert '<td dir="auto" class="number">1,234,567</td>' in page
    assert '<td dir="auto">a</td>' in page


def test_curves_leave_out_what_is_no_number() -> None:
    page = parts.lines({"truth": [(0, 1), (1, float("nan")), (2, 3)]}, band=[(0, 0, 2), (2, 2, 4)])
    assert "nan" not in page
    assert page.count("<path") == 4, "axis, band, curve, legend"
    assert parts.lines({"nothing": [(0, float("nan"))]}) == ""
