"""*GAE explorer*: an advantage taken apart into TD errors, and the bias and variance that λ trades."""

import json
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import traitlets

from policyopt.widgets.base import FOLDER, Figure, figure_module
from policyopt.widgets.checks import (
    Checked,
    check_choice,
    check_integer,
    check_number,
    is_number,
    not_allowed,
    shortened,
)

PACKAGED_EPISODES = FOLDER / "gae_episodes.json"
VIEWS = ("episode", "many")
MAX_EPISODES, MAX_STEPS = 12, 60
LEARNT_WITH = 0.95  # the γ of the packaged critics

Episode = dict[str, Any]


# --- the recorded data ---


def record_episodes() -> dict[str, Any]:
    """What the figure shows, recorded afresh: the content of ``gae_episodes.json``.

    Returns:
        ``episodes``, as ``GAEExplorer`` takes them: two of CartPole, with a critic fitted to returns, and one
        of a GridWorld, with a critic learnt by TD(0). ``chain``, a corridor small enough for exact answers:
        ``transitions``, P(s'|s) under its policy, ``[S][S]``; ``first``, the same for the first action in
        ``start``, ``[S]``; ``rewards`` for the cell entered, ``[S]``; ``critics``, each with the ``errors``
        that it adds to the true values, ``[S]``; and ``episodes``, 100 strings of the cells visited.
    """
    return {"episodes": [*_cartpole_episodes(), _grid_episode()], "chain": _corridor()}


def _cartpole_features(state):
    import numpy as np

    scaled = np.tanh(state / [1.2, 1.5, 0.15, 1.5])
    return np.append(1.0, np.outer(scaled, scaled)[np.triu_indices(4)])


def _cartpole_run(seed: int, limit: int):
    """A clumsy balancer: it pushes towards the side the pole leans to, only a little more often than not."""
    import gymnasium as gym
    import numpy as np

    env, random = gym.make("CartPole-v1").unwrapped, np.random.default_rng(seed)
    state, _ = env.reset(seed=seed)
    states, rewards, terminated = [state.astype(float)], [], False
    while len(rewards) < limit and not terminated:
        lean = states[-1] @ [0.1, 0.3, 5.0, 1.0]
        state, reward, terminated, _, _ = env.step(int(random.random() < 1 / (1 + math.exp(-0.5 * lean))))
        states.append(state.astype(float))
        rewards.append(float(reward))
    return states, rewards, bool(terminated)


def _cartpole_episodes() -> list[Episode]:
    import numpy as np

    features, returns = [], []
    for seed in range(1000, 1150):
        states, rewards, terminated = _cartpole_run(seed, limit=200)
        g, backwards = 0.0 if terminated else 1 / (1 - LEARNT_WITH), []
        for reward in reversed(rewards):
            g = reward + LEARNT_WITH * g
            backwards.append(g)
        features += [_cartpole_features(state) for state in states[:-1]]
        returns += reversed(backwards)
    weights = np.linalg.lstsq(np.array(features), np.array(returns), rcond=None)[0]

    episodes = []
    for name, seed, end in (
        ("CartPole: the pole falls", 1, "the pole fell"),
        ("CartPole: cut off at a time limit", 5, "the pole still stood"),
    ):
        states, rewards, terminated = _cartpole_run(seed, limit=30)
        values = [round(float(_cartpole_features(state) @ weights), 2) for state in states]
        episodes.append(_episode(name, rewards, values, terminated, end))
    return episodes


def _grid_episode() -> Episode:
    import numpy as np

    from policyopt.envs import GridWorld

    env, random = GridWorld(slip=0.1, max_steps=None), np.random.default_rng(3)
    policy = [0.25, 0.35, 0.2, 0.2]  # up, right, down, left
    values = np.zeros(env.observation_space.n)
    kept = None
    for number in range(400):
        state, _ = env.reset(seed=3 if number == 0 else None)
        visited, rewards, terminated = [state], [], False
        while not terminated:
            next_state, reward, terminated, _, _ = env.step(int(random.choice(4, p=policy)))
            visited.append(next_state)
            rewards.append(reward)
            values[state] += 0.05 * (reward + LEARNT_WITH * values[next_state] - values[state])
            state = next_state
        if number >= 150 and kept is None and 18 <= len(rewards) <= 26 and rewards[-1] > 0:
            kept = visited, rewards
    visited, rewards = kept
    learnt = [round(float(values[state]), 3) for state in visited]
    return _episode("Grid: the goal is found", rewards, learnt, True, "the goal was entered")


