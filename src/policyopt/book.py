"""What the chapters use to show things: the package's source, what became of a claim, one plotting style,
animations.
"""

import ast
import base64
import html
import inspect
import io
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["COLORS", "animation", "episode_frames", "show_claim", "show_source", "use_style"]

# Okabe & Ito's palette, which colour-blind readers can tell apart; an algorithm keeps its colour everywhere.
COLORS = {
    "random": "#7F7F7F",
    "by hand": "#E69F00",
    "reinforce": "#CC79A7",
    "a2c": "#E69F00",
    "ppo": "#0072B2",
    "grpo": "#D55E00",
    "trpo": "#009E73",
    "stable-baselines3": "#56B4E9",
}


def use_style() -> None:
    """Set matplotlib to the book's style: quiet axes, readable sizes, the palette above, sharp but small
    images.
    """
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "axes.grid": True,
            "axes.prop_cycle": cycler(
                color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
            ),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": "medium",
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "figure.figsize": (7, 3.6),
            "font.size": 11,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "savefig.facecolor": "white",
            "svg.hashsalt": "policyopt",
        }
    )


SECTION = re.compile(r"^\s*(Args|Attributes|Raises|Returns|Yields):$")
WIDTH = 76  # characters of a line that fit on a page beside its contents


def shorten_docstrings(code: str) -> str:
    """Python source in which each docstring ends before its first section: what is left out is in the API
    reference. Its marks for Sphinx are taken out, and its paragraphs filled anew to the width of a page.
    """
    lines = code.splitlines()
    kinds = ast.Module | ast.FunctionDef | ast.ClassDef
    documented = [node for node in ast.walk(ast.parse(code)) if isinstance(node, kinds)]
    for node in sorted(documented, key=lambda node: -getattr(node, "lineno", 0)):  # the last first
        if ast.get_docstring(node) is None:
            continue
        text = node.body[0]
        first, last = text.lineno - 1, text.end_lineno - 1  # of the docstring, which may be one line
        cut = next((i for i in range(first, last) if SECTION.match(lines[i])), None)
        shown = "\n".join(lines[first : last + 1 if cut is None else cut]).rstrip()
        shown = shown.replace(":math:`", "`").replace("``", "`")
        indent = " " * text.col_offset
        shown = "\n\n".join(_fill(paragraph, indent) for paragraph in shown.split("\n\n"))
        if cut is not None:
            shown += f'\n{indent}…\n{indent}"""'
        lines[first : last + 1] = shown.split("\n")
    return "\n".join(lines)


def _fill(paragraph: str, indent: str) -> str:
    """The paragraph with lines that are short enough; one that is no running text stays as it is."""
    lines = paragraph.splitlines()
    long = any(len(line) > WIDTH for line in lines)
    if not long or any(line.startswith((indent + " ", indent + "-")) for line in lines[1:]):
        return paragraph
    end = f'\n{indent}"""' if lines[-1].strip() == '"""' else ""
    running = " ".join(line.strip() for line in (lines[:-1] if end else lines))
    whole = {"break_on_hyphens": False, "break_long_words": False}
    return textwrap.fill(running, WIDTH, initial_indent=indent, subsequent_indent=indent, **whole) + end


class Source:
    """The source of an object, shown with colours in a notebook and as it is in a terminal.

    Attributes:
        code: the source, whole.
        name: of what it is the source.
    """

    def __init__(self, code: str, name: str):
        self.code, self.name = code, name

    def __repr__(self) -> str:
        return shorten_docstrings(self.code)

    def _repr_html_(self) -> str:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer

        lines = highlight(repr(self), PythonLexer(), HtmlFormatter(nowrap=True)).rstrip("\n").split("\n")
        body = "\n".join(map(_hanging, lines))
        return (
            f'<div class="highlight-python notranslate"><div class="highlight">'
            f'<pre class="policyopt-source" tabindex="0" '
            f'aria-label="Source of {html.escape(self.name)}">{body}</pre></div></div>'
        )


def _hanging(line: str) -> str:
    """A line that a page continues, where it is too long, further in than it began."""
    text = html.unescape(re.sub(r"<[^>]*>", "", line))
    indent = len(text) - len(text.lstrip()) + 6
    return f'<span style="--in: {indent}ch">{line}</span>' if text.strip() else line


def show_source(*items: Any) -> Source:
    """The source of functions, classes, methods or modules, as it is installed, for a notebook to show.

    Of the docstrings it shows what stands before the first section; ``code`` of the result has all.

    Raises:
        TypeError: one has no Python source (a number, a built-in), or none is given.
    """
    if not items:
        raise TypeError("show_source() got nothing to show; give a function, a class or a module")
    codes, names = [], []
    for item in items:
        try:
            codes.append(inspect.getsource(inspect.unwrap(item) if callable(item) else item))
        except (TypeError, OSError) as error:
            raise TypeError(
                f"{item!r} has no Python source to show; give a function, a class or a module"
            ) from error
        names.append(getattr(item, "__qualname__", getattr(item, "__name__", repr(item))))
    return Source("\n\n\n".join(textwrap.dedent(code).rstrip() for code in codes), ", ".join(names))


