"""GRPO: its loss by hand, groups, and what its update does to the outputs of a group."""

import dataclasses
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from policyopt.algorithms import grpo, ppo
from policyopt.algorithms.grpo import GroupBatch, GRPOConfig, group_batch, grpo_loss
from policyopt.envs import GridWorld
from policyopt.networks import Actor, ActorCritic
from policyopt.returns import group_relative_advantages
from policyopt.rollout import Batch, Rollout

TINY = GRPOConfig(total_steps=2_000, num_groups=2, group_size=4, epochs=2, minibatch_size=64, hidden=(8,))


def coin(logit=0.0, states=1):
    """A policy over two actions that is a table; the first action has the logit given, in every state."""
    agent = Actor(Discrete(states), Discrete(2), ())
    with torch.no_grad():
        agent.policy_net[0].weight.zero_()
        agent.policy_net[0].bias.copy_(torch.tensor([logit, 0.0]))
    return agent


def test_batch_by_hand():
    """Two groups of two episodes: returns 3 and 1, then 2 and 2; lengths 2, 1, 1, 2."""
    valid = torch.tensor([[True, True, True, True], [True, False, False, True]])
    flags = torch.zeros(2, 4, dtype=torch.bool)
    episodes = Rollout(
        all_obs=torch.zeros(3, 4, dtype=torch.int64),
        actions=torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0]]),
        log_probs=torch.arange(8.0).reshape(2, 4),
        rewards=torch.tensor([[1.0, 1.0, 2.0, 2.0], [2.0, 9.0, 9.0, 0.0]]),  # the nines belong to nobody
        terminated=flags,
        truncated=flags,
        valid=valid,
    )
    batch = group_batch(episodes, coin(math.log(3.0)), GRPOConfig(num_groups=2, group_size=2))
    assert batch.actions.tolist() == [0, 1, 0, 1, 1, 0]
    assert batch.log_probs.tolist() == [0, 1, 2, 3, 4, 7]
    spread = 1 / (math.sqrt(2) + 1e-4)  # (3 − 2) / σ with Bessel's correction
    assert batch.advantages.tolist() == pytest.approx([spread, -spread, 0, 0, spread, 0])
    assert batch.weights.tolist() == pytest.approx([0.75, 1.5, 1.5, 0.75, 0.75, 0.75])
    assert batch.weights.mean().item() == pytest.approx(1.0)
    expected = torch.tensor([0.75, 0.25, 0.75, 0.25, 0.25, 0.75]).log()
    torch.testing.assert_close(batch.reference_log_probs, expected)
    centred = group_batch(episodes, coin(), GRPOConfig(num_groups=2, group_size=2, divide_by_std=False))
    assert centred.advantages.tolist() == [1, -1, 0, 0, 1, 0]
    # By the rewards after the step, γ = 1/2: 1 + 2/2, 1, 2, 2, then 2, –, –, 0; who has ended has earned 0.
    config = GRPOConfig(num_groups=2, group_size=2, divide_by_std=False, credit="to_go", gamma=0.5)
    assert group_batch(episodes, coin(), config).advantages.tolist() == [0.5, -0.5, 0, 0, 1, 0]


def test_loss_by_hand():
    agent = coin(math.log(3.0))  # π_θ = (3/4, 1/4)
    batch = GroupBatch(
        obs=torch.zeros(2, dtype=torch.int64),
        actions=torch.tensor([0, 1]),
        log_probs=torch.tensor([0.5, 0.5]).log(),  # ρ = (3/2, 1/2)
        advantages=torch.tensor([1.0, -2.0]),
        reference_log_probs=torch.tensor([0.5, 0.5]).log(),
        weights=torch.tensor([0.5, 1.5]),
    )
    loss, metrics = grpo_loss(agent, batch, GRPOConfig(clip=0.2))
    # 1.2 · 1 is clipped from above; 0.8 · (−2) from below.
    assert loss.item() == pytest.approx(-(0.5 * 1.2 - 1.5 * 1.6) / 2)
    k3 = [2 / 3 - 1 - math.log(2 / 3), 2 - 1 - math.log(2)]  # π_ref/π_θ − 1 − log of it
    assert metrics["reference_kl"].item() == pytest.approx(sum(k3) / 2)
    with_penalty, _ = grpo_loss(agent, batch, GRPOConfig(clip=0.2, kl_coef=0.1))
    assert with_penalty.item() == pytest.approx(loss.item() + 0.1 * (0.5 * k3[0] + 1.5 * k3[1]) / 2)


