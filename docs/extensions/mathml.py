"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network."""

import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.util import logging

LOG = logging.getLogger(__name__)

NAMED = re.compile(r"<(m[io])>(log|exp|max|min|sin|cos|tr|diag)</\1>")
DOUBLE = re.compile(r'<mi mathvariant="double-struck">([A-Z])</mi>')
STRUCK = {"E": "𝔼", "R": "ℝ", "P": "ℙ", "N": "ℕ"}


def markup(node, display):
    """The formula of a node. What the converter does not know, it leaves as \\name: a warning."""
    mathml = convert(node.astext(), display=display)
    for command in sorted(set(re.findall(r"<m[a-z]+[^>]*>(\\[A-Za-z]+)", mathml))):
        LOG.warning("%s cannot be written as MathML", command, location=node)
    # MathML Core has no double-struck variant, and a name needs space around it.
    mathml = DOUBLE.sub(lambda found: f"<mi>{STRUCK[found[1]]}</mi>", mathml)
    return NAMED.sub(r'<mo lspace="0.17em" rspace="0.17em">\2</mo>', mathml)


def inline(self, node):
    self.body.append(markup(node, "inline"))
    raise SkipNode


def block(self, node):
    self.body.append(f'<div class="math">{markup(node, "block")}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
