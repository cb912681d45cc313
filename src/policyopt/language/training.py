"""What the training loops of the laboratory share: problems, outputs, rewards, and steps on a batch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from policyopt.language.model import LanguageModel
from policyopt.language.parallel import Accelerator, OneProcess, gather_numbers, gather_samples, share
from policyopt.language.sampling import Samples, encode_prompts, generate, token_noise
from policyopt.language.tasks import Problem, RewardFunction, Task
from policyopt.settings import check_seed
from policyopt.training import apply_gradients, linear_schedule, zero_gradients

__all__ = [
    "check_rewards",
    "check_task",
    "choose_reward",
    "draw_problems",
    "evaluate_outputs",
    "fingerprint",
    "held_out_reward",
    "learn",
    "make_adamw",
    "memory_errors",
    "output_metrics",
    "scheduled_rate",
    "update_generator",
    "write_outputs",
]


def update_generator(seed: int, update: int) -> Generator:
    """Everything random in one update of a run follows from these two numbers, so that a resumed run draws
    what it would have drawn.
    """
    state = np.random.SeedSequence([check_seed(seed), update]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> 1))


def check_task(model: LanguageModel, task: Task, max_new_tokens: int) -> None:
    """Find out before any work whether a model can read a task's problems and write answers to them.

    Raises:
        ValueError: its vocabulary lacks a character of the task, or its context is too short for the longest
            prompts and ``max_new_tokens`` more, of which there must be one at least.
    """
    if max_new_tokens < 1:
        raise ValueError(f"the task's max_new_tokens is {task.max_new_tokens!r}; it must be at least 1")
    if task.characters:
        model.tokenizer.encode_output(task.characters)
    prompts = [problem.prompt for problem in (*task.train, *task.held_out)]
    encode_prompts(model, sorted(prompts, key=len)[-32:], max_new_tokens)


def choose_reward(task: Task, reward: RewardFunction | None) -> RewardFunction:
    """What judges outputs: ``reward``, or the task where that is None.

    Raises:
        ValueError: what was given is no task, or no function.
    """
    if not isinstance(task, Task):
        raise ValueError(f"task is {task!r}; it must be a Task, such as make_task('addition')")
    if not (reward is None or callable(reward)):
        raise ValueError(
            f"reward is {reward!r}; it must be a function that takes problems and outputs "
            "and gives a number for each"
        )
    return task.rewards if reward is None else reward


def draw_problems(problems: Sequence[Problem], count: int, generator: Generator) -> list[Problem]:
    """``count`` problems; none comes twice unless there are fewer.

    Raises:
        ValueError: there is no problem.
    """
    if not problems:
        raise ValueError("there is no problem to draw from")
    rounds = -(-count // len(problems))
    order = torch.cat([torch.randperm(len(problems), generator=generator) for _ in range(rounds)])
    return [problems[i] for i in order[:count].tolist()]


def write_outputs(
    model: LanguageModel,
    problems: Sequence[Problem],
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    generator: Generator,
    accelerator: Accelerator,
) -> Samples:
    """G outputs for each problem, written by all processes together; each then has all of them."""
    prompts, mask = encode_prompts(model, [problem.prompt for problem in problems], max_new_tokens)
    noise = token_noise((len(problems), group_size, max_new_tokens), generator)
    mine = share(len(problems), accelerator, "the number of prompts")
    what = f"writing {len(noise[mine])} × {group_size} outputs of {max_new_tokens} tokens"
    with memory_errors(what, "group_size or num_prompts"):
        samples = generate(model, prompts[mine], mask[mine], noise[mine], temperature)
    return gather_samples(samples, prompts, mask, max_new_tokens, accelerator)


def evaluate_outputs(
    reward: RewardFunction,
    problems: Sequence[Problem],
    samples: Samples,
    tokenizer: Any,
    accelerator: Accelerator = OneProcess(),
) -> Tensor:
    """The reward of each output, ``[Q, G]``; errors as for ``check_rewards``.

    Each process judges its share of the prompts, so a reward is computed once and all see the same. If one
    fails, all do.
    """
    mine = share(len(problems), accelerator, "the number of prompts")
    texts = samples[mine].texts(tokenizer)
    repeated = [problem for problem, group in zip(problems[mine], texts, strict=True) for _ in group]
    outputs = [text for group in texts for text in group]
    failure = None
    try:
        rewards = check_rewards(reward(repeated, outputs), repeated, outputs)
    except Exception as error:
        if accelerator.num_processes == 1:
            raise
        rewards, failure = torch.full((len(outputs),), math.nan), error  # the others wait for rewards
    device, shape = samples.tokens.device, samples.tokens.shape[:2]
    rewards = accelerator.gather(rewards.to(device)).view(shape)
    if failure is not None:
        raise failure
    if rewards.isnan().any():
        raise RuntimeError("another process could not judge its outputs; its own error says why")
    return rewards


def check_rewards(rewards: Any, problems: Sequence[Problem], outputs: Sequence[str]) -> Tensor:
    """What a reward function gave, as a tensor, ``[B]``.

    Raises:
        ValueError: not one number for each output, or one that is not finite; the message names the first
            with its prompt and output.
    """
    try:
        if isinstance(rewards, list | tuple):  # torch warns of numbers that are still on a graph
            rewards = [reward.detach() if isinstance(reward, Tensor) else reward for reward in rewards]
        if isinstance(rewards, np.ndarray):
            rewards = rewards.copy()  # torch takes no array that is read backwards or may not be written to
        values = torch.as_tensor(rewards, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"the reward function gave {type(rewards).__name__}, not numbers ({error}); "
            f"it must give a list of {len(outputs)} numbers, one for each output"
        ) from error
    if values.shape != (len(outputs),):
        raise ValueError(
            f"the reward function gave an array of shape {tuple(values.shape)} for {len(outputs)} outputs; "
            "it must give one number for each"
        )
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        i = int(bad[0])
        raise ValueError(
            f"the reward of output {outputs[i][:60]!r} to prompt {problems[i].prompt[:60]!r} is "
            f"{values[i].item()}; rewards must be finite ({len(bad)} of {len(outputs)} are not)"
        )
    return values


def held_out_reward(
    model: LanguageModel,
    task: Task,
    problems: Sequence[Problem] | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 128,
    accelerator: Accelerator = OneProcess(),
) -> float:
    """Mean reward of one output for each problem: for a reward of 1 and 0, the accuracy.

    Args:
        model: writes.
        task: judges.
        problems: those held out by the task when None.
        temperature: 0 takes the likeliest token each time.
        seed: of the sampling.
        batch_size: problems at a time.
        accelerator: shares the problems out.

    Raises:
        ValueError: there is no problem, or one that the model cannot read.
    """
    problems, generator = task.held_out if problems is None else problems, update_generator(seed, 0)
    if not problems:
        raise ValueError("there is no problem to judge the model by")
    rewards = []
    for start in range(0, len(problems), batch_size):
        part = problems[start : start + batch_size]
        noise = token_noise((len(part), 1, task.max_new_tokens), generator)
        mine = slice(accelerator.process_index, None, accelerator.num_processes)
        if part := part[mine]:
            prompts, mask = encode_prompts(model, [problem.prompt for problem in part], task.max_new_tokens)
            what = f"writing outputs for {len(part)} problems held out"
            with memory_errors(what, "batch_size or evaluate_problems"):
                samples = generate(model, prompts, mask, noise[mine], temperature)
            rewards += evaluate_outputs(task.rewards, part, samples, model.tokenizer).flatten().tolist()
    return math.fsum(gather_numbers(math.fsum(rewards), accelerator)) / len(problems)


@contextlib.contextmanager
def memory_errors(what: str, settings: str = "micro_batch_size, group_size or num_prompts") -> Iterator[None]:
    """Turn torch's ways of saying that memory ran out into one ``MemoryError`` that says what to do.

    Args:
        what: was being done.
        settings: of which a smaller value needs less.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; that of the CPU has no class of its own
        ran_out = any(words in str(error) for words in ("allocate memory", "out of memory"))
        if not (ran_out or isinstance(error, torch.OutOfMemoryError)):
            raise
        way = "with more memory" + (" or a smaller micro_batch_size" if "micro" in settings else "")
        raise MemoryError(
            f"memory ran out while {what}; a smaller {settings} needs less. "
            f"A run with a checkpoint can go on from its last one {way}"
        ) from error


