"""A2C: its loss by hand, one update equal to Stable-Baselines3's."""

import math

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from peers import Pair

from policyopt.algorithms import a2c
from policyopt.networks import ActorCritic
from policyopt.rollout import Batch, advantage_batch
from policyopt.training import flatten_parameters, gradient_step


def test_loss_by_hand():
    agent = ActorCritic(Box(-1, 1, (1,)), Discrete(2), hidden=())
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.zero_()
        agent.policy_net[0].bias.copy_(torch.tensor([math.log(3.0), 0.0]))  # π = (3/4, 1/4)
        agent.value_net[0].bias.fill_(2.0)  # V = 2
    batch = Batch(
        obs=torch.zeros(2, 1),
        actions=torch.tensor([0, 1]),
        log_probs=torch.zeros(2),  # no part of this loss
        advantages=torch.tensor([2.0, -1.0]),
        values=torch.zeros(2),
        value_targets=torch.tensor([1.0, 4.0]),
    )
    loss, metrics = a2c.a2c_loss(agent, batch, a2c.A2CConfig(value_coef=0.5, entropy_coef=0.1))
    policy_loss = -(2 * math.log(0.75) - math.log(0.25)) / 2
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert metrics["policy_loss"].item() == pytest.approx(policy_loss)
    assert loss.item() == pytest.approx(policy_loss + 0.5 * (1 + 4) / 2 - 0.1 * entropy)
    loss.backward()
    # ∂/∂logit₀ of the first part: −(2 (1 − 3/4) − 1 (0 − 3/4)) / 2 = −5/8.
    slope = math.log(3.0) * 0.75 * 0.25  # of −S, with respect to logit₀: p q log(p/q)
    assert agent.policy_net[0].bias.grad[0].item() == pytest.approx(-5 / 8 + 0.1 * slope)
    assert agent.value_net[0].bias.grad.item() == pytest.approx(0.5 * 2 * (1 - 2) / 2)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_one_update_equals_stable_baselines3(env_id, normalized):
    """Same weights, same five steps of 16 environments: the same weights afterwards, to 1e-5."""
    from stable_baselines3 import A2C

    config = a2c.A2CConfig(learning_rate=1e-3, entropy_coef=0.01, normalize_advantages=normalized)
    pair = Pair(
        A2C,
        env_id,
        config.num_envs,
        config.horizon,
        config.gamma,
        config.gae_lambda,
        learning_rate=config.learning_rate,
        ent_coef=config.entropy_coef,
        normalize_advantage=normalized,
    )
    pair.theirs.train()
    weights = flatten_parameters(pair.agent.parameters())
    optimizer = torch.optim.RMSprop([weights], config.learning_rate, alpha=config.rms_decay, eps=1e-5)
    batch = advantage_batch(pair.rollout, pair.agent, config.gamma, config.gae_lambda)
    loss, _ = a2c.a2c_loss(pair.agent, batch, config)
    gradient_step(optimizer, loss, config.max_grad_norm)
    pair.assert_equal(atol=1e-5, moved_by=5e-3)
