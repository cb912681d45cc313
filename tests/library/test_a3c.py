"""A3C: one update against direct arithmetic, probes learned by two workers, exact budgets, errors."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import gymnasium as gym
import numpy as np
import psutil
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from policyopt.algorithms import a3c
from policyopt.envs import PROBES, ConstantProbe, DelayedProbe
from policyopt.files import Checkpoint, load_file
from policyopt.networks import ActorCritic
from policyopt.processes import Budget, WorkerError
from policyopt.rollout import Batch, Collector, make_envs
from policyopt.settings import spawn_seeds
from policyopt.training import flatten_parameters

TINY = a3c.A3CConfig(total_steps=1_200, num_workers=2, n_steps=8, hidden=(16,))
ALONE = dataclasses.replace(TINY, num_workers=1)


# --- the arithmetic ---


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
    loss, metrics = a3c.a3c_loss(agent, batch, a3c.A3CConfig(value_coef=0.5, entropy_coef=0.1))
    policy_loss = -(2 * math.log(0.75) - math.log(0.25)) / 2
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert metrics["policy_loss"].item() == pytest.approx(policy_loss)
    assert loss.item() == pytest.approx(policy_loss + 0.5 * (1 + 4) / 2 - 0.1 * entropy)


def test_shared_rmsprop_by_hand():
    """α = 3/4, ε = 1, η = 1/2, twice the gradient (4, 0); another worker moves θ in between."""
    copy = torch.nn.Parameter(torch.zeros(2))
    copy.grad = torch.tensor([4.0, 0.0])
    optimizer = a3c.SharedRMSprop(torch.tensor([1.0, 2.0]), decay=0.75, epsilon=1.0)
    optimizer.param_groups = [{"params": [copy], "lr": 0.5}]
    optimizer.step()
    assert optimizer.squares.tolist() == [4, 0]
    assert optimizer.weights.tolist() == pytest.approx([1 - 0.5 * 4 / math.sqrt(4 + 1), 2])
    optimizer.weights += 10
    optimizer.step()
    assert optimizer.squares.tolist() == [0.75 * 4 + 4, 0]
    assert optimizer.weights.tolist() == pytest.approx(
        [11 - 0.5 * 4 / math.sqrt(5) - 0.5 * 4 / math.sqrt(7 + 1), 12]
    )
    assert copy.tolist() == [0, 0]  # the worker's copy is only read


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_workers_update_equals_direct_arithmetic(env_id):
    """Two updates of one worker, worked out again: n-step returns in a loop, autograd, eqs. S2 and S3."""
    config = a3c.A3CConfig(
        total_steps=32, n_steps=16, learning_rate=0.01, learning_rate_end=0.0, entropy_coef=0.02, gamma=0.9
    )
    make_env, seed = (lambda: gym.make(env_id)), 10
    with closing(make_envs(make_env, 1)) as envs:
        agent, copy = (ActorCritic.for_envs(envs, (8,), 0) for _ in range(2))
        before = flatten_parameters(agent.parameters()).data
        shared = a3c.SharedRMSprop(before.clone(), config.rms_decay, config.rms_epsilon)
        (report,) = a3c.play(agent, make_env, config, seed, shared, Budget(config.total_steps))
        assert report[0] == 32
        collector, squares = Collector(envs, seed), torch.zeros_like(before)
        for learning_rate in (0.01, 0.005):
            rollout = collector.collect(copy, 16)
            assert rollout.valid.all()  # no episode of this seed ends so early
            target, targets = copy.value(rollout.all_obs[16]).detach(), torch.zeros(16, 1)
            for t in reversed(range(16)):
                target = rollout.rewards[t] + 0.9 * torch.where(rollout.terminated[t], 0.0, target)
                targets[t] = target
            dist, values = copy.policy(rollout.obs), copy.value(rollout.obs)
            advantages = (targets - values).detach()
            loss = -(dist.log_prob(rollout.actions) * advantages + 0.02 * dist.entropy()).mean()
            loss = loss + 0.5 * (values - targets).square().mean()
            gradients = torch.autograd.grad(loss, list(copy.parameters()))
            gradient = torch.cat([gradient.flatten() for gradient in gradients])
            gradient *= min(1.0, config.max_grad_norm / gradient.norm().item())
            squares = 0.99 * squares + 0.01 * gradient**2
            change = learning_rate * gradient / (squares + config.rms_epsilon).sqrt()
            with torch.no_grad():
                parts = change.split([p.numel() for p in copy.parameters()])
                for parameter, part in zip(copy.parameters(), parts, strict=True):
                    parameter -= part.view_as(parameter)
    assert (shared.weights - before).abs().max() > 0.01
    expected = torch.cat([parameter.detach().flatten() for parameter in copy.parameters()])
    torch.testing.assert_close(shared.weights, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(shared.squares, squares, atol=1e-7, rtol=1e-4)


# --- learning what is known ---

PROBE_CONFIG = a3c.A3CConfig(
    total_steps=2_000,
    num_workers=2,
    n_steps=8,
    learning_rate=2e-2,
    learning_rate_end=0.0,
    gamma=0.5,
    rms_epsilon=1e-3,
    hidden=(16,),
)


# Which worker comes first is chance, so the margins below are several times the spread seen over 12 seeds.
CONTINUOUS = dataclasses.replace(PROBE_CONFIG, total_steps=6_000, learning_rate=1e-2, n_steps=16)


@pytest.fixture(scope="module")
def probe_agents():
    return {
        name: a3c.train(env, CONTINUOUS if name == "continuous_action" else PROBE_CONFIG, seed=1)
        for name, env in PROBES.items()
    }


def values(agent, *observations):
    with torch.no_grad():
        return agent.value(torch.tensor(observations)[:, None])


def probs(agent, observation):
    with torch.no_grad():
        return agent.policy(torch.tensor([observation])).probs


def test_constant_probe(probe_agents):
    agent, _ = probe_agents["constant"]
    assert values(agent, 0.0).item() == pytest.approx(1.0, abs=0.1)


def test_observation_probe(probe_agents):
    agent, _ = probe_agents["observation"]
    assert values(agent, -1.0, 1.0).tolist() == pytest.approx([-1.0, 1.0], abs=0.1)


def test_delayed_probe(probe_agents):
    agent, _ = probe_agents["delayed"]
    assert values(agent, 0.0, 1.0).tolist() == pytest.approx([0.5, 1.0], abs=0.1)  # γ = 1/2


def test_action_probe(probe_agents):
    agent, history = probe_agents["action"]
    assert probs(agent, 0.0)[1] > 0.9
    assert history.last["episode_return"] > 0.7


def test_observation_action_probe(probe_agents):
    agent, _ = probe_agents["observation_action"]
    assert probs(agent, -1.0)[0] > 0.9
    assert probs(agent, 1.0)[1] > 0.9


def test_continuous_action_probe(probe_agents):
    agent, _ = probe_agents["continuous_action"]
    actions, _ = agent.predict(np.float32([[-1.0], [1.0]]))
    assert actions.squeeze().tolist() == pytest.approx([-0.5, 0.5], abs=0.25)
    with torch.no_grad():
        assert agent.policy(torch.zeros(1)).std.item() < 0.5  # it started at 1


# --- steps and the history ---


class Counted(DelayedProbe):
    """Leaves a byte in a file for each of its steps; one append is one operation, whoever else writes."""

    def __init__(self, path):
        self.path = path

    def step(self, action):
        with open(self.path, "ab", buffering=0) as file:
            file.write(b".")
        return super().step(action)


@pytest.mark.parametrize("total_steps", [1, 2, 1_501])
def test_exactly_total_steps_are_made(total_steps, tmp_path):
    """Every third row of an episode of two steps is an inserted reset, which is none."""
    path = tmp_path / "steps"
    config = dataclasses.replace(TINY, total_steps=total_steps, num_workers=3, n_steps=7)
    _, history = a3c.train(lambda: Counted(path), config)
    assert path.stat().st_size == total_steps
    assert history.last["step"] == total_steps


def test_history():
    config = dataclasses.replace(TINY, total_steps=2_500, learning_rate=1e-2, learning_rate_end=0.0)
    _, history = a3c.train("CartPole-v1", config)
    assert (np.diff(history["step"]) > 0).all()
    assert history["step"][-1] == 2_500
    assert 2 <= len(history) <= 4
    assert history["learning_rate"].tolist() == pytest.approx(1e-2 * (1 - history["step"] / 2_500))
    for name in ("episode_return", "policy_loss", "value_loss", "entropy", "grad_norm"):
        assert np.isfinite(history[name]).all(), name
    assert history["episode_return"][0] > 9


def weights_equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_one_worker_same_seed_same_numbers():
    first, again, other = (a3c.train("CartPole-v1", ALONE, seed) for seed in (3, 3, 4))
    assert first[1].rows == again[1].rows
    assert weights_equal(first[0], again[0])
    assert first[1].rows != other[1].rows


def test_global_random_state_and_threads_are_left_alone():
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    main = sys.modules["__main__"]
    agent, _ = a3c.train("CartPole-v1", TINY)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.get_num_threads() == threads
    assert sys.modules["__main__"] is main
    assert not any(parameter.is_shared() for parameter in agent.parameters())


def test_an_environment_registered_only_here():
    gym.register("OnlyHere-v0", ConstantProbe)
    try:
        _, history = a3c.train("OnlyHere-v0", TINY)
    finally:
        del gym.registry["OnlyHere-v0"]
    assert history.last["episode_return"] == 1.0


# --- errors ---


class Broken(ConstantProbe):
    """An environment that works for 200 steps."""

    steps = 0

    def __init__(self, break_down):
        self.break_down = break_down

    def reward(self, obs, action, step):
        self.steps += 1
        return self.break_down() if self.steps > 200 else 1.0


def test_an_environments_error_ends_the_run():
    with pytest.raises(ZeroDivisionError) as caught:
        a3c.train(lambda: Broken(lambda: 1 / 0), TINY)
    assert isinstance(caught.value.__cause__, WorkerError)
    assert "worker " in str(caught.value.__cause__)
    assert "in <lambda>" in str(caught.value.__cause__)


def test_a_reward_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match=r"the reward of environment 0 .* is nan"):
        a3c.train(lambda: Broken(lambda: math.nan), TINY)


def test_a_workers_death_ends_the_run():
    with pytest.raises(WorkerError, match=r"worker \d died: killed by SIGKILL"):
        a3c.train(lambda: Broken(lambda: os.kill(os.getpid(), signal.SIGKILL)), TINY)


def test_divergence_is_an_error():
    with pytest.raises(FloatingPointError, match="training has diverged"):
        a3c.train("CartPole-v1", dataclasses.replace(TINY, learning_rate=1e30, learning_rate_end=None))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("total_steps", 0, r"a whole number in \[1, inf\)"),
        ("num_workers", 0, r"a whole number in \[1, inf\)"),
        ("n_steps", 2.5, "a whole number"),
        ("learning_rate", 0.0, r"a number in \(0, inf\)"),
        ("learning_rate_end", -1.0, "or None"),
        ("gamma", 1.01, r"a number in \[0, 1\]"),
        ("value_coef", -1.0, r"a number in \[0, inf\)"),
        ("entropy_coef", float("nan"), r"a number in \[0, inf\)"),
        ("max_grad_norm", 0.0, r"a number in \(0, inf\)"),
        ("rms_decay", 1.5, r"a number in \[0, 1\]"),
        ("rms_epsilon", 0.0, r"a number in \(0, inf\)"),
        ("hidden", (64, 0), "a tuple of whole numbers"),
    ],
)
def test_settings_out_of_range_are_named(field, value, allowed):
    with pytest.raises(ValueError, match=rf"A3CConfig\.{field} is .*{allowed}"):
        a3c.A3CConfig(**{field: value})


def test_environments_it_cannot_use_are_named():
    with pytest.raises(ValueError, match="cannot make the environment 'NoSuch-v1'"):
        a3c.train("NoSuch-v1", TINY)
    lock = threading.Lock()
    with pytest.raises(ValueError, match="cannot be copied to another process"):
        a3c.train(lambda: Broken(lock), TINY)


# --- stopping and going on ---


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    file = tmp_path / "run.pt"
    config = dataclasses.replace(ALONE, total_steps=2_500)
    after, saved = Checkpoint.after, {}

    def stop_after_the_second_row(self, row, last):
        after(self, row, last)
        if row == 2:
            saved.update(load_file(file, "checkpoint")["parts"])  # the worker goes on in the meantime
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "after", stop_after_the_second_row)
    with pytest.raises(KeyboardInterrupt):
        a3c.train("CartPole-v1", config, seed=2, checkpoint=file, checkpoint_every=1)
    monkeypatch.setattr(Checkpoint, "after", after)
    played = []
    run_workers = a3c.run_workers

    def remember(work, arguments, shared):
        optimizer, steps = shared
        played.append((arguments[0][3], steps.claim(1)[0], optimizer.squares.clone()))
        steps.give_back(1)
        return run_workers(work, arguments, shared)

    monkeypatch.setattr(a3c, "run_workers", remember)
    resumed = a3c.train("CartPole-v1", config, seed=2, checkpoint=file, checkpoint_every=1)
    ((seed, steps, squares),) = played
    assert resumed[1].rows[:2] == saved["history"]["rows"]
    assert steps == saved["history"]["rows"][1]["step"]
    assert resumed[1].last["step"] == 2_500
    assert torch.equal(squares, saved["optimizer"]["squares"])
    assert seed not in spawn_seeds(spawn_seeds(2, 2)[1], 1)  # not the first episodes over again
    # Once finished, the file gives the finished run.
    monkeypatch.undo()
    again = a3c.train("CartPole-v1", config, seed=2, checkpoint=file)
    assert again[1].rows == resumed[1].rows
    assert weights_equal(again[0], resumed[0])


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    file = tmp_path / "run.pt"
    a3c.train(ConstantProbe, TINY, seed=1, checkpoint=file)
    with pytest.raises(ValueError, match="belongs to another run: its seed is 1, this run's is 2"):
        a3c.train(ConstantProbe, TINY, seed=2, checkpoint=file)


# --- as a program ---

SCRIPT = """
import gymnasium as gym
from policyopt.algorithms import a3c

class Mine(gym.Wrapper):
    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))

print("started", flush=True)
a3c.train(Mine, a3c.A3CConfig(total_steps={steps}), progress={progress})
print("finished")
"""  # without the __main__ guard, with an environment of the script's own


def test_a_script_needs_no_guard(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(steps=1_000, progress=True))
    result = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert result.stdout.split() == ["started", "finished"]
    assert "1000/1000" in result.stderr
    assert result.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="shared pages are counted on Linux only")
@pytest.mark.skipif(torch.version.cuda is not None, reason="torch with CUDA alone takes more")
def test_memory_and_an_end_by_ctrl_c(tmp_path):
    """Two workers and all their helpers take less than 500 MB together; Ctrl-C leaves none of them."""
    (tmp_path / "script.py").write_text(SCRIPT.format(steps=10**9, progress=False))
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "started\n"
        main = psutil.Process(process.pid)
        deadline = time.monotonic() + 30
        while len(main.children(recursive=True)) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        family = [main, *main.children(recursive=True)]
        assert len(family) == 5  # with the resource tracker and the fork server
        peak = 0
        for _ in range(10):
            peak = max(peak, sum(member.memory_full_info().pss for member in family))
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1
    assert peak < 500e6
