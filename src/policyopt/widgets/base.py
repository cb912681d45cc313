"""What all interactive figures share: one model, shown live by anywidget or mounted by a published page.

A figure is a subclass of ``Figure`` in ``KIND.py`` with its front end in ``KIND.js`` beside it, which may
import from ``common.js`` and from nowhere else. In Jupyter the widget view runs both as one module. A
published page has no kernel: there the output's ``text/html``, a placeholder with the model's data, is
mounted by the extension ``policyopt.widgets.sphinx``, which inlines the same module.
"""

import html
import json
import re
from pathlib import Path
from typing import Any, ClassVar

import anywidget

FOLDER = Path(__file__).parent
SHARED = {"host", "common"}
IMPORT = re.compile(r'^import \{[^}]*\} from "\./common\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=const|function)", re.MULTILINE)


def figure_source(kind: str) -> Path:
    """The front end of a figure: the ES module ``KIND.js`` of this package."""
    path = FOLDER / f"{kind}.js"
    kinds = sorted(file.stem for file in FOLDER.glob("*.js") if file.stem not in SHARED)
    if kind not in kinds:
        raise ValueError(f"There is no interactive figure {kind!r}; there are: {', '.join(kinds)}.")
    return path


def figure_module(kind: str) -> str:
    """The front end as one ES module that imports nothing: what the figures share, then ``KIND.js``."""
    common = (FOLDER / "common.js").read_text(encoding="utf-8")
    return EXPORT.sub("", common) + IMPORT.sub("", figure_source(kind).read_text(encoding="utf-8"))


class Figure(anywidget.AnyWidget):
    """An interactive figure.

    A subclass sets ``kind`` (the name of its files), ``title`` and ``summary`` (what is read where no script
    runs), and ``_esm = figure_module(kind)``. The traits tagged ``sync=True, page=True`` are its data: the
    script reads them with ``model.get(name)``, in Jupyter and on the page, so they must be JSON.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]

    def page_data(self) -> dict[str, Any]:
        """The values a published page needs, by trait name."""
        return {name: getattr(self, name) for name in sorted(self.trait_names(page=True))}

    def page_html(self) -> str:
        """The placeholder a published page mounts: the same text for the same data, and no script code."""
        data = json.dumps(self.page_data(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        data = data.replace("<", "\\u003c")  # else a text with "</script>" would end the element
        return (
            f'<div class="policyopt-widget" data-widget="{self.kind}">\n'
            f"<p><strong>{html.escape(self.title)}.</strong> {html.escape(self.summary)} "
            "This figure needs JavaScript; in Jupyter, run the cell to start it.</p>\n"
            f'<script type="application/json">{data}</script>\n'
            "</div>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**kwargs) or {}  # a tuple, a dict or None, by anywidget's version
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/plain": repr(self), "text/html": self.page_html()}, metadata
