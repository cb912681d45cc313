"""Peers in our harness: each setting arrives, nothing is dropped, rows mean what ours mean."""

import dataclasses
import io
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from policyopt.algorithms import a2c, ppo, trpo
from policyopt.algorithms.a2c import A2CConfig
from policyopt.algorithms.ppo import PPOConfig
from policyopt.algorithms.trpo import TRPOConfig
from policyopt.evaluation import evaluate
from policyopt.experiments import peers
from policyopt.experiments.peers import ExampleConfig, Schedule, settings_of
from policyopt.experiments.study import Study, run_cell
from policyopt.networks import ActorCritic

SIZE = {"num_envs": 4, "horizon": 32, "total_steps": 1_280}  # ten updates of 128 steps
CONFIGS = {
    "ppo": PPOConfig(**SIZE, epochs=2, minibatch_size=64),
    "a2c": A2CConfig(**SIZE),
    "trpo": TRPOConfig(**SIZE, value_epochs=2, minibatch_size=64),
}
OURS = {"ppo": ppo.train, "a2c": a2c.train, "trpo": trpo.train}
THEIRS = {"ppo": peers.ppo, "a2c": peers.a2c, "trpo": peers.trpo}

# For each field a new value, and the arguments of theirs that it changes, all of them.
COMMON = {
    "total_steps": (1_000, {"learn.total_timesteps": 896}),  # seven whole updates
    "num_envs": (8, {"make_vec_env.n_envs": 8}),
    "horizon": (64, {"model.n_steps": 64}),
    "gamma": (0.5, {"model.gamma": 0.5}),
    "gae_lambda": (0.25, {"model.gae_lambda": 0.25}),
    "hidden": ((16, 8), {"model.policy_kwargs.net_arch": {"pi": [16, 8], "vf": [16, 8]}}),
}
GRADIENT = {
    "learning_rate": (0.25, {"model.learning_rate": 0.25}),
    "value_coef": (0.25, {"model.vf_coef": 0.25}),
    "entropy_coef": (0.125, {"model.ent_coef": 0.125}),
    "max_grad_norm": (2.0, {"model.max_grad_norm": 2.0}),
}
RMSPROP = {"alpha": 0.5, "eps": 1e-5, "weight_decay": 0}
CHANGES = {
    "ppo": COMMON
    | GRADIENT
    | {
        "epochs": (3, {"model.n_epochs": 3}),
        "minibatch_size": (128, {"model.batch_size": 128}),
        "learning_rate_end": (0.0, {"model.learning_rate": Schedule(3e-4, 0.0, 10)}),
        "clip": (0.5, {"model.clip_range": 0.5}),
        "clip_end": (0.1, {"model.clip_range": Schedule(0.2, 0.1, 10)}),
        "normalize_advantages": (False, {"model.normalize_advantage": False}),
        "target_kl": (0.75, {"model.target_kl": 0.5}),
    },
    "a2c": COMMON
    | GRADIENT
    | {
        "learning_rate_end": (0.0, {"model.learning_rate": Schedule(7e-4, 0.0, 10)}),
        "rms_decay": (0.5, {"model.policy_kwargs.optimizer_kwargs": RMSPROP}),
        "normalize_advantages": (True, {"model.normalize_advantage": True}),
    },
    "trpo": COMMON
    | {
        "max_kl": (0.125, {"model.target_kl": 0.125}),
        "cg_steps": (3, {"model.cg_max_steps": 3}),
        "cg_damping": (0.25, {"model.cg_damping": 0.25}),
        "line_search_shrink": (0.5, {"model.line_search_shrinking_factor": 0.5}),
        "line_search_tries": (4, {"model.line_search_max_iter": 4}),
        "value_epochs": (3, {"model.n_critic_updates": 3}),
        "minibatch_size": (128, {"model.batch_size": 128}),
        "value_learning_rate": (0.25, {"model.learning_rate": 0.25}),
        "normalize_advantages": (False, {"model.normalize_advantage": False}),
    },
}
FIELDS = [(name, field.name) for name, config in CONFIGS.items() for field in dataclasses.fields(config)]