def make_adamw(
    parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0
) -> torch.optim.AdamW:
    """AdamW over the parameters that are trained.

    Raises:
        ValueError: there is none.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("there is nothing to train: no parameter of the model has requires_grad")
    return torch.optim.AdamW(trained, learning_rate, weight_decay=weight_decay, fused=True)


def scheduled_rate(config: Any, update: int, total: int) -> float:
    """The learning rate of an update: rising over ``config.warmup`` updates, then in a straight line from
    ``config.learning_rate`` to ``config.learning_rate_end``.
    """
    rate = linear_schedule(config.learning_rate, config.learning_rate_end, update / total)
    return rate * min(1.0, (update + 1) / (config.warmup + 1))


def fingerprint(model: nn.Module) -> float:
    """A number that differs between models, so that a checkpoint is not taken up with another one.

    It has ten digits: the last of a sum depend on the number of threads.
    """
    with torch.no_grad():  # weights of either sign count, and differently
        weights = (parameter.double() for parameter in model.parameters())
        total = math.fsum((part.sum() + 3 * part.abs().sum()).item() for part in weights)
    return float(f"{total:.9e}")


def output_metrics(samples: Samples, rewards: Tensor, tokenizer: Any) -> dict[str, float]:
    """What an update's outputs were like: reward, length, share that ended, and the entropy of sampling."""
    return {
        "reward": rewards.mean().item(),
        "length": samples.lengths.float().mean().item(),
        "finished": samples.finished(tokenizer).float().mean().item(),
        "entropy": -(samples.log_probs.sum() / samples.mask.sum()).item(),  # −log π of what was sampled
    }


