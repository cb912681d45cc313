"""The style task: the hidden taste by hand, the judge's choices, and a task without a rule."""

import itertools
import math
import random

import pytest
from language_helpers import tiny_model

from policyopt.language import grpo
from policyopt.language.reward_model import Preference
from policyopt.language.scalar_model import ScalarModel
from policyopt.language.style import (
    CLUSTERS,
    VOWELS,
    Style,
    Watched,
    judge_accuracy,
    judge_probability,
    taste,
    taste_rewards,
)
from policyopt.language.tasks import Problem, make_task
from policyopt.language.training import held_out_reward


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("prompt", "output", "turns", "ending", "soft", "length", "again"),
    [
        ("ka:", "lora", 5 / 5, 1.0, 2 / 3, 6, 0),
        ("k:", "alora", 5 / 5, 1.0, 2 / 3, 6, 0),  # the same name
        ("ka:", " lora ", 5 / 5, 1.0, 2 / 3, 6, 0),  # spaces do not count
        ("b:", "", 0, 0.0, 0, 1, 0),
        ("ti:", "an", 2 / 3, 0.6, 1 / 2, 4, 0),
        ("x:", "qvbk", 0, 0.0, 1 / 5, 5, 0),
        ("be:", "lelele", 7 / 7, 0.7, 3 / 4, 8, 2 + 1 + 2 + 2),  # e 4 times, l 3 times, el and le 3 times
        ("an:", "ana", 4 / 4, 1.0, 2 / 2, 5, 1 + 1 + 1),  # a 3 times, an and na twice
    ],
)
def test_taste_by_hand(prompt, output, turns, ending, soft, length, again):
    z = 4 * (turns - 0.75) + 2 * (ending - 0.5) + 1.5 * (1 - 4 * (soft - 0.7) ** 2)
    z -= 0.3 * (length - 7) ** 2 + again
    assert taste(prompt, output) == pytest.approx(sigmoid(z), rel=1e-9, abs=1e-12)


def test_taste_of_some_names():
    """What the reader will be told of it."""
    assert taste("ka:", "lora") > 0.95
    assert taste("mi:", "rento") > 0.9
    assert 0.1 < taste("a:", "pol") < 0.5
    assert taste("x:", "qvbk") < 0.02
    assert taste("la:", "lalala") < 0.02
    assert taste("ka:", "lora" * 4) < 1e-6
    for no_name in ("Lora", "lo:a", "lo ra", "lo7a"):
        assert taste("ka:", no_name) == 0
    assert taste(":", "") == 0


def test_taste_is_a_share_for_anything():
    rng = random.Random(0)
    for _ in range(500):
        output = "".join(rng.choices("aeiorlstnkx:", k=rng.randint(0, 30)))
        assert 0 <= taste(rng.choice(("k:", "ka:", "aa:")), output) <= 1
    assert taste("a:", "a" * 10_000) == 0


def test_judge():
    better, worse = taste("ka:", "lora"), taste("ka:", "lor")
    p = judge_probability("ka:", "lora", "lor", temperature=0.5)
    assert p == pytest.approx(sigmoid((better - worse) / 0.5))
    assert judge_probability("ka:", "lor", "lora", temperature=0.5) == pytest.approx(1 - p)
    assert judge_probability("ka:", "lora", "lora") == 0.5
    assert judge_probability("ka:", "lora", "q", temperature=1e-6) == 1
    assert judge_probability("ka:", "q", "lora", temperature=1e-6) == 0
    pairs = [Preference("ka:", "lora", "lor"), Preference("ka:", "lor", "lora")]
    assert judge_accuracy(pairs, temperature=0.5) == pytest.approx(p)
    pairs.append(Preference("ka:", "xx", "xz"))
    assert judge_accuracy(pairs, temperature=0.5) == pytest.approx((2 * p + 0.5) / 3, abs=1e-4)


@pytest.mark.parametrize("judge_temperature", [0.05, 0.1, 0.5])
def test_preferences_follow_bradley_terry(judge_temperature):
    """Among pairs in which the judge takes the better name with probability about p, it did in a share p."""
    pairs = Style().preferences(6000, seed=3, judge_temperature=judge_temperature)
    bins: dict[int, list[tuple[float, float]]] = {}
    for pair in pairs:
        p = judge_probability(*pair, judge_temperature)
        bins.setdefault(min(int(20 * abs(p - 0.5)), 9), []).append(
            (max(p, 1 - p), (p > 0.5) + 0.5 * (p == 0.5))
        )
    assert len(bins) >= 5
    for cases in bins.values():
        expected = sum(p for p, _ in cases) / len(cases)
        error = math.sqrt(sum(p * (1 - p) for p, _ in cases)) / len(cases)
        assert abs(sum(right for _, right in cases) / len(cases) - expected) < 4 * error + 1e-3


