"""Measurements that are no training runs of their own, for the harness of studies.

Each function has the form ``(env_id, config, seed)`` and gives an agent and a history, as a study asks of
``"package.module:function"``; equal arguments give equal numbers. What they measure: how good chance is, what
baselines and advantages do to the variance of the policy gradient, how far REINFORCE's mean is from the exact
gradient, what a group's advantages do to its outputs, and whether GRPO's objective is PPO's.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import torch
from gymnasium.spaces import Discrete
from torch import Generator, Tensor, nn

from policyopt.algorithms import ppo
from policyopt.algorithms.grpo import GroupBatch, GRPOConfig, group_batch, grpo_loss
from policyopt.algorithms.ppo import PPOConfig, ppo_loss
from policyopt.algorithms.reinforce import ReinforceConfig, reinforce_batch, reinforce_loss
from policyopt.evaluation import RandomAgent, evaluate
from policyopt.history import History
from policyopt.losses import explained_variance
from policyopt.networks import Actor, ActorCritic
from policyopt.returns import group_relative_advantages
from policyopt.rollout import Batch, EnvSpec, EpisodeCollector, Rollout, advantage_batch, make_env
from policyopt.settings import SETTINGS, check_fields, check_settings, spawn_seeds
from policyopt.tabular import exact_policy_gradient, tabular_model
from policyopt.training import fit_values, gradient_step, make_adam, single_thread

__all__ = [
    "GradientErrorConfig",
    "GroupConfig",
    "RandomConfig",
    "SameShapeConfig",
    "VarianceConfig",
    "gradient_error",
    "gradient_variance",
    "group_advantage",
    "grpo_is_ppo",
    "random_policy",
]

SEVERAL = (int, 2, math.inf)  # of what a variance is to be taken


# --- chance ---


@dataclass(frozen=True)
class RandomConfig:
    """Settings of ``random_policy``. Values out of range raise ``ValueError`` and name the field."""

    episodes: int = 100

    def __post_init__(self) -> None:
        check_settings(self, episodes=SETTINGS["num_episodes"])


def random_policy(
    env_id: EnvSpec, config: RandomConfig = RandomConfig(), seed: int = 0
) -> tuple[RandomAgent, History]:
    """What the uniformly random policy earns: the floor that every curve starts from.

    Returns:
        The agent, and one row with ``step`` 0 and ``episode_return``, the mean of ``config.episodes``.

    Raises:
        ValueError: no such environment, or a seed out of range.
    """
    play_seed, actions_seed, agent_seed = spawn_seeds(seed, 3)
    with closing(make_env(env_id)) as env:
        space = env.action_space
    played = evaluate(RandomAgent(space, actions_seed), env_id, config.episodes, play_seed)
    history = History()
    history.log(step=0, episode_return=played.mean())
    return RandomAgent(space, agent_seed), history


# --- variance ---


@dataclass(frozen=True)
class VarianceConfig:
    """Settings of ``gradient_variance``. Values out of range raise ``ValueError`` and name the field."""

    train_steps: tuple[int, ...] = (0, 10_000, 30_000)  # environment steps of PPO before each stage, rising
    fit_episodes: int = 64  # for the critic and the mean return
    episodes: int = 256  # M, that are measured
    gamma: float = 0.98  # γ
    gae_lambda: float = 0.95  # λ
    discount_steps: bool = False  # weigh step t by γ^t as well
    value_learning_rate: float = 3e-3
    value_steps: int = 1_000  # gradient steps of the fit, at least; only whole epochs are made
    value_rounds: int = 10  # of the fit; each completes truncated returns with the V of the last
    num_envs: int = 16  # N, of PPO, as are the following
    horizon: int = 64  # T
    epochs: int = 6  # K
    minibatch_size: int = 256  # also of the critic's fit
    learning_rate: float = 2e-3  # constant, so that the stages lie on one run
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, policy and value alike

    def __post_init__(self) -> None:
        named = [field.name for field in dataclasses.fields(self) if field.name in SETTINGS]
        own = {
            "fit_episodes": (int, 1, math.inf),
            "episodes": SEVERAL,
            **dict.fromkeys(("value_steps", "value_rounds"), (int, 1, math.inf)),
        }
        check_fields(self, **{name: SETTINGS[name] for name in named}, **own)
        least, steps = self.num_envs * self.horizon, self.train_steps
        ok = isinstance(steps, tuple) and len(steps) > 0
        ok = ok and all(
            isinstance(n, int) and not isinstance(n, bool) and (n == 0 or n >= least) for n in steps
        )
        if not ok or list(steps) != sorted(set(steps)):
            raise ValueError(
                f"VarianceConfig.train_steps is {steps!r}; it must be a tuple of rising whole numbers, "
                f"each 0 or at least num_envs · horizon = {least}"
            )
        self.ppo_config(least)  # checks hidden

    def ppo_config(self, total_steps: int) -> PPOConfig:
        """The settings of the training before a stage."""
        shared = {field.name for field in dataclasses.fields(PPOConfig)}
        shared &= {field.name for field in dataclasses.fields(self)}
        return PPOConfig(total_steps=total_steps, **{name: getattr(self, name) for name in shared})


def gradient_variance(
    env_id: EnvSpec, config: VarianceConfig = VarianceConfig(), seed: int = 0
) -> tuple[ActorCritic, History]:
    r"""How much each weighting of :math:`\nabla \log \pi(a_t|s_t)` makes the policy gradient vary, on
    the same episodes.

    Book: eq-policy-gradient; compare Greensmith, Bartlett & Baxter (2004), "Variance reduction techniques for
    gradient estimates in reinforcement learning", and Schulman et al. (2016), arXiv:1506.02438, section 3.

    The policy is PPO's after each of ``config.train_steps``: stages of one run, as its settings are constant,
    and 0 is its untrained beginning. At each stage a critic is fitted from scratch to the returns of
    ``config.fit_episodes``, which are not measured. Each of M further episodes gives an estimate
    :math:`\sum_t w_t \nabla \log \pi(a_t|s_t)` with the weights

    - ``whole_return``: the episode's discounted return, for every step the same;
    - ``to_go``: the discounted rewards from step t on;
    - ``mean_baseline``: those, less the mean of all returns-to-go of the fitting episodes;
    - ``value_baseline``: those, less V(s_t);
    - ``gae``: the advantage of GAE(λ), with the same V.

    The variance is the trace of the sample covariance over episodes; an update from N episodes has 1/N of it.
    An episode that a time limit cut off has its return completed with V, for all weightings alike (and where
    V is fitted). Otherwise weightings that use V and those that do not would speak of different returns.

    As in the training code γ^t is left out. Then baselines leave the mean as it is, but ``whole_return``
    with γ < 1 has another mean than the rest: it weighs late steps less. Where that must not be, choose γ = 1
    or ``discount_steps``, which gives the first four one mean. Norms of means are larger than those of the
    true gradients, their expected squares by variance / M.

    Returns:
        The agent of the last stage, and a row for each stage.

        - ``stage`` from 0, ``step`` of training, ``episode_return`` (the mean of the measured episodes);
        - ``explained_variance`` of V on the measured episodes;
        - for each weighting w ``variance_w`` and ``gradient_norm_w``, the norm of the mean over episodes;
        - ``bias_gae``: how far the means of GAE and of ``value_baseline`` are apart, in norms of the latter
          (of all that are unbiased it has the least noise to be compared with);
        - ``bias_gae_noise``: what would be seen of that by chance without a bias (root mean square).

    Raises:
        ValueError: no such environment, or a seed out of range.
    """
    train_seed, *seeds = spawn_seeds(seed, 1 + 4 * len(config.train_steps))
    history = History()
    with single_thread():
        for stage, train_steps in enumerate(config.train_steps):
            value_seed, fit_seed, shuffle_seed, play_seed = seeds[4 * stage : 4 * stage + 4]
            agent, step = _trained(env_id, config, train_steps, train_seed)
            fitting = _play(env_id, agent, config.fit_episodes, fit_seed)
            spaces = agent.obs_space, agent.action_space
            critic = ActorCritic(*spaces, config.hidden, Generator().manual_seed(value_seed))
            mean_return = fit_critic(critic, fitting, config, Generator().manual_seed(shuffle_seed))
            played = _play(env_id, agent, config.episodes, play_seed)
            episodes = complete(played, critic, config.gamma)
            gradients = episode_gradients(agent, episodes, weightings(episodes, critic, mean_return, config))
            judged = reinforce_batch(episodes, critic, _weigh(config, "value"), 0.0)
            history.log(
                stage=stage,
                step=step,
                episode_return=(played.rewards * played.valid).sum(dim=0).mean(),
                explained_variance=explained_variance(judged.values, judged.value_targets),
                **describe_gradients(gradients),
            )
    return agent, history


def _trained(env_id: EnvSpec, config: VarianceConfig, steps: int, seed: int) -> tuple[ActorCritic, int]:
    """PPO's agent after so many steps, of which only whole updates are made; and how many it took."""
    if steps > 0:
        agent, history = ppo.train(env_id, config.ppo_config(steps), seed)
        return agent, int(history.last["step"])
    with closing(EpisodeCollector(env_id, 1, seed)) as collector:
        weights_seed = spawn_seeds(seed, 2)[0]  # as ppo.train begins
        return ActorCritic.for_envs(collector.envs, config.hidden, weights_seed), 0


