"""TRPO: one update equal to sb3-contrib's, the constraint kept, a rejected step undone."""

import dataclasses

import pytest
import torch
from peers import Pair

from policyopt.algorithms import trpo
from policyopt.losses import normalize
from policyopt.networks import ActorCritic
from policyopt.rollout import Collector, advantage_batch, make_envs
from policyopt.training import fit_values, flatten_parameters, make_adam


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_one_whole_update_equals_sb3_contrib(env_id, monkeypatch):
    """Same weights, same rollout, same order of the critic's minibatches: the same weights afterwards."""
    from sb3_contrib import TRPO

    config = trpo.TRPOConfig(num_envs=4, horizon=64, value_epochs=3, minibatch_size=64)
    pair = Pair(
        TRPO,
        env_id,
        num_envs=4,
        horizon=64,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        batch_size=64,
        n_critic_updates=3,
        learning_rate=config.value_learning_rate,
        cg_max_steps=config.cg_steps,
        cg_damping=config.cg_damping,
        line_search_shrinking_factor=config.line_search_shrink,
        line_search_max_iter=config.line_search_tries,
        target_kl=config.max_kl,
        policy_kwargs={"optimizer_kwargs": {"eps": 1e-5}},
    )
    pair.same_order(monkeypatch, config.value_epochs, passes_of_the_peer_before=1)
    pair.theirs.train()

    agent = pair.agent
    weights = flatten_parameters(agent.policy_parameters)
    optimizer = make_adam(agent.value_parameters, config.value_learning_rate)
    batch = advantage_batch(pair.rollout, agent, config.gamma, config.gae_lambda)
    batch = dataclasses.replace(batch, advantages=normalize(batch.advantages))
    metrics = trpo.trust_region_step(agent, weights, batch, config)
    fit_values(agent, optimizer, batch, config.value_epochs, config.minibatch_size, torch.Generator())
    assert metrics["accepted"] == 1
    # Ten steps of conjugate gradient in single precision amplify the last bits of the gradients.
    pair.assert_equal(atol=1e-4, moved_by=1e-2)


@pytest.fixture(scope="module")
def updates():
    """A short run in which steps are tried that are too long, so that the line search has work."""
    config = trpo.TRPOConfig(total_steps=20 * 512, num_envs=8, horizon=64, cg_damping=1e-4, max_kl=0.05)
    return config, trpo.train("CartPole-v1", config, seed=0)[1]


def test_the_constraint_is_kept(updates):
    config, history = updates
    assert (history["kl"] <= config.max_kl).all()
    accepted = history["accepted"] == 1
    assert accepted.sum() > 10
    assert (history["kl"][accepted] > 0).all()
    assert (history["surrogate_improvement"][accepted] > 0).all()
    assert (history["line_search_tries"] > 1).any()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_rejected_step_leaves_the_policy_as_it_was(env_id):
    envs = make_envs(env_id, 4)
    agent = ActorCritic.for_envs(envs, (16,), seed=0)
    rollout = Collector(envs, seed=0).collect(agent, 32)
    envs.close()
    weights = flatten_parameters(agent.policy_parameters)
    before = weights.detach().clone()
    batch = advantage_batch(rollout, agent, 0.99, 0.95)
    # One try, of the full step, under a bound so wide that the quadratic model is far off.
    config = trpo.TRPOConfig(max_kl=1e4, line_search_tries=1, cg_damping=1e-6)
    metrics = trpo.trust_region_step(agent, weights, batch, config)
    assert (metrics["accepted"], metrics["kl"], metrics["surrogate_improvement"]) == (0, 0, 0)
    assert torch.equal(weights, before)
    # The same batch with room to search is accepted, so it was the search that refused.
    metrics = trpo.trust_region_step(agent, weights, batch, trpo.TRPOConfig())
    assert metrics["accepted"] == 1
    assert 0 < metrics["kl"] <= 0.01
    assert not torch.equal(weights, before)


def test_advantages_of_zero_change_nothing():
    envs = make_envs("CartPole-v1", 4)
    agent = ActorCritic.for_envs(envs, (16,), seed=0)
    rollout = Collector(envs, seed=0).collect(agent, 32)
    envs.close()
    weights = flatten_parameters(agent.policy_parameters)
    before = weights.detach().clone()
    batch = advantage_batch(rollout, agent, 0.99, 0.95)
    batch = dataclasses.replace(batch, advantages=torch.zeros_like(batch.advantages))
    metrics = trpo.trust_region_step(agent, weights, batch, trpo.TRPOConfig())
    assert metrics["accepted"] == 0
    assert torch.equal(weights, before)


def test_surrogate_and_kl_of_the_old_policy():
    """At θ = θ_old the surrogate is the mean advantage and the KL is 0."""
    envs = make_envs("Pendulum-v1", 2)
    agent = ActorCritic.for_envs(envs, (16,), seed=0)
    batch = advantage_batch(Collector(envs, seed=0).collect(agent, 16), agent, 0.9, 0.95)
    envs.close()
    with torch.no_grad():
        old = agent.policy(batch.obs).rows()
        surrogate, kl = trpo.surrogate_and_kl(agent, batch, old)
    assert surrogate.item() == pytest.approx(batch.advantages.mean().item(), rel=1e-5)
    assert kl.item() == pytest.approx(0, abs=1e-7)
