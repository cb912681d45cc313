"""PPO: one update equal to Stable-Baselines3's, probes learned to their known values, exact resumption."""

import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from peers import Pair

from policyopt.agents import save_agent
from policyopt.algorithms import ppo
from policyopt.networks import ActorCritic
from policyopt.rollout import Batch, Collector, advantage_batch
from policyopt.settings import spawn_seeds
from policyopt.training import flatten_parameters, gradient_step, make_adam

PROBE_CONFIG = ppo.PPOConfig(
    total_steps=8_192,
    num_envs=8,
    horizon=32,
    epochs=4,
    minibatch_size=64,
    learning_rate=1e-2,
    learning_rate_end=0.0,
    gamma=0.5,
    hidden=(16,),
)
TINY = dataclasses.replace(PROBE_CONFIG, total_steps=1_024)


def random_batch(agent, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(size, 4, generator=generator)
    with torch.no_grad():
        dist = agent.policy(obs)
        actions = dist.sample(generator)
        log_probs = dist.log_prob(actions)
    values, advantages, targets = torch.randn(3, size, generator=generator)
    return Batch(obs, actions, log_probs, advantages, values, targets)


def cartpole_agent(hidden=(64, 64), seed=0):
    env = gym.make("CartPole-v1")
    agent = ActorCritic(env.observation_space, env.action_space, hidden, torch.Generator().manual_seed(seed))
    env.close()
    return agent


# --- the loss ---


def test_loss_by_hand():
    """Two samples whose every term can be worked out: a policy of two logits, a value of one number."""
    agent = cartpole_agent(hidden=())
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.zero_()
        agent.policy_net[0].bias.copy_(torch.tensor([math.log(3.0), 0.0]))  # π = (3/4, 1/4)
        agent.value_net[0].bias.fill_(2.0)  # V = 2
    batch = Batch(
        obs=torch.zeros(2, 4),
        actions=torch.tensor([0, 1]),
        log_probs=torch.tensor([0.5, 0.5]).log(),  # ρ = (3/2, 1/2)
        values=torch.zeros(2),
        advantages=torch.tensor([1.0, 2.0]),
        value_targets=torch.tensor([1.0, 4.0]),
    )
    config = ppo.PPOConfig(normalize_advantages=False, value_coef=0.5, entropy_coef=0.1)
    loss, metrics = ppo.ppo_loss(agent, batch, config, clip=0.2)
    policy_loss = (
        -(1.2 * 1 + 0.5 * 2) / 2
    )  # the first is clipped, the second is not: its advantage is positive
    value_loss = (1 + 4) / 2
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert metrics["policy_loss"].item() == pytest.approx(policy_loss)
    assert metrics["value_loss"].item() == pytest.approx(value_loss)
    assert metrics["entropy"].item() == pytest.approx(entropy)
    assert metrics["clip_fraction"].item() == 1.0
    kl = ((1.5 - 1 - math.log(1.5)) + (0.5 - 1 - math.log(0.5))) / 2
    assert metrics["approximate_kl"].item() == pytest.approx(kl)
    assert loss.item() == pytest.approx(policy_loss + 0.5 * value_loss - 0.1 * entropy)


def test_loss_gradient_by_finite_differences():
    agent = cartpole_agent(hidden=(5,))
    batch = random_batch(cartpole_agent(hidden=(5,), seed=1), 32)
    batch = Batch(*(x.double() if x.is_floating_point() else x for x in vars(batch).values()))
    config = ppo.PPOConfig(entropy_coef=0.01)
    agent.double().encoder.forward = lambda obs: obs  # the encoder casts to float32, too coarse here

    loss, _ = ppo.ppo_loss(agent, batch, config, 0.2)
    loss.backward()
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in agent.parameters()]
    slope = sum((p.grad * d).sum() for p, d in zip(agent.parameters(), direction, strict=True))

    def loss_at(step):
        with torch.no_grad():
            for p, d in zip(agent.parameters(), direction, strict=True):
                p += step * d
            value = ppo.ppo_loss(agent, batch, config, 0.2)[0]
            for p, d in zip(agent.parameters(), direction, strict=True):
                p -= step * d
        return value

    difference = (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6
    torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-8)


def test_the_first_step_follows_the_policy_gradient():
    """At θ = θ_old the ratio is 1, so the surrogate's gradient is that of the mean of log π · Â."""
    agent = cartpole_agent()
    batch = random_batch(agent, 64)
    config = ppo.PPOConfig(normalize_advantages=False, value_coef=0.0)
    ppo.ppo_loss(agent, batch, config, 0.2)[0].backward()
    surrogate = [p.grad.clone() for p in agent.policy_net.parameters()]
    agent.zero_grad()
    (-(agent.policy(batch.obs).log_prob(batch.actions) * batch.advantages).mean()).backward()
    for grad, p in zip(surrogate, agent.policy_net.parameters(), strict=True):
        torch.testing.assert_close(grad, p.grad)


