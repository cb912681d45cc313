"""The Python side of GridWorld: what it accepts, carries and shows."""

import re

import ipywidgets
import numpy as np
import pytest
from in_python import embedded, expect_refused

from policyopt.envs import GridWorld
from policyopt.widgets import GridWorldFigure
from policyopt.widgets.base import figure_source
from policyopt.widgets.gridworld import DEFAULT_LAYOUT, METHODS, RANGES


def test_the_page_gets_the_world_and_nothing_else():
    figure = GridWorldFigure(
        ("S.", "#G"), gamma=0.5, slip=0.1, step_reward=-0.04, method="Q-learning", seed=3
    )
    assert embedded(figure) == {
        "world": ["S.", "#G"],
        "gamma": 0.5,
        "slip": 0.1,
        "step_reward": -0.04,
        "method": "Q-learning",
        "seed": 3,
    }
    assert figure.summary in figure.page_html()
    assert len(figure.page_html()) < 2000


def test_by_default_an_open_room_of_the_environment():
    figure = GridWorldFigure()
    assert figure.world == list(DEFAULT_LAYOUT) == list(GridWorld(DEFAULT_LAYOUT).layout)
    assert (figure.gamma, figure.slip, figure.step_reward) == (0.9, 0.0, 0.0)
    assert (figure.method, figure.seed) == ("value iteration", 0)
    assert repr(figure) == "GridWorldFigure(5×6 cells, gamma=0.9, slip=0, method='value iteration')"


def test_everything_can_be_assigned():
    figure = GridWorldFigure()
    figure.world = ["S" * 8] * 10
    figure.gamma, figure.slip, figure.step_reward = 1, np.float64(0.6), -0.2
    figure.method, figure.seed = "Q-learning", np.int64(5)
    assert embedded(figure)["world"] == ["SSSSSSSS"] * 10
    assert (figure.gamma, figure.slip, figure.step_reward) == (1.0, 0.6, -0.2)
    assert "10×8 cells, gamma=1, slip=0.6, method='Q-learning'" in repr(figure)


def test_the_widget_keeps_its_own_layout():
    """In a notebook `layout` says where a widget stands; a list of rows there would break its view."""
    figure = GridWorldFigure()
    assert isinstance(figure.layout, ipywidgets.Layout)
    assert figure.get_state()["world"] == figure.world


def test_a_start_and_a_goal_may_be_missing():
    assert GridWorldFigure(("..",)).world == [".."]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layout", "S..G", "layout is 'S..G'; it must be a list of rows"),
        ("layout", 3, "layout is 3; it must be a list of rows"),
        ("layout", (), r"layout is \[\]; it must be one or more rows of one length, at least one cell"),
        ("layout", ("",), "at least one cell"),
        ("layout", ("S.", "G"), r"layout is \['S.', 'G'\]; it must be one or more rows of one length"),
        ("layout", ("S.A",), "layout has the character 'A'; allowed are S . # G X"),
        ("layout", ("S" * 9,), "layout has 1 rows of 9 cells; .* at most 10 rows of 8 cells"),
        ("layout", ("S",) * 11, "layout has 11 rows of 1 cells; .* at most 10 rows of 8 cells"),
        ("gamma", 1.01, r"gamma is 1.01; it must be a number in \[0, 1\]"),
        ("gamma", "0.9", r"gamma is '0.9'; it must be a number in \[0, 1\]"),
        ("gamma", True, r"gamma is True; it must be a number"),
        ("gamma", float("nan"), r"gamma is nan; it must be a number"),
        ("slip", 0.7, r"slip is 0.7; it must be a number in \[0, 0.6\]"),
        ("slip", -0.1, r"slip is -0.1; it must be a number in \[0, 0.6\]"),
        ("step_reward", 0.2, r"step_reward is 0.2; it must be a number in \[-0.2, 0.1\]"),
        ("step_reward", None, r"step_reward is None; it must be a number"),
        ("method", "sarsa", "method is 'sarsa'; it must be one of 'value iteration', 'Q-learning'"),
        ("method", ["Q-learning"], r"method is \['Q-learning'\]; it must be one of"),
        ("seed", -1, r"seed is -1; it must be an integer from 0 to 2\*\*31 - 1"),
    ],
)
def test_bad_arguments_are_named(name, value, message):
    expect_refused(GridWorldFigure, name, value, message, trait="world" if name == "layout" else name)


def test_the_sliders_and_methods_of_the_page_are_those_allowed():
    source = figure_source("gridworld").read_text(encoding="utf-8")
    for name, (low, high) in RANGES.items():
        assert re.search(rf"{name}: {{.*min: {low:g}, max: {high:g} }}", source), name
    assert all(f'"{method}": "' in source for method in METHODS)