def _episode(name: str, rewards: list, values: list, terminated: bool, end: str) -> Episode:
    if terminated:
        values[-1] = 0.0
    return {
        "name": name,
        "rewards": [float(reward) for reward in rewards],
        "values": values,
        "terminated": terminated,
        "end": end,
        "learnt_with": LEARNT_WITH,
    }


def _corridor() -> dict[str, Any]:
    import numpy as np

    from policyopt.envs import GridWorld

    cells, start, right, left = "X..S..G", 3, 1, 3
    env, random = GridWorld([cells], slip=0.2, max_steps=None), np.random.default_rng(0)
    policy = np.array([0, 0.65, 0, 0.35])
    episodes = []
    for number in range(100):
        state, _ = env.reset(seed=0 if number == 0 else None)
        visited, action, terminated = [state], right, False
        while not terminated:
            state, _, terminated, _, _ = env.step(action)
            visited.append(state)
            action = right if random.random() < policy[right] else left
        episodes.append("".join(map(str, visited)))
    # The further from the pit, the less these critics hope, and the other way about. At the start they are
    # right: an error there would move the estimates for all actions alike, and no expected gradient.
    side = np.array([0, 1, 1, 0, -1, -1, 0])
    sizes = {"perfect": 0.0, "a little off": 0.3, "badly off": 0.6}
    return {
        "cells": cells,
        "start": start,
        "action": "right",
        "about": "The policy goes right 65 % of the time, else left; one step in five slips and stays.",
        "transitions": np.einsum("a,sat->st", policy, env.transitions).round(6).tolist(),
        "first": env.transitions[start, right].round(6).tolist(),
        "rewards": [-1.0, *[0.0] * (len(cells) - 2), 1.0],
        "critics": [{"name": name, "errors": (size * side + 0.0).tolist()} for name, size in sizes.items()],
        "episodes": episodes,
    }


@cache
def _packaged() -> str:
    return PACKAGED_EPISODES.read_text(encoding="utf-8")


# --- what the figure accepts ---


def _numbers(where: str, name: str, values: Any) -> list[float]:
    if hasattr(values, "tolist"):  # an array or a tensor
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise not_allowed(f"{where}: {name}", values, "a list of numbers")
    for position, value in enumerate(values):
        if not is_number(value) or not math.isfinite(value):
            raise not_allowed(f"{where}: {name}[{position}]", value, "a finite number")
    return [float(value) for value in values]


def check_episodes(episodes: Any) -> list[Episode]:
    """The episodes as plain lists, if the figure can show them.

    Raises:
        ValueError: none or too many of them, or one that is not as ``GAEExplorer`` describes it.
    """
    if (
        not isinstance(episodes, Sequence)
        or isinstance(episodes, str)
        or not 1 <= len(episodes) <= MAX_EPISODES
    ):
        raise not_allowed("episodes", episodes, f"a list of 1 to {MAX_EPISODES} episodes")
    needed, optional = {"name", "rewards", "values", "terminated"}, {"end", "learnt_with"}
    checked = []
    for number, episode in enumerate(episodes):
        where = f"episodes[{number}]"
        if not isinstance(episode, dict) or not needed <= set(episode) <= needed | optional:
            got = sorted(map(str, episode)) if isinstance(episode, dict) else shortened(episode)
            raise ValueError(
                f"{where} has {got}; it must be a dictionary with name, rewards, values and terminated "
                "(and, if you like, end and learnt_with)"
            )
        for key in ("name", "end"):
            if not isinstance(episode.get(key, "…"), str) or not episode.get(key, "…").strip():
                raise not_allowed(f"{where}: {key}", episode[key], "a text")
        if not isinstance(episode["terminated"], bool):
            raise not_allowed(f"{where}: terminated", episode["terminated"], "True or False")
        rewards = _numbers(where, "rewards", episode["rewards"])
        values = _numbers(where, "values", episode["values"])
        if not 1 <= len(rewards) <= MAX_STEPS:
            raise ValueError(f"{where} has {len(rewards)} rewards; a time line shows 1 to {MAX_STEPS} steps")
        if len(values) != len(rewards) + 1:
            raise ValueError(
                f"{where} has {len(rewards)} rewards and {len(values)} values; there must be one value more, "
                "that of the state after the last step"
            )
        plain = {**episode, "rewards": rewards, "values": values}
        if "learnt_with" in episode:
            plain["learnt_with"] = check_number(f"{where}: learnt_with", episode["learnt_with"], 0, 1)
        checked.append(plain)
    return checked