def learn(
    batch: Any,
    loss_function: Callable[[Any], tuple[Tensor, dict[str, Tensor]]],
    weigh: Callable[[Any], Any],
    optimizer: torch.optim.Optimizer | dict[str, torch.optim.Optimizer],
    config: Any,
    generator: Generator,
    accelerator: Accelerator,
) -> dict[str, float]:
    """Several epochs of steps on one batch.

    Args:
        batch: Q prompts with their outputs, all that the loss needs; ``batch[index]`` gives some of them.
        loss_function: of a part of a minibatch; its loss and metrics are sums, so that those of the parts
            add up to the minibatch's.
        weigh: gives each token of a minibatch its weight in those sums; it may leave out prompts that add
            nothing to them.
        optimizer: of what is trained; where networks have one each, by the names of their gradient norms.
        config: ``epochs``, ``minibatch_size`` and ``micro_batch_size`` in prompts, ``max_grad_norm``.
        generator: of the order.
        accelerator: shares each minibatch out and averages the gradients.

    Returns:
        The mean of each metric over the steps, and ``grad_norm`` or the norms named.

    Raises:
        FloatingPointError: a gradient is not finite.
        MemoryError: a part does not fit.
    """
    rows: list[dict[str, float]] = []
    optimizers = optimizer if isinstance(optimizer, dict) else {"grad_norm": optimizer}
    for _ in range(config.epochs):
        for index in torch.randperm(len(batch), generator=generator).split(config.minibatch_size):
            minibatch = weigh(batch[index])
            mine = minibatch[share(len(minibatch), accelerator, "the prompts of a minibatch")]
            size = config.micro_batch_size or len(mine)
            for each in optimizers.values():
                zero_gradients(each)
            totals: dict[str, Tensor] = {}
            for start in range(0, len(mine), size):
                part = mine[start : start + size]
                with memory_errors(f"computing the gradient of {len(part)} prompts with their outputs"):
                    loss, metrics = loss_function(part)
                    accelerator.backward(loss * accelerator.num_processes)
                for name, value in {"loss": loss.detach(), **metrics}.items():
                    totals[name] = totals.get(name, 0.0) + value
            sums = accelerator.gather(torch.stack(list(totals.values()))[None]).sum(dim=0)
            row = dict(zip(totals, sums.tolist(), strict=True))
            for name, each in optimizers.items():
                row[name] = apply_gradients(each, sums[0], config.max_grad_norm).item()
            rows.append(row)
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]}
