"""Agents, checkpoints and other files: whole or absent, plain data only, errors that say what is wrong."""

import errno
import os
import pickle
import resource
import stat

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from policyopt.agents import load_agent, save_agent
from policyopt.files import load_file, save_file, space_from_dict, space_to_dict, write_whole
from policyopt.networks import ActorCritic
from policyopt.tabular import TabularAgent


@pytest.fixture
def agent():
    return ActorCritic(Box(-1, 1, (3,)), Discrete(2), (8,), torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "action_space", [Discrete(3, start=1), Box(np.float32([-2, 0]), np.float32([2, np.inf]))]
)
def test_an_agent_comes_back_as_it_was(action_space, tmp_path):
    agent = ActorCritic(Box(-1, 1, (3,)), action_space, (8, 4), torch.Generator().manual_seed(0))
    file = save_agent(tmp_path / "agent.pt", agent, environment="Some-v0", seed=3)
    loaded, about = load_agent(file)
    assert about == {"environment": "Some-v0", "seed": 3}
    obs = np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32)
    np.testing.assert_array_equal(agent.predict(obs)[0], loaded.predict(obs)[0])
    assert loaded.action_space == action_space
    assert [path.name for path in tmp_path.iterdir()] == ["agent.pt"]


def test_a_table_comes_back_as_it_was(tmp_path):
    agent = TabularAgent(Discrete(5, start=2), Discrete(3, start=1))
    agent.q.copy_(torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    loaded, about = load_agent(save_agent(tmp_path / "agent.pt", agent, environment="Some-v0"))
    assert type(loaded) is TabularAgent
    assert about == {"environment": "Some-v0"}
    assert torch.equal(loaded.q, agent.q)
    assert loaded.q.dtype == torch.float64
    assert (loaded.obs_space, loaded.action_space) == (agent.obs_space, agent.action_space)
    assert loaded.predict(np.arange(2, 7))[0].tolist() == agent.predict(np.arange(2, 7))[0].tolist()


def test_spaces_come_back_as_they_were():
    for space in (
        Discrete(4),
        Discrete(2, start=-1),
        Box(0, 255, (2, 3), np.uint8),
        Box(-np.inf, np.inf, (2,)),
    ):
        assert space_from_dict(space_to_dict(space)) == space
    with pytest.raises(ValueError, match=r"space Dict.* cannot be saved; it must be Box or Discrete"):
        space_to_dict(Dict({"a": Discrete(2)}))


def test_a_saved_file_is_readable_like_any_other(tmp_path):
    file = write_whole(tmp_path / "x", b"123")
    os.umask(mask := os.umask(0))
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


def test_a_function_may_write_the_file_itself(tmp_path):
    file = write_whole(tmp_path / "x", lambda open_file: open_file.write(b"123"))
    assert file.read_bytes() == b"123"

    def half(open_file):
        open_file.write(b"45")
        raise ValueError("something else went wrong")

    with pytest.raises(ValueError, match="something else"):
        write_whole(file, half)
    assert file.read_bytes() == b"123"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def damaged_files(agent, folder):
    good = save_agent(folder / "good.pt", agent).read_bytes()
    foreign = folder / "foreign.pt"
    torch.save({"weights": torch.zeros(3)}, foreign)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(folder / "code ran"),)

    evil = folder / "evil.pt"
    torch.save({"format": "policyopt", "format_version": 1, "kind": "agent", "x": Evil()}, evil)
    pickled = folder / "pickled.pt"
    pickled.write_bytes(pickle.dumps(Evil()))
    newer = folder / "newer.pt"
    torch.save({"format": "policyopt", "format_version": 99, "kind": "agent"}, newer)
    for name, content in {
        "empty.pt": b"",
        "half.pt": good[: len(good) // 2],
        "text.pt": b"not a checkpoint at all",
    }.items():
        (folder / name).write_bytes(content)
    return {
        "empty.pt": "damaged",
        "half.pt": "damaged",
        "text.pt": "damaged",
        "foreign.pt": "was not written by policyopt",
        "evil.pt": "damaged",
        "pickled.pt": "damaged",
        "newer.pt": "has format version 99; this policyopt reads version 1",
    }


def test_damaged_and_foreign_files_are_clear_errors_and_run_no_code(agent, tmp_path):
    for name, message in damaged_files(agent, tmp_path).items():
        with pytest.raises(ValueError, match=message) as caught:
            load_agent(tmp_path / name)
        assert name in str(caught.value)
    assert not (tmp_path / "code ran").exists()


def test_other_contents_are_clear_errors(agent, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing.pt"):
        load_agent(tmp_path / "nothing.pt")
    checkpoint = save_file(tmp_path / "run.pt", {"kind": "checkpoint"})
    with pytest.raises(ValueError, match=r"run.pt is of kind 'checkpoint'; needed is one of kind 'agent'"):
        load_agent(checkpoint)
    content = load_file(save_agent(tmp_path / "agent.pt", agent), "agent")
    content["hidden"] = [9]
    with pytest.raises(ValueError, match="holds no agent this version of policyopt can rebuild"):
        load_agent(save_file(tmp_path / "odd.pt", content))
    table = TabularAgent(Discrete(5), Discrete(3))
    content = load_file(save_agent(tmp_path / "agent.pt", table), "agent")
    content["weights"]["q"] = torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"(?s)holds no agent .*size mismatch for q"):
        load_agent(save_file(tmp_path / "odd.pt", content))


@pytest.mark.parametrize("place", ["missing/agent.pt", ".", "file/agent.pt"])
def test_places_that_cannot_be_written(agent, tmp_path, place):
    (tmp_path / "file").write_text("I am a file")
    with pytest.raises(OSError, match="cannot write"):
        save_agent(tmp_path / place, agent)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_file(agent, tmp_path, monkeypatch):
    file = save_agent(tmp_path / "agent.pt", agent)
    before = file.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*agent.pt: No space left on device"):
        save_agent(file, agent, note="new")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["agent.pt"]


@pytest.mark.parametrize("limit", [1_000, 1_000_000])  # at once, and after some of the tensors
def test_a_file_larger_than_allowed_leaves_nothing(limit, tmp_path):
    """A real failure, not a simulated one: the process may not write more than so many bytes."""
    content = {"tensors": [torch.zeros(100_000) for _ in range(5)]}
    pid = os.fork()
    if pid == 0:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            save_file(tmp_path / "file.pt", content)
        except OSError as error:
            os._exit(0 if "cannot write" in str(error) else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_agent_plays(agent, tmp_path):
    env = gym.make("CartPole-v1")
    trained = ActorCritic(env.observation_space, env.action_space, (8,), torch.Generator().manual_seed(0))
    env.close()
    loaded, _ = load_agent(save_agent(tmp_path / "a.pt", trained))
    assert loaded.predict(np.zeros(4, np.float32))[0] in (0, 1)
