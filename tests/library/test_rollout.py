"""The collector against a plain loop over one environment."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from policyopt.envs import GridWorld
from policyopt.networks import ActorCritic
from policyopt.rollout import Collector, EpisodeCollector, advantage_batch, make_env, make_envs


def make_agent(envs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ActorCritic(envs.single_observation_space, envs.single_action_space, (8,), generator)


class Counter(gym.Env):
    """Observation and reward count an episode's steps; every second episode is truncated."""

    observation_space, action_space = Box(-np.inf, np.inf, (2,), np.float32), Discrete(2)

    def __init__(self, lengths=(3, 5)):
        self.lengths, self.episode = lengths, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.step_number = self.episode + 1, 0
        return np.float32([self.episode, 0]), {}

    def step(self, action):
        self.step_number += 1
        end = self.step_number == self.lengths[self.episode % len(self.lengths)]
        odd = self.episode % 2 == 1
        return (
            np.float32([self.episode, self.step_number]),
            float(self.step_number),
            end and not odd,
            end and odd,
            {},
        )


def plain_loop(env, first_obs, actions):
    """What a single environment does with these actions, with resets that are no steps."""
    obs, rows = first_obs, []
    for action in actions:
        next_obs, reward, terminated, truncated, _ = env.step(action)
        rows.append((obs, next_obs, reward, terminated, truncated))
        obs = env.reset()[0] if terminated or truncated else next_obs
    return rows


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "counter"])
def test_equal_step_for_step_to_a_single_environment(env_id):
    env_id = Counter if env_id == "counter" else env_id
    # CartPole's own vectorised implementation shares one random generator, so it is comparable for N = 1; the
    # next test compares several.
    num_envs = 1 if env_id == "CartPole-v1" else 3
    horizon, rounds = 260, 2
    envs = make_envs(env_id, num_envs)
    agent = make_agent(envs)
    collector = Collector(envs, seed=7)
    rollouts = [collector.collect(agent, horizon) for _ in range(rounds)]
    joined = {
        name: torch.cat([getattr(rollout, name) for rollout in rollouts])
        for name in ("obs", "next_obs", "actions", "rewards", "terminated", "truncated", "valid")
    }
    assert not joined["valid"].all()  # episodes ended, resets were inserted
    ends = 0
    for n in range(num_envs):
        env = make_env(env_id)
        first_obs, _ = env.reset(seed=7 + n)
        valid = joined["valid"][:, n]
        sent = agent.to_env(joined["actions"][:, n][valid])
        rows = plain_loop(env, first_obs, sent)
        assert len(rows) == valid.sum() < horizon * rounds
        for column, name in enumerate(("obs", "next_obs", "rewards", "terminated", "truncated")):
            expected = np.array([row[column] for row in rows])
            np.testing.assert_allclose(joined[name][:, n][valid].numpy(), expected, rtol=1e-6, atol=1e-7)
        ends += sum(row[3] or row[4] for row in rows)
        env.close()
    assert ends == len(collector.finished_returns) > 0
    envs.close()


def test_vectorised_cartpole_equal_to_single_environments():
    envs = make_envs("CartPole-v1", 4)
    assert type(envs.unwrapped).__name__ == "CartPoleVectorEnv"
    rollout = Collector(envs, seed=3).collect(make_agent(envs), 120)
    checked = 0
    for n in range(4):
        single = gym.make("CartPole-v1")
        start = True
        for t in range(120):
            if not rollout.valid[t, n]:
                start = True
                continue
            if start:
                single.reset(seed=0)
                single.unwrapped.state = rollout.obs[t, n].numpy().astype(np.float64)
                start = False
            obs, reward, terminated, truncated, _ = single.step(int(rollout.actions[t, n]))
            # Starting from a state rounded to float32 the two drift apart slightly within an episode.
            np.testing.assert_allclose(rollout.next_obs[t, n].numpy(), obs, rtol=1e-4, atol=1e-5)
            assert (reward, terminated, truncated) == (
                rollout.rewards[t, n],
                rollout.terminated[t, n],
                rollout.truncated[t, n],
            )
            checked += 1
        single.close()
    assert checked == rollout.valid.sum() > 400
    envs.close()


def test_no_inserted_reset_reaches_a_loss():
    envs = make_envs(Counter, 2)
    agent = make_agent(envs)
    rollout = Collector(envs, seed=0).collect(agent, 20)
    # Episodes of 3 and 5 steps in turn, each followed by one inserted row: 3 + 1 + 5 + 1 + 3 + 1 + 5 + 1.
    inserted = [3, 9, 13, 19]
    assert (~rollout.valid[:, 0]).nonzero().squeeze().tolist() == inserted
    # What an inserted row holds must not matter to anything that is learned from.
    clean = advantage_batch(rollout, agent, 0.9, 0.8)
    for name in ("rewards", "log_probs"):
        getattr(rollout, name)[~rollout.valid] = 1e9
    batch = advantage_batch(rollout, agent, 0.9, 0.8)
    assert len(batch) == rollout.valid.sum() == 2 * 16
    for name in ("advantages", "value_targets", "log_probs", "obs"):
        assert torch.equal(getattr(batch, name), getattr(clean, name)), name
    # The counter's rewards 1 … n identify every step: only true ones are there.
    steps = batch.obs[:, 1].long().bincount().tolist()
    assert steps == [8, 8, 8, 4, 4]  # step 0 … 2 in all eight episodes, 3 and 4 in the four long ones