def _play(env_id: EnvSpec, agent: Actor, count: int, seed: int) -> Rollout:
    with closing(EpisodeCollector(env_id, count, seed)) as collector:
        return collector.collect(agent)


@torch.no_grad()
def complete(episodes: Rollout, critic: ActorCritic, gamma: float) -> Rollout:
    """Episodes of which none is truncated: γ V(s_T) is part of the last reward where one was."""
    cut = episodes.truncated & ~episodes.terminated
    rest = gamma * torch.where(cut, critic.value(episodes.next_obs), 0.0)
    return dataclasses.replace(
        episodes,
        rewards=episodes.rewards + rest,
        terminated=episodes.terminated | cut,
        truncated=torch.zeros_like(cut),
    )


def _weigh(config: VarianceConfig, baseline: str = "none", **settings) -> ReinforceConfig:
    settings = {"gamma": config.gamma, "discount_steps": config.discount_steps, **settings}
    return ReinforceConfig(baseline=baseline, **settings)


def fit_critic(critic: ActorCritic, fitting: Rollout, config: VarianceConfig, generator: Generator) -> float:
    """Fit V to the returns-to-go of episodes; their mean over all steps."""

    def batch() -> Batch:
        return reinforce_batch(complete(fitting, critic, config.gamma), critic, _weigh(config), 0.0)

    with torch.no_grad():  # far from the returns, the first steps would saturate every hidden unit for good
        critic.value_net[-1].bias += batch().value_targets.mean()
    optimizer = make_adam(critic.value_parameters, config.value_learning_rate)
    minibatches = config.value_rounds * math.ceil(int(fitting.valid.sum()) / config.minibatch_size)
    epochs = math.ceil(config.value_steps / minibatches)
    for _ in range(config.value_rounds):
        fit_values(critic, optimizer, batch(), epochs, config.minibatch_size, generator)
    return batch().value_targets.mean().item()