def flat(settings):
    """Arguments of the three calls, and those within ``policy_kwargs``, under dotted names."""
    rows = {f"{call}.{name}": value for call, part in settings.items() for name, value in part.items()}
    inner = rows.pop("model.policy_kwargs")
    return rows | {f"model.policy_kwargs.{name}": value for name, value in inner.items()}


def weights_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


# --- settings ---


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_changes_its_argument_and_no_other(name, field):
    value, expected = CHANGES[name][field]
    before = flat(settings_of(CONFIGS[name]))
    after = flat(settings_of(dataclasses.replace(CONFIGS[name], **{field: value})))
    assert after.keys() == before.keys()
    assert {key: after[key] for key in after if after[key] != before[key]} == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_arguments_reach_the_model(name):
    """All settings changed at once, with a last minibatch that is smaller than the others."""
    changed = {field: value for field, (value, _) in CHANGES[name].items()} | SIZE
    if "minibatch_size" in changed:
        changed["minibatch_size"] = 100
    config = type(CONFIGS[name])(**changed)
    settings = settings_of(config)["model"]
    model, _ = THEIRS[name]("CartPole-v1", config)
    assert type(model).__name__ == name.upper()
    assert model.n_envs == 4
    assert model.device == torch.device("cpu")
    for argument, value in settings.items():
        if argument == "clip_range":
            assert [model.clip_range(left) for left in (1, 0.9, 0.4, 0)] == pytest.approx(
                [0.5, 0.5, 0.5 - 0.4 * 5 / 10, 0.5 - 0.4 * 9 / 10]
            )
        elif argument == "learning_rate":
            ends = 0.25 if name == "trpo" else 0.25 / 10  # at the last of ten updates on the way to 0
            assert (model.lr_schedule(1), model.lr_schedule(0)) == pytest.approx((0.25, ends))
        elif argument != "policy_kwargs":
            assert getattr(model, argument) == value, argument
    optimizer = model.policy.optimizer
    assert type(optimizer) is (torch.optim.RMSprop if name == "a2c" else torch.optim.Adam)
    assert optimizer.defaults["eps"] == 1e-5
    assert optimizer.defaults.get("alpha", 0.5) == 0.5
    layers = list(model.policy.mlp_extractor.policy_net)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.Tanh] * 2
    assert getattr(model, "sub_sampling_factor", 1) == 1
    assert getattr(model, "clip_range_vf", None) is None


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("name", CONFIGS)
def test_networks_are_as_large_as_ours(name, env_id):
    config = dataclasses.replace(CONFIGS[name], hidden=(16, 8), total_steps=128)
    model, history = THEIRS[name](env_id, config)
    env = gym.make(env_id)
    ours = ActorCritic(env.observation_space, env.action_space, (16, 8))
    env.close()
    assert sorted(part.numel() for part in model.policy.parameters()) == sorted(
        part.numel() for part in ours.parameters()
    )
    assert len(history) == 1
    returns = evaluate(model, env_id, episodes=2)
    assert (returns > 0).all() if env_id == "CartPole-v1" else (returns < 0).all()


def test_schedule_by_hand():
    """Of four updates the first is asked for when 3/4 of the steps are left, and is at the start."""
    schedule = Schedule(1.0, 0.0, 4)
    assert [schedule(left) for left in (1, 0.75, 0.5, 0.25, 0)] == [1, 1, 0.75, 0.5, 0.25]


def test_target_kl_stops_where_ours_does():
    """KL k is seen before the second of two steps: a bound just above it changes nothing, one just below
    leaves the second step out.
    """
    config = PPOConfig(
        total_steps=128, num_envs=4, horizon=32, epochs=2, minibatch_size=128, learning_rate=0.01
    )

    def train(**changes):
        model, history = peers.ppo("CartPole-v1", dataclasses.replace(config, **changes))
        return weights_of(model), history["approximate_kl_last_epoch"][0]

    free, kl = train()
    assert kl > 1e-4
    assert torch.equal(train(target_kl=1.02 * kl)[0], free)
    assert torch.equal(train(target_kl=0.98 * kl)[0], train(epochs=1)[0])
    assert not torch.equal(train(epochs=1)[0], free)


