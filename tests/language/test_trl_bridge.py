"""The bridge to TRL: our problems as its data, our rewards in its signature, our settings under its names."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from policyopt.language.grpo import GRPOConfig
from policyopt.language.tasks import Addition, Brackets, Problem
from policyopt.language.trl_bridge import as_dataset, import_peer, reward_function, trl_settings

pytestmark = [
    pytest.mark.xdist_group("llm"),
    # transformers warns of its own names, which TRL uses
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
PROBLEMS = [Problem("10+11=", "21"), Problem("30+4=", "34")]


def load_example(name):
    """A script of the folder ``examples`` as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plain_dataset():
    dataset = as_dataset(PROBLEMS)
    assert type(dataset).__module__.startswith("datasets")
    assert dataset.to_list() == [
        {"prompt": "10+11=", "problem": "10+11=", "answer": "21"},
        {"prompt": "30+4=", "problem": "30+4=", "answer": "34"},
    ]


def test_chat_dataset():
    dataset = as_dataset(PROBLEMS, "Add them.", [Problem("1+2=", "3")])
    assert dataset[1] == {
        "prompt": [
            {"role": "system", "content": "Add them."},
            {"role": "user", "content": "1+2="},
            {"role": "assistant", "content": "3"},
            {"role": "user", "content": "30+4="},
        ],
        "problem": "30+4=",
        "answer": "34",
    }


def test_chat_dataset_without_system_role():
    dataset = as_dataset(PROBLEMS, "Add them.", system_role=False)
    assert dataset[0]["prompt"] == [{"role": "user", "content": "Add them.\n\n10+11="}]
    assert dataset[0]["problem"] == "10+11="


def test_dataset_of_nothing():
    with pytest.raises(ValueError, match="no problem"):
        as_dataset([])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text,
        lambda text: [{"role": "assistant", "content": text}],
        lambda text: [{"role": "assistant", "content": [{"type": "text", "text": text}]}],
        lambda text: [
            {"role": "assistant", "content": "wait"},
            {"role": "assistant", "content": text},
        ],
    ],
    ids=["text", "message", "parts", "messages"],
)
def test_rewards_are_those_of_the_task(wrap):
    task = Brackets(longest=5, num_problems=40, held_out=8)
    problems = [task.train[0]] * 3 + [task.train[1]] * 2
    outputs = [problems[0].answer, f"(){problems[0].answer}", "]]", problems[3].answer, ""]
    expected = task.rewards(problems, outputs)
    assert set(expected) == {0.0, 1.0}
    columns = as_dataset(problems, task.instruction, task.train[2:4]).to_dict()
    rewards = reward_function(task)(
        prompts=columns.pop("prompt"),
        completions=[wrap(output) for output in outputs],
        completion_ids=[[0]] * 5,
        trainer_state=None,
        **columns,
    )
    assert rewards == expected
    assert all(type(reward) is float for reward in rewards)


def test_reward_is_named_after_the_task():
    assert reward_function(Addition()).__name__ == "addition_reward"


def test_another_judge():
    judge = reward_function(Addition(), lambda problems, outputs: torch.tensor([len(o) / 4 for o in outputs]))
    assert judge([], ["123", "1"], problem=["1+1=", "2+2="], answer=["2", "4"]) == [0.75, 0.25]


def test_rewards_that_are_not_finite():
    judge = reward_function(Addition(), lambda problems, outputs: [math.nan])
    with pytest.raises(ValueError, match=r"output 'x' to prompt '1\+1=' is nan"):
        judge([], ["x"], problem=["1+1="], answer=["2"])


@pytest.mark.parametrize("name", ["trl", "datasets"])
def test_a_missing_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    use = (lambda: as_dataset(PROBLEMS)) if name == "datasets" else load_example("train_with_trl").main
    with pytest.raises(ImportError, match=rf'{name} cannot be imported .*pip install "policyopt\[peers\]"'):
        use()