def weightings(
    episodes: Rollout, critic: ActorCritic, mean_return: float, config: VarianceConfig
) -> dict[str, Tensor]:
    """The weight of every step, by name of the weighting, ``[T, N]``; 0 after an episode's end."""

    def reinforce(baseline: str, **settings) -> Batch:
        settings = _weigh(config, baseline, **settings)
        return reinforce_batch(episodes, critic, settings, mean_return)

    batches = {
        "whole_return": reinforce("none", reward_to_go=False),
        "to_go": reinforce("none"),
        "mean_baseline": reinforce("mean"),
        "value_baseline": reinforce("value"),
        "gae": advantage_batch(episodes, critic, config.gamma, config.gae_lambda),
    }
    weights = {}
    for name, batch in batches.items():
        weights[name] = torch.zeros_like(episodes.rewards)
        weights[name][episodes.valid] = batch.advantages  # the valid rows of a rollout, in its order
    if config.discount_steps:  # reinforce_batch has done it for the others
        weights["gae"] *= config.gamma ** torch.arange(len(episodes.rewards))[:, None]
    return weights


def episode_gradients(agent: Actor, episodes: Rollout, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Σ_t w_t ∇ log π(a_t|s_t) of every episode under every weighting ``[T, N]``: for each name ``[N, P]``
    float64.
    """
    parameters, stacked = agent.policy_parameters, torch.stack(list(weights.values()))  # [K, T, N]
    rows = []
    for i, length in enumerate(episodes.valid.sum(dim=0).tolist()):
        log_probs = agent.policy(episodes.obs[:length, i]).log_prob(episodes.actions[:length, i])
        found = torch.autograd.grad(log_probs, parameters, stacked[:, :length, i], is_grads_batched=True)
        rows.append(torch.cat([gradient.flatten(1) for gradient in found], dim=1))  # [K, P]
    return dict(zip(weights, torch.stack(rows, dim=1).double(), strict=True))


def describe_gradients(gradients: dict[str, Tensor]) -> dict[str, float]:
    """Variances, norms of the means, and the bias of GAE, of gradients ``[N, P]`` by name."""
    described = {f"variance_{name}": rows.var(dim=0).sum().item() for name, rows in gradients.items()}
    norms = {name: rows.mean(dim=0).norm().item() for name, rows in gradients.items()}
    described |= {f"gradient_norm_{name}": norm for name, norm in norms.items()}
    difference, scale = gradients["gae"] - gradients["value_baseline"], norms["value_baseline"]
    bias = difference.mean(dim=0).norm().item()
    noise = math.sqrt(difference.var(dim=0).sum().item() / len(difference))
    described["bias_gae"] = bias / scale if scale > 0 else math.nan
    described["bias_gae_noise"] = noise / scale if scale > 0 else math.nan
    return described


# --- bias ---


@dataclass(frozen=True)
class GradientErrorConfig:
    """Settings of ``gradient_error``. Values out of range raise ``ValueError`` and name the field."""

    batches: int = 500
    episodes: int = 40  # of each batch
    gamma: float = 0.9  # γ
    logit_scale: float = 1.0  # standard deviation of the policy's logits
    least_batches: int = 30  # in which a logit's gradient must not be 0 for the logit to be judged

    def __post_init__(self) -> None:
        count = SETTINGS["num_episodes"]
        own = {
            "batches": SEVERAL,
            "episodes": count,
            "least_batches": SEVERAL,
            "logit_scale": (float, 0, 100),
        }
        check_settings(self, **own)
        check_fields(self, batches=(int, self.least_batches, math.inf))


def gradient_error(
    env_id: EnvSpec, config: GradientErrorConfig = GradientErrorConfig(), seed: int = 0
) -> tuple[Actor, History]:
    """How far REINFORCE's mean gradient is from the exact one, for a random policy that is a table.

    Book: eq-policy-gradient-theorem. Reward-to-go without a baseline, with γ^t and, of the same episodes,
    without it. The environment must show its model, as ``FrozenLake-v1`` does. Its time limit is no part of
    the model: that biases by about γ to the power of the limit (100 steps: 0.9¹⁰⁰ < 3e-5 of the return, and
    only in the episodes that get so far), so γ must not be near 1.

    A logit is judged if its exact gradient is not 0 and at least ``config.least_batches`` batches say
    something about it; from fewer no standard error can be told.

    Returns:
        The agent, and one row with ``step``, ``episode_return``, ``judged`` (how many logits), and

        - ``largest_deviation``: the largest of \\|mean − exact\\| / standard error over those logits;
        - ``mean_square_deviation``: the mean of its square, about 1 without a bias;
        - ``relative_error``: ‖mean − exact‖ / ‖exact‖ over all logits;
        - the three once more ending in ``_without_discount``, of the estimator that leaves γ^t out.

    Raises:
        ValueError: no such environment, one without a model, or none of the logits can be judged.
    """
    logits_seed, play_seed = spawn_seeds(seed, 2)
    with closing(make_env(env_id)) as env:
        model = tabular_model(env)
    generator = Generator().manual_seed(logits_seed)
    logits = config.logit_scale * torch.randn(model.rewards.shape, generator=generator)  # [S, A]
    exact = exact_policy_gradient(model, logits, config.gamma)
    found: dict[str, list[Tensor]] = {"": [], "_without_discount": []}
    with closing(EpisodeCollector(env_id, config.episodes, play_seed)) as collector, single_thread():
        agent = Actor.for_envs(collector.envs, (), logits_seed)
        table = agent.policy_net[0].weight  # [A, S]
        with torch.no_grad():
            table.copy_(logits.T)
        for _ in range(config.batches):
            episodes = collector.collect(agent)
            for suffix, rows in found.items():
                settings = ReinforceConfig(
                    num_episodes=config.episodes,
                    baseline="none",
                    gamma=config.gamma,
                    discount_steps=suffix == "",
                )
                batch = reinforce_batch(episodes, agent, settings, 0.0)
                loss, _ = reinforce_loss(agent, batch, settings)
                (gradient,) = torch.autograd.grad(-loss, [table])
                rows.append(gradient.T.double())
        played = collector.finished_returns
        row = {"step": collector.steps_taken, "episode_return": sum(played) / len(played)}
    samples = {suffix: torch.stack(rows) for suffix, rows in found.items()}  # [batches, S, A]
    judged = (exact.abs() > 1e-12) & ((samples[""] != 0).sum(dim=0) >= config.least_batches)
    if not judged.any():
        raise ValueError(
            f"of the {config.batches} batches fewer than {config.least_batches} say something about any one "
            "logit; take more batches or more episodes, or an environment that gives more rewards"
        )
    row["judged"] = int(judged.sum())
    for suffix, rows in samples.items():
        row |= {f"{name}{suffix}": value for name, value in describe_error(rows, exact, judged).items()}
    history = History()
    history.log(**row)
    return agent, history


def describe_error(samples: Tensor, exact: Tensor, judged: Tensor) -> dict[str, float]:
    """Mean against exact gradient; samples ``[batches, S, A]``, ``judged`` the logits of deviations."""
    error = samples.mean(dim=0) - exact
    deviations = (error / (samples.std(dim=0) / math.sqrt(len(samples))))[judged]
    return {
        "largest_deviation": deviations.abs().max().item(),
        "mean_square_deviation": deviations.square().mean().item(),
        "relative_error": (error.norm() / exact.norm()).item(),
    }


# --- groups ---


def _groups(env_id: EnvSpec, agent: Actor, size: int, seed: int) -> Iterator[tuple[Rollout, int]]:
    """Groups of episodes of unequal returns, from a new start each, and the environment steps so far.

    Raises:
        ValueError: a thousand groups in a row with equal returns.
    """
    with closing(EpisodeCollector(env_id, size, seed, group_size=size)) as collector:
        equal = 0
        while equal < 1_000:
            episodes = collector.collect(agent)
            returns = (episodes.rewards * episodes.valid).sum(dim=0)
            equal += 1
            if (returns != returns[0]).any():
                equal = 0
                yield episodes, collector.steps_taken
    raise ValueError(f"all returns were equal in {equal:,} groups of {size}; take larger groups")


@dataclass(frozen=True)
class GroupConfig:
    """Settings of ``group_advantage``. Values out of range raise ``ValueError`` and name the field."""

    kind: Literal["separate", "shared"] = "shared"  # outputs with states of their own, or real episodes
    groups: int = 100
    group_size: int = 8  # G
    learning_rate: float = 1e-4  # of the one plain gradient step
    hidden: tuple[int, ...] = (64, 64)  # widths of the policy's hidden layers; "separate" has a table

    def __post_init__(self) -> None:
        check_settings(self, kind=(str, "separate", "shared"), groups=SETTINGS["num_groups"])


def group_advantage(
    env_id: EnvSpec, config: GroupConfig = GroupConfig(), seed: int = 0
) -> tuple[Actor | RandomAgent, History]:
    r"""What one small step on GRPO's loss does to the outputs of the group it was made from.

    Book: eq-group-advantage. Shao et al. (2024), arXiv:2402.03300, section 4.1.2.

    ``"separate"``: random outputs of 1 to 5 steps with random returns, no state in two of them, and a random
    policy that is a table; ``env_id`` is not played. ``"shared"``: groups of episodes from one start by one
    untrained ``Actor``, whose weights all states share. Every group starts from the same weights. Groups of
    equal returns are skipped. All is in float64: the changes are small.

    What such a step must raise is not the likelihood of each better output, but
    :math:`\sum_i \hat A_i \log \pi(o_i) / |o_i|`, whose gradient it follows.

    Returns:
        The untrained agent (for ``"separate"`` a ``RandomAgent``), and a row for each group.

        - ``step``: the number of the group, from 0;
        - ``better_rose``, ``worse_fell``: of the outputs above (below) the group's mean the share that
          became likelier (less likely);
        - ``all_agree``: 1 if all of both did;
        - ``weighted_sum_rose``: 1 if the sum above rose;
        - ``smaller_step_agrees``: 1 if a tenth of the step moves every output in the same direction.

    Raises:
        ValueError: no such environment, or one in whose groups all returns are equal.
    """
    make = _separate_groups if config.kind == "separate" else _shared_groups
    history = History()
    with single_thread():
        agent, policy, parameters, groups = make(env_id, config, seed)
        with closing(groups):
            for number, (batch, outputs) in zip(range(config.groups), groups, strict=False):
                rates = (config.learning_rate, config.learning_rate / 10)
                changes, smaller = (
                    output_changes(policy, batch, outputs, parameters, rate) for rate in rates
                )
                agrees = torch.equal(changes.sign(), smaller.sign())
                row = describe_changes(of_outputs(batch.advantages, outputs), changes)
                history.log(step=number, **row, smaller_step_agrees=int(agrees))
    return agent, history


def _in_double(agent: Actor) -> Actor:
    """A copy that reckons in float64."""
    agent = copy.deepcopy(agent).double()
    encode = agent.encoder.forward
    agent.encoder.forward = lambda obs: encode(obs).double()
    return agent


Groups = Iterator[tuple[GroupBatch, Tensor]]  # with the number of the output that a step belongs to, [B]


def _shared_groups(
    env_id: EnvSpec, config: GroupConfig, seed: int
) -> tuple[Actor, Actor, list[nn.Parameter], Groups]:
    weights_seed, play_seed = spawn_seeds(seed, 2)
    with closing(make_env(env_id)) as env:
        spaces = env.observation_space, env.action_space
    agent = Actor(*spaces, config.hidden, Generator().manual_seed(weights_seed))
    policy = _in_double(agent)

    def groups() -> Groups:
        settings = GRPOConfig(num_groups=1, group_size=config.group_size)
        with closing(_groups(env_id, agent, config.group_size, play_seed)) as played:
            for episodes, _ in played:
                batch = group_batch(episodes, policy, settings)
                (outputs,) = episodes.valid_rows(torch.arange(config.group_size).expand(episodes.valid.shape))
                yield dataclasses.replace(batch, log_probs=batch.reference_log_probs), outputs

    return agent, policy, policy.policy_parameters, groups()


def _separate_groups(
    env_id: EnvSpec, config: GroupConfig, seed: int
) -> tuple[RandomAgent, Actor, list[nn.Parameter], Groups]:
    """Groups that share nothing. A bias would be shared by all states; so it does not learn."""
    agent_seed, groups_seed = spawn_seeds(seed, 2)
    with closing(make_env(env_id)) as env:
        agent = RandomAgent(env.action_space, agent_seed)
    generator, size, longest, num_actions = Generator().manual_seed(groups_seed), config.group_size, 5, 4
    policy = _in_double(_table(size * longest, num_actions, generator))

    def groups() -> Groups:
        while True:
            lengths = torch.randint(1, longest + 1, (size,), generator=generator)
            outputs = torch.arange(size).repeat_interleave(lengths)  # [B]
            obs = torch.randperm(size * longest, generator=generator)[: len(outputs)]
            actions = torch.randint(num_actions, (len(outputs),), generator=generator)
            returns = torch.randn(size, generator=generator)
            with torch.no_grad():
                log_probs = policy.policy(obs).log_prob(actions)
            yield (
                GroupBatch(
                    obs=obs,
                    actions=actions,
                    log_probs=log_probs,
                    advantages=group_relative_advantages(returns)[outputs],
                    reference_log_probs=log_probs,
                    weights=(lengths.double().mean() / lengths)[outputs],
                ),
                outputs,
            )

    return agent, policy, [policy.policy_net[0].weight], groups()


def _table(states: int, num_actions: int, generator: Generator) -> Actor:
    """A policy that is a table of random logits."""
    agent = Actor(Discrete(states), Discrete(num_actions), ())
    with torch.no_grad():
        agent.policy_net[0].weight.copy_(torch.randn(num_actions, states, generator=generator))
    return agent


def of_outputs(values: Tensor, outputs: Tensor) -> Tensor:
    """What is the same for all steps ``[B]`` of an output, once for each output, ``[G]``."""
    once = values.new_empty(int(outputs.max()) + 1)
    once[outputs] = values
    return once


def output_changes(
    policy: Actor, batch: GroupBatch, outputs: Tensor, parameters: list[nn.Parameter], learning_rate: float
) -> Tensor:
    """How much one plain gradient step on GRPO's loss raises log π(o_i) / \\|o_i\\| of each output, ``[G]``.

    The policy is left as it was.
    """

    @torch.no_grad()
    def mean_log_probs() -> Tensor:
        log_probs = policy.policy(batch.obs).log_prob(batch.actions)
        lengths = outputs.bincount()
        return torch.zeros(len(lengths), dtype=log_probs.dtype).index_add(0, outputs, log_probs) / lengths

    before, kept = mean_log_probs(), [parameter.detach().clone() for parameter in parameters]
    loss, _ = grpo_loss(policy, batch, GRPOConfig())
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= learning_rate * gradient
        changes = mean_log_probs() - before
        for parameter, values in zip(parameters, kept, strict=True):
            parameter.copy_(values)
    return changes


def describe_changes(advantages: Tensor, changes: Tensor) -> dict[str, float]:
    """Whether outputs moved as their advantages ask them to; both ``[G]``."""
    rose, fell = changes[advantages > 0] > 0, changes[advantages < 0] < 0
    return {
        "better_rose": rose.double().mean().item(),
        "worse_fell": fell.double().mean().item(),
        "all_agree": int(rose.all() and fell.all()),
        "weighted_sum_rose": int((advantages * changes).sum() > 0),
    }


@dataclass(frozen=True)
class SameShapeConfig:
    """Settings of ``grpo_is_ppo``. Values out of range raise ``ValueError`` and name the field."""

    group_size: int = 16  # G
    clip: float = 0.2  # ε
    gradient_steps: int = 20  # of PPO, away from the policy that played
    learning_rate: float = 1e-2  # of those steps, with Adam
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, policy and value alike

    def __post_init__(self) -> None:
        check_settings(self, gradient_steps=SETTINGS["cg_steps"])


def grpo_is_ppo(
    env_id: EnvSpec, config: SameShapeConfig = SameShapeConfig(), seed: int = 0
) -> tuple[ActorCritic, History]:
    """Whether GRPO's policy gradient is PPO's, once the advantages are: on one group, away from π_old.

    Book: eq-grpo, eq-ppo-loss. Shao et al. (2024), arXiv:2402.03300, eq. 3, with the advantage that is not
    divided by σ_R; Schulman et al. (2017), eq. 7.

    PPO is given what makes its advantage the group's: γ = λ = 1, each episode's rewards moved to its last
    step, and a critic that says the group's mean return in every state. Its GAE is then the return minus
    that mean, whatever the step. No value loss, no entropy's bonus, no normalisation. The policy has then
    taken ``config.gradient_steps`` on PPO's loss, so that ratios are not 1 and some are clipped.

    One difference stays: PPO takes the mean over steps, GRPO weighs a step by 1/\\|o_i\\|. So the two are
    compared with equal weights for all steps, and once more with GRPO's own. Where all episodes are of one
    length these are the same.

    Returns:
        The agent after those steps, and one row with ``step`` (of the environment), ``episode_return``,
        ``clip_fraction``, ``largest_gradient_difference`` (the largest over the policy's parameters, in
        units of PPO's largest gradient entry), and that with GRPO's own weights, whose name ends in
        ``_per_output_mean``.

    Raises:
        ValueError: no such environment, or one in whose groups all returns are equal.
    """
    weights_seed, play_seed = spawn_seeds(seed, 2)
    with closing(make_env(env_id)) as env:
        spaces = env.observation_space, env.action_space
    history = History()
    with single_thread():
        agent = ActorCritic(*spaces, config.hidden, Generator().manual_seed(weights_seed))
        with closing(_groups(env_id, agent, config.group_size, play_seed)) as played:
            episodes, steps = next(played)
        settings = PPOConfig(normalize_advantages=False, value_coef=0.0, entropy_coef=0.0, clip=config.clip)
        grouped = GRPOConfig(
            num_groups=1, group_size=config.group_size, divide_by_std=False, clip=config.clip
        )
        theirs, mean_return = end_rewarded_batch(episodes, agent)
        own = group_batch(episodes, agent, grouped)
        equal = dataclasses.replace(own, weights=torch.ones_like(own.weights))

        optimizer = make_adam(agent.policy_parameters, config.learning_rate)
        for _ in range(config.gradient_steps):
            gradient_step(optimizer, ppo_loss(agent, theirs, settings, config.clip)[0], math.inf)
        loss, metrics = ppo_loss(agent, theirs, settings, config.clip)
        expected = torch.autograd.grad(loss, agent.policy_parameters)

        def difference(batch: GroupBatch) -> float:
            gradients = torch.autograd.grad(grpo_loss(agent, batch, grouped)[0], agent.policy_parameters)
            pairs = zip(gradients, expected, strict=True)
            largest = max((ours - other).abs().max() for ours, other in pairs)
            return (largest / max(gradient.abs().max() for gradient in expected)).item()

        history.log(
            step=steps,
            episode_return=mean_return,
            clip_fraction=metrics["clip_fraction"],
            largest_gradient_difference=difference(equal),
            largest_gradient_difference_per_output_mean=difference(own),
        )
    return agent, history


def end_rewarded_batch(episodes: Rollout, agent: ActorCritic) -> tuple[Batch, float]:
    """PPO's batch of one group whose rewards all come with the last step, and the mean return, which the
    agent's critic is made to say everywhere.
    """
    lengths, columns = episodes.valid.sum(dim=0), torch.arange(episodes.valid.shape[1])
    returns = (episodes.rewards * episodes.valid).sum(dim=0)
    rewards, terminated = torch.zeros_like(episodes.rewards), torch.zeros_like(episodes.terminated)
    rewards[lengths - 1, columns], terminated[lengths - 1, columns] = returns, True
    told = dataclasses.replace(
        episodes, rewards=rewards, terminated=terminated, truncated=torch.zeros_like(terminated)
    )
    with torch.no_grad():
        agent.value_net[-1].weight.zero_()
        agent.value_net[-1].bias.copy_(returns.mean())
    return advantage_batch(told, agent, gamma=1.0, gae_lambda=1.0), returns.mean().item()
