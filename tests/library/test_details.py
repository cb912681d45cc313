"""PPO with its details switched: equal to ``ppo.train`` with none, and each switch does what it says."""

import dataclasses
import math
from contextlib import closing

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers.utils import RunningMeanStd
from torch import Generator, nn

from policyopt.algorithms import ppo
from policyopt.algorithms.ppo import PPOConfig
from policyopt.evaluation import evaluate
from policyopt.experiments import details
from policyopt.experiments.details import (
    ABLATION_RUNS,
    ABLATION_STEPS,
    DetailsConfig,
    NormalizedAgent,
    RewardScaler,
    ablation_config,
    end_at_truncation,
    initial_agent,
    ppo_with,
)
from policyopt.networks import ActorCritic
from policyopt.returns import gae
from policyopt.rollout import Batch, Rollout, make_envs
from policyopt.training import make_adam
from policyopt.tuned import tuned_config

SMALL = {"total_steps": 1_024, "num_envs": 4, "horizon": 64, "epochs": 2, "minibatch_size": 64}
TASKS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")


def weights_of(agent):
    return torch.cat([parameter.detach().flatten() for parameter in agent.parameters()])


def agent_with(env_id="CartPole-v1", seed=3, **changes):
    with closing(make_envs(env_id, 2)) as envs:
        return initial_agent(envs, DetailsConfig(**changes), seed)


def rollout_of(rewards, terminated=None, truncated=None, valid=None):
    """A rollout of one environment, or of several given in columns, about which only these things matter."""
    rewards = torch.as_tensor(rewards, dtype=torch.float32).reshape(len(rewards), -1)
    none = torch.zeros(rewards.shape, dtype=torch.bool)

    def flags(values, default):
        return default if values is None else torch.as_tensor(values, dtype=torch.bool).reshape(rewards.shape)

    zeros = torch.zeros_like(rewards)
    all_obs = torch.zeros(len(rewards) + 1, rewards.shape[1], 1)
    ends = flags(terminated, none), flags(truncated, none)
    return Rollout(all_obs, zeros, zeros, rewards, *ends, flags(valid, ~none))


# --- nothing changed ---


@pytest.mark.parametrize("env_id", TASKS)
def test_with_nothing_changed_it_is_ppo_to_the_bit(env_id):
    settings = SMALL | {"learning_rate": 3e-3, "learning_rate_end": 0.0, "clip_end": 0.1, "gamma": 0.9}
    expected, history = ppo.train(env_id, PPOConfig(**settings), seed=5)
    agent, ours = ppo_with(env_id, DetailsConfig(**settings), seed=5)
    assert torch.equal(weights_of(agent), weights_of(expected))
    assert ours.columns == history.columns
    assert np.array_equal(ours.to_frame(), history.to_frame(), equal_nan=True)
    assert not torch.equal(
        weights_of(ppo_with(env_id, DetailsConfig(**settings), seed=6)[0]), weights_of(agent)
    )


@pytest.mark.parametrize("env_id", TASKS)
def test_the_reference_is_the_tuned_configuration(env_id):
    config = ablation_config("PPO")(env_id)
    tuned = dataclasses.replace(tuned_config("ppo", env_id), total_steps=ABLATION_STEPS[env_id])
    assert {field.name: getattr(config, field.name) for field in dataclasses.fields(tuned)} == vars(tuned)
    assert all(
        getattr(config, field.name) == field.default
        for field in dataclasses.fields(DetailsConfig)
        if field.name not in vars(tuned)
    )


# --- each change ---


@pytest.mark.parametrize("label", [label for label in ABLATION_RUNS if label != "PPO"])
def test_every_run_changes_what_it_names_and_the_outcome(label):
    for env_id in TASKS:
        reference, config = vars(ablation_config("PPO")(env_id)), vars(ablation_config(label)(env_id))
        assert {name for name in config if config[name] != reference[name]} == set(ABLATION_RUNS[label])
    # Pendulum's episodes are cut off, its values start far off and its gradients are large.
    settings = SMALL | {"horizon": 128, "learning_rate": 1e-3, "learning_rate_end": 0.0}
    plain, _ = ppo_with("Pendulum-v1", DetailsConfig(**settings))
    agent, history = ppo_with("Pendulum-v1", DetailsConfig(**settings | ABLATION_RUNS[label]))
    agent = getattr(agent, "agent", agent)
    ours, theirs = weights_of(agent), weights_of(plain)
    assert ours.shape != theirs.shape or not torch.equal(ours, theirs)
    assert torch.isfinite(ours).all()
    assert history["episode_return"][-1] < -500  # the environment's own, whatever the agent is told


def test_labels_are_fourteen_and_no_change_stands_twice():
    assert len(ABLATION_RUNS) == 14
    assert len({str(sorted(changes.items())) for changes in ABLATION_RUNS.values()}) == 14
    assert ABLATION_RUNS["PPO"] == {}


