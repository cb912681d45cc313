"""The replay buffer: what goes in comes out, the oldest goes first, and nothing wrong gets in."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from stable_baselines3.common.buffers import ReplayBuffer as PeerBuffer

from policyopt.files import load_file, save_file
from policyopt.replay import ReplayBuffer, ReplayCollector, Transitions

POINT, PUSH = Box(-10, 10, (2,), np.float32), Box(-1, 1, (1,), np.float32)


def make_buffer(capacity=8, obs_space=POINT, action_space=PUSH, seed=0):
    return ReplayBuffer(obs_space, action_space, capacity, torch.Generator().manual_seed(seed))


def step(number):
    """Step k goes from (k, 0) to (k + 1, 0.5), is paid 10 k, and carries its number in every part."""
    obs, next_obs = np.array([number, 0.0]), np.array([number + 1, 0.5])
    return obs, np.array([number / 100]), 10.0 * number, next_obs, number % 3 == 0, number % 5 == 0


def filled(count, **how):
    buffer = make_buffer(**how)
    for number in range(count):
        buffer.add(*step(number))
    return buffer


def assert_same(batch, other):
    for mine, theirs in zip(batch, other, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


def test_shapes_and_types():
    batch = filled(8).sample(5)
    shapes = [tuple(column.shape) for column in batch]
    assert shapes == [(5, 2), (5, 1), (5,), (5, 2), (5,), (5,)]
    floats, flags = [torch.float32] * 4, [torch.bool] * 2
    assert [column.dtype for column in batch] == floats + flags


@pytest.mark.parametrize("count", [1, 5, 8, 9, 20])
def test_it_holds_the_newest(count):
    buffer = filled(count)
    assert len(buffer) == min(count, 8)
    numbers = set((buffer.columns.rewards[: len(buffer)] / 10).int().tolist())
    assert numbers == set(range(max(count - 8, 0), count))


def test_the_parts_of_a_step_stay_together():
    for obs, action, reward, next_obs, terminated, truncated in zip(*filled(20).sample(8), strict=True):
        number = int(obs[0])
        expected = step(number)
        assert (float(reward), bool(terminated), bool(truncated)) == (10 * number, *expected[4:])
        assert float(action) == pytest.approx(number / 100)
        assert next_obs.tolist() == [number + 1, 0.5]


def test_an_end_and_a_cut_are_told_apart():
    buffer = make_buffer()
    for terminated, truncated in [(True, False), (False, True), (True, True), (False, False)]:
        buffer.add([0, 0], [0], 0.0, [0, 0], terminated, truncated)
    assert buffer.columns.terminated[:4].tolist() == [True, False, True, False]
    assert buffer.columns.truncated[:4].tolist() == [False, True, True, False]


def test_every_step_is_as_likely():
    """Each of 8 steps is drawn 10,000 times on average, with a standard deviation of 94."""
    buffer = filled(8)
    drawn = torch.cat([buffer.sample(8).rewards for _ in range(10_000)]) / 10
    counts = torch.bincount(drawn.int(), minlength=8)
    assert (counts - 10_000).abs().max() < 500


def test_one_seed_one_order():
    one, other, third = filled(20), filled(20), filled(20, seed=1)
    batch = one.sample(8)
    assert_same(batch, other.sample(8))
    assert not torch.equal(batch.rewards, third.sample(8).rewards)
    torch.manual_seed(7)  # the global generator has no part in it
    assert_same(one.sample(8), other.sample(8))


def test_it_keeps_copies():
    buffer, obs = make_buffer(), np.zeros(2)
    buffer.add(obs, [0], 0.0, obs, False, False)
    obs[:] = 5
    batch = buffer.sample(1)
    assert batch.obs.tolist() == [[0, 0]]
    batch.obs[:] = 7
    assert buffer.columns.obs[0].tolist() == [0, 0]


def test_bytes_stay_bytes_and_numbers_numbers():
    buffer = make_buffer(4, Box(0, 255, (3, 3, 1), np.uint8), Discrete(3))
    buffer.add(np.full((3, 3, 1), 200, np.uint8), 2, 1.0, np.zeros((3, 3, 1), np.uint8), False, False)
    batch = buffer.sample(1)
    assert (batch.obs.dtype, int(batch.obs.max())) == (torch.uint8, 200)
    assert (batch.actions.dtype, batch.actions.tolist()) == (torch.int64, [2])
    cells = make_buffer(4, Discrete(5), Discrete(2))
    cells.add(np.int64(4), np.int64(1), 1.0, 3, True, False)
    assert (cells.sample(1).obs.tolist(), cells.sample(1).next_obs.tolist()) == ([4], [3])


def test_as_the_peer_s_buffer():
    """The same steps in the same places as Stable-Baselines3's, past the point where both are full."""
    peer, ours = PeerBuffer(16, POINT, PUSH, device="cpu"), make_buffer(16)
    rng = np.random.default_rng(0)
    for number in range(40):
        obs, next_obs = rng.normal(size=(2, 2)).astype(np.float32)
        action, done = rng.normal(size=1).astype(np.float32), number % 7 == 0
        peer.add(obs[None], next_obs[None], action[None], np.array([number]), np.array([done]), [{}])
        ours.add(obs, action, number, next_obs, done, False)
    theirs = (peer.observations, peer.actions, peer.rewards, peer.next_observations, peer.dones)
    for mine, other in zip(ours.columns, theirs, strict=False):
        np.testing.assert_array_equal(mine.numpy(), other[:, 0].astype(mine.numpy().dtype))


