"""One training run from beginning to end: a model, a task, GRPO, and the answers before and after it.

The command ``policyopt train-language`` is made of these functions.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import platform
import time
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, make_dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from policyopt.files import write_whole
from policyopt.history import History
from policyopt.language import grpo
from policyopt.language.grpo import GRPOConfig
from policyopt.language.model import LanguageModel
from policyopt.language.pretrained import LoRA, load_pretrained
from policyopt.language.recipes import fine_tuned, make_recipe
from policyopt.language.sampling import encode_prompts, generate
from policyopt.language.tasks import TASKS, Problem, Task
from policyopt.language.training import memory_errors

__all__ = [
    "PRETRAINED",
    "PRETRAINED_LORA",
    "PRETRAINED_TASKS",
    "Report",
    "greedy_outputs",
    "make_model",
    "task_settings",
    "train_and_report",
]

TINY = "tiny"  # the model of this name is the laboratory's own transformer

# SmolLM2 learns to add with these. The learning rate of all weights must be small: with 1e-5 (and 16 prompts)
# all outputs of a group were the same after thirty updates, right or wrong, and nothing more was learnt.
# Thirty-two prompts and a falling rate keep the reward steady; it takes no penalty.
PRETRAINED = GRPOConfig(
    updates=150,
    num_prompts=32,
    group_size=8,
    epochs=1,
    minibatch_size=16,
    learning_rate=4e-6,
    learning_rate_end=0.0,
    warmup=5,
    kl_coef=0.0,
    evaluate_every=10,
    evaluate_problems=110,
)

PRETRAINED_LORA = replace(PRETRAINED, learning_rate=2e-4)

# What a pretrained model is asked, where that differs from the task's own choice.
PRETRAINED_TASKS: dict[str, dict[str, int]] = {"addition": dict(low=0, high=20, held_out=110)}


def task_settings(name: str, **defaults: Any) -> Any:
    """A dataclass with the settings of a task, whatever they are, with other defaults for some.

    Raises:
        ValueError: there is no such task.
    """
    if name not in TASKS:
        learned = "; that of style has no reward until one is learned" if name == "style" else ""
        raise ValueError(f"there is no task {name!r} here; there are {', '.join(TASKS)}{learned}")
    hints = typing.get_type_hints(TASKS[name].__init__)
    settings = [
        (setting, hints[setting], field(default=defaults.get(setting, parameter.default)))
        for setting, parameter in inspect.signature(TASKS[name]).parameters.items()
    ]
    return make_dataclass(f"{TASKS[name].__name__}Settings", settings, frozen=True)


def make_model(
    name: str,
    task: Task,
    *,
    examples: int = 3,
    lora: LoRA | None = None,
    device: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> LanguageModel:
    """A model to be trained on a task.

    Args:
        name: for ``policyopt.language.pretrained.load_pretrained``; or ``"tiny"`` for a small
            transformer after supervised fine-tuning, as ``policyopt.language.recipes`` has it.
        task: gives the instruction and the worked examples, or the demonstrations.
        examples: worked examples in the prompt of a pretrained model. They are taken away from
            ``task.train``, so that no problem is ever asked whose answer stands in the prompt.
        lora: adapters of a pretrained model.
        device: of a pretrained model.
        seed: of first weights.
        progress: show a bar.

    Raises:
        ValueError: more examples than problems; LoRA for the tiny model; no recipe for the task; what
            ``load_pretrained`` raises.
    """
    if name == TINY:
        if lora is not None:
            raise ValueError("LoRA is for pretrained models; all weights of the tiny one are trained")
        model, _ = fine_tuned(replace(make_recipe(task.name), task=lambda: task), seed, progress=progress)
        return model
    if not 0 <= examples < len(task.train):
        raise ValueError(f"examples is {examples!r}; it must be in [0, {len(task.train) - 1}]")
    shown, task.train = task.train[:examples], task.train[examples:]
    return load_pretrained(
        name, instruction=task.instruction, examples=shown, lora=lora, device=device, seed=seed
    )


def greedy_outputs(
    model: LanguageModel, task: Task, problems: Sequence[Problem], batch_size: int = 64
) -> list[str]:
    """What a model writes for each problem when it takes the likeliest token each time."""
    texts: list[str] = []
    for first in range(0, len(problems), batch_size):
        part = [problem.prompt for problem in problems[first : first + batch_size]]
        prompts, mask = encode_prompts(model, part, task.max_new_tokens)
        noise = torch.zeros(len(part), 1, task.max_new_tokens)  # not looked at
        with memory_errors(f"writing {len(part)} outputs of {task.max_new_tokens} tokens"):
            samples = generate(model, prompts, mask, noise, temperature=0.0)
        texts += [group[0] for group in samples.texts(model.tokenizer)]
    return texts


@dataclass(frozen=True)
class Report:
    """What a run did: plain values, all that its file holds."""

    model: str
    task: dict[str, Any]  # name, settings, instruction, how many problems
    prompt: str  # the first of those held out, all of it, as the model reads it
    variant: str
    config: dict[str, Any]
    lora: dict[str, Any] | None
    seed: int
    parameters: int
    trained_parameters: int
    held_out: list[dict[str, str]]  # prompt, answer, and the outputs before and after
    before: dict[str, float]  # mean greedy reward of problems held out, and its standard error
    after: dict[str, float]
    history: dict[str, list[float | None]]
    seconds: float  # of training, in this process
    first_update: int  # of this process: not 1 where it went on from a checkpoint
    versions: dict[str, str]

    def write(self, file: str | os.PathLike) -> Path:
        """Write it as JSON; the file is afterwards whole or as it was before."""
        return write_whole(file, (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode())


def _score(task: Task, outputs: Sequence[str]) -> dict[str, float]:
    rewards = torch.tensor(task.rewards(task.held_out, outputs), dtype=torch.float64)
    error = rewards.std(correction=0).item() / math.sqrt(len(rewards))
    return {"reward": rewards.mean().item(), "standard_error": error}


def _columns(history: History) -> dict[str, list[float | None]]:
    def plain(value: float) -> float | None:
        return None if math.isnan(value) else float(f"{value:.6g}")

    return {name: [plain(value) for value in history[name].tolist()] for name in history.columns}


def train_and_report(
    name: str,
    model: LanguageModel,
    task: Task,
    settings: dict[str, Any],
    config: GRPOConfig,
    seed: int = 0,
    *,
    variant: str = "grpo",
    **how: Any,
) -> Report:
    """Train a model with GRPO, and ask it all problems held out before and after.

    Args:
        name: of the model, for the report.
        model: is trained, in place.
        task: gives the problems.
        settings: with which the task was made, for the report.
        config, seed, variant: as for ``policyopt.language.grpo.train``.
        how: further arguments of that function, such as ``checkpoint``.
    """
    before = greedy_outputs(model, task, task.held_out)
    parameters: list[nn.Parameter] = list(model.parameters())
    began = time.perf_counter()
    history = grpo.train(model, task, config, seed, variant=variant, **how)
    seconds = time.perf_counter() - began
    after = greedy_outputs(model, task, task.held_out)
    problems = zip(task.held_out, before, after, strict=True)
    lora = getattr(model, "lora", None)
    prompt = task.held_out[0].prompt
    return Report(
        model=name,
        task={
            "name": task.name,
            "settings": settings,
            "train": len(task.train),
            "held_out": len(task.held_out),
        },
        prompt=getattr(model.tokenizer, "prompt_text", str)(prompt),
        variant=variant,
        config=asdict(config),
        lora=None if lora is None else asdict(lora),
        seed=seed,
        parameters=sum(parameter.numel() for parameter in parameters),
        trained_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        held_out=[dict(zip(REPORTED, (*problem, *texts), strict=True)) for problem, *texts in problems],
        before=_score(task, before),
        after=_score(task, after),
        history=_columns(history),
        seconds=round(seconds, 1),
        first_update=1 + sum(map(math.isnan, history.logged_at)),
        versions=_versions(),
    )


REPORTED = ("prompt", "answer", "before", "after")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("policyopt", "torch", "transformers", "peft"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