def test_preferences():
    task = Style()
    pairs = task.preferences(300, seed=1)
    assert len(pairs) == 300
    assert pairs == task.preferences(300, seed=1)
    assert pairs != task.preferences(300, seed=2)
    assert all(pair.chosen != pair.rejected for pair in pairs)
    assert {pair.prompt for pair in pairs} <= {problem.prompt for problem in task.train}
    apart = task.preferences(100, seed=1, held_out=True)
    assert {pair.prompt for pair in apart} <= {problem.prompt for problem in task.held_out}
    good, poor = task.preferences(300, wrong=0.0), task.preferences(300, wrong=1.0)
    mean_taste = [sum(taste(p, a) + taste(p, b) for p, a, b in x) / 600 for x in (good, poor)]
    assert mean_taste[0] > mean_taste[1] + 0.2


def test_preferences_between_outputs_of_a_model():
    task, model = Style(), tiny_model(Style.characters)
    pairs = task.preferences(40, seed=1, model=model)
    assert len(pairs) == 40
    assert pairs == task.preferences(40, seed=1, model=model)
    assert all(pair.chosen != pair.rejected for pair in pairs)
    assert pairs != task.preferences(40, seed=1, model=tiny_model(Style.characters, seed=1))
    # A model that has been told to take the likeliest token writes the same twice.
    with pytest.raises(ValueError, match="of 5 pairs only 0 are of different outputs"):
        task.preferences(5, model=model, temperature=0)


def test_problems():
    task = Style()
    everything = task.train + task.held_out
    assert len(everything) == len({problem.prompt for problem in everything}) == 252
    assert len(task.held_out) == 48
    for prompt, answer in everything:
        start = prompt.removesuffix(":")
        assert prompt == start + ":"
        assert 1 <= len(start) <= 2
        assert 4 <= len(start + answer) <= 7
        assert set(prompt + answer) <= set(task.characters)
    assert Style(seed=1).held_out != task.held_out
    assert Style(seed=1).held_out == Style(seed=1).held_out
    assert len(Style(num_problems=100, held_out=10).train) == 90


def test_demonstrations():
    task = Style()
    decent, poor = task.demonstrations(2000, wrong=0.0), task.demonstrations(2000, wrong=1.0)
    for start, answer in decent:
        letters = start.removesuffix(":") + answer
        for pair in itertools.pairwise(letters):
            turns = (pair[0] in VOWELS) != (pair[1] in VOWELS)
            assert turns or "".join(pair) in CLUSTERS or letters.startswith("".join(pair))
    means = [sum(taste(*problem) for problem in part) / 2000 for part in (decent, poor)]
    assert means[0] > 0.55
    assert means[1] < 0.25
    mixed = task.demonstrations(2000, wrong=0.5)
    assert sum(taste(*problem) for problem in mixed) / 2000 == pytest.approx(sum(means) / 2, abs=0.03)
    # A prompt comes with many names.
    first = mixed[0].prompt
    assert len({answer for prompt, answer in mixed if prompt == first}) > 3
    assert task.demonstrations(50, 0.5, seed=1) == task.demonstrations(50, 0.5, seed=1)
    assert task.demonstrations(50, 0.5, seed=1) != task.demonstrations(50, 0.5, seed=2)
    assert {problem.prompt for problem in mixed} <= {problem.prompt for problem in task.train}


def test_in_what_is_shown_longer_is_better():
    """What a reward model will wrongly go on believing: nobody sees eight letters or more."""
    task = Style()
    shown = task.demonstrations(4000, wrong=0.5)
    by_length: dict[int, list[float]] = {}
    for prompt, answer in shown:
        by_length.setdefault(len(prompt) - 1 + len(answer), []).append(taste(prompt, answer))
    assert sorted(by_length) == [3, 4, 5, 6, 7]
    means = [sum(by_length[n]) / len(by_length[n]) for n in (3, 4, 5, 6, 7)]
    assert means == sorted(means)
    assert task.max_new_tokens > 2 * 7