def test_steps_of_an_environment():
    env = gym.make("CartPole-v1")
    buffer = make_buffer(100, env.observation_space, env.action_space)
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(100):
        action = env.action_space.sample()
        next_obs, reward, terminated, truncated, _ = env.step(action)
        buffer.add(obs, action, reward, next_obs, terminated, truncated)
        obs = env.reset()[0] if terminated or truncated else next_obs
    held = buffer.columns
    follows = (held.next_obs[:-1] == held.obs[1:]).all(dim=1)
    assert torch.equal(~follows, held.terminated[:-1])  # but for resets each step begins where the last ended
    assert 3 <= held.terminated.sum() <= 10


# Files


@pytest.mark.parametrize("count", [3, 8, 21])
def test_saved_and_loaded_it_goes_on_the_same(count, tmp_path):
    """Through a file that is read without pickle (``weights_only``)."""
    buffer, path = filled(count), tmp_path / "buffer.pt"
    buffer.sample(2)
    save_file(path, {"kind": "replay", "buffer": buffer.state_dict()})
    again = make_buffer(seed=99)
    again.load_state_dict(load_file(path, "replay")["buffer"])
    for number in range(count, count + 5):
        for one in (buffer, again):
            one.add(*step(number))
        assert_same(buffer.sample(3), again.sample(3))
    assert len(buffer) == len(again)


def test_a_saved_state_does_not_change_afterwards():
    buffer = filled(8)
    state = buffer.state_dict()
    before = state["steps"]["rewards"].clone()
    buffer.add(*step(70))
    assert torch.equal(state["steps"]["rewards"], before)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"capacity": 9}, "the saved buffer keeps 8 steps, this one 9"),
        ({"obs_space": Box(-1, 1, (3,), np.float32)}, r"the saved obs have the shape \(2,\)"),
        ({"action_space": Discrete(2)}, "the saved actions have the shape"),
        ({"obs_space": Box(-1, 1, (2,), np.float64)}, "the saved obs .* torch.float32"),
    ],
)
def test_a_state_that_does_not_fit(how, words):
    state, other = filled(8).state_dict(), make_buffer(**how)
    with pytest.raises(ValueError, match=words):
        other.load_state_dict(state)
    assert len(other) == 0


# Bad input


@pytest.mark.parametrize(("held", "wanted"), [(0, 1), (3, 4), (20, 9), (5, 0)])
def test_a_batch_needs_as_many_steps(held, wanted):
    buffer = filled(held)
    with pytest.raises(ValueError, match=f"batch_size is {wanted}; the buffer holds {min(held, 8)} steps of"):
        buffer.sample(wanted)


@pytest.mark.parametrize("capacity", [0, -1, 2.5, True, "8"])
def test_a_capacity_that_cannot_be(capacity):
    with pytest.raises(ValueError, match=f"capacity is {capacity!r}"):
        make_buffer(capacity)


