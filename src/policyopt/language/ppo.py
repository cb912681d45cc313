"""Proximal policy optimisation of a language model, as in reinforcement learning from human feedback: Ziegler
et al. (2019), arXiv:1909.08593; Stiennon et al. (2020), arXiv:2009.01325; Ouyang et al. (2022),
arXiv:2203.02155.

Four models take part. The policy writes; a reward function, a task's or a learned model's, judges the whole
output; the frozen reference says how far the policy has drifted, and each token pays for its drift; the value
model foresees in each state what is still to come. State t is the prompt and o_{<t}, action t the token o_t.

Policy and value model are separate networks, so that learning the one cannot spoil the other (Stiennon et
al., section 3.4). Each has its own optimiser and its own bound on the gradient's norm. The two parts of the
loss share no parameter, so it needs no coefficient between them: each network has a learning rate.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike

import torch
from torch import Tensor, nn

from policyopt.files import describe_run
from policyopt.history import History
from policyopt.language.model import LanguageModel
from policyopt.language.parallel import (
    Accelerator,
    SharedCheckpoint,
    check_accelerator,
    score_outputs,
)
from policyopt.language.sampling import Samples, TokenScorer, read_states
from policyopt.language.scalar_model import ScalarModel
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
from policyopt.losses import clipped_surrogate, explained_variance, normalize
from policyopt.returns import gae
from policyopt.settings import check_settings
from policyopt.training import set_learning_rate, updates

__all__ = [
    "PPOConfig",
    "PolicyAndValue",
    "TokenSamples",
    "clipped_value_loss",
    "ppo_loss",
    "token_advantages",
    "token_rewards",
    "token_samples",
    "token_values",
    "train",
]


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO on a language model. Values out of range raise ``ValueError`` and name the field."""

    updates: int = 100  # batches of outputs
    num_prompts: int = 512  # Q, prompts an update
    group_size: int = 1  # G, outputs of each; they are not compared, so one is enough
    epochs: int = 2  # passes over each batch
    minibatch_size: int = 512  # prompts, with all their outputs, a gradient step
    micro_batch_size: int | None = None  # prompts at a time in it, when memory is short; None: all
    learning_rate: float = 2e-3
    learning_rate_end: float | None = None  # reached in a straight line; None keeps it constant
    value_learning_rate: float = 2e-3  # rises and falls with the other
    warmup: int = 0  # updates in which the learning rates rise to their values
    gamma: float = 1.0  # γ
    gae_lambda: float = 0.95  # λ
    normalize_advantages: bool = True  # over all tokens of an update
    clip: float = 0.2  # ε
    value_clip: float | None = 0.2  # how far a value may move in an update; None: as far as it likes
    kl_coef: float = 0.04  # β, what a token pays for each nat by which it is likelier than in π_ref
    temperature: float = 1.0  # of sampling
    max_grad_norm: float = 1.0  # of each network
    evaluate_every: int | None = None  # updates between two looks at problems held out
    evaluate_problems: int = 128  # how many of them

    def __post_init__(self) -> None:
        check_settings(self, group_size=(int, 1, math.inf))


@dataclass(frozen=True)
class TokenSamples(Samples):
    """Outputs with what the loss needs of them; 0 at padding."""

    values: Tensor  # [Q, G, T]      V(s_t) when the output was written
    advantages: Tensor  # [Q, G, T]  Â_t
    returns: Tensor  # [Q, G, T]     what the values are to become
    weights: Tensor  # [Q, G, T]     what each token counts; of a minibatch


def last_written(mask: Tensor) -> Tensor:
    """True for the last token of each output, ``[..., T]`` from ``mask [..., T]``."""
    return mask & ~nn.functional.pad(mask[..., 1:], (0, 1))


def token_rewards(
    rewards: Tensor, log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor, kl_coef: float
) -> Tensor:
    """r_t = −β (log π_old(o_t|s_t) − log π_ref(o_t|s_t)), and R more for the last token of an output.

    Book: eq-token-rewards. Ouyang et al. (2022), arXiv:2203.02155, eq. 2: over an output the r_t sum to its
    R − β log(π_old(o|q)/π_ref(o|q)).

    Args:
        rewards: R, ``[Q, G]``.
        log_probs: log π_old(o_t|s_t), ``[Q, G, T]``; what stands at padding does not count.
        reference_log_probs: log π_ref(o_t|s_t), ``[Q, G, T]``.
        mask: true for what was written, ``[Q, G, T]`` bool.
        kl_coef: β.

    Returns:
        ``[Q, G, T]``; 0 at padding.
    """
    penalties = torch.where(mask, kl_coef * (log_probs - reference_log_probs), 0.0)
    return torch.where(last_written(mask), rewards.unsqueeze(-1), 0.0) - penalties


