"""*Four models*: the Python side, what it accepts and carries."""

import html
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from in_python import embedded, expect_refused

from policyopt.language.cost import Comparison, Flops, Kept, Load, Usage, tabulate
from policyopt.widgets import FourModels
from policyopt.widgets.base import figure_source
from policyopt.widgets.four_models import ALGORITHMS, KL_COEFS, PARTS, memory_bars

BAR = {"label": "3 million", "part": "policy", "ppo": 48, "grpo": 48}


def test_what_the_page_gets():
    figure = FourModels()
    assert embedded(figure) == {"algorithm": "ppo", "kl_coef": 0.1, "rewards": [1, 0, 0, 0], "memory": []}
    assert html.escape(figure.summary) in figure.page_html()
    assert repr(figure) == "FourModels('ppo', kl_coef=0.1, rewards=(1, 0, 0, 0))"


def test_everything_can_be_assigned():
    figure = FourModels("grpo", 0, np.array([0, 1, 1, 0]), [BAR, BAR | {"part": "reference", "grpo": 0}])
    assert (figure.algorithm, figure.kl_coef, figure.rewards) == ("grpo", 0.0, [0, 1, 1, 0])
    assert [type(reward) for reward in figure.rewards] == [int] * 4
    assert embedded(figure)["memory"] == [BAR, BAR | {"part": "reference", "grpo": 0}]
    assert repr(figure) == "FourModels('grpo', kl_coef=0, rewards=(0, 1, 1, 0), memory of 1 size)"
    figure.algorithm, figure.kl_coef, figure.rewards = "ppo", np.float64(0.5), (1, 1.0, 0, 0)
    figure.memory = (bar for bar in [BAR, BAR | {"label": "7 billion", "ppo": np.int64(3), "grpo": 2.0}])
    assert figure.memory[1] == {"label": "7 billion", "part": "policy", "ppo": 3, "grpo": 2}
    assert {type(value) for bar in figure.memory for value in bar.values()} == {str, int}
    assert repr(figure) == "FourModels('ppo', kl_coef=0.5, rewards=(1, 1, 0, 0), memory of 2 sizes)"
    figure.memory = None
    assert figure.page_data() == {
        "algorithm": "ppo",
        "kl_coef": 0.5,
        "rewards": [1, 1, 0, 0],
        "memory": [],
    }


@pytest.mark.parametrize("algorithm", ["PPO", "reinforce", "", None, 1])
def test_bad_algorithm(algorithm):
    message = re.escape(f"algorithm is {algorithm!r}; it must be one of 'ppo', 'grpo'")
    expect_refused(FourModels, "algorithm", algorithm, message)


@pytest.mark.parametrize("kl_coef", [-0.01, 0.51, math.nan, math.inf, "0.1", None, True])
def test_bad_kl_coef(kl_coef):
    message = re.escape(f"kl_coef is {kl_coef!r}; it must be a number in [0, 0.5]")
    expect_refused(FourModels, "kl_coef", kl_coef, message)


@pytest.mark.parametrize(
    "rewards", [(), (1, 0, 0), (1, 0, 0, 0, 0), (1, 0, 0, 0.5), (True, 0, 0, 0), "1000", 1, None]
)
def test_bad_rewards(rewards):
    message = re.escape(f"rewards is {rewards!r}; it must be 4 numbers, each 0 (wrong) or 1 (right)")
    expect_refused(FourModels, "rewards", rewards, message)


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ("policy", "memory is 'policy'; it must be a list of dicts with label, part, ppo and grpo, or None"),
        (5, "memory is 5; it must be a list of dicts"),
        (BAR, "memory is {'label': '3 million', .*…; it must be a list"),
        ([BAR, 3], r"memory\[1\] is 3; it must be a dict with label, part, ppo and grpo"),
        ([{"label": "x"}], r"memory\[0\] is {'label': 'x'}; it must be a dict"),
        ([BAR | {"more": 1}], r"memory\[0\] is .*; it must be a dict with label, part, ppo and grpo"),
        ([BAR | {"label": ""}], r"memory\[0\]\['label'\] is ''; it must be a text that is not empty"),
        ([BAR | {"label": 3}], r"memory\[0\]\['label'\] is 3; it must be a text"),
        (
            [BAR | {"part": "critic"}],
            r"memory\[0\]\['part'\] is 'critic'; it must be one of 'policy', 'value",
        ),
        ([BAR | {"ppo": -1}], r"memory\[0\]\['ppo'\] is -1; it must be a number of bytes, 0 or more"),
        ([BAR | {"grpo": math.nan}], r"memory\[0\]\['grpo'\] is nan; it must be a number of bytes"),
        ([BAR | {"grpo": math.inf}], r"memory\[0\]\['grpo'\] is inf; it must be a number of bytes"),
        ([BAR | {"grpo": None}], r"memory\[0\]\['grpo'\] is None; it must be a number of bytes"),
        ([BAR, BAR], "memory has the part 'policy' of '3 million' twice; each must stand once"),
    ],
)
def test_bad_memory(memory, message):
    expect_refused(FourModels, "memory", memory, message)


