"""Docstrings write π(a|s) as the chapters do; reStructuredText would take the bar for a substitution."""

import re

LITERAL = re.compile(r"(``.*?``)")


def escape_bars(app, what, name, obj, options, lines):
    for i, line in enumerate(lines):
        parts = LITERAL.split(line)
        lines[i] = "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def setup(app):
    # After napoleon, at 500, which reads the bars of type unions.
    app.connect("autodoc-process-docstring", escape_bars, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