@pytest.mark.parametrize("which", ["obs_space", "action_space"])
def test_a_space_that_is_not_kept(which):
    with pytest.raises(ValueError, match=r"space Dict.* is not supported; .* keeps Box or Discrete"):
        make_buffer(**{which: Dict({"place": POINT})})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("rewards", float("nan"), "rewards is nan after 2 steps"),
        ("rewards", np.inf, "rewards is inf"),
        ("obs", np.array([0.0, np.nan]), "obs is .* finite"),
        ("next_obs", np.array([-np.inf, np.inf]), "next_obs is"),
        ("actions", np.array([np.nan]), "actions is"),
        ("obs", np.zeros(3), r"obs has the shape \(3,\); the buffer keeps \(2,\)"),
        ("actions", 0.5, r"actions has the shape \(\)"),
    ],
)
def test_what_is_refused_leaves_the_buffer_as_it_was(name, value, words):
    buffer = filled(2)
    before = buffer.state_dict()
    with pytest.raises(ValueError, match=words):
        buffer.add(*Transitions(*step(2))._replace(**{name: value}))
    after = buffer.state_dict()
    assert len(buffer) == 2
    assert all(torch.equal(before["steps"][part], after["steps"][part]) for part in Transitions._fields)


def test_the_newest_in_their_order():
    for count in (5, 8, 11):
        rewards = (filled(count).newest(3).rewards / 10).int().tolist()
        assert rewards == [count - 3, count - 2, count - 1]
    with pytest.raises(ValueError, match=r"count is 4; .*\b3\b"):
        filled(3).newest(4)
    with pytest.raises(ValueError, match=r"count is 0"):
        filled(3).newest(0)


# --- playing ---


class Counter(gym.Env):
    """Counts the steps of an episode, in one array that it overwrites; three end it, in every other episode
    four cut it off. The reward is the count, and the second component is drawn at the start.
    """

    observation_space, action_space = POINT, Discrete(2)

    def __init__(self):
        self.obs, self.episode = np.zeros(2, np.float32), 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.obs[:] = 0, self.np_random.uniform()
        return self.obs, {}

    def step(self, action):
        self.obs[0] += 1
        cut = self.episode % 2 == 0
        ends = self.obs[0] >= (4 if cut else 3)
        return self.obs, float(self.obs[0]), bool(ends and not cut), bool(ends and cut), {}


def make_collector(seed=0):
    return ReplayCollector(Counter(), make_buffer(32, POINT, Discrete(2)), seed)


def test_what_is_played_is_kept():
    """Two episodes: 0 → 1 → 2 → 3, the end, and 0 → 1 → 2 → 3 → 4, cut off."""
    collector = make_collector()
    with pytest.raises(ValueError, match="the buffer holds 0 steps"):
        collector.buffer.sample(1)
    assert np.isnan(collector.recent()["episode_return"])
    for number in range(7):
        assert collector.episode_over == (number in (0, 3))
        collector.step(number % 2, number % 2)
    steps = collector.buffer.newest(7)
    assert steps.obs[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert steps.next_obs[:, 0].tolist() == [1, 2, 3, 1, 2, 3, 4]
    assert steps.rewards.tolist() == [1, 2, 3, 1, 2, 3, 4]
    assert steps.terminated.tolist() == [False, False, True] + [False] * 4
    assert steps.truncated.tolist() == [False] * 6 + [True]
    assert torch.equal(steps.obs[:, 1], steps.next_obs[:, 1])
    starts = steps.obs[[0, 3], 1].tolist()
    assert starts[0] != starts[1]  # each episode has a seed of its own
    assert collector.recent() == {"episode_return": 8.0, "episode_length": 3.5}
    assert (collector.steps_taken, collector.obs[0]) == (7, 0)


@pytest.mark.parametrize("played", [0, 2, 3, 5])
def test_a_collector_goes_on_where_it_was(played, tmp_path):
    one, other = make_collector(), make_collector(seed=9)
    for number in range(played):
        one.step(number % 2, number % 2)
    save_file(tmp_path / "state", {"kind": "test", "state": one.state_dict()})
    other.env.episode = one.env.episode - 1  # it counts episodes, which its seed does not tell
    other.load_state_dict(load_file(tmp_path / "state", "test")["state"])
    for number in range(8):
        assert one.episode_over == other.episode_over
        np.testing.assert_array_equal(one.obs, other.obs)
        assert one.recent() == pytest.approx(other.recent(), nan_ok=True)
        one.step(number % 2, number % 2)
        other.step(number % 2, number % 2)
    assert_same(one.buffer.newest(8), other.buffer.newest(8))
    assert one.rng.random() == other.rng.random()