def test_orthogonal_weights_have_the_gains():
    agent = agent_with(policy_gain=1.0)
    last = agent.policy_net[-1].weight
    assert torch.allclose(last @ last.T, torch.eye(2), atol=1e-5)
    first = agent.policy_net[0].weight
    assert torch.allclose(first.T @ first, 2 * torch.eye(4), atol=1e-5)
    small = agent_with().policy_net[-1].weight
    assert torch.allclose(last, 100 * small, rtol=1e-5)
    ours, theirs = agent.state_dict(), agent_with().state_dict()
    assert {name for name in ours if not torch.equal(ours[name], theirs[name])} == {"policy_net.4.weight"}


def test_torch_s_own_weights_lie_in_their_box_and_follow_from_the_seed():
    agent = agent_with(orthogonal=False)
    for layer in (*agent.policy_net, *agent.value_net):
        if isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            assert 0.7 * bound < layer.weight.abs().max() <= bound
            assert 0 < layer.bias.abs().max() <= bound
    before = torch.random.get_rng_state()
    assert torch.equal(weights_of(agent), weights_of(agent_with(orthogonal=False)))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(weights_of(agent), weights_of(agent_with(orthogonal=False, seed=4)))


def test_relu_replaces_every_tanh():
    agent, plain = agent_with(activation="relu"), agent_with()
    kinds = [type(layer) for layer in (*agent.policy_net, *agent.value_net)]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear] * 2
    assert torch.equal(weights_of(agent), weights_of(plain))


def test_a_shared_trunk_is_one_for_both_heads():
    agent, plain = agent_with(shared_trunk=True), agent_with()
    trunk = 4 * 64 + 64 + 64 * 64 + 64
    assert len(weights_of(plain)) - len(weights_of(agent)) == trunk
    agent.value(torch.ones(3, 4)).sum().backward()
    assert agent.policy_net[0].weight.grad.abs().max() > 0
    assert agent.policy_net[-1].weight.grad is None
    optimizer = make_adam(agent.parameters(), 0.1)  # parameters become views: still one trunk
    (optimizer.param_groups[0]["params"][0]).grad.fill_(1.0)
    optimizer.step()
    assert torch.equal(agent.policy_net[0].weight, agent.value_net[0].weight)


def test_adam_s_epsilon_reaches_the_optimiser(monkeypatch):
    made = []

    def keep(*arguments):
        made.append(make_adam(*arguments))
        return made[-1]

    monkeypatch.setattr(details, "make_adam", keep)
    for epsilon in (1e-5, 1e-8):
        ppo_with("CartPole-v1", DetailsConfig(**SMALL, adam_epsilon=epsilon))
    assert [optimizer.param_groups[0]["eps"] for optimizer in made] == [1e-5, 1e-8]


def test_reward_scaler_by_hand():
    """γ = 1/2, rewards 2, 4, (a reset), 6: discounted sums 2, 5, then 6, of deviation √(26/9)."""
    scale = RewardScaler(1, gamma=0.5)
    flags = {"truncated": [0, 1, 0, 0], "valid": [1, 1, 0, 1]}
    scaled = scale(rollout_of([2.0, 4.0, 0.0, 6.0], **flags)).rewards.flatten()
    deviation = math.sqrt(26 / 9)
    assert scaled.tolist() == pytest.approx([2 / deviation, 4 / deviation, 0, 6 / deviation], rel=1e-3)
    # The episode goes on: 6 / 2 + 1 = 4 is the next sum, and the deviation is that of 2, 5, 6, 4.
    scaled = scale(rollout_of([1.0])).rewards.flatten()
    assert scaled.tolist() == pytest.approx([1 / math.sqrt(2.1875)], rel=1e-3)


def test_reward_scaler_keeps_environments_apart_and_leaves_the_rollout_as_it_was():
    rollout = rollout_of([[1.0, -3.0], [1.0, -3.0]])
    scaled = RewardScaler(2, gamma=1.0)(rollout)
    deviation = np.std([1, 2, -3, -6])
    assert torch.allclose(scaled.rewards, rollout.rewards / deviation, rtol=1e-3)
    assert rollout.rewards.tolist() == [[1, -3], [1, -3]]


def test_scaled_rewards_make_returns_of_deviation_one(monkeypatch):
    """What the values are to become, for Pendulum some −50 with γ = 0.9, is then of the order of 1."""
    seen = []
    improve = details.improve

    def look(agent, optimizer, batch, *rest):
        seen.append(batch.value_targets.abs().mean().item())
        return improve(agent, optimizer, batch, *rest)

    monkeypatch.setattr(details, "improve", look)
    for scale in (False, True):
        ppo_with("Pendulum-v1", DetailsConfig(**SMALL | {"gamma": 0.9}, scale_rewards=scale))
    plain, scaled = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert min(plain) > 10
    assert max(scaled) < 10


def test_time_limit_as_the_end_by_hand():
    """Reward 1, V(s') = 10, γ = 0.9, V(s) = 0: an advantage of 10 with what is to come, of 1 without."""
    rollout = rollout_of([1.0], truncated=[1])
    ended = end_at_truncation(rollout)
    assert ended.terminated.tolist() == [[True]]
    assert ended.truncated.tolist() == [[False]]

    def advantage(rollout):
        values, next_values = torch.zeros(1, 1), torch.full((1, 1), 10.0)
        columns = (rollout.rewards, values, next_values, rollout.terminated, rollout.truncated)
        return gae(*columns, gamma=0.9, gae_lambda=0.95).item()

    assert (advantage(rollout), advantage(ended)) == (10, 1)