def comparison(parameters):
    """What a measurement gives, with numbers of our own."""
    trained = Kept(4 * parameters, 4 * parameters, 8 * parameters + 8)
    frozen = Kept(4 * parameters, 0, 0)
    rest = {"reference": frozen, "reward model": frozen}
    ppo = Usage({"policy": trained, "value model": trained, **rest}, {"policy: steps": 9000}, 5000)
    grpo = Usage({"policy": trained, **rest}, {"policy: steps": 4000}, 3000)
    algorithms = ("PPO", "GRPO", "PPO, 1 output a prompt")
    return Comparison(
        parameters,
        Load(),
        {"PPO": ppo, "GRPO": grpo},
        {name: {"policy: steps": Flops(1, 1)} for name in algorithms},
        {name: {"policy: steps": 2} for name in algorithms},
    )


def test_bars_of_measured_memory():
    measured = [comparison(n) for n in (96_432, 29_600_000)]
    table = tabulate(measured).memory
    bars = memory_bars(table)
    assert bars[:5] == [
        {"label": "96 thousand", "part": "policy", "ppo": 16 * 96_432 + 8, "grpo": 16 * 96_432 + 8},
        {"label": "96 thousand", "part": "value model", "ppo": 16 * 96_432 + 8, "grpo": 0},
        {"label": "96 thousand", "part": "reference", "ppo": 4 * 96_432, "grpo": 4 * 96_432},
        {"label": "96 thousand", "part": "reward model", "ppo": 4 * 96_432, "grpo": 4 * 96_432},
        {"label": "96 thousand", "part": "activations", "ppo": 9000, "grpo": 4000},
    ]
    assert [bar["label"] for bar in bars[5:]] == ["30 million"] * 5
    for one, part in zip(measured, (bars[:5], bars[5:]), strict=True):
        for name, column in (("PPO", "ppo"), ("GRPO", "grpo")):
            assert sum(bar[column] for bar in part) == one.bytes_in(name, "both")
    assert FourModels(memory=bars).memory == bars
    assert memory_bars(table.to_dict("list")) == bars


@pytest.mark.parametrize(
    ("parameters", "label"),
    [
        (7, "7"),
        (996, "1 thousand"),
        (3_249_152, "3.2 million"),
        (10**9, "1 billion"),
        (7 * 10**10, "70 billion"),
    ],
)
def test_sizes_in_words(parameters, label):
    table = pd.DataFrame(
        {"parameters": [parameters], "part": ["policy: weights"], "ppo": [1.0], "grpo": [1.0]}
    )
    assert memory_bars(table) == [{"label": label, "part": "policy", "ppo": 1, "grpo": 1}]


def test_the_page_allows_the_same():
    source = figure_source("four_models").read_text(encoding="utf-8")
    low, high = KL_COEFS
    assert f"const BETA = [{low:g}, {high:g}, 0.01];" in source
    assert f"const PARTS = {json.dumps(PARTS)};" in source
    for name in ALGORITHMS:
        assert f'{name}: "{name.upper()}"' in source
