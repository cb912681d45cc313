"""Checks of what a user chooses: the settings of an algorithm, and the seed."""

import dataclasses
import math
import numbers
from typing import Any

import numpy as np

__all__ = [
    "SETTINGS",
    "check_fields",
    "check_seed",
    "check_settings",
    "spawn_seeds",
]


def check_fields(config: Any, **allowed: tuple) -> None:
    """Check the fields of a configuration, each against its range.

    Args:
        config: a dataclass instance.
        allowed: for each field name ``(type, low, high)`` with ``type`` int, float or bool and inclusive
            bounds; add the string ``"open"`` for a lower bound that is itself not allowed, or
            ``"optional"`` to allow None. For a choice among names ``(str, *names)``.

    Raises:
        ValueError: names the first field that is wrong, its value, and what is allowed.
    """
    for name, (kind, *rest) in allowed.items():
        value = getattr(config, name)
        if kind is bool:
            ok, wanted = isinstance(value, bool), "True or False"
        elif kind is str:
            ok, wanted = value in rest, f"one of {', '.join(map(repr, rest))}"
        else:
            low, high, *flags = rest
            abstract = numbers.Integral if kind is int else numbers.Real
            ok = isinstance(value, abstract) and not isinstance(value, bool) and math.isfinite(value)
            ok = ok and (low < value if "open" in flags else low <= value) and value <= high
            ok = ok or ("optional" in flags and value is None)
            noun = "a whole number" if kind is int else "a number"
            bracket = "(" if "open" in flags else "["
            wanted = f"{noun} in {bracket}{low}, {high}{')' if high == math.inf else ']'}"
            wanted += " or None" if "optional" in flags else ""
        if not ok:
            raise ValueError(f"{type(config).__name__}.{name} is {value!r}; it must be {wanted}")


INF = math.inf
POSITIVE, NOT_NEGATIVE, SHARE = (float, 0, INF, "open"), (float, 0, INF), (float, 0, 1)
COUNT = (int, 1, INF)
END = (float, 0, INF, "optional")

# What a setting may be, by its name: a name means the same in every algorithm.

SETTINGS: dict[str, tuple] = {
    "actor_learning_rate": POSITIVE,
    "batch_size": COUNT,
    "buffer_size": COUNT,
    "clip_error": (bool,),
    "cg_damping": NOT_NEGATIVE,
    "cg_steps": COUNT,
    "clip": POSITIVE,
    "clip_end": (*POSITIVE, "optional"),
    "discount_steps": (bool,),
    "divide_by_std": (bool,),
    "double": (bool,),
    "entropy_coef": NOT_NEGATIVE,
    "epochs": COUNT,
    "epsilon": SHARE,
    "epsilon_end": (*SHARE, "optional"),
    "epsilon_fraction": (*SHARE, "open"),
    "evaluate_every": (*COUNT, "optional"),
    "evaluate_problems": COUNT,
    "gae_lambda": SHARE,
    "gamma": SHARE,
    "group_size": (int, 2, INF),
    "horizon": COUNT,
    "initial_temperature": POSITIVE,
    "initial_value": (float, -INF, INF),
    "kl_coef": NOT_NEGATIVE,
    "kl_coef_factor": (float, 1, INF),
    "kl_target": POSITIVE,
    "kl_tolerance": (float, 1, INF),
    "learn_temperature": (bool,),
    "learning_rate": POSITIVE,
    "learning_rate_end": END,
    "learning_starts": COUNT,
    "line_search_shrink": (*SHARE, "open"),
    "line_search_tries": COUNT,
    "log_every": COUNT,
    "log_steps": COUNT,
    "max_grad_norm": POSITIVE,
    "max_kl": POSITIVE,
    "mean_decay": SHARE,
    "micro_batch_size": (*COUNT, "optional"),
    "minibatch_size": COUNT,
    "n_steps": COUNT,
    "noise_std": NOT_NEGATIVE,
    "noise_theta": (*SHARE, "open"),
    "normalize_advantages": (bool,),
    "num_envs": COUNT,
    "num_episodes": COUNT,
    "num_groups": COUNT,
    "num_prompts": COUNT,
    "num_workers": COUNT,
    "policy_delay": COUNT,
    "reference_every": (*COUNT, "optional"),
    "replay": (bool,),
    "reward_to_go": (bool,),
    "rms_decay": SHARE,
    "rms_epsilon": POSITIVE,
    "smoothing_clip": NOT_NEGATIVE,
    "smoothing_std": NOT_NEGATIVE,
    "target_entropy": (float, -INF, INF, "optional"),
    "target_every": COUNT,
    "target_kl": (*POSITIVE, "optional"),
    "target_network": (bool,),
    "tau": (*SHARE, "open"),
    "temperature": POSITIVE,
    "total_steps": COUNT,
    "train_every": COUNT,
    "twin_critics": (bool,),
    "updates": COUNT,
    "value_clip": (*POSITIVE, "optional"),
    "value_coef": NOT_NEGATIVE,
    "value_epochs": COUNT,
    "value_learning_rate": POSITIVE,
    "warmup": (int, 0, INF),
    "weight_decay": NOT_NEGATIVE,
}


def check_settings(config: Any, **allowed: tuple) -> None:
    """Check every field of a configuration against what ``SETTINGS`` allows it to be.

    Where an update takes ``num_envs`` times ``horizon`` steps, ``total_steps`` must allow at least one. Where
    steps are replayed, the buffer must hold a batch, and so must the steps before learning starts, which in
    turn must be fewer than all.

    Args:
        config: a dataclass instance.
        allowed: ranges of fields that mean something else here, as in ``check_fields``.

    Raises:
        ValueError: names the first field that is wrong, its value, and what is allowed.
    """
    names = [field.name for field in dataclasses.fields(config)]
    check_fields(config, **{n: allowed.get(n) or SETTINGS[n] for n in names if n != "hidden"})
    if "hidden" in names:
        hidden = config.hidden
        if not isinstance(hidden, tuple) or any(
            not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in hidden
        ):
            raise ValueError(
                f"{type(config).__name__}.hidden is {hidden!r}; it must be a tuple of whole numbers ≥ 1"
            )
    if {"num_envs", "horizon"} <= set(names):
        check_fields(config, total_steps=(int, config.num_envs * config.horizon, INF))
    if {"buffer_size", "batch_size", "learning_starts"} <= set(names):
        at_least = (int, config.batch_size, INF)  # a batch
        check_fields(config, buffer_size=at_least, learning_starts=at_least)
        check_fields(config, total_steps=(int, config.learning_starts + 1, INF))


def check_seed(seed: int) -> int:
    """The seed, if it is a whole number that NumPy, torch and Gymnasium all take.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed!r}; it must be a whole number in [0, {2**31 - 1}]")
    return int(seed)


def spawn_seeds(seed: int, count: int) -> list[int]:
    """Seeds for the parts of one run (weights, environments, …) that have nothing to do with one another.

    Neither have those of neighbouring seeds. Using the seed itself everywhere would draw weights and
    actions from one stream, and give runs 0 and 1 all but one of their environments in common: Gymnasium
    seeds the copies of an environment with seed, seed + 1, seed + 2, …

    Args:
        seed: a whole number in [0, 2³¹).
        count: how many.

    Returns:
        Whole numbers in [0, 2³¹).

    Raises:
        ValueError: the seed is out of range.
    """
    return [int(state) >> 1 for state in np.random.SeedSequence(check_seed(seed)).generate_state(count)]
