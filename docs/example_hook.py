"""The section `Example:` of docstrings as code: griffe knows it as `Examples:` only and would make prose of `>>>`."""

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^Example:$", re.MULTILINE)


class ExampleSections(griffe.Extension):
    """Renames the section in what the documentation reads; the source stays as it is."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of one object.

        Args:
            obj: a module, class, function or attribute that griffe has read.
        """
        if obj.docstring is not None:
            # The value may still have the indentation of the source.
            obj.docstring.value = _HEADING.sub("Examples:", obj.docstring.value)
