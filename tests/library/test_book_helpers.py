import ast
import html
import io
import re
from pathlib import Path

import gymnasium as gym
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from policyopt.algorithms import ppo, reinforce
from policyopt.book import COLORS, animation, episode_frames, show_claim, show_source, use_style
from policyopt.envs import GridWorld
from policyopt.evaluation import RandomAgent
from policyopt.experiments.claims import CLAIMS
from policyopt.experiments.evidence import Evidence
from policyopt.losses import clipped_surrogate
from policyopt.returns import gae

RESULTS = Path(__file__).parents[2] / "results"


def test_show_source_shows_the_installed_code():
    import inspect

    source = show_source(clipped_surrogate)
    assert source.code == inspect.getsource(clipped_surrogate).rstrip()
    method = repr(show_source(ppo.PPOConfig.__post_init__))
    assert method.startswith("def __post_init__(self)")
    assert "\n    check_settings(self" in method
    assert "class PPOConfig" in repr(show_source(ppo.PPOConfig))
    both = repr(show_source(ppo.ppo_loss, clipped_surrogate))
    assert both == f"{show_source(ppo.ppo_loss)!r}\n\n\n{source!r}"
    assert repr(show_source(ppo)).startswith('"""Proximal policy optimisation')


def documented(
    number,
    text="""Not a docstring.

    Args:
""",
):
    """What it does.

    Book: eq-none.

    Args:
        number: any.

    Raises:
        ValueError: never.
    """

    def inner():
        """One line."""
        return text

    class Inner:
        """Two.

        Attributes:
            none: at all.
        """

    return inner, Inner, number


def test_show_source_leaves_out_the_sections_of_docstrings():
    shown = repr(show_source(documented))
    whole = show_source(documented).code
    assert "number: any" in whole
    cut = """    Args:
        number: any.

    Raises:
        ValueError: never.
"""
    assert cut in whole
    expected = whole.replace("\n" + cut, "    …\n")
    expected = expected.replace("\n        Attributes:\n            none: at all.\n", "        …\n")
    assert shown == expected
    compile(shown, "shown", "exec")
    assert ":math:" in show_source(gae).code
    assert ":math:" not in repr(show_source(gae))


def test_show_source_fills_long_paragraphs_anew():
    for item in (gae, clipped_surrogate, reinforce.reinforce_batch, ppo):
        shown, whole = repr(show_source(item)), show_source(item).code
        before, after = (
            ast.get_docstring(ast.parse(text).body[0] if item is not ppo else ast.parse(text))
            for text in (whole, shown)
        )
        kept = after.removesuffix("…").split()
        marks = before.replace(":math:", "").replace("``", "`").split()
        assert kept == marks[: len(kept)]
        docstring = shown.split('"""')[1]
        assert max(map(len, docstring.splitlines())) <= 80


def test_show_source_html_wraps_long_lines_and_loses_none():
    page = show_source(documented)._repr_html_()
    assert page.count('style="--in: ') == sum(
        bool(line.strip()) for line in repr(show_source(documented)).splitlines()
    )
    text = html.unescape(re.sub(r"<[^>]*>", "", page))
    assert text == repr(show_source(documented))


def test_show_source_html_is_coloured_and_labelled():
    page = show_source(clipped_surrogate)._repr_html_()
    assert '<span class="k">def</span>' in page
    assert 'aria-label="Source of clipped_surrogate"' in page
    assert page == show_source(clipped_surrogate)._repr_html_()


def test_show_source_needs_python_source():
    with pytest.raises(TypeError, match="has no Python source to show"):
        show_source(len)
    with pytest.raises(TypeError, match="nothing to show"):
        show_source()


def test_show_claim_computes_the_verdict_from_what_is_stored():
    finding = CLAIMS["sb3-cartpole"].find(Evidence(RESULTS))
    shown = show_claim("sb3-cartpole", RESULTS)
    figures = [str(figure) for figure in finding.figures]
    assert repr(shown).splitlines() == [
        f"Claim: {CLAIMS['sb3-cartpole'].text}",
        f"Verdict: {finding.verdict.value}",
        *figures,
    ]
    page = shown._repr_html_()
    assert f'data-verdict="{finding.verdict.value}"' in page
    assert CLAIMS["sb3-cartpole"].rule in page
    assert page.count("<li>") == len(figures) > 0


def test_show_claim_without_results_says_so(tmp_path):
    assert "Verdict: none yet: " in repr(show_claim("sb3-cartpole", tmp_path))
    page = show_claim("sb3-cartpole", tmp_path)._repr_html_()
    assert 'data-verdict="none-yet"' in page
    assert "<ul>" not in page
    with pytest.raises(ValueError, match=r"no claim 'sb3'; there are loop, "):
        show_claim("sb3")


def test_style_can_be_told_apart_and_restored():
    with mpl.rc_context():
        use_style()
        assert mpl.rcParams["axes.grid"]
    assert len(set(COLORS.values())) >= 7


def test_episode_frames_and_animation(tmp_path):
    env = gym.make("CartPole-v1")
    frames, total = episode_frames(RandomAgent(env.action_space), "CartPole-v1", seed=0, every=1)
    env.close()
    assert len(frames) == total + 1
    assert frames[0].shape == (400, 600, 3)
    picture = animation(frames, "A pole falls.", width=150)
    image = Image.open(io.BytesIO(picture.data))
    assert image.size == (150, 100)
    assert image.n_frames > 5
    assert 'alt="A pole falls."' in picture._repr_html_()
    file = picture.save(tmp_path / "pole.gif")
    assert file.read_bytes() == picture.data
    assert len(picture.data) < 100_000


def test_episode_frames_of_a_callable():
    frames, _ = episode_frames(RandomAgent(gym.spaces.Discrete(4)), GridWorld, max_steps=4)
    assert frames[0].shape == (96, 128, 3)


def test_animation_refuses():
    with pytest.raises(ValueError, match="frames is empty"):
        animation([], "x")
    with pytest.raises(ValueError, match="alt is empty"):
        animation([np.zeros((4, 4, 3), np.uint8)], " ")
