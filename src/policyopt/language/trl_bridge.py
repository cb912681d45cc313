"""The laboratory's tasks for TRL's trainers, and so for vLLM, many GPUs and many machines.

``as_dataset`` gives the problems, ``reward_function`` the judge, ``trl_settings`` our settings under TRL's
names; ``examples/train_with_trl.py`` puts them together. TRL and datasets come with the extra ``[peers]`` and
are imported only when a function needs them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from policyopt.language.grpo import GRPOConfig
from policyopt.language.tasks import Problem, RewardFunction, Task
from policyopt.language.training import check_rewards
from policyopt.language.variants import VARIANTS

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["as_dataset", "import_peer", "reward_function", "trl_settings"]


def import_peer(name: str) -> Any:
    """A module of the extra ``[peers]``, ``"trl"`` for instance.

    Raises:
        ImportError: it cannot be imported; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{name} cannot be imported ({error}); it comes with: pip install "policyopt[peers]"'
        ) from error


def as_dataset(
    problems: Sequence[Problem],
    instruction: str = "",
    examples: Sequence[Problem] = (),
    system_role: bool = True,
) -> Dataset:
    """Problems as TRL's trainers take them.

    Args:
        problems: what is asked, such as ``task.train``.
        instruction: in words, such as ``task.instruction``. With it or with examples a prompt is a list of
            chat messages, to which the trainer applies the model's template; without both it is plain text.
        examples: problems that are shown with their answers, as earlier turns of the chat.
        system_role: give the instruction as a system message; otherwise, for models whose template knows
            none, it stands before the first question.

    Returns:
        A row for each problem, with ``prompt``, and with ``problem`` and ``answer``, from which the reward is
        computed.

    Raises:
        ImportError: datasets is missing.
        ValueError: there is no problem.
    """
    if not problems:
        raise ValueError("there is no problem to make a dataset of")

    def messages(question: str) -> list[dict[str, str]]:
        turns = [("system", instruction)] if instruction and system_role else []
        for problem in examples:
            turns += [("user", problem.prompt), ("assistant", problem.answer)]
        turns.append(("user", question))
        if instruction and not system_role:
            turns[0] = ("user", f"{instruction}\n\n{turns[0][1]}")
        return [{"role": role, "content": content} for role, content in turns]

    chat = bool(instruction or examples)
    columns = {
        "prompt": [messages(problem.prompt) if chat else problem.prompt for problem in problems],
        "problem": [problem.prompt for problem in problems],
        "answer": [problem.answer for problem in problems],
    }
    return import_peer("datasets").Dataset.from_dict(columns)


def reward_function(task: Task, reward: RewardFunction | None = None) -> Callable[..., list[float]]:
    """A task's rewards in the form in which TRL's trainers ask for them.

    Args:
        task: judges; its name with ``_reward`` is the name under which TRL logs the rewards.
        reward: judges instead of the task.

    Returns:
        ``function(prompts, completions, problem, answer, **others)``, the other columns being those of
        ``as_dataset`` and completions text or chat messages; a reward for each. Errors as for
        ``policyopt.language.training.check_rewards``.
    """
    judge = reward or task.rewards

    def function(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        problem: Sequence[str],
        answer: Sequence[str],
        **others: Any,
    ) -> list[float]:
        problems = [Problem(*both) for both in zip(problem, answer, strict=True)]
        outputs = [_text(completion) for completion in completions]
        rewards = judge(problems, outputs)
        check_rewards(rewards, problems, outputs)
        return [float(value) for value in rewards]

    function.__name__ = function.__qualname__ = f"{task.name}_reward"
    return function


def _text(completion: Any) -> str:
    """What was written: the text itself, or the content of the last of several messages."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def trl_settings(config: GRPOConfig, task: Task, num_processes: int = 1) -> dict[str, Any]:
    """The settings of our GRPO as arguments of ``trl.GRPOConfig``; what they do not name is TRL's to choose.

    TRL counts outputs where we count prompts, and steps where we count updates. It takes the same minibatches
    in every epoch. The problems held out are not handed on.

    Args:
        config: as for ``policyopt.language.grpo.train`` with the variant ``"grpo"``.
        task: says how long outputs may be, and has the problems.
        num_processes: that share the work.

    Raises:
        ValueError: a setting that TRL has no equal of; the message names it.
    """
    if config.num_prompts > len(task.train):
        raise ValueError(  # it would end before its first step, without an error
            f"num_prompts is {config.num_prompts}, but the task has {len(task.train)} problems; "
            "TRL never draws one twice for the same batch"
        )
    size = min(config.minibatch_size, config.num_prompts)
    if config.num_prompts % size:
        raise ValueError(
            f"minibatch_size is {size} and num_prompts {config.num_prompts}; "
            "TRL needs minibatches of equal size"
        )
    micro, rest = divmod(size, num_processes)
    micro = micro if config.micro_batch_size is None else min(config.micro_batch_size, micro)
    if rest or micro == 0 or size % (micro * num_processes):
        raise ValueError(
            f"minibatch_size is {size} and micro_batch_size {config.micro_batch_size}; TRL needs minibatches "
            f"that {num_processes} processes can share evenly, each in parts of equal size"
        )
    schedules = {None: "constant_with_warmup" if config.warmup else "constant", 0.0: "linear"}
    if config.learning_rate_end not in schedules:
        raise ValueError(f"learning_rate_end is {config.learning_rate_end!r}; for TRL it must be None or 0")
    steps = config.epochs * (config.num_prompts // size)  # of an update
    settings: dict[str, Any] = dict(
        loss_type="grpo",
        scale_rewards="group",
        use_bias_correction_kl=False,
        num_generations=config.group_size,
        generation_batch_size=config.num_prompts * config.group_size,
        per_device_train_batch_size=micro * config.group_size,
        gradient_accumulation_steps=size // (micro * num_processes),
        num_iterations=config.epochs,
        max_steps=config.updates * steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=schedules[config.learning_rate_end],
        warmup_steps=config.warmup * steps,
        epsilon=VARIANTS["grpo"].clip if config.clip is None else config.clip,
        beta=config.kl_coef,
        temperature=config.temperature,
        max_grad_norm=config.max_grad_norm,
        max_completion_length=task.max_new_tokens,
    )
    if config.reference_every is not None and config.kl_coef > 0:
        every = config.reference_every * steps
        settings |= dict(sync_ref_model=True, ref_model_sync_steps=every, ref_model_mixup_alpha=1.0)
    return settings
