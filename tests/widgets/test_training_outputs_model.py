"""*Training outputs*: the Python side, what it accepts and carries, and where its record comes from."""

import copy
import json
import math
import re

import numpy as np
import pytest
import torch
from in_python import embedded

from policyopt.language.model import Transformer, TransformerConfig
from policyopt.language.recording import record_outputs, record_run
from policyopt.language.tasks import Addition
from policyopt.language.tokenizer import CharTokenizer
from policyopt.widgets import TrainingOutputs
from policyopt.widgets.training_outputs import PACKAGED_RUN, check_record


@pytest.fixture(scope="module")
def stored():
    return json.loads(PACKAGED_RUN.read_text(encoding="utf-8"))


def total_variation(one, other):
    length = max(len(one), len(other))
    one, other = (np.pad(counts, (0, length - len(counts))) / 10_000 for counts in (one, other))
    return np.abs(one - other).sum() / 2


def test_the_record_is_of_the_chapters_run(stored):
    made = record_run(last=5)
    assert made["updates"] == stored["updates"][:2] == [0, 5]
    assert (made["tokens"], len(made["reward"])) == (stored["tokens"], 6)
    # Another machine rounds otherwise, and 700 steps make more of it: the same run, not the same digits. Over
    # its 80 updates the reward rises by half.
    assert made["reward"] == pytest.approx(stored["reward"][:6], abs=0.25)
    for recorded, packaged in zip(made["prompts"], stored["prompts"], strict=True):
        assert (recorded["prompt"], recorded["answer"]) == (packaged["prompt"], packaged["answer"])
        assert total_variation(recorded["reference"][""], packaged["reference"][""]) < 0.3
        for group, kept in zip(recorded["groups"], packaged["groups"][:2], strict=True):
            assert total_variation(group["policy"][""], kept["policy"][""]) < 0.4


def test_the_stored_record_holds_together(stored):
    assert PACKAGED_RUN.stat().st_size < 30_000
    assert check_record(stored) == stored
    assert stored["updates"] == list(range(0, 81, 5))
    assert len(stored["reward"]) == 81
    task = Addition()
    held_out = {problem.prompt: problem.answer for problem in task.held_out}
    for one in stored["prompts"]:
        assert held_out[one["prompt"]] == one["answer"]
        assert one["groups"][0]["policy"].items() <= one["reference"].items()  # the run begins with it
        for group in one["groups"]:
            right = [output == one["answer"] + "⏎" for output in group["outputs"]]
            assert group["rewards"] == right
            for counts in (*group["policy"].values(), *one["reference"].values()):
                assert sum(counts) == pytest.approx(10_000, abs=7)  # each of 14 is rounded


def test_the_stored_record_tells_the_story(stored):
    assert np.mean(stored["reward"][:5]) < 0.45
    assert np.mean(stored["reward"][-5:]) > 0.8
    sums = np.array([[sum(group["rewards"]) for group in one["groups"]] for one in stored["prompts"]])
    assert (sums[:3, -1] > sums[:3, 0]).all()
    assert {0, 8} <= set(sums.flat)  # groups of which nothing is to be learned, of both kinds
    assert sums[3, -1] == 0  # a sum that it gets wrong in the end


@pytest.fixture(scope="module")
def models():
    task = Addition(num_problems=40, held_out=8)
    tokenizer = CharTokenizer(task.characters)
    config = TransformerConfig(layers=1, width=16, heads=2, hidden=16)
    return task, {update: Transformer(tokenizer, config, seed=update) for update in (0, 3)}


def test_recorded_probabilities_are_the_models(models):
    task, snapshots = models
    prompts = [problem.prompt for problem in task.held_out[:2]]
    record = record_outputs(snapshots, task, prompts, [0.25, np.float64(0.5)], size=3, seed=1)
    assert check_record(record) is record
    assert (record["updates"], record["reward"]) == ([0, 3], [0.25, 0.5])
    assert record["tokens"] == "0123456789+=⏎·"
    order = [*range(2, 14), 1, 0]
    for one, problem in zip(record["prompts"], task.held_out[:2], strict=True):
        assert (one["prompt"], one["answer"]) == problem
        for update, group in zip((0, 3), one["groups"], strict=True):
            assert len(group["outputs"]) == 3
            assert set(group["policy"]) == {o[:t] for o in group["outputs"] for t in range(len(o))}
            for model, chances in ((snapshots[update], group["policy"]), (snapshots[0], one["reference"])):
                for state in group["policy"]:
                    text = [("··" + task.characters).index(token) for token in one["prompt"] + state]
                    with torch.no_grad():
                        expected = model(torch.tensor([text]))[0, -1].softmax(dim=-1)[order]
                    kept = [*chances[state], *[0] * (14 - len(chances[state]))]
                    assert kept == pytest.approx((10_000 * expected).tolist(), abs=0.51)
    again = record_outputs(snapshots, task, prompts, [0.25, 0.5], size=3, seed=1)
    assert again == record
    assert TrainingOutputs(record, prompt=1, update=3).page_data() == {
        "record": record,
        "prompt": 1,
        "update": 3,
    }


