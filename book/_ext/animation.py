"""``{animation}``: an animated picture, with a still one for readers who asked for less motion.

```{animation} images/moving.gif
:still: images/still.png
:alt: What the picture shows.
:width: 600
:height: 400

The caption.
```
"""

import posixpath
from html import escape

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


class picture(nodes.General, nodes.Element):
    """Two images, the moving one first: Sphinx finds and copies both as it does any image."""


class Animation(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec = {  # noqa: RUF012  (docutils reads it from the class)
        "still": directives.unchanged_required,
        "alt": directives.unchanged_required,
        "width": directives.positive_int,
        "height": directives.positive_int,
    }

    def run(self):
        for name in ("still", "alt"):
            if not self.options.get(name):
                raise self.error(f"animation {self.arguments[0]!r} needs the option :{name}:")
        moving = nodes.image(uri=directives.uri(self.arguments[0]))
        still = nodes.image(uri=directives.uri(self.options["still"]))
        size = {name: self.options[name] for name in ("width", "height") if name in self.options}
        figure = nodes.figure(
            "", picture("", moving, still, alt=self.options["alt"], **size), classes=["animation"]
        )
        self.set_source_info(figure)
        if self.content:
            # A legend, since a caption would be numbered.
            legend = nodes.legend()
            self.state.nested_parse(self.content, self.content_offset, legend)
            figure += legend
        return [figure]


def visit_picture_html(self, node):
    moving, still = (
        posixpath.join(self.builder.imgpath, self.builder.images.get(image["uri"], image["uri"]))
        for image in node.children
    )
    size = "".join(f' {name}="{node[name]}"' for name in ("width", "height") if name in node)
    self.body.append(
        f'<picture><source srcset="{escape(still)}" media="(prefers-reduced-motion: reduce)">'
        f'<img src="{escape(moving)}" alt="{escape(node["alt"])}"{size}></picture>'
    )
    raise nodes.SkipNode


def visit_picture(self, node):
    """Other builders show the still image."""
    node[1]["alt"] = node["alt"]
    node.remove(node[0])


def depart_picture(self, node):
    pass


def setup(app):
    other = (visit_picture, depart_picture)
    app.add_node(picture, html=(visit_picture_html, None), latex=other, text=other, texinfo=other, man=other)
    app.add_directive("animation", Animation)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
