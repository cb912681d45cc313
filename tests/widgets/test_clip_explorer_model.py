"""The Python side of the clip explorer."""

import html
import re

import numpy as np
import pytest
from in_python import embedded, expect_refused

from policyopt.widgets import ClipExplorer
from policyopt.widgets.base import figure_source
from policyopt.widgets.clip_explorer import RANGES


def test_what_the_page_gets():
    figure = ClipExplorer()
    assert embedded(figure) == {"clip": 0.2, "advantage": 1.0, "ratio": 1.0}
    assert html.escape(figure.summary) in figure.page_html()
    assert repr(figure) == "ClipExplorer(clip=0.2, advantage=1, ratio=1)"


def test_everything_can_be_assigned():
    figure = ClipExplorer(0.1, -2, ratio=0)
    assert embedded(figure) == {"clip": 0.1, "advantage": -2.0, "ratio": 0.0}
    figure.clip, figure.advantage, figure.ratio = np.float64(0.5), np.int64(2), 1.25
    assert embedded(figure) == {"clip": 0.5, "advantage": 2.0, "ratio": 1.25}
    assert repr(figure) == "ClipExplorer(clip=0.5, advantage=2, ratio=1.25)"


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("clip", (0, 0.04, 0.51, -0.2), "[0.05, 0.5]"),
        ("advantage", (-2.1, 3), "[-2, 2]"),
        ("ratio", (-0.1, 2.1), "[0, 2]"),
    ],
)
def test_bad_arguments_are_named(name, values, allowed):
    for value in (*values, float("nan"), float("inf"), "0.2", None, True):
        message = re.escape(f"{name} is {value!r}; it must be a number in {allowed}")
        expect_refused(ClipExplorer, name, value, message)


def test_the_sliders_of_the_page_allow_the_same():
    source = figure_source("clip_explorer").read_text(encoding="utf-8")
    for name, (low, high) in RANGES.items():
        assert f"{name}: [{low:g}, {high:g}]" in source
