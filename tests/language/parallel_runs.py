"""Short runs that one process and several must make alike; as a script, what each of several processes does.

``accelerate launch --multi_gpu --num_processes 2 parallel_runs.py FOLDER`` (or ``torchrun``) leaves in the
folder a file of results for each process, and a checkpoint; then it runs the example.
"""

import functools
import runpy
import shutil
import sys
from pathlib import Path

import torch

from policyopt import files
from policyopt.language import grpo, ppo
from policyopt.language.model import Transformer, TransformerConfig
from policyopt.language.tasks import Addition
from policyopt.language.tokenizer import CharTokenizer
from policyopt.language.training import held_out_reward

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_in_parallel.py"
SIZES = dict(num_prompts=4, group_size=4, epochs=2, minibatch_size=2, learning_rate=1e-3)
CONFIGS = {
    "grpo": grpo.GRPOConfig(
        updates=3,
        micro_batch_size=1,
        kl_coef=0.1,
        reference_every=2,
        max_grad_norm=0.2,
        evaluate_every=3,
        evaluate_problems=7,
        **SIZES,
    ),
    "dapo": grpo.GRPOConfig(updates=2, kl_coef=0.0, **SIZES),
    "dr_grpo": grpo.GRPOConfig(updates=2, kl_coef=0.0, **SIZES | {"minibatch_size": 4}),
    "ppo": ppo.PPOConfig(updates=2, micro_batch_size=1, kl_coef=0.1, **SIZES),
}


def make_task() -> Addition:
    """Prompts of three lengths, and room for outputs of many."""
    task = Addition(5, 12, held_out=8)
    task.max_new_tokens = 8
    task.rewards = reward
    return task


def make_model(seed: int = 0) -> Transformer:
    """A model small enough to train in a moment."""
    config = TransformerConfig(layers=1, width=16, heads=2, hidden=24, context=16)
    return Transformer(CharTokenizer(Addition.characters), config, seed)


def reward(problems, outputs) -> list[float]:
    """The share of even digits, and something for how close the length is to that of the answer; always 0 for
    a third of the problems, whose groups then have no advantage.
    """
    return [
        (int(problem.answer) % 3 > 0)
        * (sum(c in "02468" for c in output) / 8 - abs(len(output) - len(problem.answer)) / 16)
        for problem, output in zip(problems, outputs, strict=True)
    ]


def run(name: str, **options) -> dict:
    """Train a new model; its weights and the rows of its history."""
    model = make_model()
    if name == "ppo":
        history = ppo.train(model, make_task(), CONFIGS[name], seed=1, **options)
    else:
        history = grpo.train(model, make_task(), CONFIGS[name], seed=1, variant=name, **options)
    return {"weights": dict(model.state_dict()), "rows": history.rows}


class Interruption(Exception):
    """Ends a run early."""


def failing(calls: int, error: Exception):
    """A reward function that fails after so many calls."""
    count = 0

    @functools.wraps(reward)
    def reward_until(problems, outputs):
        nonlocal count
        count += 1
        if count > calls:
            raise error
        return reward(problems, outputs)

    return reward_until


def error_of(name: str, model=None, task=None, config=None, **options) -> str:
    """The error that a run ends with."""
    try:
        grpo.train(model or make_model(), task or make_task(), config or CONFIGS[name], **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def main(folder: Path) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    rank, results = accelerator.process_index, {"processes": accelerator.num_processes}

    for name in CONFIGS:
        results[name] = run(name, accelerator=accelerator)

    model, task = make_model(), make_task()
    results["held_out"] = [
        held_out_reward(model, task, task.held_out, 1.0, batch_size=size, accelerator=accelerator)
        for size in (8, 3, 1)
    ]
    judged = []

    @functools.wraps(reward)
    def counting(problems, outputs):
        judged.append([(problem.prompt, output) for problem, output in zip(problems, outputs, strict=True)])
        return reward(problems, outputs)

    run("dapo", accelerator=accelerator, reward=counting)
    results["judged"] = judged

    written, write_whole = [], files.write_whole
    files.write_whole = lambda path, data: (written.append(str(path)), write_whole(path, data))[1]
    path = folder / "run.pt"
    options = dict(accelerator=accelerator, checkpoint=path, checkpoint_every=1)
    try:
        run("grpo", reward=failing(2, Interruption()), **options)
    except (Interruption, RuntimeError) as error:
        results["interrupted"] = type(error).__name__
    accelerator.wait_for_everyone()
    if rank == 0:
        shutil.copy(path, folder / "interrupted.pt")
    results["resumed"] = run("grpo", **options)
    results["written"] = len(written)
    files.write_whole = write_whole

    one_fails = failing(0, ValueError("no judge here")) if rank == 1 else reward
    uneven = grpo.GRPOConfig(**SIZES | {"num_prompts": 3})
    uneven_steps = grpo.GRPOConfig(**SIZES | {"minibatch_size": 3})
    results["errors"] = {
        "reward": error_of("grpo", reward=one_fails, accelerator=accelerator),
        "num_prompts": error_of("grpo", config=uneven, accelerator=accelerator),
        "minibatch_size": error_of("grpo", config=uneven_steps, accelerator=accelerator),
        "model": error_of("grpo", model=make_model(seed=rank), accelerator=accelerator),
        "checkpoint": error_of(
            "grpo", accelerator=accelerator, seed=1, checkpoint=folder / ("run.pt" if rank else "none.pt")
        ),
    }
    accelerator.wait_for_everyone()
    torch.save(results, folder / f"process_{rank}.pt")
    runpy.run_path(str(EXAMPLE))["main"](updates=1, num_prompts=4, sft_updates=1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