def test_there_is_no_reward_until_one_is_learned():
    task = Style()
    problems = task.train[:2]
    with pytest.raises(ValueError, match=r"learned: train a reward model .* task.with_reward"):
        task.rewards(problems, ["a", "b"])
    with pytest.raises(ValueError, match="is learned"):
        task.reward(problems[0], "a")
    with pytest.raises(ValueError, match="is learned"):
        grpo.train(tiny_model(task.characters), task, grpo.GRPOConfig(updates=1, num_prompts=2, group_size=2))
    given = task.with_reward(taste_rewards)
    assert given.rewards(problems, ["a", "lora"]) == pytest.approx(
        [taste(problems[0].prompt, "a"), taste(problems[1].prompt, "lora")]
    )
    assert given.reward(problems[1], "lora") == pytest.approx(taste(problems[1].prompt, "lora"))
    assert given.train is task.train
    assert task.reward_function is None  # the task itself stays as it was


def test_learned_reward():
    task = Style()
    model = ScalarModel(tiny_model(task.characters), scale=1.0)
    learned = task.with_reward(model)
    assert all(0 < value < 1 for value in learned.rewards(task.train[:20], ["ara"] * 20))
    # A checkpoint tells runs apart by the task's description: by the task and by the reward.
    other = task.with_reward(ScalarModel(tiny_model(task.characters, seed=1), scale=1.0))
    assert len({repr(each) for each in (task, learned, other, Style(seed=1))}) == 4
    assert repr(task.with_reward(taste_rewards)) == repr(task)[:-5] + "taste_rewards)"
    mean = held_out_reward(tiny_model(task.characters), learned, task.held_out[:4])
    assert 0 < mean < 1


def test_a_reward_that_is_no_number_is_named():
    task = Style().with_reward(lambda problems, outputs: [math.nan for _ in outputs])
    problem = Problem("ka:", "lora")
    with pytest.raises(ValueError, match="'lora' to prompt 'ka:' is nan"):
        task.reward(problem, "lora")
    model = ScalarModel(tiny_model(Style.characters))
    model.out.bias.data.fill_(math.nan)
    with pytest.raises(ValueError, match="'lora' to prompt 'ka:' is nan"):
        Style().with_reward(model).reward(problem, "lora")


def test_watched_measures_what_it_does_not_pass_on():
    problems = [Problem("ka:", "lora"), Problem("x:", "")]
    watched = Watched(lambda problems, outputs: [1.0, 0.0])
    assert watched(problems, ["lora", "q"]) == [1.0, 0.0]
    assert watched(problems, ["q", "q"]) == [1.0, 0.0]
    assert watched.means == pytest.approx(
        [(taste("ka:", "lora") + taste("x:", "q")) / 2, (taste("ka:", "q") + taste("x:", "q")) / 2]
    )
    task = Style()
    config = grpo.GRPOConfig(updates=3, num_prompts=2, group_size=4, epochs=1)
    watched = Watched(taste_rewards)
    history = grpo.train(tiny_model(task.characters), task, config, reward=watched)
    assert watched.means == pytest.approx(history["reward"].tolist(), rel=1e-5)


def test_errors():
    task = Style()
    with pytest.raises(ValueError, match=r"count is 0; it must be a whole number"):
        task.preferences(0)
    with pytest.raises(ValueError, match=r"wrong is 1\.5"):
        task.preferences(10, wrong=1.5)
    with pytest.raises(ValueError, match="judge_temperature is 0"):
        task.preferences(10, judge_temperature=0)
    with pytest.raises(ValueError, match=r"wrong is -0\.1"):
        task.demonstrations(10, wrong=-0.1)
    with pytest.raises(ValueError, match="at most 251 can be held out"):
        Style(held_out=252)
    with pytest.raises(ValueError, match="seed is -1"):
        task.preferences(10, seed=-1)
    with pytest.raises(ValueError, match="there are no preferences"):
        judge_accuracy([])
    elsewhere = task.with_reward(ScalarModel(tiny_model("abc:")))
    with pytest.raises(ValueError, match="the vocabulary lacks 'k'"):
        elsewhere.rewards([Problem("k:", "")], ["a"])


def test_it_has_a_name():
    task = make_task("style", held_out=20)
    assert isinstance(task, Style)
    assert len(task.held_out) == 20
    with pytest.raises(ValueError, match="style"):
        make_task("rhyme")
