"""The document around the sections of a page: head, title, table of contents, and the rules against requests."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from tune.page import tables
from tune.page.markup import Html, escaped, inline, joined, tag
from tune.results.sections import Section


@dataclass(frozen=True)
class Part:
    """One section of a page.

    Attributes:
        title: its heading; empty for the part below the page's title.
        body: its content. A part without content is left out of the page.
        id: of the element, which links point to; empty for the first part.
    """

    title: str
    body: Html
    id: str = ""


@cache
def _file(name: str) -> str:
    return (resources.files("tune.page") / name).read_text(encoding="utf-8")


def document(title: str, subtitle: str, parts: Sequence[Part], *, banner: Sequence[str] = (), footer: str = "") -> str:
    """Returns a page as HTML.

    The page loads nothing: its policy forbids every request, and every script but its own.

    Args:
        title: of the page.
        subtitle: one line below it.
        parts: the sections, in order.
        banner: sentences above the first section, such as that the study has not ended.
        footer: one sentence at the end.
    """
    kept = [part for part in parts if part.body]
    script, style = _file("page.js"), _file("style.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content="m3col"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    links = [tag("a", part.title, href=f"#{part.id}") for part in kept if part.id]
    switch = tag("button", "Light / dark", id="theme", type="button", class_="button")
    heading = tag("div", tag("div", tag("h1", title), tag("p", subtitle, class_="sub")), switch, class_="top")
    warning = tag("div", *(tag("p", inline(line)) for line in banner), class_="banner", role="status")
    top = tag("header", heading, tag("nav", *links, aria_label="Contents"), warning if banner else "")
    body = tag(
        "body", top, tag("main", *(_section(part) for part in kept)), tag("footer", tag("p", footer)),
        Html(f"<script>{script}</script>"),
    )  # fmt: skip
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _section(part: Part) -> Html:
    heading = tag("h2", part.title) if part.title else escaped("")
    return tag("section", heading, part.body, id=part.id or None)


def paragraphs(texts: Sequence[str]) -> Html:
    """Returns sentences of a report as paragraphs; empty ones are left out."""
    return joined(tag("p", inline(text)) for text in texts if text)


def notes(texts: Sequence[str]) -> Html:
    """Returns remarks as a list; empty without remarks."""
    return tag("ul", *(tag("li", inline(text)) for text in texts)) if texts else escaped("")


def of_section(section: Section) -> Html:
    """Returns the content of a section of a report: paragraphs, table, notes."""
    body = [paragraphs(section.paragraphs)]
    if section.table is not None:
        rows = zip(*([inline(cell) for cell in cells] for cells in section.table.values()), strict=True)
        body.append(tables.plain(list(section.table), list(rows)))
    return joined([*body, notes(section.notes)])


def choice(panels: Sequence[tuple[str, Html]], *, name: str, label: str) -> Html:
    """Returns panels of which one is shown, and a list to choose it.

    Args:
        panels: name and content of each; the first one is shown.
        name: of the group, unique in the page.
        label: what is chosen.
    """
    if not panels:
        return escaped("")
    bodies = [tag("div", body, data_panel=name, hidden=at > 0) for at, (_, body) in enumerate(panels)]
    if len(panels) == 1:
        return joined(bodies)
    options = [tag("option", title) for title, _ in panels]
    select = tag("select", *options, class_="choose", data_for=name, autocomplete="off")
    return joined([tag("div", tag("label", f"{label} ", select), class_="controls"), *bodies])


def facts(pairs: Sequence[tuple[str, str | Html]]) -> Html:
    """Returns names and values as a list of definitions."""
    return tag("dl", *(joined([tag("dt", name), tag("dd", value)]) for name, value in pairs), class_="facts")
