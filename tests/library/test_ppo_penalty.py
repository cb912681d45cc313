"""PPO-penalty: its loss by hand and by finite differences, β as the paper adapts it, one update equal to
Stable-Baselines3's where both define the same.
"""

import dataclasses
import math

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from peers import Pair

from policyopt.algorithms import ppo_penalty
from policyopt.algorithms.ppo_penalty import PenaltyBatch, PPOPenaltyConfig, adapt_kl_coef, ppo_penalty_loss
from policyopt.networks import ActorCritic
from policyopt.rollout import Batch, advantage_batch
from policyopt.training import make_adam


def test_loss_by_hand():
    agent = ActorCritic(Box(-1, 1, (1,)), Discrete(2), hidden=())
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.zero_()
        agent.policy_net[0].bias.copy_(torch.tensor([math.log(3.0), 0.0]))  # π_θ = (3/4, 1/4)
        agent.value_net[0].bias.fill_(2.0)  # V = 2
    batch = PenaltyBatch(
        obs=torch.zeros(2, 1),
        actions=torch.tensor([0, 1]),
        log_probs=torch.tensor([0.5, 0.5]).log(),  # ρ = (3/2, 1/2)
        advantages=torch.tensor([1.0, 2.0]),
        values=torch.zeros(2),
        value_targets=torch.tensor([1.0, 4.0]),
        old_policy=torch.full((2, 2), 0.5).log(),
    )
    config = PPOPenaltyConfig(normalize_advantages=False, value_coef=0.5, entropy_coef=0.1)
    loss, metrics = ppo_penalty_loss(agent, batch, config, kl_coef=3.0)
    surrogate = (1.5 * 1 + 0.5 * 2) / 2  # nothing is clipped
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert metrics["policy_loss"].item() == pytest.approx(-surrogate + 3 * kl)
    assert loss.item() == pytest.approx(-surrogate + 3 * kl + 0.5 * (1 + 4) / 2 - 0.1 * entropy)


@pytest.mark.parametrize("action_space", [Discrete(3), Box(-1, 1, (2,))], ids=["discrete", "continuous"])
def test_loss_gradient_by_finite_differences(action_space):
    generator = torch.Generator().manual_seed(0)
    old, agent = (
        ActorCritic(Box(-1, 1, (4,)), action_space, (5,), torch.Generator().manual_seed(seed)).double()
        for seed in (0, 1)
    )
    old.encoder.forward = agent.encoder.forward = lambda obs: obs
    with torch.no_grad():
        for parameter in agent.policy_parameters:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        obs = torch.randn(32, 4, generator=generator, dtype=torch.float64)
        dist = old.policy(obs)
        actions = dist.sample(generator)
    columns = torch.randn(3, 32, generator=generator, dtype=torch.float64)
    batch = PenaltyBatch(obs, actions, dist.log_prob(actions).detach(), *columns, dist.rows().detach())
    config = PPOPenaltyConfig(entropy_coef=0.01)
    parameters = list(agent.parameters())
    loss, _ = ppo_penalty_loss(agent, batch, config, 2.0)
    gradients = torch.autograd.grad(loss, parameters)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))

    @torch.no_grad()
    def loss_at(step):
        for p, d in zip(parameters, directions, strict=True):
            p += step * d
        value = ppo_penalty_loss(agent, batch, config, 2.0)[0]
        for p, d in zip(parameters, directions, strict=True):
            p -= step * d
        return value

    torch.testing.assert_close(slope, (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_without_penalty_an_update_equals_stable_baselines3_without_clip(env_id, monkeypatch):
    """β = 0 and ε = ∞ leave the same objective, mean(ρ Â): the same weights afterwards, to 1e-5."""
    from stable_baselines3 import PPO

    config = PPOPenaltyConfig(epochs=3, minibatch_size=64, learning_rate=1e-3, entropy_coef=0.01)
    pair = Pair(
        PPO,
        env_id,
        num_envs=4,
        horizon=64,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        batch_size=64,
        n_epochs=3,
        learning_rate=1e-3,
        ent_coef=0.01,
        clip_range=1e9,
    )
    pair.same_order(monkeypatch, config.epochs)
    pair.theirs.train()
    optimizer = make_adam(pair.agent.parameters(), config.learning_rate)
    batch = advantage_batch(pair.rollout, pair.agent, config.gamma, config.gae_lambda)
    batch = PenaltyBatch.of(batch, pair.agent)
    metrics = ppo_penalty.improve(pair.agent, optimizer, batch, config, 0.0, torch.Generator())
    pair.assert_equal(atol=1e-5, moved_by=5e-3)
    assert metrics["kl"] > 0


def test_the_penalty_holds_the_policy_back():
    """The same batch under a larger β ends closer to π_old."""
    generator = torch.Generator().manual_seed(0)
    distances = []
    for kl_coef in (0.0, 1.0, 100.0):
        agent = ActorCritic(Box(-1, 1, (4,)), Discrete(3), (16,), torch.Generator().manual_seed(0))
        obs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            dist = agent.policy(obs)
            actions = dist.sample(torch.Generator().manual_seed(2))
        columns = torch.randn(3, 64, generator=torch.Generator().manual_seed(3))
        batch = PenaltyBatch.of(Batch(obs, actions, dist.log_prob(actions), *columns), agent)
        config = PPOPenaltyConfig(epochs=20, minibatch_size=64, learning_rate=1e-2)
        optimizer = make_adam(agent.parameters(), config.learning_rate)
        distances.append(ppo_penalty.improve(agent, optimizer, batch, config, kl_coef, generator)["kl"])
    assert distances[0] > 3 * distances[1] > 9 * distances[2] > 0


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (0.0066, 0.5),  # below 0.01 / 1.5 = 0.00667: halved
        (0.0067, 1.0),
        (0.01, 1.0),
        (0.0149, 1.0),
        (0.0151, 2.0),  # above 0.01 · 1.5: doubled
        (0.0, 0.5),
    ],
)
def test_beta_adapts_as_in_the_paper(kl, expected):
    assert adapt_kl_coef(1.0, kl, PPOPenaltyConfig(kl_target=0.01)) == expected


def test_beta_in_a_run_follows_the_measured_kl():
    config = PPOPenaltyConfig(
        total_steps=20 * 256, num_envs=8, horizon=32, epochs=4, minibatch_size=64, learning_rate=3e-3
    )
    _, history = ppo_penalty.train("CartPole-v1", config, seed=0)
    kl_coef, kl = history["kl_coef"], history["kl"]
    assert kl_coef[0] == config.kl_coef
    for i in range(len(history) - 1):
        assert kl_coef[i + 1] == adapt_kl_coef(kl_coef[i], kl[i], config)
    assert len(set(kl_coef)) > 2


def test_a_batch_keeps_rows_and_policies_together():
    batch = PenaltyBatch(*(torch.arange(10.0) for _ in range(6)), old_policy=torch.arange(10.0)[:, None])
    parts = list(batch.minibatches(4, torch.Generator().manual_seed(0)))
    assert [len(part) for part in parts] == [4, 4, 2]
    for part in parts:
        assert isinstance(part, PenaltyBatch)
        assert all(torch.equal(column.flatten(), part.obs) for column in dataclasses.astuple(part))
