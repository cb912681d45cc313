"""*Training outputs*: the page's arithmetic, run by Node, against ``policyopt``."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from in_node import run_figure

from policyopt.losses import kl_k3
from policyopt.returns import group_relative_advantages
from policyopt.widgets import TrainingOutputs

ANSWER = "const answer = ([name, ...args]) => page[name](...args);"
in_node = partial(run_figure, "training_outputs", ANSWER)


@pytest.fixture(scope="module")
def record():
    return TrainingOutputs().record


def test_advantages_are_those_of_the_library():
    rng = np.random.default_rng(0)
    groups = [rng.integers(2, size=size).astype(float).tolist() for size in range(2, 17) for _ in range(10)]
    groups += [rng.normal(size=size).tolist() for size in range(2, 17)]
    groups += [[0.1] * 3, [1.0] * 8, [0.0] * 8]
    found = in_node(*(["advantages", rewards] for rewards in groups))
    for rewards, ours in zip(groups, found, strict=True):
        expected = group_relative_advantages(torch.tensor(rewards, dtype=torch.float64)).tolist()
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found[-3:] == [[0] * 3, [0] * 8, [0] * 8]
    [deviation] = in_node(["deviationOf", [1, 0, 0, 0]])
    assert deviation == pytest.approx(0.5, abs=1e-12)  # (0.75² + 3 · 0.25²) / 3 = 0.25


def test_k3_is_that_of_the_library():
    rng = np.random.default_rng(1)
    pairs = rng.integers(1, 10_001, size=(200, 2)) / 10_000
    found = in_node(*(["k3Of", *pair] for pair in pairs.tolist()))
    now, before = torch.tensor(pairs, dtype=torch.float64).log().unbind(1)
    assert found == pytest.approx(kl_k3(before - now).tolist(), rel=1e-9, abs=1e-12)
    same, by_hand, rounded_away = in_node(["k3Of", 0.3, 0.3], ["k3Of", 0.9, 0.1], ["k3Of", 0.5, 0])
    assert same == 0
    assert by_hand == pytest.approx(1 / 9 - 1 + math.log(9), abs=1e-12)
    assert rounded_away == pytest.approx(2e-4 - 1 + math.log(5000), abs=1e-9)  # counts as 0.0001


def test_every_recorded_output_is_read_right(record):
    tokens = record["tokens"]
    cases, expected = [], []
    for one in record["prompts"]:
        for group in one["groups"]:
            for output in group["outputs"]:
                models = {"policy": group["policy"], "reference": one["reference"]}
                cases.append(["readOutput", {"output": output, "tokens": tokens, **models}])
                rows = []
                for t, token in enumerate(output):
                    chances = []
                    for model in models.values():
                        counts = model[output[:t]]
                        place = tokens.index(token)
                        chances.append(counts[place] / 10_000 if place < len(counts) else 0.0)
                    rows.append((token, output[:t], *chances))
                expected.append(rows)
    found = in_node(*cases)
    for read, rows in zip(found, expected, strict=True):
        assert [(one["token"], one["state"], one["now"], one["before"]) for one in read] == rows
    products = in_node(*(["outputChances", read] for read in found))
    for read, (now, before) in zip(found, products, strict=True):
        assert now == pytest.approx(math.prod(max(one["now"], 1e-4) for one in read), rel=1e-12)
        assert before == pytest.approx(math.prod(max(one["before"], 1e-4) for one in read), rel=1e-12)


def test_listed_are_the_likeliest_and_what_was_written():
    now = [0.5, 0.0, 0.3, 0.0, 0.15, 0.05, 0.0, 0.0]
    before = [0.1, 0.0, 0.3, 0.4, 0.0, 0.0, 0.2, 0.0]
    likely, with_written, few = in_node(
        ["candidates", now, before, 0], ["candidates", now, before, 7], ["candidates", [0.5, 0.5], [1, 0], 1]
    )
    assert likely == [0, 2, 3, 4, 6]  # 0.5, 0.3, 0.4, 0.15 and 0.2 are the largest of either
    assert with_written == [0, 2, 3, 6, 7]
    assert few == [0, 1]
    [chances] = in_node(["chancesOf", [7000, 0, 3000], "abcd⏎"])
    assert chances == [0.7, 0, 0.3, 0, 0]


def test_what_it_says():
    cases = [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0], [0] * 8, [1] * 3, [0.5, 0.5], [1, 0.5, 0]]
    assert in_node(*(["describe", case] for case in cases)) == [
        "1 of 4 is right. Each token of it gets +1.50, each token of the 3 wrong ones −0.50.",
        "3 of 4 are right. Each token of these gets +0.50, each token of the wrong one −1.50.",
        "2 of 4 are right. Each token of these gets +0.87, each token of the 2 wrong ones −0.87.",
        "All 8 outputs are wrong, so σ is 0 and every advantage is 0: this group has nothing to teach.",
        "All 3 outputs are right, so σ is 0 and every advantage is 0: this group has nothing to teach.",
        "All 2 rewards are equal, so σ is 0 and every advantage is 0: this group has nothing to teach.",
        "The best outputs get +1.00 at each of their tokens, the worst −1.00.",
    ]


def test_numbers_are_short():
    chances = [0, 0.00004, 0.0004, 0.0312, 0.0994, 0.0996, 0.624, 0.994, 0.9961, 0.9996, 1]
    assert in_node(*(["percent", chance] for chance in chances)) == (
        ["0 %", "0 %", "< 0.1 %", "3.1 %", "9.9 %", "10 %", "62 %", "99 %", "99.6 %", "100 %", "100 %"]
    )
    values = [0, 0.00004, 0.00123, 0.0333, 0.7713, 1, 1.26, 9.96, 93.6, 4000]
    assert in_node(*(["short", value] for value in values)) == (
        ["0", "0", "0.0012", "0.033", "0.77", "1", "1.3", "10", "94", "4000"]
    )