def token_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, gae_lambda: float = 0.95
) -> Tensor:
    """Generalised advantage estimation over the tokens of each output: ``policyopt.returns.gae``.

    The last token written is a termination even where the limit cut the output off: the reward judges the
    output as it stands, so nothing is still to come, and the limit is part of the task.

    Args:
        rewards: r_t, ``[Q, G, T]``.
        values: V(s_t), ``[Q, G, T]``; what stands at padding does not count, here or in ``rewards``.
        mask: true for what was written, ``[Q, G, T]`` bool.
        gamma: γ.
        gae_lambda: λ.

    Returns:
        Â_t, ``[Q, G, T]``; 0 at padding.
    """
    columns = (torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0), last_written(mask))
    rewards, values, ends = (column.flatten(0, -2).T for column in columns)  # [T, Q·G], time-major
    next_values = torch.cat([values[1:], torch.zeros_like(values[:1])])
    advantages = gae(rewards, values, next_values, ends, torch.zeros_like(ends), gamma, gae_lambda)
    return advantages.T.reshape(mask.shape)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """max((V − G)², (clip(V, V_old − c, V_old + c) − G)²): moving on by more than c is not rewarded.

    Book: eq-clipped-value-loss. Engstrom et al. (2020), arXiv:2005.12729.

    Args:
        values: V(s_t), any shape.
        old_values: those with which the returns were computed, the same shape.
        returns: G_t, what the values are to become, the same shape.
        clip: c; infinity gives the squared error.

    Returns:
        The loss of each element.
    """
    nearby = values.clamp(old_values - clip, old_values + clip)
    return torch.maximum((values - returns).square(), (nearby - returns).square())


def token_values(value_model: ScalarModel, samples: Samples) -> Tensor:
    """V(s_t), read in the state before each token, ``[Q, G, T]``; 0 after the end."""
    values = value_model.score(read_states(value_model.body, samples)).float()
    return torch.where(samples.mask, values, 0.0)