def test_settings():
    config = GRPOConfig(
        updates=5,
        num_prompts=8,
        group_size=4,
        epochs=2,
        minibatch_size=4,
        micro_batch_size=1,
        learning_rate=1e-4,
        learning_rate_end=0.0,
        warmup=3,
        kl_coef=0.1,
        reference_every=2,
        temperature=0.9,
    )
    settings = trl_settings(config, Addition(), num_processes=2)
    assert settings == {
        "loss_type": "grpo",
        "scale_rewards": "group",
        "use_bias_correction_kl": False,
        "num_generations": 4,
        "generation_batch_size": 32,
        "per_device_train_batch_size": 4,  # one prompt with its outputs
        "gradient_accumulation_steps": 2,  # and 2 processes: 4 prompts a step
        "num_iterations": 2,
        "max_steps": 20,  # 5 updates of 2 epochs of 2 minibatches
        "learning_rate": 1e-4,
        "lr_scheduler_type": "linear",
        "warmup_steps": 12,
        "epsilon": 0.2,
        "beta": 0.1,
        "temperature": 0.9,
        "max_grad_norm": 1.0,
        "max_completion_length": 4,
        "sync_ref_model": True,
        "ref_model_sync_steps": 8,
        "ref_model_mixup_alpha": 1.0,
    }


def test_trl_takes_the_settings(tmp_path):
    config = GRPOConfig(num_prompts=8, group_size=4, minibatch_size=4, kl_coef=0.0, clip=0.1)
    settings = trl_settings(config, Addition())
    assert "sync_ref_model" not in settings
    taken = import_peer("trl").GRPOConfig(str(tmp_path), **settings, use_cpu=True, bf16=False)
    assert (taken.steps_per_generation, taken.generation_batch_size) == (2, 32)  # two steps an epoch
    assert (taken.epsilon, taken.lr_scheduler_type) == (0.1, "constant")


@pytest.mark.parametrize(
    ("changes", "num_processes", "message"),
    [
        ({"minibatch_size": 3}, 1, "minibatch_size is 3 and num_prompts 8"),
        ({"minibatch_size": 4}, 3, "minibatch_size is 4 .* 3 processes"),
        ({"minibatch_size": 2}, 4, "minibatch_size is 2 .* 4 processes"),
        ({"minibatch_size": 8, "micro_batch_size": 3}, 1, "micro_batch_size 3"),
        ({"learning_rate_end": 1e-4}, 1, "learning_rate_end is 0.0001"),
    ],
)
def test_settings_that_trl_lacks(changes, num_processes, message):
    with pytest.raises(ValueError, match=message):
        trl_settings(GRPOConfig(num_prompts=8, **changes), Addition(), num_processes)


def test_more_prompts_than_problems():
    task = Addition(0, 3, held_out=8)
    with pytest.raises(ValueError, match="num_prompts is 9, but the task has 8 problems"):
        trl_settings(GRPOConfig(num_prompts=9, minibatch_size=9), task)


def test_the_script_trains_with_our_rewards(tmp_path, capsys):
    """What the trainer reports is what our task gives for the completions that it wrote down."""
    import pandas as pd

    trainer = load_example("train_with_trl").main(
        steps=2, high=8, num_prompts=48, learning_rate=1e-3, output=str(tmp_path)
    )
    reports = [row for row in trainer.state.log_history if "reward" in row]
    assert len(reports) == 2
    for step, report in enumerate(reports, start=1):
        table = pd.read_parquet(tmp_path / "completions" / f"completions_{step:05d}.parquet")
        assert len(table) == 48 * 8
        sums = [sum(map(int, prompt.removesuffix("=").split("+"))) for prompt in table["prompt"]]
        expected = [float(text == str(n)) for text, n in zip(table["completion"], sums, strict=True)]
        assert table["addition_reward"].tolist() == expected
        assert report["rewards/addition_reward/mean"] == pytest.approx(sum(expected) / len(expected))
        assert report["reward"] > 0  # some were right, so the comparison could have failed
        assert report["grad_norm"] > 0
    assert "addition_reward" in capsys.readouterr().out  # the table that a reader sees
