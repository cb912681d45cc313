"""Stable-Baselines3 and sb3-contrib as algorithms of a study, at the settings of our own.

Each function takes the configuration of the algorithm of that name, so a study can run both::

    runs = {
        "PPO": ("ppo", config),
        "PPO of SB3": ("policyopt.experiments.peers:ppo", config),
    }

It needs ``policyopt[peers]``. Every setting is passed on, none is dropped; networks (tanh, policy and value
apart, orthogonal weights), optimisers and schedules are ours. What still differs:

- An environment is reset here within the step that ends an episode; in ours a reset takes a step of its own,
  which counts as one but is no sample.
- Returns come from their ``Monitor``, which rounds to six decimals.
- They seed and use the global generators of ``random``, NumPy and torch; training leaves them changed.
"""

import dataclasses
import functools
import importlib
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from policyopt.algorithms.a2c import A2CConfig
from policyopt.algorithms.ppo import PPOConfig
from policyopt.algorithms.trpo import TRPOConfig
from policyopt.evaluation import Agent
from policyopt.history import History
from policyopt.rollout import EnvSpec, make_env
from policyopt.settings import check_seed, check_settings, spawn_seeds
from policyopt.training import linear_schedule, single_thread

__all__ = ["ExampleConfig", "Schedule", "a2c", "article_example", "ppo", "settings_of", "trpo"]

EPISODES = 20  # over which episode_return is a mean, as in Collector.recent_return

# Their name for each of our settings that is passed on as it is.
NAMES = {
    "cg_damping": "cg_damping",
    "cg_steps": "cg_max_steps",
    "entropy_coef": "ent_coef",
    "epochs": "n_epochs",
    "gae_lambda": "gae_lambda",
    "gamma": "gamma",
    "horizon": "n_steps",
    "line_search_shrink": "line_search_shrinking_factor",
    "line_search_tries": "line_search_max_iter",
    "max_grad_norm": "max_grad_norm",
    "max_kl": "target_kl",
    "minibatch_size": "batch_size",
    "normalize_advantages": "normalize_advantage",
    "value_coef": "vf_coef",
    "value_epochs": "n_critic_updates",
    "value_learning_rate": "learning_rate",
}

# Their name for each of our metrics; both are means over the same steps.
PPO_METRICS = {
    "learning_rate": "train/learning_rate",
    "clip": "train/clip_range",
    "explained_variance": "train/explained_variance",
    "policy_loss": "train/policy_gradient_loss",
    "value_loss": "train/value_loss",
    "entropy": "train/entropy_loss",  # −S
    "clip_fraction": "train/clip_fraction",
    "approximate_kl_last_epoch": "train/approx_kl",  # our approximate_kl is the mean over all epochs
}
A2C_METRICS = {
    "learning_rate": "train/learning_rate",
    "explained_variance": "train/explained_variance",
    "policy_loss": "train/policy_loss",
    "value_loss": "train/value_loss",
    "entropy": "train/entropy_loss",  # −S
}
TRPO_METRICS = {
    "explained_variance": "train/explained_variance",
    "kl": "train/kl_divergence_loss",
    "accepted": "train/is_line_search_success",
    "value_loss": "train/value_loss",
}