# --- equality with Stable-Baselines3 ---


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_one_whole_update_equals_stable_baselines3(env_id, monkeypatch):
    """Same weights, same rollout, same order of minibatches: the same weights afterwards, to 1e-5."""
    from stable_baselines3 import PPO

    config = ppo.PPOConfig(
        num_envs=4, horizon=64, epochs=3, minibatch_size=64, learning_rate=1e-3, entropy_coef=0.01
    )
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
    )
    pair.same_order(monkeypatch, config.epochs)
    pair.theirs.train()

    optimizer = make_adam(pair.agent.parameters(), config.learning_rate)
    batch = advantage_batch(pair.rollout, pair.agent, config.gamma, config.gae_lambda)
    metrics = ppo.improve(pair.agent, optimizer, batch, config, config.clip, torch.Generator())
    assert metrics["gradient_steps"] == 3 * 4 * 64 // 64
    pair.assert_equal(atol=1e-5, moved_by=5e-3)


# --- the loop ---


def test_truncation_is_not_termination():
    """Reward 1 at each step, γ = 1/2: V = 2 if episodes are only cut off every four steps, else less."""

    class Endless(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (1,))
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), 1.0, False, False, {}

    agent, _ = ppo.train(lambda: gym.wrappers.TimeLimit(Endless(), 4), PROBE_CONFIG, seed=0)
    with torch.no_grad():
        assert agent.value(torch.zeros(1)).item() == pytest.approx(2.0, abs=0.1)


def test_history_and_schedules():
    config = dataclasses.replace(TINY, learning_rate_end=0.0, clip=0.2, clip_end=0.1)
    _, history = ppo.train("CartPole-v1", config)
    assert history["step"].tolist() == [256, 512, 768, 1024]
    assert history["learning_rate"].tolist() == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])
    assert history["clip"].tolist() == pytest.approx([0.2, 0.175, 0.15, 0.125])
    needed = {"policy_loss", "value_loss", "entropy", "approximate_kl", "clip_fraction", "grad_norm"}
    assert needed <= set(history.columns)
    for name in needed:
        assert np.isfinite(history[name]).all(), name
    assert (
        history["gradient_steps"] == 16
    ).sum() >= 2  # 4 epochs × 4 minibatches, fewer when resets were left out


def test_target_kl_stops_early():
    eager = dataclasses.replace(TINY, epochs=20, learning_rate=0.03)
    _, free = ppo.train("CartPole-v1", eager)
    _, held = ppo.train("CartPole-v1", dataclasses.replace(eager, target_kl=0.01))
    assert held["gradient_steps"].mean() < 0.5 * free["gradient_steps"].mean()
    assert held["approximate_kl"].mean() < free["approximate_kl"].mean()


def test_divergence_is_an_error():
    with pytest.raises(FloatingPointError, match="training has diverged"):
        ppo.train("CartPole-v1", dataclasses.replace(TINY, learning_rate=1e30))


