"""A report as data: sections with paragraphs, a table, notes and a figure; and their rendering as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune.results import formatting


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
        title: its heading.
        level: 1 for the report itself, 2 for its sections, 3 for subsections.
        paragraphs: a few sentences each, in Markdown: `**` marks the most important words, backquotes mark names.
        table: columns of cells by heading, or None.
        notes: remarks on the table, one each.
        figure: file name of an image next to the report, or None.
    """

    title: str
    level: int = 2
    paragraphs: Sequence[str] = ()
    table: Mapping[str, Sequence[str]] | None = None
    notes: Sequence[str] = ()
    figure: str | None = None


def to_markdown(sections: Sequence[Section]) -> str:
    """Renders sections as Markdown."""
    parts: list[str] = []
    for section in sections:
        parts.append(f"{'#' * section.level} {section.title}")
        parts += section.paragraphs
        if section.table is not None:
            parts.append(formatting.grid({name: list(cells) for name, cells in section.table.items()}))
        if section.figure is not None:
            parts.append(f"![{section.title}]({section.figure})")
        parts.append("\n".join(f"- {note}" for note in section.notes))
    return "\n\n".join(part for part in parts if part) + "\n"