def test_loss_gradient_by_finite_differences():
    generator = torch.Generator().manual_seed(0)
    agent = Actor(Box(-1, 1, (4,)), Discrete(3), (5,), torch.Generator().manual_seed(1)).double()
    agent.encoder.forward = lambda obs: obs
    parameters = list(agent.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    columns = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    batch = GroupBatch(
        obs=torch.randn(40, 4, generator=generator, dtype=torch.float64),
        actions=torch.randint(3, (40,), generator=generator),
        log_probs=-1.1 + 0.2 * columns[0],
        advantages=columns[1],
        reference_log_probs=-1.1 + 0.2 * columns[2],
        weights=torch.rand(40, generator=generator, dtype=torch.float64),
    )
    config = GRPOConfig(kl_coef=0.3)
    gradients = torch.autograd.grad(grpo_loss(agent, batch, config)[0], parameters)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))

    @torch.no_grad()
    def loss_at(step):
        for p, d in zip(parameters, directions, strict=True):
            p += step * d
        value = grpo_loss(agent, batch, config)[0]
        for p, d in zip(parameters, directions, strict=True):
            p -= step * d
        return value

    torch.testing.assert_close(slope, (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-8)


def test_its_surrogate_is_ppos():
    """Episodes of one length, no penalty: the same number and the same gradient as PPO's policy loss."""
    generator = torch.Generator().manual_seed(0)
    agent = ActorCritic(Box(-1, 1, (4,)), Discrete(3), (8,), generator)
    obs, actions = torch.randn(60, 4, generator=generator), torch.randint(3, (60,), generator=generator)
    log_probs = agent.policy(obs).log_prob(actions).detach() + 0.3 * torch.randn(60, generator=generator)
    advantages, zeros = torch.randn(60, generator=generator), torch.zeros(60)
    ours, metrics = grpo_loss(
        agent, GroupBatch(obs, actions, log_probs, advantages, zeros, torch.ones(60)), GRPOConfig(clip=0.2)
    )
    batch = Batch(obs, actions, log_probs, advantages, zeros, zeros)
    config = ppo.PPOConfig(normalize_advantages=False, value_coef=0.0)
    theirs, _ = ppo.ppo_loss(agent, batch, config, 0.2)
    assert metrics["clip_fraction"] > 0.2
    assert torch.equal(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(x, agent.policy_parameters) for x in (ours, theirs)), strict=True):
        assert torch.equal(a, b)


# --- what an update does to a group's outputs ---


def group_of(returns, obs, actions, agent):
    """A group of outputs: output i has the return returns[i], is made in the states obs[i], by actions[i]."""
    advantages = group_relative_advantages(torch.tensor(returns))
    lengths = torch.tensor([len(part) for part in obs])
    flat_obs, flat_actions = torch.cat(obs), torch.cat(actions)
    with torch.no_grad():
        log_probs = agent.policy(flat_obs).log_prob(flat_actions)
    return GroupBatch(
        obs=flat_obs,
        actions=flat_actions,
        log_probs=log_probs,
        advantages=advantages.repeat_interleave(lengths),
        reference_log_probs=log_probs,
        weights=(lengths.float().mean() / lengths).repeat_interleave(lengths),
    )


