"""The Python side of the GAE explorer."""

import html
import itertools
import json
import re

import numpy as np
import pytest
import torch
from in_python import embedded, expect_refused

from policyopt.envs import GridWorld
from policyopt.widgets import GAEExplorer
from policyopt.widgets.gae_explorer import PACKAGED_EPISODES, record_episodes

MINE = {"name": "mine", "rewards": [0.0, 1.0], "values": [0.5, 0.8, 0.0], "terminated": True}


def test_recorded_data_follow_from_their_seeds():
    stored = json.loads(PACKAGED_EPISODES.read_text(encoding="utf-8"))
    made = record_episodes()
    for recorded, packaged in zip(made["episodes"], stored["episodes"], strict=True):
        assert recorded["values"] == pytest.approx(packaged["values"], abs=0.011)  # the last digit kept
        assert {**recorded, "values": None} == {**packaged, "values": None}
    assert made["chain"] == stored["chain"]
    assert PACKAGED_EPISODES.stat().st_size < 30_000


def test_recorded_episodes_show_both_ends():
    falls, cut, grid = GAEExplorer().episodes
    assert (falls["terminated"], cut["terminated"], grid["terminated"]) == (True, False, True)
    assert falls["values"][-1] == grid["values"][-1] == 0
    assert cut["values"][-1] > 10
    assert len(cut["rewards"]) == 30
    assert set(falls["rewards"]) == {1.0}
    assert sum(grid["rewards"]) == grid["rewards"][-1] == 1


def test_the_corridor_is_a_gridworld():
    chain = GAEExplorer().chain
    env = GridWorld([chain["cells"]], slip=0.2)
    start = chain["cells"].index("S")
    assert chain["start"] == start
    assert np.array(chain["first"]) == pytest.approx(env.transitions[start, 1])
    mixed = 0.65 * env.transitions[:, 1] + 0.35 * env.transitions[:, 3]
    assert np.array(chain["transitions"]) == pytest.approx(mixed)
    expected = (env.transitions * env.rewards).sum(axis=-1)
    assert env.transitions @ chain["rewards"] == pytest.approx(expected)
    assert len(chain["episodes"]) == 100
    for text in chain["episodes"]:
        assert text.startswith("3")
        assert text[-1] in "06"
        assert not set(text[:-1]) & set("06")
        assert text[1] in "34"  # the first step went to the right, or slipped
        assert all(abs(int(a) - int(b)) <= 1 for a, b in itertools.pairwise(text))
    assert all(critic["errors"][at] == 0 for critic in chain["critics"] for at in (0, start, 6))


def test_what_the_page_gets():
    figure = GAEExplorer(0.9, 0.5, 2, "many")
    data = embedded(figure)
    assert set(data) == {"chain", "episode", "episodes", "gae_lambda", "gamma", "view"}
    assert (data["gamma"], data["gae_lambda"], data["episode"], data["view"]) == (0.9, 0.5, 2, "many")
    assert data["episodes"] == figure.episodes
    assert html.escape(figure.summary) in figure.page_html()
    assert repr(figure) == "GAEExplorer(gamma=0.9, gae_lambda=0.5, episode=2)"


def test_own_episodes_are_plain_lists():
    own = {
        **MINE,
        "rewards": np.array([0, 1], dtype=np.float32),
        "values": torch.tensor([0.5, 0.75, 0.0]),
        "end": "done",
        "learnt_with": 1,
    }
    figure = GAEExplorer(episodes=[own, MINE], episode=np.int64(1))
    assert figure.episodes[0]["rewards"] == [0.0, 1.0]
    assert figure.episodes[0]["values"] == [0.5, 0.75, 0.0]
    assert figure.episode == 1
    figure.episodes = [MINE]
    assert figure.episode == 0
    figure.episodes = None
    assert figure.episodes == GAEExplorer().episodes
    figure.gamma, figure.gae_lambda, figure.view = 1, 0, "many"
    assert embedded(figure)["gamma"] == 1


@pytest.mark.parametrize("value", [-0.1, 2, float("nan"), "0.9", None, True])
@pytest.mark.parametrize("name", ["gamma", "gae_lambda"])
def test_bad_gamma_and_lambda(name, value):
    expect_refused(GAEExplorer, name, value, re.escape(f"{name} is {value!r}; it must be a number in [0, 1]"))


@pytest.mark.parametrize("value", [-1, 3, 0.0, "0", True])
def test_bad_episode(value):
    message = re.escape(f"episode is {value!r}; it must be an integer from 0 to 2")
    expect_refused(GAEExplorer, "episode", value, message)


@pytest.mark.parametrize("value", ["both", "", None, 0])
def test_bad_view(value):
    expect_refused(GAEExplorer, "view", value, f"view is {value!r}; it must be one of 'episode', 'many'")


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ([], r"episodes is \[\]; it must be a list of 1 to 12 episodes"),
        ("mine", "episodes is 'mine'; it must be a list of 1 to 12 episodes"),
        ([MINE] * 13, r"episodes is \[\{.*…; it must be a list of 1 to 12 episodes"),
        (
            [MINE, 3],
            r"episodes\[1\] has 3; it must be a dictionary with name, rewards, values and terminated",
        ),
        ([{"name": "a"}], r"episodes\[0\] has \['name'\]; it must be a dictionary"),
        ([{**MINE, "truncated": False}], "'truncated'.*it must be a dictionary"),
        ([{**MINE, "name": " "}], r"episodes\[0\]: name is ' '; it must be a text"),
        ([{**MINE, "end": 3}], r"episodes\[0\]: end is 3; it must be a text"),
        ([{**MINE, "terminated": 1}], r"episodes\[0\]: terminated is 1; it must be True or False"),
        ([{**MINE, "rewards": 1.0}], r"episodes\[0\]: rewards is 1.0; it must be a list of numbers"),
        ([{**MINE, "rewards": [0, float("inf")]}], r"rewards\[1\] is inf; it must be a finite number"),
        ([{**MINE, "values": [0, None, 0]}], r"values\[1\] is None; it must be a finite number"),
        ([{**MINE, "rewards": []}], r"has 0 rewards; a time line shows 1 to 60 steps"),
        ([{**MINE, "rewards": [0] * 61}], r"has 61 rewards; a time line shows 1 to 60 steps"),
        ([{**MINE, "values": [1, 2]}], "has 2 rewards and 2 values; there must be one value more"),
        ([{**MINE, "learnt_with": 2}], r"episodes\[0\]: learnt_with is 2; it must be a number in \[0, 1\]"),
    ],
)
def test_bad_episodes(episodes, message):
    expect_refused(GAEExplorer, "episodes", episodes, message)