class PolicyAndValue(nn.Module):
    """log π_θ(o_t|s_t) and V(s_t) of outputs, as one module so that both can be run in parallel."""

    def __init__(self, model: LanguageModel, value_model: ScalarModel, temperature: float = 1.0):
        super().__init__()
        self.scorer, self.value_model = TokenScorer(model, temperature), value_model

    def forward(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Both ``[Q, G, T]``; 0 after the end."""
        return self.scorer(samples), token_values(self.value_model, samples)


@torch.no_grad()
def token_samples(
    samples: Samples, rewards: Tensor, values: Tensor, reference_log_probs: Tensor, config: PPOConfig
) -> TokenSamples:
    """What the loss needs of outputs, from their rewards ``[Q, G]``, values and log π_ref ``[Q, G, T]``."""
    mask = samples.mask
    earned = token_rewards(rewards, samples.log_probs, reference_log_probs, mask, config.kl_coef)
    advantages = token_advantages(earned, values, mask, config.gamma, config.gae_lambda)
    values = torch.where(mask, values, 0.0)
    returns = advantages + values
    if config.normalize_advantages:
        advantages = torch.zeros_like(advantages).masked_scatter(mask, normalize(advantages[mask]))
    columns = [samples.prompts, samples.prompt_mask, samples.tokens, mask, samples.log_probs]
    return TokenSamples(*columns, values, advantages, returns, mask / mask.sum())


def ppo_loss(
    log_probs: Tensor, values: Tensor, batch: TokenSamples, config: PPOConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ weights · (−min(ρ Â, clip(ρ) Â) + value loss) over the tokens written, and its parts.

    Book: eq-ppo-tokens. Schulman et al. (2017), arXiv:1707.06347, eq. 9 without the entropy, negated.

    Args:
        log_probs: log π_θ(o_t|s_t), ``[Q, G, T]``; what stands at padding does not count, in any argument.
        values: V(s_t), ``[Q, G, T]``.
        batch: the outputs; sums over parts of a batch add up to the sum over all of it.
        config: ε and the clip of values.

    Returns:
        A scalar to be minimised, and ``policy_loss``, ``value_loss`` and ``clip_fraction``, weighted like it.
    """

    def total(terms: Tensor) -> Tensor:
        return torch.where(batch.mask, batch.weights * terms, 0.0).sum()

    ratio = torch.where(batch.mask, log_probs - batch.log_probs, 0.0).exp()
    objective = clipped_surrogate(ratio, batch.advantages, config.clip)
    clipped = objective.detach() != ratio.detach() * batch.advantages
    values = torch.where(batch.mask, values, 0.0)
    clip = math.inf if config.value_clip is None else config.value_clip
    policy_loss = -total(objective)
    value_loss = total(clipped_value_loss(values, batch.values, batch.returns, clip))
    parts = {"policy_loss": policy_loss, "value_loss": value_loss, "clip_fraction": total(clipped)}
    return policy_loss + value_loss, {name: part.detach() for name, part in parts.items()}


def train(
    model: LanguageModel,
    task: Task,
    config: PPOConfig = PPOConfig(),
    seed: int = 0,
    *,
    value_model: ScalarModel | None = None,
    reward: RewardFunction | None = None,
    reference: LanguageModel | None = None,
    accelerator: Accelerator | None = None,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> History:
    """Train a language model, in place.

    Args:
        model: writes and learns.
        task: gives the problems.
        config: settings.
        seed: of problems and sampling.
        value_model: learns with it, in place, over a body of its own; when None a copy of the model that
            begins with 0 everywhere, and is gone at the end: give one to keep it.
        reward: judges outputs; the task does when None.
        reference: π_ref; a copy of the model as it comes when None. Without a penalty none is needed.
        accelerator, checkpoint, checkpoint_every, progress: as for ``policyopt.language.grpo.train``.

    Returns:
        A row for each update, with ``reward``, ``length``, ``kl`` (Σ_t log π_old/π_ref of an output, the
        mean over outputs), ``explained_variance`` (of the returns, by the values before the update),
        ``policy_loss``, ``value_loss``, ``clip_fraction``, … and ``held_out`` where it was measured.

    Raises:
        ValueError: the model's vocabulary or context does not suit the task; the value model shares
            parameters with the model; a reward function that does not give one finite number for each
            output; a checkpoint of another run.
        FloatingPointError: a gradient is not finite.
        MemoryError: a batch does not fit.
    """
    accelerator, reward = check_accelerator(accelerator, config), choose_reward(task, reward)
    check_task(model, task, task.max_new_tokens)
    if value_model is None:
        value_model = ScalarModel(copy.deepcopy(model)).to(next(model.parameters()))
    if {*map(id, model.parameters())} & {*map(id, value_model.parameters())}:
        raise ValueError("the value model shares parameters with the policy; give it a copy of the body")
    if reference is model or (reference is None and config.kl_coef > 0):
        reference = copy.deepcopy(model).requires_grad_(False)
    run = describe_run("language ppo", repr(task), config, seed)
    run |= {"model": fingerprint(model), "value_model": fingerprint(value_model)}
    run |= {} if reference is None else {"reference": fingerprint(reference)}
    run |= {"reward": getattr(reward, "__qualname__", type(reward).__name__)}
    networks, history = PolicyAndValue(model, value_model, config.temperature), History()
    optimizer = make_adamw(model.parameters(), config.learning_rate)
    value_optimizer = make_adamw(value_model.parameters(), config.value_learning_rate)
    parts = {"model": model, "value_model": value_model}
    parts |= {"optimizer": optimizer, "value_optimizer": value_optimizer, "history": history}
    saved = SharedCheckpoint(checkpoint, checkpoint_every, run, parts, accelerator)
    networks, *prepared = accelerator.prepare(networks, optimizer, value_optimizer)
    if reference is not None:
        reference.to(next(model.parameters()).device)
    progress = progress and accelerator.process_index == 0
    optimizers = dict(zip(("grad_norm", "value_grad_norm"), prepared, strict=True))

    def loss_function(part: TokenSamples) -> tuple[Tensor, dict[str, Tensor]]:
        return ppo_loss(*networks(part), part, config)

    def weigh(minibatch: TokenSamples) -> TokenSamples:
        return replace(minibatch, weights=minibatch.mask / minibatch.mask.sum())

    for update in updates(config.updates, history, saved, progress, "reward"):
        generator = update_generator(seed, update)
        rate = scheduled_rate(config, update, config.updates)
        set_learning_rate(optimizer, rate)
        set_learning_rate(value_optimizer, rate / config.learning_rate * config.value_learning_rate)
        problems = draw_problems(task.train, config.num_prompts, generator)
        limit = task.max_new_tokens
        samples = write_outputs(
            model, problems, config.group_size, limit, config.temperature, generator, accelerator
        )
        rewards = evaluate_outputs(reward, problems, samples, model.tokenizer, accelerator)
        row = output_metrics(samples, rewards, model.tokenizer)
        size, reference_log_probs = config.micro_batch_size, samples.log_probs
        with torch.no_grad(), memory_errors(f"reading the outputs of {size or len(samples)} prompts"):
            values = score_outputs(partial(token_values, value_model), samples, size, accelerator)
            if reference is not None:
                scorer = TokenScorer(reference, config.temperature)
                reference_log_probs = score_outputs(scorer, samples, size, accelerator)
                row["kl"] = (samples.log_probs - reference_log_probs).sum(dim=-1).mean().item()
        batch = token_samples(samples, rewards, values, reference_log_probs, config)
        written = (column[batch.mask].cpu() for column in (batch.values, batch.returns))
        row["explained_variance"] = explained_variance(*written)
        row |= learn(batch, loss_function, weigh, optimizers, config, generator, accelerator)
        if config.evaluate_every and (update + 1) % config.evaluate_every == 0:
            held_out = task.held_out[: config.evaluate_problems]
            row["held_out"] = held_out_reward(model, task, held_out, accelerator=accelerator)
        history.log(update=update + 1, outputs=(update + 1) * rewards.numel(), **row)
    return history