def changes(agent, batch, obs, actions, learning_rate):
    """How much likelier each output is after one plain gradient step."""

    @torch.no_grad()
    def log_likelihoods():
        return torch.stack([agent.policy(o).log_prob(a).sum() for o, a in zip(obs, actions, strict=True)])

    before = log_likelihoods()
    loss, _ = grpo_loss(agent, batch, GRPOConfig())
    gradients = torch.autograd.grad(loss, list(agent.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(agent.parameters(), gradients, strict=True):
            parameter -= learning_rate * gradient
    return log_likelihoods() - before


@pytest.mark.parametrize("seed", range(100))
def test_better_than_average_outputs_become_likelier(seed):
    """A random group whose outputs share no state: likelier exactly where the return is above the mean."""
    rng = np.random.default_rng(seed)
    size, num_actions = int(rng.integers(2, 9)), int(rng.integers(2, 6))
    lengths = rng.integers(1, 6, size)
    states = torch.from_numpy(rng.permutation(int(lengths.sum()))).split(lengths.tolist())
    actions = [torch.from_numpy(rng.integers(num_actions, size=n)) for n in lengths]
    returns = rng.normal(size=size).astype(np.float32).tolist()
    agent = Actor(Discrete(int(lengths.sum())), Discrete(num_actions), ())
    agent.double()
    agent.encoder.forward = lambda obs: torch.nn.functional.one_hot(obs, agent.encoder.width).double()
    agent.policy_net[0].bias.requires_grad_(False)  # the bias alone would be shared by all states
    with torch.no_grad():
        agent.policy_net[0].weight.copy_(torch.from_numpy(rng.normal(size=(num_actions, int(lengths.sum())))))
    batch = group_of(returns, states, actions, agent)
    agent.parameters = lambda: [agent.policy_net[0].weight]
    difference = changes(agent, batch, states, actions, learning_rate=1e-4)
    better = torch.tensor(returns) > np.mean(returns)
    assert torch.equal(difference > 0, better)


@pytest.mark.parametrize("seed", range(20))
def test_the_group_as_a_whole_moves_towards_the_better(seed):
    """Where all states share weights, single outputs may be dragged along; the weighted sum always rises."""
    generator = torch.Generator().manual_seed(seed)
    agent = Actor(Box(-1, 1, (3,)), Discrete(4), (16,), generator)
    obs = [torch.randn(5, 3, generator=generator) for _ in range(8)]
    actions = [torch.randint(4, (5,), generator=generator) for _ in range(8)]
    returns = torch.randn(8, generator=generator)
    batch = group_of(returns.tolist(), obs, actions, agent)
    difference = changes(agent, batch, obs, actions, learning_rate=1e-3)
    assert (group_relative_advantages(returns) * difference).sum() > 0


def test_a_better_output_can_become_less_likely():
    """The claim has a limit. Three outputs from one state, π = (0.9, 0.05, 0.05), advantages (1, 0.2, −1.2):
    the step raises their logits by A_i / 3, the first one most; the sum of probabilities stays 1, so
    log π of the second changes by (0.2 − (0.9 · 1 + 0.05 · 0.2 − 0.05 · 1.2)) / 3 < 0.
    """
    agent = Actor(Discrete(1), Discrete(3), ())
    with torch.no_grad():
        agent.policy_net[0].weight.zero_()
        agent.policy_net[0].bias.copy_(torch.tensor([0.9, 0.05, 0.05]).log())
    agent.policy_net[0].weight.requires_grad_(False)
    agent.parameters = lambda: [agent.policy_net[0].bias]
    outputs = list(torch.arange(3)[:, None])
    obs = [torch.zeros(1, dtype=torch.int64)] * 3
    batch = group_of([1.0, 0.2, -1.2], obs, outputs, agent)
    batch = dataclasses.replace(batch, advantages=torch.tensor([1.0, 0.2, -1.2]))
    difference = changes(agent, batch, obs, outputs, learning_rate=1e-2)
    shared = 0.9 * 1 + 0.05 * 0.2 - 0.05 * 1.2
    expected = [(a - shared) / 3 * 1e-2 for a in (1.0, 0.2, -1.2)]
    assert difference.tolist() == pytest.approx(expected, rel=0.02)
    assert difference[1] < 0


# --- the loop ---


def test_equal_returns_change_nothing():
    """Every policy earns the same in an episode of fixed length with reward 1: no gradient, no NaN."""

    class Same(gym.Env):
        observation_space, action_space = Box(-1, 1, (1,)), Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t = 0
            return self.np_random.uniform(-1, 1, 1).astype(np.float32), {}

        def step(self, action):
            self.t += 1
            return np.zeros(1, np.float32), 0.1, self.t == 3, False, {}

    agent, history = grpo.train(Same, TINY, seed=0)
    untrained, _ = grpo.train(Same, dataclasses.replace(TINY, total_steps=24), seed=0)
    assert len(history) == 2_000 // 24
    assert (history["grad_norm"] == 0).all()
    for a, b in zip(agent.parameters(), untrained.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_has_no_critic():
    agent, _ = grpo.train("CartPole-v1", TINY, seed=0)
    assert not hasattr(agent, "value_net")
    assert sum(p.numel() for p in agent.parameters()) == 4 * 8 + 8 + 8 * 2 + 2


def test_a_group_needs_one_start():
    class Unseeded(GridWorld):
        """Its start comes from a source of its own, so no seed can repeat it."""

        source = np.random.default_rng(0)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return super().reset(options={"state": int(self.source.integers(8))})

    with pytest.raises(ValueError, match="a group of episodes needs one start for all"):
        grpo.train(lambda: Unseeded(("........G", "S......XX")), TINY, seed=0)


def test_the_reference_stays_or_is_renewed():
    _, kept = grpo.train("CartPole-v1", dataclasses.replace(TINY, learning_rate=1e-2), seed=0)
    _, renewed = grpo.train(
        "CartPole-v1", dataclasses.replace(TINY, learning_rate=1e-2, reference_every=1), seed=0
    )
    assert kept["reference_kl"][-1] > 3 * renewed["reference_kl"][-1] > 0
    assert kept["policy_loss"].tolist() == renewed["policy_loss"].tolist()  # β = 0: it is only measured


def test_the_penalty_keeps_the_policy_close():
    distances = []
    for kl_coef in (0.0, 10.0):
        config = dataclasses.replace(TINY, total_steps=6_000, learning_rate=1e-2, kl_coef=kl_coef)
        distances.append(grpo.train("CartPole-v1", config, seed=0)[1]["reference_kl"][-1])
    assert distances[0] > 10 * distances[1]


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("group_size", 1, r"\[2, inf\)"),
        ("kl_coef", -1.0, r"\[0, inf\)"),
        ("divide_by_std", 1, "True or False"),
    ],
)
def test_settings_out_of_range_are_named(field, value, allowed):
    with pytest.raises(ValueError, match=rf"GRPOConfig\.{field} is .*{allowed}"):
        GRPOConfig(**{field: value})