@dataclass(frozen=True)
class ExampleConfig:
    """Settings of ``article_example``. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 50_000  # environment steps at least; the update that reaches them is made whole

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Schedule:
    """A setting that moves in a straight line, with the value at each update that it has in ours.

    Theirs ask for it after a rollout, so at update u = 0, 1, … with the share 1 − (u + 1) / U of the steps
    left, where ours take the value for u / U. Before the first rollout it is ``start``.

    Args:
        start: the value at the first update.
        end: the value that update U would have.
        updates: U, how many there are.
    """

    start: float
    end: float
    updates: int

    def __call__(self, remaining: float) -> float:
        """The value when the share ``remaining`` of the steps is left."""
        update = max(round((1 - remaining) * self.updates) - 1, 0)
        return linear_schedule(self.start, self.end, update / self.updates)


def settings_of(config: PPOConfig | A2CConfig | TRPOConfig) -> dict[str, dict[str, Any]]:
    """A configuration of ours in the words of Stable-Baselines3.

    Args:
        config: the settings.

    Returns:
        The keyword arguments of three calls, ``"make_vec_env"``, ``"model"`` (the constructor of PPO, A2C or
        TRPO) and ``"learn"``.

    Raises:
        ValueError: names a field, and its value, that theirs have no counterpart of or do not take.
    """
    name = type(config).__name__
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    take = fields.pop
    num_envs, steps_per_update = take("num_envs"), config.num_envs * config.horizon
    updates = take("total_steps") // steps_per_update
    fewest = {"num_envs times horizon": steps_per_update}
    if "epochs" in fields:  # TRPO's minibatches are those of the value function, which has no advantages
        fewest["minibatch_size"] = fields["minibatch_size"]
    for what, samples in fewest.items():
        if samples == 1 and fields["normalize_advantages"]:
            raise ValueError(f"{name}: {what} is 1; theirs normalize the advantages of at least 2 samples")

    model = {theirs: take(ours) for ours, theirs in NAMES.items() if ours in fields}
    for ours, theirs in {"learning_rate": "learning_rate", "clip": "clip_range"}.items():
        if ours in fields:
            start, end = take(ours), take(f"{ours}_end")
            model[theirs] = start if end is None else Schedule(start, end, updates)
    if "target_kl" in fields:
        target_kl = take("target_kl")
        model["target_kl"] = None if target_kl is None else target_kl / 1.5  # they stop at 1.5 times theirs
    if "rms_decay" in fields:
        optimizer = torch.optim.RMSprop
        optimizer_settings = {"alpha": take("rms_decay"), "eps": 1e-5, "weight_decay": 0}
    else:
        optimizer, optimizer_settings = torch.optim.Adam, {"eps": 1e-5}
    hidden = list(take("hidden"))
    model["policy_kwargs"] = {
        "net_arch": {"pi": hidden, "vf": hidden},
        "activation_fn": torch.nn.Tanh,
        "ortho_init": True,
        "optimizer_class": optimizer,
        "optimizer_kwargs": optimizer_settings,
    }
    for ours, value in fields.items():
        if value is not None and value is not False:
            raise ValueError(f"{name}.{ours} is {value!r}; theirs have no such setting: only None or False")
    return {
        "make_vec_env": {"n_envs": num_envs},
        "model": model,
        "learn": {"total_timesteps": updates * steps_per_update},
    }


def ppo(env_id: EnvSpec, config: PPOConfig = PPOConfig(), seed: int = 0) -> tuple[Agent, History]:
    """Train with Stable-Baselines3's PPO, at the settings of ours.

    Both libraries' clipped objectives, value losses and updates are the same. Of the KL divergence theirs
    keep only the mean over the last epoch: ``approximate_kl_last_epoch``.

    Args:
        env_id: a Gymnasium id, or a callable that makes an environment.
        config: the settings of our own.
        seed: everything random follows from it.

    Returns:
        Their model, which ``evaluate`` takes, and the history, a row for each update.

    Raises:
        ValueError: a setting they do not take, or no such environment.
        ImportError: Stable-Baselines3 is not installed.
    """
    return _train("stable_baselines3", "PPO", PPOConfig, PPO_METRICS, env_id, config, seed)


def a2c(env_id: EnvSpec, config: A2CConfig = A2CConfig(), seed: int = 0) -> tuple[Agent, History]:
    """Train with Stable-Baselines3's A2C, at the settings of ours; both use torch's RMSprop, ε = 1e-5.

    Arguments, results and errors are those of ``ppo``.
    """
    return _train("stable_baselines3", "A2C", A2CConfig, A2C_METRICS, env_id, config, seed)


def trpo(env_id: EnvSpec, config: TRPOConfig = TRPOConfig(), seed: int = 0) -> tuple[Agent, History]:
    """Train with sb3-contrib's TRPO, at the settings of ours.

    Arguments, results and errors are those of ``ppo``.
    """
    return _train("sb3_contrib", "TRPO", TRPOConfig, TRPO_METRICS, env_id, config, seed)


def article_example(
    env_id: EnvSpec = "CartPole-v1", config: ExampleConfig = ExampleConfig(), seed: int = 0
) -> tuple[Agent, History]:
    """Train as the article's closing example does: Stable-Baselines3's PPO with its defaults, one
    environment, updates of 2,048 steps.

    Arguments, results and errors are those of ``ppo``.
    """
    _check_type(config, ExampleConfig)
    peer = _find("stable_baselines3", "PPO")
    with closing(make_env(env_id)) as env, single_thread():
        model = peer("MlpPolicy", env, seed=check_seed(seed), device="cpu", stats_window_size=EPISODES)
        return model, _learn(model, config.total_steps, PPO_METRICS)


def _train(
    module: str,
    name: str,
    config_type: type,
    metrics: Mapping[str, str],
    env_id: EnvSpec,
    config: PPOConfig | A2CConfig | TRPOConfig,
    seed: int,
) -> tuple[Agent, History]:
    _check_type(config, config_type)
    settings = settings_of(config)
    (seed,) = spawn_seeds(seed, 1)  # for theirs, too, give environment n the seed plus n
    peer = _find(module, name)
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env(functools.partial(make_env, env_id), seed=seed, **settings["make_vec_env"])
    with closing(envs), single_thread():
        with warnings.catch_warnings():  # a smaller last minibatch is what ours has, too
            warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
            model = peer(
                "MlpPolicy",
                envs,
                seed=seed,
                device="cpu",
                stats_window_size=EPISODES,
                **settings["model"],
            )
        return model, _learn(model, settings["learn"]["total_timesteps"], metrics)


def _learn(model: Any, total_timesteps: int, metrics: Mapping[str, str]) -> History:
    """Train a model; a row after each update, nothing printed and no file written."""
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Logger

    history = History()

    class Rows(BaseCallback):
        """They call it before a rollout and at the end, not after an update: that is the same moment."""

        def _on_rollout_start(self) -> None:
            if model.num_timesteps > 0:
                self._on_training_end()

        def _on_step(self) -> bool:
            return True

        def _on_training_end(self) -> None:
            returns = [episode["r"] for episode in model.ep_info_buffer]
            logged = dict(model.logger.name_to_value)  # theirs gives 0 for a name it does not have
            row = {ours: logged[theirs] for ours, theirs in metrics.items()}
            if "entropy" in row:
                row["entropy"] = -row["entropy"]
            history.log(
                step=model.num_timesteps,
                episode_return=float(np.mean(returns)) if returns else float("nan"),
                **row,
            )

    model.set_logger(Logger(folder=None, output_formats=[]))
    model.learn(total_timesteps, callback=Rows(), log_interval=None)  # None: nothing is cleared before a row
    return history


def _check_type(config: Any, wanted: type) -> None:
    if not isinstance(config, wanted):
        raise ValueError(f"config is {config!r}; it must be of type {wanted.__name__}")


def _find(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ImportError(
            f"{name} of {module} cannot be imported ({error}): pip install 'policyopt[peers]'"
        ) from error