def test_record_outputs_refuses(models):
    task, snapshots = models
    with pytest.raises(ValueError, match="there is no snapshot"):
        record_outputs({}, task)
    with pytest.raises(ValueError, match=re.escape("the task has no problem '1+1='")):
        record_outputs(snapshots, task, ["1+1="])


def test_page_carries_the_record(stored):
    figure = TrainingOutputs()
    assert embedded(figure) == {"record": stored, "prompt": 0, "update": 0}
    assert repr(figure) == "TrainingOutputs(4 prompts, 17 snapshots, update=0)"
    figure.prompt, figure.update = np.int64(2), 40
    assert figure.page_data() | {"record": 0} == {"record": 0, "prompt": 2, "update": 40}


def small_record():
    groups = [
        {"outputs": ["1⏎", "0"], "rewards": [1, 0.5], "policy": {"": [4000, 6000], "1": [0, 0, 10_000]}},
        {"outputs": ["1", "1"], "rewards": [1, 1], "policy": {"": [0, 10_000]}},
    ]
    reference = {"": [5000, 5000], "1": [0, 0, 10_000]}
    one = {"prompt": "?", "answer": "1", "reference": reference, "groups": groups}
    return {"tokens": "01⏎", "updates": [0, 4], "reward": [0.5, 1], "prompts": [one]}


def test_another_record_may_be_assigned():
    figure = TrainingOutputs(prompt=3, update=80)
    figure.record = small_record()
    assert (figure.prompt, figure.update) == (0, 0)
    figure.record = None
    assert len(figure.record["prompts"]) == 4


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), {"updates": []}, "record is {'updates': []}; it must be a dictionary with tokens, updates,"),
        (("tokens",), "00", "record: tokens is '00'; it must be a text of 2 or more different"),
        (("updates",), [4, 0], "record: updates is [4, 0]; it must be 2 or more whole numbers ≥ 0 that rise"),
        (("updates",), [0, 4.5], "record: updates is [0, 4.5]; it must be"),
        (("updates",), [0, 4, 8], "groups is [{"),
        (("reward",), [0.5, 1.5], "record: reward is [0.5, 1.5]; it must be a list of numbers in [0, 1]"),
        (("reward",), [math.nan], "record: reward is [nan]"),
        (("prompts",), [], "record: prompts is []; it must be a list of 1 to 6"),
        (("prompts", 0), {}, "record: prompts[0] is {}; it must be a dictionary with prompt, answer,"),
        (("prompts", 0, "prompt"), 3, "record: prompts[0]: prompt is 3; it must be a text"),
        (("prompts", 0, "groups", 1, "outputs"), ["1"], "groups[1]: outputs is ['1']; it must be 2 to 16"),
        (("prompts", 0, "groups", 1, "outputs"), ["1", "7"], "of 1 to 4 of the tokens '01⏎'"),
        (("prompts", 0, "groups", 1, "outputs"), ["1", "11111"], "outputs is ['1', '11111']"),
        (("prompts", 0, "groups", 0, "rewards"), [1], "rewards is [1]; it must be 2 finite numbers"),
        (("prompts", 0, "groups", 0, "rewards"), [1, True], "rewards is [1, True]"),
        (("prompts", 0, "groups", 0, "policy"), {"": [1]}, "policy lacks the state '1'"),
        (("prompts", 0, "reference"), {"": [1]}, "prompts[0]: reference lacks the state '1'"),
        (
            ("prompts", 0, "reference", ""),
            [9000, 2000],
            "reference[''] is [9000, 2000]; it must be at most 3",
        ),
        (("prompts", 0, "reference", ""), [-1, 5], "reference[''] is [-1, 5]"),
        (("prompts", 0, "reference"), 5, "reference is 5; it must be a dictionary of probabilities"),
    ],
)
def test_bad_records(path, value, message):
    record = small_record()
    TrainingOutputs(copy.deepcopy(record))
    if path:
        *parents, last = path
        place = record
        for key in parents:
            place = place[key]
        place[last] = value
    else:
        record = value
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingOutputs(record)
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingOutputs().record = record


@pytest.mark.parametrize("prompt", [-1, 4, 1.0, "0", None, True])
def test_bad_prompt(prompt):
    with pytest.raises(ValueError, match=re.escape(f"prompt is {prompt!r}; it must be an integer from 0")):
        TrainingOutputs(prompt=prompt)


@pytest.mark.parametrize("update", [-5, 3, 85, "0", 5.0, True])
def test_bad_update(update):
    with pytest.raises(ValueError, match=re.escape(f"update is {update!r}; it must be one of 0, 5, 10")):
        TrainingOutputs(update=update)
    with pytest.raises(ValueError, match=re.escape(f"update is {update!r}")):
        TrainingOutputs().update = update