def test_normalised_agent_by_hand():
    class Echo:
        def predict(self, obs, deterministic=True):
            return obs if deterministic else -obs, None

    statistics = RunningMeanStd(shape=(2,))
    statistics.mean, statistics.var = np.array([1.0, 100.0]), np.array([4.0, 2_500.0])
    agent = NormalizedAgent(Echo(), statistics)
    actions, _ = agent.predict(np.array([[3.0, 0.0]], dtype=np.float32))
    assert actions.tolist() == [[1, -2]]
    assert actions.dtype == np.float32
    assert agent.predict(np.array([[3.0, 0.0]]), deterministic=False)[0].tolist() == [[-1, 2]]


def test_normalised_observations_reach_the_network_and_raw_ones_the_evaluation(monkeypatch):
    seen = []
    batches = details.advantage_batch

    def look(rollout, *rest):
        seen.append(rollout.all_obs)
        return batches(rollout, *rest)

    monkeypatch.setattr(details, "advantage_batch", look)
    agent, _ = ppo_with("Pendulum-v1", DetailsConfig(**SMALL, normalize_observations=True))
    late = seen[-1].flatten(0, 1)
    assert late.mean(dim=0).abs().max() < 1
    assert 0.5 < late[:, 2].std() < 2  # the angular velocity's is above 2 in the environment's own units
    assert (evaluate(agent, "Pendulum-v1", 2) < 0).all()
    env = gym.make("Pendulum-v1")
    obs, _ = env.reset(seed=0)
    env.close()
    direct = agent.agent.predict(((obs - agent.mean) / agent.deviation).astype(np.float32))[0]
    assert np.array_equal(agent.predict(obs)[0], direct)


def test_value_clip_takes_the_gradient_of_values_that_have_moved_enough():
    """Three states, V_old = 0, c = 0.2, targets 1: only the value that has not moved by c is pulled on."""
    agent = ActorCritic(gym.spaces.Discrete(3), gym.spaces.Discrete(2), (), Generator().manual_seed(0))
    moved = torch.tensor([0.1, 0.5, -0.5])
    with torch.no_grad():
        agent.value_net[-1].weight.copy_(moved)
    with torch.no_grad():
        log_probs = agent.policy(torch.arange(3)).log_prob(torch.zeros(3))
    zeros = torch.zeros(3)
    batch = Batch(torch.arange(3), torch.zeros(3), log_probs, zeros, zeros, torch.ones(3))
    settings = {"epochs": 1, "minibatch_size": 3, "max_grad_norm": 1e6, "normalize_advantages": False}
    config = DetailsConfig(**settings, value_clip=0.2)
    optimizer = torch.optim.SGD(agent.value_net.parameters(), lr=0.0)
    metrics = details.improve_with_value_clip(agent, optimizer, batch, config, 0.2, Generator())
    gradient = agent.value_net[-1].weight.grad.flatten()
    # c₁ · 2 (V − 1) / 3 where it counts; the value that has gone the wrong way is pulled back.
    assert gradient.tolist() == pytest.approx([-0.9 / 3, 0, -1.5 / 3])
    assert metrics["value_loss"] == pytest.approx((0.9**2 + 0.8**2 + 1.5**2) / 3)
    assert metrics["gradient_steps"] == 1


def test_a_value_clip_too_wide_to_matter_changes_next_to_nothing():
    settings = SMALL | {"learning_rate": 1e-3, "total_steps": 512}
    plain, _ = ppo_with("CartPole-v1", DetailsConfig(**settings))
    wide, history = ppo_with("CartPole-v1", DetailsConfig(**settings, value_clip=1e9))
    assert torch.allclose(weights_of(wide), weights_of(plain), atol=1e-4)
    assert set(history.columns) >= {"value_loss", "policy_loss", "grad_norm", "clip_fraction"}


# --- refusals ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy_gain": 0}, r"policy_gain is 0; it must be a number in \(0, inf\)"),
        ({"activation": "gelu"}, "activation is 'gelu'; it must be one of 'tanh', 'relu'"),
        ({"adam_epsilon": -1e-8}, "adam_epsilon is -1e-08"),
        ({"value_clip": 0}, "value_clip is 0"),
        ({"scale_rewards": 1}, "scale_rewards is 1; it must be True or False"),
        ({"gamma": 2}, "gamma is 2"),
        ({"value_clip": 0.2, "target_kl": 0.01}, "target_kl is 0.01; it must be None"),
        ({"orthogonal": False, "policy_gain": 1.0}, "policy_gain is 1.0; it must be 0.01"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DetailsConfig(**changes)


def test_unknown_labels_and_tasks_are_errors():
    with pytest.raises(KeyError):
        ablation_config("no such detail")("CartPole-v1")
    with pytest.raises(ValueError, match="NoSuchEnv-v0"):
        ppo_with("NoSuchEnv-v0", DetailsConfig(**SMALL))