def test_the_last_observation_before_a_reset_is_kept_for_bootstrapping():
    envs = make_envs(Counter, 1)
    rollout = Collector(envs, seed=0).collect(make_agent(envs), 10)
    assert rollout.truncated[8, 0]
    assert rollout.next_obs[8, 0].tolist() == [1.0, 5.0]  # not the next episode's [2, 0]
    assert rollout.obs[10 - 1, 0].tolist() == [1.0, 5.0]
    assert not rollout.valid[9, 0]
    envs.close()


def test_returns_and_lengths_of_finished_episodes():
    envs = make_envs(Counter, 1)
    collector = Collector(envs, seed=0)
    assert np.isnan(collector.recent_return())
    collector.collect(make_agent(envs), 11)
    assert collector.finished_lengths == [3, 5]
    assert collector.finished_returns == [1 + 2 + 3, 1 + 2 + 3 + 4 + 5]
    assert collector.recent_return(episodes=1) == 15
    envs.close()


def test_log_probs_are_those_of_the_actions_taken():
    envs = make_envs("Pendulum-v1", 2)
    agent = make_agent(envs)
    rollout = Collector(envs, seed=0).collect(agent, 8)
    with torch.no_grad():
        expected = agent.policy(rollout.obs).log_prob(rollout.actions)
    torch.testing.assert_close(rollout.log_probs, expected)
    envs.close()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_loaded_collector_goes_on_to_the_bit(env_id):
    def fresh():
        return Collector(make_envs(env_id, 3), seed=5)

    unbroken, broken, resumed = fresh(), fresh(), fresh()
    agent = make_agent(unbroken.envs)
    for collector in (unbroken, broken):
        collector.collect(agent, 50)
    resumed.load_state_dict(broken.state_dict())
    expected, actual = unbroken.collect(agent, 50), resumed.collect(agent, 50)
    for name in ("all_obs", "actions", "log_probs", "rewards", "terminated", "truncated", "valid"):
        assert torch.equal(getattr(expected, name), getattr(actual, name)), name
    assert resumed.finished_returns == unbroken.finished_returns
    for collector in (unbroken, broken, resumed):
        collector.envs.close()


def test_an_environment_that_cannot_be_replayed_is_an_error():
    class Unseeded(Counter):
        def step(self, action):
            obs, *rest = super().step(action)
            obs[1] += np.random.default_rng().normal()
            return obs, *rest

    collector = Collector(make_envs(Unseeded, 1), seed=0)
    collector.collect(make_agent(collector.envs), 5)
    other = Collector(make_envs(Unseeded, 1), seed=0)
    with pytest.raises(ValueError, match="not deterministic"):
        other.load_state_dict(collector.state_dict())


@pytest.mark.parametrize(
    ("what", "bad"),
    [("reward", np.nan), ("reward", np.inf), ("observation", np.nan), ("observation", -np.inf)],
)
def test_a_number_that_is_not_finite_is_an_error(what, bad):
    class Broken(Counter):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            if self.step_number == 3:
                obs, reward = (obs, bad) if what == "reward" else (np.float32([0, bad]), reward)
            return obs, reward, *rest

    envs = make_envs(Broken, 2)
    with pytest.raises(ValueError, match=rf"the {what} of environment 0 after 6 steps is {bad}"):
        Collector(envs, seed=0).collect(make_agent(envs), 10)
    envs.close()


def test_bad_environments_are_named():
    with pytest.raises(ValueError, match=r"cannot make the environment 'NoSuch-v0'"):
        make_envs("NoSuch-v0", 2)
    with pytest.raises(ValueError, match="env_id is 3; it must be a Gymnasium id"):
        make_envs(3, 2)
    with pytest.raises(ValueError, match=r"env_id\(\) gave int; it must give a gymnasium.Env"):
        make_envs(lambda: 3, 2)
    same_step = SyncVectorEnv([Counter], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match="must be NEXT_STEP"):
        Collector(same_step, seed=0)


def test_a_collector_that_keeps_nothing_has_no_state():
    envs = make_envs("CartPole-v1", 2)
    kept, dropped = Collector(envs, seed=0), Collector(envs, seed=0, resumable=False)
    agent = make_agent(envs)
    rollouts = []
    for collector in (kept, dropped):
        collector._reset()
        rollouts.append(collector.collect(agent, 30))
        assert collector.steps_taken == 60
    assert torch.equal(rollouts[0].all_obs, rollouts[1].all_obs)
    with pytest.raises(ValueError, match="resumable=False"):
        dropped.state_dict()
    envs.close()