# --- refusals ---


def test_a_field_they_lack_is_refused_unless_off():
    @dataclass(frozen=True)
    class Extended(PPOConfig):
        reference_every: int | None = None
        divide_by_std: bool = False

    assert settings_of(Extended()) == settings_of(PPOConfig())
    with pytest.raises(ValueError, match=r"Extended\.reference_every is 5"):
        settings_of(Extended(reference_every=5))
    with pytest.raises(ValueError, match=r"Extended\.divide_by_std is True"):
        settings_of(Extended(divide_by_std=True))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PPOConfig(minibatch_size=1), "PPOConfig: minibatch_size is 1"),
        (PPOConfig(num_envs=1, horizon=1), "PPOConfig: num_envs times horizon is 1"),
        (TRPOConfig(num_envs=1, horizon=1), "TRPOConfig: num_envs times horizon is 1"),
        (A2CConfig(num_envs=1, horizon=1, normalize_advantages=True), "A2CConfig: num_envs times horizon"),
    ],
)
def test_advantages_of_one_sample_cannot_be_normalized(config, message):
    with pytest.raises(ValueError, match=message):
        settings_of(config)


def test_one_sample_is_accepted_where_nothing_is_normalized():
    settings_of(PPOConfig(minibatch_size=1, normalize_advantages=False))
    settings_of(TRPOConfig(minibatch_size=1))  # only the value function has minibatches
    settings_of(A2CConfig(num_envs=1, horizon=1))


@pytest.mark.parametrize("name", CONFIGS)
def test_bad_arguments_are_refused(name):
    other = "a2c" if name == "ppo" else "ppo"
    with pytest.raises(ValueError, match=f"it must be of type {type(CONFIGS[name]).__name__}"):
        THEIRS[name]("CartPole-v1", CONFIGS[other])
    with pytest.raises(ValueError, match="NoSuchEnv-v0"):
        THEIRS[name]("NoSuchEnv-v0", CONFIGS[name])
    with pytest.raises(ValueError, match="seed is -1"):
        THEIRS[name]("CartPole-v1", CONFIGS[name], -1)


def test_example_refuses_bad_arguments():
    with pytest.raises(ValueError, match=r"ExampleConfig\.total_steps is 0"):
        ExampleConfig(total_steps=0)
    with pytest.raises(ValueError, match="it must be of type ExampleConfig"):
        peers.article_example("CartPole-v1", PPOConfig())
    with pytest.raises(ValueError, match="seed is -1"):
        peers.article_example(seed=-1)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_missing_peer_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib" if name == "trpo" else "stable_baselines3", None)
    with pytest.raises(ImportError, match=r"pip install 'policyopt\[peers\]'"):
        THEIRS[name]("CartPole-v1", CONFIGS[name])