def _own_or_packaged(name: str, episodes: Any) -> list[Episode]:
    return check_episodes(json.loads(_packaged())["episodes"] if episodes is None else episodes)


class GAEExplorer(Figure):
    r"""Generalised advantage estimation on recorded episodes, one step at a time and over many episodes.

    *One episode* shows rewards, values, TD errors and advantages on one time line, and for the step that the
    reader chooses the sum :math:`\hat A_t = \sum_l (\gamma\lambda)^l \delta_{t+l}`, or the same number as a
    mixture of n-step advantages. *Bias and variance* shows the estimates of one advantage from 100 episodes
    of a corridor beside the true one, for critics that are right or wrong. What the page computes is
    ``policyopt.returns.gae``, and the true advantage that of ``policyopt.tabular``. Schulman et al. (2016),
    arXiv:1506.02438, eqs. 11 to 16.

    The figure's element in the page carries ``policyopt``, an object for scripts and tests: ``state()``,
    ``set({gamma, lambda})``, ``choose(episode)``, ``select(step)``, ``show(view)`` with "episode" or "many",
    ``group(by)`` with "td" or "nstep", and ``critic(name)`` with "perfect", "a little off" or "badly off".

    Args:
        gamma: the discount γ in [0, 1].
        gae_lambda: λ in [0, 1].
        episode: which episode is shown first, counted from 0.
        view: "episode" or "many", what is shown first.
        episodes: your own, or None for the recorded ones. Each is a dictionary with ``name``; ``rewards``,
            r_0 to r_{T-1}; ``values``, V(s_0) to V(s_T), one more; and ``terminated``: true where the episode
            ended in s_T, whose value then counts as 0, false where it was cut off there. ``end`` may say in
            words what happened, and ``learnt_with`` for which γ the values were learnt.

    All may also be assigned later.

    Raises:
        ValueError: a number out of range, or an episode that does not fit together.
    """

    kind = "gae_explorer"
    title = "GAE explorer"
    summary = (
        "An episode on a time line: rewards, the critic's values, TD errors, and the advantages that GAE "
        "makes of them. Choose a step, γ and λ to see how much each later TD error counts, and how λ trades "
        "bias against variance when the critic is wrong."
    )
    _esm = figure_module(kind)

    gamma = Checked(check_number, 0, 1).tag(sync=True, page=True)
    gae_lambda = Checked(check_number, 0, 1).tag(sync=True, page=True)
    episode = traitlets.TraitType(0).tag(sync=True, page=True)
    view = Checked(check_choice, VIEWS).tag(sync=True, page=True)
    episodes = Checked(_own_or_packaged).tag(sync=True, page=True)
    chain = traitlets.Dict().tag(sync=True, page=True)

    def __init__(self, gamma=0.95, gae_lambda=0.9, episode=0, view="episode", episodes=None, **kwargs):
        episodes = _own_or_packaged("episodes", episodes)
        super().__init__(
            gamma=gamma,
            gae_lambda=gae_lambda,
            episode=self._index(episode, episodes),
            view=view,
            episodes=episodes,
            chain=json.loads(_packaged())["chain"],
            **kwargs,
        )

    @staticmethod
    def _index(episode, episodes) -> int:
        return check_integer("episode", episode, 0, len(episodes) - 1)

    @traitlets.validate("episode")
    def _validate_episode(self, proposal):
        return self._index(proposal["value"], self.episodes)

    @traitlets.observe("episodes")
    def _keep_in_range(self, change):
        if self.episode >= len(change["new"]):
            self.episode = 0

    def __repr__(self) -> str:
        return f"GAEExplorer(gamma={self.gamma:g}, gae_lambda={self.gae_lambda:g}, episode={self.episode})"
