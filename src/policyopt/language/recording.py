"""A training run recorded for looking at: what its models write, and how probable they find it.

The interactive figure ``policyopt.widgets.training_outputs`` shows such records.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from policyopt.language import grpo
from policyopt.language.model import Transformer
from policyopt.language.parallel import OneProcess
from policyopt.language.recipes import RECIPES, fine_tuned
from policyopt.language.sampling import encode_prompts, generate, read_states, token_noise
from policyopt.language.tasks import Task
from policyopt.language.training import update_generator
from policyopt.training import single_thread

__all__ = ["record_outputs", "record_run"]

END, PAD = "⏎", "·"  # how these tokens are shown; padding can be sampled, too
WHOLE = 10_000  # a probability of 1, as the record has it
SFT_UPDATES, UPDATES, EVERY = 700, 80, 5
PROMPTS = ("57+77=", "59+48=", "36+26=", "35+60=")  # all held out: learned step by step, soon, late, not


def record_outputs(
    snapshots: Mapping[int, Transformer],
    task: Task,
    prompts: Sequence[str] = PROMPTS,
    reward: Sequence[float] = (),
    size: int = 8,
    seed: int = 8,
) -> dict[str, Any]:
    """What models of one training run write, as the figure ``TrainingOutputs`` takes it.

    All snapshots write with the same random numbers, so that an output changes only where the model did.

    Args:
        snapshots: models after so many updates, such as ``{0: imitator, 80: learner}``. The one with the
            fewest is the reference, with which the others are compared.
        task: its tokens are characters; it gives the rewards.
        prompts: of the problems held out or trained on.
        reward: the mean reward of the outputs of each update, the first by the model before any.
        size: G, outputs of a group, 2 to 16.
        seed: of the sampling.

    Returns:
        ``tokens``, all characters, ⏎ for the end and · for padding; ``updates``; ``reward``; and ``prompts``,
        each with ``prompt``, ``answer``, ``reference`` and, for each snapshot, ``groups``: ``outputs``,
        ``rewards`` and ``policy``. ``policy`` and ``reference`` hold the probabilities of the next token, in
        ten-thousandths, by what was written before it.

    Raises:
        ValueError: no snapshot; a prompt that is none of the task's.
    """
    if not snapshots:
        raise ValueError("there is no snapshot to record")
    answers = {problem.prompt: problem for problem in (*task.held_out, *task.train)}
    for prompt in prompts:
        if prompt not in answers:
            raise ValueError(f"the task has no problem {prompt!r}")
    problems = [answers[prompt] for prompt in prompts]
    noise = token_noise((len(problems), size, task.max_new_tokens), torch.Generator().manual_seed(seed))
    updates = sorted(snapshots)
    reference = snapshots[updates[0]]
    tokenizer = reference.tokenizer
    tokens = task.characters + END + PAD
    ids = [*tokenizer.encode(task.characters), *tokenizer.end_ids[:1], tokenizer.pad_id]
    names = dict(zip(ids, tokens, strict=True))
    found = [
        {"prompt": problem.prompt, "answer": problem.answer, "reference": {}, "groups": []}
        for problem in problems
    ]
    for update in updates:
        prompt_tokens, mask = encode_prompts(snapshots[update], prompts, task.max_new_tokens)
        samples = generate(snapshots[update], prompt_tokens, mask, noise)
        with torch.no_grad():
            now, before = (
                model.head(read_states(model, samples)).softmax(dim=-1)[..., ids]
                for model in (snapshots[update], reference)
            )
        for q, problem in enumerate(problems):
            rows = zip(samples.tokens[q].tolist(), samples.lengths[q].tolist(), strict=True)
            outputs = ["".join(names[token] for token in row[:length]) for row, length in rows]
            group = {"outputs": outputs, "rewards": [], "policy": {}}
            for i, output in enumerate(outputs):
                reward_of = task.reward(problem, output.replace(END, "").replace(PAD, ""))
                group["rewards"].append(int(reward_of) if reward_of in (0, 1) else round(reward_of, 4))
                for t in range(len(output)):
                    for chances, place in ((now, group["policy"]), (before, found[q]["reference"])):
                        place[output[:t]] = _counts(chances[q, i, t].tolist())
            found[q]["groups"].append(group)
    means = [round(float(value), 3) for value in reward]
    return {"tokens": tokens, "updates": updates, "reward": means, "prompts": found}


def _counts(chances: Sequence[float]) -> list[int]:
    """Probabilities in ten-thousandths; the zeros at the end are left out."""
    counts = [round(WHOLE * chance) for chance in chances]
    while counts and counts[-1] == 0:
        counts.pop()
    return counts


class _Enough(Exception):
    """The part of the run that was asked for is over."""


def record_run(last: int = UPDATES) -> dict[str, Any]:
    """The run of the chapter "Teaching a language model to add", recorded.

    Supervised fine-tuning for 700 updates and 80 of GRPO, with the settings of
    ``policyopt.language.recipes.RECIPES["addition"]`` and seed 0. Its probabilities can differ in the last
    digits between machines, and with them now and then an output.

    Args:
        last: the update after which it stops, a multiple of 5; with fewer than 80, the first part of that
            run.
    """
    recipe = RECIPES["addition"]
    shorter = replace(recipe, sft=replace(recipe.sft, updates=SFT_UPDATES))
    config = replace(recipe.grpo, updates=UPDATES)
    snapshots: dict[int, Transformer] = {}
    means: list[float] = []

    def watched(problems, outputs):
        if len(means) % EVERY == 0:
            snapshots[len(means)] = copy.deepcopy(model)
        rewards = task.rewards(problems, outputs)
        means.append(math.fsum(rewards) / len(rewards))
        if len(means) > last:
            raise _Enough
        return rewards

    with single_thread():
        model, task = fine_tuned(shorter, seed=0)
        try:
            grpo.train(model, task, config, seed=0, reward=watched)
            # what an update more would begin with, so that the curve reaches as far as the slider
            generator = update_generator(0, UPDATES)
            grpo.collect(model, task, watched, config, task.max_new_tokens, generator, OneProcess())
        except _Enough:
            pass
        return record_outputs(snapshots, task, PROMPTS, means)
