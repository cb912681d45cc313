"""Group relative policy optimisation of a language model: Shao et al. (2024), arXiv:2402.03300, section 4.1.

Of the paper are: G outputs for each prompt, the group-relative advantage given to every token of an output
(section 4.1.2), the clipped ratio of each token, the mean over an output's tokens and then over outputs, the
penalty k₃ towards a reference policy in the loss (eqs. 3 and 4), several steps on one batch, and a reference
that is renewed from time to time (algorithm 1). What others changed is in ``policyopt.language.variants``;
the variant ``"grpo"`` is the paper's.

Ours: the learning rate may rise and fall, and where there is no penalty, prompts whose outputs all have the
same reward are left out of the computation, to which they would add nothing.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from os import PathLike

import torch
from torch import Generator, Tensor

from policyopt.files import describe_run
from policyopt.history import History
from policyopt.language.model import LanguageModel
from policyopt.language.parallel import (
    Accelerator,
    OneProcess,
    SharedCheckpoint,
    check_accelerator,
    score_outputs,
)
from policyopt.language.sampling import Samples, TokenScorer, join
from policyopt.language.tasks import RewardFunction, Task
from policyopt.language.training import (
    check_task,
    choose_reward,
    draw_problems,
    evaluate_outputs,
    fingerprint,
    held_out_reward,
    learn,
    make_adamw,
    memory_errors,
    output_metrics,
    scheduled_rate,
    update_generator,
    write_outputs,
)
from policyopt.language.variants import VARIANTS, Variant, informative_groups
from policyopt.losses import kl_k3
from policyopt.settings import check_settings
from policyopt.training import set_learning_rate, updates

__all__ = ["GRPOConfig", "GroupSamples", "collect", "group_samples", "grpo_loss", "train", "weigh"]


@dataclass(frozen=True)
class GRPOConfig:
    """Settings of GRPO on a language model. Values out of range raise ``ValueError`` and name the field."""

    updates: int = 100  # batches of outputs
    num_prompts: int = 32  # Q, prompts an update
    group_size: int = 16  # G, outputs of each
    epochs: int = 2  # μ, passes over each batch
    minibatch_size: int = 32  # prompts, with all their outputs, a gradient step
    micro_batch_size: int | None = None  # prompts at a time in it, when memory is short; None: all
    learning_rate: float = 2e-3
    learning_rate_end: float | None = None  # reached in a straight line; None keeps it constant
    warmup: int = 0  # updates in which the learning rate rises to its value
    clip: float | None = None  # ε; None: the variant's, 0.2 for GRPO
    kl_coef: float = 0.04  # β, of the penalty towards π_ref
    reference_every: int | None = None  # π_ref becomes π_θ after so many updates; None: it stays the first
    temperature: float = 1.0  # of sampling
    max_grad_norm: float = 1.0
    evaluate_every: int | None = None  # updates between two looks at problems held out
    evaluate_problems: int = 128  # how many of them

    def __post_init__(self) -> None:
        check_settings(self, clip=(float, 0, math.inf, "open", "optional"))


@dataclass(frozen=True)
class GroupSamples(Samples):
    """Outputs with what the loss needs of them."""

    advantages: Tensor  # [Q, G]              Â_i, for each token of output i
    reference_log_probs: Tensor  # [Q, G, T]  log π_ref(o_t | q, o_<t)
    weights: Tensor  # [Q, G, T]              what each token counts; of a minibatch


def collect(
    model: LanguageModel,
    task: Task,
    reward: RewardFunction,
    config: GRPOConfig,
    limit: int,
    generator: Generator,
    accelerator: Accelerator,
    rounds: int = 1,
) -> tuple[Samples, Tensor, dict[str, float]]:
    """G outputs for each of Q prompts, and what they earned.

    With several rounds, prompts whose outputs all earned the same are replaced by some of the next Q prompts,
    as long as there are such prompts and rounds. This is the dynamic sampling of DAPO: Yu et al. (2025),
    arXiv:2503.14476, section 3.2.

    Args:
        model: writes.
        task: gives the problems.
        reward: judges outputs.
        config: Q, G and the temperature.
        limit: the most tokens an output can have.
        generator: of problems and sampling.
        accelerator: shares the writing out.
        rounds: how many times Q prompts are drawn at most.

    Returns:
        The outputs; their rewards, ``[Q, G]``; and about all that were written, ``reward``, ``informative``
        (the share of prompts whose outputs earned different rewards) and ``written`` (how many).
    """
    size = config.num_prompts
    problems = draw_problems(task.train, size * rounds, generator)
    parts: list[tuple[Samples, Tensor]] = []
    useful = 0
    while useful < size and len(parts) < rounds:
        asked = problems[len(parts) * size :][:size]
        samples = write_outputs(
            model, asked, config.group_size, limit, config.temperature, generator, accelerator
        )
        rewards = evaluate_outputs(reward, asked, samples, model.tokenizer, accelerator)
        parts.append((samples, rewards))
        useful += int(informative_groups(rewards).sum())
    if len(parts) > 1:
        samples, rewards = join([samples for samples, _ in parts]), torch.cat([part for _, part in parts])
    drawn = {
        "reward": rewards.mean().item(),
        "informative": useful / len(rewards),
        "written": rewards.numel(),
    }
    if len(parts) > 1:
        kept = informative_groups(rewards).long().argsort(descending=True, stable=True)[:size]
        samples, rewards = samples[kept], rewards[kept]
    return samples, rewards, drawn


@torch.no_grad()
def group_samples(
    samples: Samples,
    rewards: Tensor,
    reference: LanguageModel | None,
    config: GRPOConfig,
    limit: int,
    variant: Variant = VARIANTS["grpo"],
    accelerator: Accelerator = OneProcess(),
) -> GroupSamples:
    """What the loss needs of outputs.

    Book: eq-group-advantage. Shao et al. (2024), section 4.1.2: every token of an output has its advantage.

    Args:
        samples: Q prompts with G outputs of T tokens.
        rewards: what they earned, ``[Q, G]``.
        reference: π_ref; None where there is no penalty.
        config: β, the temperature, and how many prompts are read at a time.
        limit: the most tokens an output can have.
        variant: how rewards become advantages.
        accelerator: shares the reading out.
    """
    reference_log_probs = samples.log_probs
    if reference is not None:
        scorer, size = TokenScorer(reference, config.temperature), config.micro_batch_size
        with memory_errors(f"reading the outputs of {size or len(samples)} prompts with the reference"):
            reference_log_probs = score_outputs(scorer, samples, size, accelerator)
    rewards = variant.shape_rewards(rewards, samples.mask, limit)
    if variant.kl_in_reward:
        rewards = rewards - config.kl_coef * (samples.log_probs - reference_log_probs).sum(dim=-1)
    return GroupSamples(
        **vars(samples),
        advantages=variant.advantages(rewards),
        reference_log_probs=reference_log_probs,
        weights=variant.weights(samples.mask, limit),
    )


def grpo_loss(
    log_probs: Tensor, batch: GroupSamples, config: GRPOConfig, variant: Variant = VARIANTS["grpo"]
) -> tuple[Tensor, dict[str, Tensor]]:
    """−Σ weights · (min(ρ Â, clip(ρ) Â) − β k₃[π_θ ‖ π_ref]) over tokens, and metrics.

    Book: eq-grpo-tokens. Shao et al. (2024), arXiv:2402.03300, eqs. 3 and 4, negated. As there, k₃ is not
    multiplied by ρ; TRL does so unless its ``use_bias_correction_kl`` is off.

    At the first step on a batch every ρ is 1, so the loss is −Σ weights · Â: 0 with group-relative advantages
    and the paper's weights. Its gradient is not 0: that of ρ Â is Â ∇log π_θ. A loss that is printed as 0 is
    therefore no sign of a model that does not learn; the reward tells.

    Args:
        log_probs: log π_θ(o_t | q, o_{<t}), ``[Q, G, T]``.
        batch: the outputs; sums over parts of a batch add up to the sum over all of it.
        config: ε and β.
        variant: how ratio, surrogate and penalty are made.

    Returns:
        A scalar to be minimised, and the metrics ``clip_fraction`` and, where β > 0, ``reference_kl``,
        weighted like the loss.
    """
    ratio = variant.ratio(log_probs - batch.log_probs, batch.mask)  # [Q, G, T] or [Q, G, 1]
    advantages = batch.advantages.unsqueeze(-1)  # [Q, G, 1]
    clip = variant.clip if config.clip is None else config.clip
    objective = variant.surrogate(ratio, advantages, clip)
    clipped = objective.detach() != ratio.detach() * advantages
    metrics = {"clip_fraction": (batch.weights * clipped).sum()}
    if config.kl_coef > 0:
        kl = kl_k3(batch.reference_log_probs - log_probs)  # [Q, G, T]
        metrics["reference_kl"] = (batch.weights * kl.detach()).sum()
        if not variant.kl_in_reward:
            objective = objective - config.kl_coef * kl
    return -(batch.weights * objective).sum(), metrics


def weigh(
    minibatch: GroupSamples, config: GRPOConfig, limit: int, variant: Variant, num_processes: int = 1
) -> GroupSamples:
    """A minibatch with the weight of each token in it, as the variant has it.

    Where there is no penalty, prompts without advantage add nothing to loss, gradient and metrics. They are
    left out once the others have their weights, so that the step is the same and costs less. As many stay as
    every process needs to have an equal part in the step, and one at least.
    """
    minibatch = replace(minibatch, weights=variant.weights(minibatch.mask, limit))
    if config.kl_coef > 0:
        return minibatch
    useful = minibatch.advantages.ne(0).any(dim=-1)  # [Q]
    count = max(1, -(-int(useful.sum()) // num_processes)) * num_processes
    kept = useful.long().argsort(descending=True, stable=True)[:count]
    return minibatch[kept]


def train(
    model: LanguageModel,
    task: Task,
    config: GRPOConfig = GRPOConfig(),
    seed: int = 0,
    *,
    reward: RewardFunction | None = None,
    variant: str | Variant = "grpo",
    reference: LanguageModel | None = None,
    accelerator: Accelerator | None = None,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> History:
    """Train a language model, in place.

    Args:
        model: writes and learns. To go on from a checkpoint, give the model with which the run began.
        task: gives the problems.
        config: settings.
        seed: of problems and sampling.
        reward: judges outputs; the task does when None.
        variant: a name in ``policyopt.language.variants.VARIANTS``, or a recipe of one's own. The papers of
            Dr. GRPO and DAPO have no penalty, which takes ``kl_coef=0``.
        reference: π_ref, left as it is; a copy of the model as it comes when None.
        accelerator: an ``accelerate.Accelerator`` to train in several processes, each calling this function.
        checkpoint: a file to which the state of the run is written, and from which it goes on if it exists.
        checkpoint_every: updates between two writes.
        progress: show a bar.

    Returns:
        A row for each update. ``reward`` and ``informative`` (the share of prompts with unequal rewards) are
        of all outputs written in it, ``outputs`` counts those written so far; ``length``, ``finished`` and
        ``entropy`` are of those learnt from; ``loss``, ``clip_fraction``, ``grad_norm`` and, where β > 0,
        ``reference_kl`` are means over its steps; ``held_out`` stands where it was measured.

    Raises:
        ValueError: no such variant; the model's vocabulary or context does not suit the task; a reward
            function that does not give one finite number for each output; a checkpoint of another run.
        FloatingPointError: the gradient is not finite.
        MemoryError: a batch does not fit.
    """
    name, recipe = (variant, VARIANTS.get(variant)) if isinstance(variant, str) else (str(variant), variant)
    if not isinstance(recipe, Variant):
        names = ", ".join(VARIANTS)
        raise ValueError(f"there is no variant {variant!r}; there are {names}, or give a Variant of your own")
    accelerator, reward = check_accelerator(accelerator, config), choose_reward(task, reward)
    limit = math.ceil(recipe.room * task.max_new_tokens)
    check_task(model, task, limit)
    if config.kl_coef == 0:
        reference = None
    elif reference is None or reference is model or config.reference_every is not None:
        reference = copy.deepcopy(model if reference is None else reference).requires_grad_(False)
    optimizer, history = make_adamw(model.parameters(), config.learning_rate), History()
    parts = {"model": model, "optimizer": optimizer, "history": history}
    if reference is not None and config.reference_every is not None:
        parts["reference"] = reference
    run = describe_run("language grpo", repr(task), config, seed) | {"variant": name}
    run |= {"reward": getattr(reward, "__qualname__", type(reward).__name__), "model": fingerprint(model)}
    run |= {} if reference is None else {"reference": fingerprint(reference)}
    saved = SharedCheckpoint(checkpoint, checkpoint_every, run, parts, accelerator)
    scorer, prepared = accelerator.prepare(TokenScorer(model, config.temperature), optimizer)
    if reference is not None:
        reference.to(next(model.parameters()).device)
    progress = progress and accelerator.process_index == 0

    def loss_function(part: GroupSamples) -> tuple[Tensor, dict[str, Tensor]]:
        return grpo_loss(scorer(part), part, config, recipe)

    def weighed(minibatch: GroupSamples) -> GroupSamples:
        return weigh(minibatch, config, limit, recipe, accelerator.num_processes)

    for update in updates(config.updates, history, saved, progress, "reward"):
        generator = update_generator(seed, update)
        set_learning_rate(optimizer, scheduled_rate(config, update, config.updates))
        if "reference" in parts and update and update % config.reference_every == 0:
            reference.load_state_dict(model.state_dict())
        samples, rewards, drawn = collect(
            model, task, reward, config, limit, generator, accelerator, recipe.sampling_rounds
        )
        batch = group_samples(samples, rewards, reference, config, limit, recipe, accelerator)
        metrics = learn(batch, loss_function, weighed, prepared, config, generator, accelerator)
        outputs = history.last.get("outputs", 0) + drawn.pop("written")
        row = {"outputs": outputs} | output_metrics(samples, rewards, model.tokenizer) | drawn | metrics
        if config.evaluate_every and (update + 1) % config.evaluate_every == 0:
            problems = task.held_out[: config.evaluate_problems]
            row["held_out"] = held_out_reward(model, task, problems, accelerator=accelerator)
        history.log(update=update + 1, **row)
    return history
