"""Formulas of the pages as MathML, which browsers draw without a script or a network.

mkdocs calls `on_page_content` for each page. `pymdownx.arithmatex` has put each formula between `\\(` and `\\)`, or
between `\\[` and `\\]` where it stands on lines of its own.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What the converter makes of \sim is a letter; browsers leave room around an operator.
_TILDE, _SIMILAR = "<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>"
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[\[(](.*?)\\[\])]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """The page with each formula as MathML.

    Args:
        content: HTML of one page's content.

    Returns:
        The same HTML with a `<math>` element for each formula.
    """
    return _FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match[str]) -> str:
    tag, latex = formula[1], html.unescape(formula[2]).strip()
    display = "block" if tag == "div" else "inline"
    mathml = convert(latex, display=display).replace(_TILDE, _SIMILAR)
    return f'<{tag} class="formula">{mathml}</{tag}>'