def test_flattened_parameters_learn_as_before():
    """Two copies of a network, one flattened: the same weights after the same steps."""
    plain, flattened = cartpole_agent(), cartpole_agent()
    weights = flatten_parameters(flattened.parameters())
    assert weights.numel() == sum(p.numel() for p in plain.parameters())
    assert weights_equal(plain, flattened)
    optimizers = [torch.optim.Adam(plain.parameters(), 1e-2), torch.optim.Adam([weights], 1e-2)]
    batch = random_batch(plain, 64)
    for _ in range(5):
        norms = []
        for agent, optimizer in zip((plain, flattened), optimizers, strict=True):
            loss, _ = ppo.ppo_loss(agent, batch, ppo.PPOConfig(entropy_coef=0.01), 0.2)
            norms.append(gradient_step(optimizer, loss, max_grad_norm=0.5))
        torch.testing.assert_close(*norms)
    for ours, expected in zip(flattened.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
        assert ours.untyped_storage().data_ptr() == weights.untyped_storage().data_ptr()
    flattened.load_state_dict(cartpole_agent(seed=1).state_dict())
    assert torch.equal(weights[:256].view(64, 4), cartpole_agent(seed=1).policy_net[0].weight)


def test_gradient_step_clips_the_norm():
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    norm = gradient_step(optimizer, (parameter * torch.tensor([3.0, 4.0])).sum(), max_grad_norm=0.5)
    assert norm.item() == pytest.approx(5.0)
    assert parameter.tolist() == pytest.approx([-0.3, -0.4], abs=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("clip", 0.0, r"a number in \(0, inf\)"),
        ("clip", float("nan"), r"a number in \(0, inf\)"),
        ("gamma", 1.01, r"a number in \[0, 1\]"),
        ("gae_lambda", -0.5, r"a number in \[0, 1\]"),
        ("learning_rate", float("inf"), r"a number in \(0, inf\)"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate_end", -1.0, "or None"),
        ("num_envs", 0, r"a whole number in \[1, inf\)"),
        ("num_envs", 2.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("minibatch_size", 0, "a whole number"),
        ("total_steps", 100, r"a whole number in \[1024, inf\)"),
        ("normalize_advantages", 1, "True or False"),
        ("target_kl", 0.0, "or None"),
        ("hidden", (64, 0), "a tuple of whole numbers"),
        ("hidden", 64, "a tuple of whole numbers"),
    ],
)
def test_settings_out_of_range_are_named(field, value, allowed):
    with pytest.raises(ValueError, match=rf"PPOConfig\.{field} is .*{allowed}"):
        ppo.PPOConfig(**{field: value})


def test_spawned_seeds_are_apart():
    seeds = [seed for run in range(100) for seed in spawn_seeds(run, 2)]
    assert len(set(seeds)) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)
    # Gymnasium counts up from a seed for each of N environments: no two runs may come near each other.
    assert min(b - a for a, b in itertools.pairwise(sorted(seeds))) > 1_000
    assert spawn_seeds(7, 2) == spawn_seeds(7, 3)[:2]


@pytest.mark.parametrize("seed", [-1, 1.5, None, 2**31])
def test_seeds_out_of_range_are_named(seed):
    with pytest.raises(ValueError, match=r"seed is .*must be a whole number"):
        ppo.train("CartPole-v1", TINY, seed)


# --- stopping and going on ---


def rows_equal(first, second):
    return first.columns == second.columns and all(
        np.array_equal(first[name], second[name], equal_nan=True) for name in first.columns
    )


def weights_equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_killed_run_gives_the_same_numbers(tmp_path):
    file = tmp_path / "run.pt"
    config = dataclasses.replace(TINY, total_steps=256 * 60)
    script = (
        "from policyopt.algorithms import ppo\n"
        f"ppo.train('CartPole-v1', ppo.{config!r}, 5, checkpoint={str(file)!r}, checkpoint_every=2)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not file.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was still running
    resumed = ppo.train("CartPole-v1", config, 5, checkpoint=file, checkpoint_every=50)
    unbroken = ppo.train("CartPole-v1", config, 5)
    assert weights_equal(unbroken[0], resumed[0])
    assert rows_equal(unbroken[1], resumed[1])


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    file = tmp_path / "run.pt"
    ppo.train("CartPole-v1", TINY, seed=1, checkpoint=file)
    content = file.read_bytes()
    with pytest.raises(ValueError, match="belongs to another run: its seed is 1, this run's is 2"):
        ppo.train("CartPole-v1", TINY, seed=2, checkpoint=file)
    other = dataclasses.replace(TINY, gamma=0.9)
    with pytest.raises(ValueError, match=r"its config.gamma is 0.5, this run's is 0.9"):
        ppo.train("CartPole-v1", other, seed=1, checkpoint=file)
    with pytest.raises(ValueError, match=r"checkpoint_every is 0"):
        ppo.train("CartPole-v1", TINY, seed=1, checkpoint=file, checkpoint_every=0)
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_damaged_checkpoint_is_refused_and_kept(content, tmp_path):
    file = tmp_path / "run.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"run.pt is not a file of policyopt, or it is damaged"):
        ppo.train("CartPole-v1", TINY, checkpoint=file)
    assert file.read_bytes() == content


def test_an_agent_is_no_checkpoint(tmp_path):
    file = save_agent(tmp_path / "agent.pt", cartpole_agent())
    with pytest.raises(ValueError, match="is of kind 'agent'; needed is one of kind 'checkpoint'"):
        ppo.train("CartPole-v1", TINY, checkpoint=file)


def test_a_place_for_checkpoints_is_checked_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(Collector, "collect", lambda *_: pytest.fail("training had begun"))
    for place in (tmp_path, tmp_path / "missing" / "run.pt"):
        with pytest.raises(OSError, match="cannot write"):
            ppo.train("CartPole-v1", TINY, checkpoint=place)


def test_environments_it_cannot_use_are_named():
    class Many(gym.Env):
        observation_space, action_space = gym.spaces.Discrete(2), gym.spaces.MultiBinary(3)

    with pytest.raises(ValueError, match=r"action space MultiBinary\(3\) is not supported; it must be"):
        ppo.train(Many, TINY)
    with pytest.raises(ValueError, match="cannot make the environment 'NoSuch-v1'"):
        ppo.train("NoSuch-v1", TINY)


# --- a real task, with a wide margin ---


def test_cartpole_is_learned():
    """The claim (ten seeds, 475) is `make bench`'s; here one seed must get far beyond the untrained 20."""
    from policyopt.evaluation import evaluate
    from policyopt.tuned import tuned_config

    agent, _ = ppo.train("CartPole-v1", tuned_config("ppo", "CartPole-v1"), seed=0)
    assert evaluate(agent, "CartPole-v1", 20).mean() > 200
