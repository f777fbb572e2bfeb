"""Check a built site: every link of ours leads somewhere, and no page asks another host for anything.

python docs/site/links.py build/site
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What forbids a browser to ask another host for anything, whatever a script of the theme may come to want.
POLICY = "default-src 'self' file: data: blob: 'unsafe-inline'"

# Attributes whose address a browser fetches by itself; that of a link (`a`) waits for a reader.
FETCHED = {"src", "srcset", "data", "poster", "action", "xlink:href"}
NOT_FETCHED = {"canonical", "alternate", "prev", "next", "license", "author"}


@dataclass
class Page:
    """What one HTML page holds: its anchors, the addresses it links to, those it fetches, and what it forbids."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    policy: str = ""


def problems(site: Path) -> list[str]:
    """What is wrong with the site, one line each; nothing if all is well."""
    pages = {file: read(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    if not pages:
        return [f"{site}: no pages"]
    found = [
        f"{file.relative_to(site)}: {problem}"
        for file, page in pages.items()
        for address in dict.fromkeys([*page.links, *page.fetched])
        if (problem := _dead(address, file, site, pages))
    ]
    found += [
        f"{file.relative_to(site)}: asks another host for {address}"
        for file, page in pages.items()
        for address in page.fetched
        if _is_elsewhere(address)
    ]
    for file, page in pages.items():
        if page.policy != POLICY:
            found.append(
                f"{file.relative_to(site)}: its content security policy is {page.policy!r}; expected {POLICY!r}"
            )
    for file in sorted(site.rglob("*.css")):
        elsewhere = [url for url in _urls(file.read_text(encoding="utf-8")) if _is_elsewhere(url)]
        found += [f"{file.relative_to(site)}: asks another host for {url}" for url in elsewhere]
    return found


def read(html: str) -> Page:
    parser = _Parser()
    parser.feed(html)
    parser.close()
    return parser.page


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page, self._inside = Page(), ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._inside = tag
        self.page.anchors.update(given[name] for name in ("id", "name") if name in given)
        if given.get("http-equiv", "").lower() == "content-security-policy":
            self.page.policy = given.get("content", "")
        relations = set(given.get("rel", "").split())
        for name, value in given.items():
            if name == "href" and tag in ("a", "area"):
                self.page.links.append(value)
            elif name == "href" and tag != "base" and not relations & NOT_FETCHED:
                self.page.fetched.append(value)
            elif name == "srcset":
                self.page.fetched += [part.split()[0] for part in value.split(",")]
            elif name in FETCHED:
                self.page.fetched.append(value)
            elif name == "style":
                self.page.fetched += _urls(value)

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.page.fetched += _urls(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def _dead(address: str, file: Path, site: Path, pages: dict[Path, Page]) -> str:
    """Why an address leads nowhere; empty if it leads somewhere, or to another host."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return ""
    base = site if parts.path.startswith("/") else file.parent
    target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else file
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site.resolve()) and target not in pages:
        return f"{address} leads out of the site"
    if not target.is_file():
        return f"{address} leads to no file"
    fragment = unquote(parts.fragment)
    if fragment and target in pages and fragment not in pages[target].anchors:
        return f"{address} leads to no anchor of that page"
    return ""


def _is_elsewhere(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data", "mailto", "javascript")


def _urls(css: str) -> list[str]:
    return re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""", css)


def main(site: Path) -> int:
    found = problems(site.resolve())
    for problem in found:
        print(problem)
    pages = sum(1 for _ in site.rglob("*.html"))
    print(f"{site}: {pages} pages, {len(found) or 'no'} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