class ShownClaim:
    """What became of a claim, as a card in a notebook and as lines in a terminal."""

    def __init__(self, claim: str, verdict: str, figures: Sequence[str], rule: str):
        self.claim, self.verdict, self.figures, self.rule = claim, verdict, list(figures), rule

    def __repr__(self) -> str:
        return "\n".join([f"Claim: {self.claim}", f"Verdict: {self.verdict}", *self.figures])

    def _repr_html_(self) -> str:
        claim, verdict, rule = map(html.escape, (self.claim, self.verdict, self.rule))
        figures = "".join(f"<li>{html.escape(figure)}</li>" for figure in self.figures)
        return (
            f'<div class="policyopt-claim" data-verdict="{verdict.split(":")[0].replace(" ", "-")}">'
            f"<p><strong>The claim.</strong> {claim}</p><p><strong>The verdict.</strong> <b>{verdict}</b></p>"
            + (f"<ul>{figures}</ul>" if figures else "")
            + (f"<p><strong>The rule.</strong> {rule}</p>" if rule else "")
            + "</div>"
        )


def show_claim(name: str, results: str | Path = "results") -> ShownClaim:
    """What became of one of the field's claims, computed from stored results when it is asked for.

    Args:
        name: of the claim, as ``policyopt claims`` prints it.
        results: the folder in which the studies have their own.

    Raises:
        ValueError: there is no such claim, or a stored cell is damaged or of another configuration.
    """
    from policyopt.experiments.claims import CLAIMS
    from policyopt.experiments.evidence import Evidence, MissingEvidence

    if name not in CLAIMS:
        raise ValueError(f"there is no claim {name!r}; there are {', '.join(CLAIMS)}")
    claim = CLAIMS[name]
    try:
        finding = claim.find(Evidence(results))
    except MissingEvidence as error:
        return ShownClaim(claim.text, f"none yet: {error}", [], claim.rule)
    return ShownClaim(claim.text, finding.verdict.value, list(map(str, finding.figures)), claim.rule)


def episode_frames(
    agent, env_id, seed: int = 0, max_steps: int = 500, every: int = 2, options: dict | None = None
) -> tuple[list[np.ndarray], float]:
    """Play one episode and draw it.

    Args:
        agent: anything with ``predict``.
        env_id: a Gymnasium id, or a callable that takes ``render_mode``.
        seed: of the environment.
        max_steps: stop after so many steps.
        every: keep every n-th frame.
        options: for the environment's ``reset``, e.g. ``{"low": -0.1, "high": 0.1}`` for CartPole's start.

    Returns:
        The frames, each ``[H, W, 3]`` uint8, and the undiscounted return.
    """
    from policyopt.rollout import make_env

    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault(
            "SDL_VIDEODRIVER", "dummy"
        )  # or SDL complains on stderr of the screen it cannot find
    env = make_env(env_id, render_mode="rgb_array")
    try:
        obs, _ = env.reset(seed=seed, options=options)
        frames, total = [env.render()], 0.0
        for step in range(1, max_steps + 1):
            action, _ = agent.predict(np.asarray(obs)[None])
            obs, reward, terminated, truncated, _ = env.step(action[0])
            total += float(reward)
            if step % every == 0 or terminated or truncated:
                frames.append(env.render())
            if terminated or truncated:
                break
    finally:
        env.close()
    return frames, total


class Animation:
    """A looping animated image with a still one beside it: shown in a notebook, or written with ``save``.

    Attributes:
        data: the GIF.
        still: its first frame, a PNG.
        alt: what it shows, in words.
    """

    def __init__(self, data: bytes, still: bytes, alt: str):
        self.data, self.still, self.alt = data, still, alt

    def save(self, path: str | Path) -> Path:
        """Write the GIF; the file is complete afterwards or as it was before."""
        from policyopt.files import write_whole

        return write_whole(path, self.data)

    def __repr__(self) -> str:
        return f"Animation: {self.alt}"

    def _repr_html_(self) -> str:
        # Readers who asked their system for less motion get the still picture.
        moving, still = (base64.b64encode(data).decode() for data in (self.data, self.still))
        return (
            '<picture><source media="(prefers-reduced-motion: reduce)" '
            f'srcset="data:image/png;base64,{still}">'
            f'<img alt="{html.escape(self.alt)}" src="data:image/gif;base64,{moving}"></picture>'
        )


def animation(
    frames: Sequence[np.ndarray], alt: str, width: int = 300, fps: int = 25, colors: int = 16
) -> Animation:
    """Make a GIF of frames.

    Args:
        frames: ``[H, W, 3]`` uint8 arrays of one shape.
        alt: what the animation shows, in words.
        width: in pixels; the height follows.
        fps: frames a second; browsers show at most 50.
        colors: size of the palette.

    Raises:
        ValueError: no frames, or no description.
    """
    from PIL import Image

    if len(frames) == 0:
        raise ValueError("frames is empty; give at least one")
    if not alt.strip():
        raise ValueError("alt is empty; say in words what the animation shows")
    height = round(frames[0].shape[0] * width / frames[0].shape[1])
    images = [Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS) for frame in frames]
    palette = images[len(images) // 2].quantize(colors)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / fps),
        loop=0,
        optimize=True,
    )
    still = io.BytesIO()
    images[0].save(still, "PNG", optimize=True)
    return Animation(buffer.getvalue(), still.getvalue(), alt)