# --- whole episodes ---


class Lengths(gym.Env):
    """An episode lasts 1 to 6 steps, by chance; reward and observation count them; the long ones are cut off.

    Attributes:
        steps: how often all instances were asked to step while an episode lasted.
    """

    observation_space, action_space = Box(-np.inf, np.inf, (2,), np.float32), Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length, self.step_number = int(self.np_random.integers(1, 7)), 0
        return np.float32([self.length, 0]), {}

    def step(self, action):
        self.step_number += 1
        end = self.step_number == self.length
        obs = np.float32([self.length, self.step_number])
        return obs, float(self.step_number), end and self.length < 5, end and self.length >= 5, {}


def test_episodes_are_whole_and_first():
    collector = EpisodeCollector(Lengths, 50, seed=3)
    episodes = collector.collect(make_agent(collector.envs))
    lengths = episodes.obs[0, :, 0].long()  # the first observation names the length
    assert set(lengths.tolist()) == {1, 2, 3, 4, 5, 6}
    assert episodes.rewards.shape == (6, 50)
    for n, length in enumerate(lengths.tolist()):
        assert episodes.valid[:, n].tolist() == [t < length for t in range(6)]
        assert episodes.all_obs[: length + 1, n, 1].tolist() == list(range(length + 1))
        assert episodes.rewards[:length, n].tolist() == list(range(1, length + 1))
        assert episodes.terminated[length - 1, n] == (length < 5)
        assert episodes.truncated[length - 1, n] == (length >= 5)
        assert not (episodes.terminated | episodes.truncated)[: length - 1, n].any()
    assert collector.steps_taken == lengths.sum()
    assert collector.finished_returns == (lengths * (lengths + 1) / 2).tolist()
    # The next call plays other episodes.
    again = collector.collect(make_agent(collector.envs))
    assert again.obs[0, :, 0].tolist() != episodes.obs[0, :, 0].tolist()
    collector.close()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "FrozenLake-v1", Lengths])
def test_groups_share_their_start_and_nothing_else(env_id):
    collector = EpisodeCollector(env_id, 12, seed=0, group_size=4)
    episodes = collector.collect(make_agent(collector.envs))
    starts = episodes.all_obs[0].reshape(3, 4, -1)
    assert torch.equal(starts, starts[:, :1].expand_as(starts))
    if env_id != "FrozenLake-v1":  # which has one start
        assert len(starts[:, 0].unique(dim=0)) == 3
    else:  # the ice is slippery: the same actions in the same states must not bring the same luck
        agent = make_agent(collector.envs)
        agent.policy_net[-1].bias.data[1] = 100.0  # always the same action
        lakes = collector.collect(agent)
        assert len({tuple(column.tolist()) for column in lakes.all_obs.T}) > 6
    collector.close()


def test_the_dynamics_of_cartpole_go_on_from_the_shared_start():
    """Against one plain environment put into the same state and given the same actions."""
    collector = EpisodeCollector("CartPole-v1", 6, seed=1, group_size=3)
    episodes = collector.collect(make_agent(collector.envs))
    collector.close()
    env = gym.make("CartPole-v1").unwrapped
    for n in range(6):
        env.reset(seed=0)
        env.state = episodes.all_obs[0, n].double().numpy()
        env.steps_beyond_terminated = None
        for t in range(int(episodes.valid[:, n].sum())):
            obs, _, terminated, _, _ = env.step(int(episodes.actions[t, n]))
            np.testing.assert_allclose(obs, episodes.all_obs[t + 1, n], atol=1e-4)
            assert terminated == episodes.terminated[t, n]


def test_the_budget_of_steps_is_kept():
    collector = EpisodeCollector(Lengths, 4, seed=0)
    agent = make_agent(collector.envs)
    taken = sum(int(episodes.valid.sum()) for episodes in collector.until(100, agent))
    assert taken == collector.steps_taken
    assert 100 - 4 * 6 < taken <= 100
    with pytest.raises(ValueError, match="total_steps is 3; the first 4 whole episodes take more"):
        list(EpisodeCollector(Lengths, 4, seed=0).until(3, agent))
    collector.close()


def test_episodes_that_never_end_are_an_error(monkeypatch):
    monkeypatch.setattr("policyopt.rollout.MAX_EPISODE_STEPS", 50)
    collector = EpisodeCollector(lambda: GridWorld(("S#G",), max_steps=None), 2, seed=0)
    with pytest.raises(ValueError, match="an episode has not ended after 50 steps; wrap the environment in"):
        collector.collect(make_agent(collector.envs))


def test_groups_must_fill_the_environments():
    with pytest.raises(ValueError, match="group_size is 3; it must divide the 8 environments"):
        EpisodeCollector("CartPole-v1", 8, seed=0, group_size=3)
