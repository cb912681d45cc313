"""Training in several processes: the same update as one process makes, and one error for all."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import parallel_runs
import pytest
import torch

from policyopt.language import grpo
from policyopt.language.parallel import OneProcess, SharedCheckpoint, check_accelerator, share
from policyopt.language.sampling import read_states
from policyopt.language.scalar_model import ScalarModel
from policyopt.language.training import held_out_reward, update_generator, write_outputs

LAUNCH = [
    sys.executable,
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes left behind, which were started by accelerate and talked through gloo."""
    folder = tmp_path_factory.mktemp("parallel")
    command = [*LAUNCH, parallel_runs.__file__, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "printed").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def results(folder):
    """The results of both processes."""
    return [torch.load(folder / f"process_{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_same_run(one, other, tolerance=1e-6):
    """Weights and rows are equal but for rounding, and the weights have moved."""
    first = parallel_runs.make_model().state_dict()
    for name, weights in one["weights"].items():
        moved = (weights - first[name]).abs().max()
        assert moved > 1e-3
        torch.testing.assert_close(other["weights"][name], weights, rtol=tolerance, atol=tolerance * moved)
    assert len(other["rows"]) == len(one["rows"])
    for mine, theirs in zip(one["rows"], other["rows"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", parallel_runs.CONFIGS)
def test_two_processes_make_the_update_of_one(name, results):
    """Over several updates, epochs, minibatches and parts of them; the norms of the gradients too, which Adam
    and the bound on them would hide.
    """
    assert [result["processes"] for result in results] == [2, 2]
    one = parallel_runs.run(name)
    assert_same_run(one, results[0][name], tolerance=1e-5)
    assert any(row["finished"] < 1 for row in one["rows"])  # outputs of several lengths, some cut off
    if name != "ppo":
        assert any(row["informative"] < 1 for row in one["rows"])  # prompts are left out
    assert all(row["grad_norm"] > 0 for row in one["rows"])


@pytest.mark.parametrize("name", parallel_runs.CONFIGS)
def test_processes_stay_alike_to_the_bit(name, results):
    first, second = (result[name] for result in results)
    assert first["rows"] == second["rows"]
    for key, weights in first["weights"].items():
        assert torch.equal(weights, second["weights"][key])


def test_the_example_speaks_with_one_voice(folder):
    lines = (folder / "printed").read_text().splitlines()
    assert len([line for line in lines if line.startswith("update 1: reward 0.")]) == 1


def test_held_out_problems_are_shared_however_many_there_are(results):
    model, task = parallel_runs.make_model(), parallel_runs.make_task()
    expected = held_out_reward(model, task, task.held_out, 1.0)
    assert expected != 0
    for result in results:
        assert result["held_out"] == pytest.approx([expected] * 3, rel=1e-6)


def test_each_output_is_judged_once(results):
    first, second = (result["judged"] for result in results)
    assert len(first) == len(second) > 0
    share_of_one = 2 * 4  # half the prompts, with 4 outputs each
    assert {len(outputs) for outputs in first + second} == {share_of_one}
    prompts = [{prompt for prompt, _ in outputs} for outputs in (first[0], second[0])]
    assert not prompts[0] & prompts[1]


def test_an_interrupted_run_goes_on_to_the_bit(results):
    for result in results:
        assert result["interrupted"] == "Interruption"
        assert result["resumed"]["rows"] == result["grpo"]["rows"]
        for name, weights in result["grpo"]["weights"].items():
            assert torch.equal(result["resumed"]["weights"][name], weights)


def test_only_the_first_process_writes(results):
    assert [result["written"] for result in results] == [3, 0]


def test_one_process_goes_on_where_two_left_off(folder, results):
    resumed = parallel_runs.run("grpo", checkpoint=folder / "interrupted.pt")
    assert_same_run(resumed, results[0]["grpo"], tolerance=1e-5)


@pytest.mark.parametrize(
    ("what", "first", "second"),
    [
        ("reward", "RuntimeError: another process could not judge", "ValueError: no judge here"),
        ("num_prompts", "ValueError: num_prompts is 3; it must be a multiple of the 2 processes", None),
        ("minibatch_size", "ValueError: minibatch_size is 3; it must be a multiple of the 2 processes", None),
        ("model", "ValueError: process 1 begins with another model than process 0", None),
        (
            "checkpoint",
            "ValueError: {}/none.pt has 3 updates behind it for process 1 and 0 for",
            "ValueError",
        ),
    ],
)
def test_an_error_ends_all_processes(what, first, second, results, folder):
    assert results[0]["errors"][what].startswith(first.format(folder))
    assert results[1]["errors"][what].startswith(second or first)


class Fake(OneProcess):
    """Process 1 of 2; ``others`` are what process 0 puts into one exchange after the other."""

    num_processes, process_index, device = 2, 1, "cpu"

    def __init__(self, *others):
        self.others = list(others)

    def gather(self, tensor):
        return torch.cat([torch.tensor([self.others.pop(0)], dtype=tensor.dtype), tensor])


def test_a_checkpoint_that_process_0_cannot_write(tmp_path):
    checkpoint = SharedCheckpoint(tmp_path / "run.pt", 1, {"seed": 1}, {}, Fake(1, True, False))
    with pytest.raises(OSError, match=r"process 0 could not write .*run\.pt"):
        checkpoint.save(1)
    checkpoint.save(1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [2, 0.5, 0, "brackets", None, math.nan])
def test_processes_must_begin_alike(value):
    sent = []
    fake = Fake()
    fake.gather = lambda tensor: (sent.append(tensor.item()), tensor)[1]
    SharedCheckpoint(None, 1, {"setting": value}, {}, fake)
    SharedCheckpoint(None, 1, {"setting": value}, {}, Fake(sent[0]))  # the other says the same
    with pytest.raises(ValueError, match=f"process 1 begins with another setting .* is {value!r}"):
        SharedCheckpoint(None, 1, {"setting": value}, {}, Fake(7))


@pytest.mark.parametrize("tied", [False, True])
def test_a_value_model_has_no_parameter_without_gradient(tied):
    """Processes would wait for one that the loss does not depend on."""
    body = parallel_runs.make_model()
    if tied:
        body.head.weight = body.embedding.weight
    problems, task = parallel_runs.make_task().train[:2], parallel_runs.make_task()
    samples = write_outputs(body, problems, 2, task.max_new_tokens, 1.0, update_generator(0, 0), OneProcess())
    value_model = ScalarModel(body, scale=1.0)
    value_model.score(read_states(body, samples)).sum().backward()
    trained = {name for name, p in value_model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in value_model.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in value_model.named_parameters()} - {"body.head.weight"}


def test_share():
    assert share(6, SimpleNamespace(num_processes=3, process_index=1), "it") == slice(2, 4)
    assert share(5, OneProcess(), "it") == slice(0, 5)
    with pytest.raises(ValueError, match="the number of rows is 5; it must be a multiple of the 2 processes"):
        share(5, SimpleNamespace(num_processes=2, process_index=0), "the number of rows")


def fake_accelerator(**changes):
    parts = dict(num_processes=2, process_index=0, gradient_accumulation_steps=1, scaler=None)
    return SimpleNamespace(**parts | {"distributed_type": SimpleNamespace(value="MULTI_GPU")} | changes)


def test_accelerators_that_are_taken():
    config = grpo.GRPOConfig()
    assert isinstance(check_accelerator(None, config), OneProcess)
    accelerator = fake_accelerator()
    assert check_accelerator(accelerator, config) is accelerator


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps is 4; it must be 1"),
        ({"scaler": object()}, "mixed_precision is 'fp16'"),
        ({"distributed_type": SimpleNamespace(value="FSDP")}, "distributed_type is FSDP"),
        ({"distributed_type": "DEEPSPEED"}, "distributed_type is DEEPSPEED"),
        ({"num_processes": 5}, "num_prompts is 32; it must be a multiple of the 5 processes"),
    ],
)
def test_accelerators_that_are_not(changes, message):
    with pytest.raises(ValueError, match=message):
        check_accelerator(fake_accelerator(**changes), grpo.GRPOConfig())


def test_processes_that_know_nothing_of_one_another(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were started, .* must be Accelerator\(cpu=True\)"):
        check_accelerator(fake_accelerator(num_processes=1), grpo.GRPOConfig())


def test_nothing_of_the_language_laboratory_imports_an_extra():
    script = """
import importlib, pkgutil, sys
import policyopt.language
modules = [module.name for module in pkgutil.iter_modules(policyopt.language.__path__)]
assert {"grpo", "parallel", "pretrained", "trl_bridge"} <= set(modules), modules
for name in modules:
    importlib.import_module(f"policyopt.language.{name}")
print(sorted({"transformers", "accelerate", "peft", "trl", "datasets", "gguf"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stdout + done.stderr