def test_module_does_not_import_them():
    code = (
        "import sys; sys.modules['stable_baselines3'] = sys.modules['sb3_contrib'] = None;"
        "from policyopt.experiments import peers; print(peers.settings_of(peers.A2CConfig())['learn'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "{'total_timesteps': 500000}"


# --- histories ---


@pytest.mark.parametrize("name", CONFIGS)
def test_a_seed_fixes_everything(name):
    config = dataclasses.replace(CONFIGS[name], total_steps=512)
    model, history = THEIRS[name]("CartPole-v1", config, 3)
    np.random.seed(9)  # noqa: NPY002  what global generators hold beforehand must not matter
    torch.manual_seed(9)
    again, repeated = THEIRS[name]("CartPole-v1", config, 3)
    assert np.array_equal(history.to_frame(), repeated.to_frame(), equal_nan=True)
    assert torch.equal(weights_of(model), weights_of(again))
    assert not torch.equal(weights_of(model), weights_of(THEIRS[name]("CartPole-v1", config, 4)[0]))


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_and_schedules_equal_ours(name):
    schedules = {"ppo": {"learning_rate_end": 1e-5, "clip_end": 0.05}, "a2c": {"learning_rate_end": 0.0}}
    config = dataclasses.replace(CONFIGS[name], total_steps=1_300, **schedules.get(name, {}))
    _, ours = OURS[name]("CartPole-v1", config)
    _, theirs = THEIRS[name]("CartPole-v1", config)
    assert theirs["step"].tolist() == ours["step"].tolist() == list(range(128, 1_281, 128))
    for column in {"learning_rate", "clip"} & set(ours.columns):
        assert theirs[column].tolist() == ours[column].tolist()
    assert set(theirs.columns) - set(ours.columns) <= {"approximate_kl_last_epoch"}
    assert np.isfinite(theirs.to_frame()).all().drop("episode_return").all()


def test_metrics_mean_what_ours_mean():
    """Untrained policies: the entropy of two or of one Gaussian action, a KL of 0 at the first step."""
    config = PPOConfig(total_steps=128, num_envs=4, horizon=32, epochs=1, minibatch_size=128)
    _, history = peers.ppo("CartPole-v1", config)
    assert history["entropy"][0] == pytest.approx(math.log(2), abs=1e-3)
    assert history["clip_fraction"][0] == 0
    assert history["approximate_kl_last_epoch"][0] == pytest.approx(0, abs=1e-6)
    assert history["policy_loss"][0] == pytest.approx(0, abs=1e-6)  # minus a mean of normalized advantages
    assert history["value_loss"][0] > 0
    _, history = peers.a2c("Pendulum-v1", A2CConfig(total_steps=80))
    assert history["entropy"][0] == pytest.approx(0.5 * math.log(2 * math.pi * math.e), rel=1e-6)
    _, history = peers.trpo("CartPole-v1", CONFIGS["trpo"])
    assert set(history["accepted"]) <= {0, 1}
    assert history["accepted"].sum() > 5
    assert ((history["kl"] > 0) == (history["accepted"] == 1)).all()
    assert (history["kl"] < CONFIGS["trpo"].max_kl).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_episode_return_is_the_mean_of_the_last_twenty(name):
    model, history = THEIRS[name]("CartPole-v1", CONFIGS[name])
    ended = []
    for number, env in enumerate(model.get_env().envs):
        ends = np.cumsum(env.get_episode_lengths())
        ended += zip(ends, [number] * len(ends), env.get_episode_rewards(), strict=True)
    assert len(ended) > 25
    returns = [episode_return for _, _, episode_return in sorted(ended)]
    assert history.last["episode_return"] == pytest.approx(np.mean(returns[-20:]), abs=1e-9)
    assert np.mean(returns[-20:]) != np.mean(returns)


def test_episode_return_is_nan_before_the_first_end():
    """Pendulum's episodes are 200 steps long, updates 64."""
    config = A2CConfig(total_steps=256, num_envs=1, horizon=64)
    _, history = peers.a2c("Pendulum-v1", config)
    assert np.isnan(history["episode_return"]).tolist() == [True, True, True, False]


# --- the article's example, and what is left behind ---


def test_article_example_is_the_article_s():
    from stable_baselines3 import PPO

    model, history = peers.article_example("CartPole-v1", ExampleConfig(total_steps=2_000), seed=5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    theirs = PPO("MlpPolicy", gym.make("CartPole-v1"), seed=5, device="cpu").learn(total_timesteps=2_000)
    torch.set_num_threads(threads)
    assert torch.equal(weights_of(model), weights_of(theirs))
    assert history["step"].tolist() == [2_048]
    assert history["episode_return"][0] == np.mean([row["r"] for row in list(theirs.ep_info_buffer)[-20:]])
    assert ExampleConfig().total_steps == 50_000


def test_nothing_is_left_behind(tmp_path, monkeypatch, capfd):
    """No output, no files, torch as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for name, config in CONFIGS.items():
            THEIRS[name]("CartPole-v1", dataclasses.replace(config, total_steps=256))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_study_runs_them(name):
    runs = {"theirs": (f"policyopt.experiments.peers:{name}", CONFIGS[name])}
    (cell,) = Study("peers", runs, ["CartPole-v1"], seeds=[0], eval_episodes=3).cells()
    with np.load(io.BytesIO(run_cell(cell))) as result:
        assert len(result["history.step"]) == 10
        assert len(result["returns"]) == 3
