"""Small environments whose answers are known: a grid to plan in, and probes that test one link of an
algorithm each.
"""

from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

__all__ = [
    "BINS",
    "PROBES",
    "ActionProbe",
    "ConstantProbe",
    "ContinuousActionProbe",
    "DeceptiveGrid",
    "DelayedProbe",
    "DiscretizedActions",
    "GridWorld",
    "ObservationActionProbe",
    "ObservationProbe",
]

DEFAULT_LAYOUT = ("S..#", ".#.G", "...X")


class GridWorld(gym.Env):
    """A grid drawn with characters, with a full model of its dynamics.

    ``S`` start (several are chosen among evenly), ``.`` floor, ``#`` wall, ``G`` goal (reward
    ``goal_reward``, ends the episode), ``X`` pit (reward ``pit_reward``, ends the episode). Actions: 0 up,
    1 right, 2 down, 3 left. A step into a wall or off the grid stays where it is.

    Observations are cell numbers, counted along rows from the top left: ``Discrete(rows × columns)``.

    Args:
        layout: rows of equal length.
        goal_reward: for entering a goal.
        pit_reward: for entering a pit.
        step_reward: for every other step.
        slip: the probability in [0, 1] that the step goes to one of the two sides instead, half each.
        max_steps: an episode is truncated after so many steps; None never.
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.

    Attributes:
        transitions: P(s'|s, a), ``[S, A, S]``. From a goal, a pit or a wall nothing leads on: those rows
            are 0.
        rewards: r(s, a, s') for the transitions that can happen, ``[S, A, S]``.
        start_distribution: P(s_0), ``[S]``.

    Raises:
        ValueError: a layout or a number that is not allowed.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012  (Gymnasium's own convention)
    moves = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
    arrows = "↑→↓←"

    def __init__(
        self,
        layout: Sequence[str] = DEFAULT_LAYOUT,
        goal_reward: float = 1.0,
        pit_reward: float = -1.0,
        step_reward: float = 0.0,
        slip: float = 0.0,
        max_steps: int | None = 100,
        render_mode: str | None = None,
    ):
        rows = [str(row) for row in layout]
        if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
            raise ValueError(f"layout is {rows}; it must have rows of one length, at least one cell")
        unknown = sorted(set("".join(rows)) - set("S.#GX"))
        if unknown:
            raise ValueError(f"layout has the character {unknown[0]!r}; allowed are S . # G X")
        if "S" not in "".join(rows):
            raise ValueError("layout has no start; mark at least one cell with S")
        if not 0 <= slip <= 1:
            raise ValueError(f"slip is {slip!r}; it must be a probability in [0, 1]")
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps is {max_steps!r}; it must be at least 1, or None")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; it must be None, 'ansi' or 'rgb_array'")
        self.layout, self.slip, self.max_steps, self.render_mode = tuple(rows), slip, max_steps, render_mode
        self.height, self.width = len(rows), len(rows[0])
        self.cells = "".join(rows)
        self.observation_space, self.action_space = Discrete(len(self.cells)), Discrete(4)
        starts = np.array([cell == "S" for cell in self.cells], dtype=float)
        self.start_distribution = starts / starts.sum()
        self.transitions, self.rewards = self._model({"G": goal_reward, "X": pit_reward}, step_reward)
        self.state, self.steps = int(starts.argmax()), 0

    def _neighbour(self, state: int, action: int) -> int:
        row, column = divmod(state, self.width)
        row, column = row + self.moves[action][0], column + self.moves[action][1]
        inside = 0 <= row < self.height and 0 <= column < self.width
        target = row * self.width + column
        return target if inside and self.cells[target] != "#" else state

    def _model(self, end_rewards: dict[str, float], step_reward: float) -> tuple[np.ndarray, np.ndarray]:
        size = len(self.cells)
        transitions, rewards = np.zeros((size, 4, size)), np.zeros((size, 4, size))
        for state in range(size):
            if self.cells[state] in "#GX":
                continue
            for action in range(4):
                for direction, probability in (
                    (action, 1 - self.slip),
                    ((action + 1) % 4, self.slip / 2),
                    ((action - 1) % 4, self.slip / 2),
                ):
                    target = self._neighbour(state, direction)
                    transitions[state, action, target] += probability
                    rewards[state, action, target] = end_rewards.get(self.cells[target], step_reward)
        return transitions, rewards

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[int, dict]:
        """Start an episode. ``options={"state": s}`` chooses the cell."""
        super().reset(seed=seed)
        self.state = int(self.np_random.choice(len(self.cells), p=self.start_distribution))
        if options and "state" in options:
            state = options["state"]
            if not (self.observation_space.contains(state) and self.cells[state] in "S."):
                raise ValueError(f"state {state!r} is no free cell of this grid")
            self.state = int(state)
        self.steps = 0
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        """One move; the reward is for the cell entered."""
        if not self.action_space.contains(action):
            raise ValueError(f"action is {action!r}; it must be 0 (up), 1 (right), 2 (down) or 3 (left)")
        before = self.state
        self.state = int(self.np_random.choice(len(self.cells), p=self.transitions[before, action]))
        self.steps += 1
        terminated = self.cells[self.state] in "GX"
        truncated = self.max_steps is not None and self.steps >= self.max_steps and not terminated
        return self.state, float(self.rewards[before, action, self.state]), terminated, truncated, {}

    def render(self) -> str | np.ndarray | None:
        """The grid with the agent: text (agent ``A``) or an image of 32 pixels a cell, ``[H, W, 3]``
        uint8.
        """
        if self.render_mode == "ansi":
            cells = self.cells[: self.state] + "A" + self.cells[self.state + 1 :]
            return "\n".join(cells[i : i + self.width] for i in range(0, len(cells), self.width))
        if self.render_mode == "rgb_array":
            colours = {
                "S": (255, 255, 255),
                ".": (255, 255, 255),
                "#": (68, 68, 68),
                "G": (0, 158, 115),
                "X": (213, 94, 0),
            }
            image = np.array([colours[cell] for cell in self.cells], dtype=np.uint8)
            image = image.reshape(self.height, self.width, 3).repeat(32, axis=0).repeat(32, axis=1)
            row, column = divmod(self.state, self.width)
            image[row * 32 + 8 : row * 32 + 24, column * 32 + 8 : column * 32 + 24] = (0, 114, 178)
            return image
        return None


class DeceptiveGrid(GridWorld):
    """A grid that rewards giving up early: 0.3 beside the start, 1 in the far corner, ten steps away, which
    in thirty steps a random walk seldom finds. Gymnasium id ``policyopt/DeceptiveGrid-v0``.
    """

    def __init__(self, render_mode: str | None = None):
        layout = ("SX....", "......", "......", "......", "......", ".....G")
        super().__init__(layout, pit_reward=0.3, max_steps=30, render_mode=render_mode)


gym.register("policyopt/DeceptiveGrid-v0", entry_point="policyopt.envs:DeceptiveGrid")


class DiscretizedActions(gym.ActionWrapper):
    """A finite set of actions instead of a bounded Box: a grid over it, for algorithms that need one.

    With b values for each of D components there are b^D actions; the last component changes fastest.

    Args:
        env: an environment with a bounded Box of one dimension.
        bins: b, values of each component, evenly spread with both ends among them; at least 2.

    Raises:
        ValueError: another action space, or too few bins.
    """

    def __init__(self, env: gym.Env, bins: int):
        super().__init__(env)
        box = env.action_space
        if not (isinstance(box, Box) and len(box.shape) == 1 and box.is_bounded()):
            raise ValueError(
                f"action space {box} cannot be cut into bins; it must be a bounded Box of one dimension"
            )
        if bins < 2:
            raise ValueError(f"bins is {bins!r}; it must be a whole number ≥ 2")
        values = np.linspace(box.low, box.high, bins, dtype=box.dtype)  # [b, D]
        grid = np.meshgrid(*values.T, indexing="ij")
        self.points = np.stack([axis.ravel() for axis in grid], axis=-1)  # [b^D, D]
        self.action_space = Discrete(len(self.points))

    def action(self, action: int) -> np.ndarray:
        """The point of the grid with this number, ``[D]``."""
        return self.points[action]


BINS = (3, 11, 101)  # so many torques Pendulum has as policyopt/Pendulum3-v0, …


def _discretized_pendulum(bins: int, render_mode: str | None = None) -> gym.Env:
    return DiscretizedActions(gym.make("Pendulum-v1", render_mode=render_mode), bins)


for _bins in BINS:
    gym.register(
        f"policyopt/Pendulum{_bins}-v0",
        entry_point="policyopt.envs:_discretized_pendulum",
        kwargs={"bins": _bins},
    )


class _Probe(gym.Env):
    """A tiny environment with a known answer, after Andy Jones' "Debugging RL, without the agonizing pain"
    (2021).

    Observations are a Box of one number, episodes last ``length`` steps, and the reward is ``reward(obs,
    action, step)``.
    """

    length = 1
    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space: gym.Space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._step = 0
        self._obs = self.observe(0)
        return self._obs, {}

    def step(self, action) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(self.reward(float(self._obs[0]), action, self._step))
        self._step += 1
        self._obs = self.observe(self._step)
        return self._obs, reward, self._step >= self.length, False, {}

    def observe(self, step: int) -> np.ndarray:
        return np.zeros(1, np.float32)

    def reward(self, obs: float, action, step: int) -> float:
        return 1.0


class ConstantProbe(_Probe):
    """One step, reward 1 whatever happens: V = 1. Tests the value loss."""


class ObservationProbe(_Probe):
    """One step, the reward is the observation (−1 or 1): V(s) = s. Tests that the value sees the
    observation.
    """

    def observe(self, step: int) -> np.ndarray:
        return np.float32([self.np_random.choice([-1.0, 1.0])])

    def reward(self, obs: float, action, step: int) -> float:
        return obs


class DelayedProbe(_Probe):
    """Two steps, observations 0 then 1, reward 1 at the end: V(0) = γ and V(1) = 1. Tests discounting."""

    length = 2

    def observe(self, step: int) -> np.ndarray:
        return np.float32([min(step, 1)])

    def reward(self, obs: float, action, step: int) -> float:
        return float(step == 1)


class ActionProbe(_Probe):
    """One step, reward 1 for action 1 and −1 for action 0. Tests the policy's gradient."""

    def reward(self, obs: float, action, step: int) -> float:
        return 1.0 if action == 1 else -1.0


class ObservationActionProbe(ObservationProbe):
    """One step, reward 1 when the action matches the observation's sign, else −1. Tests the policy and the
    value together.
    """

    def reward(self, obs: float, action, step: int) -> float:
        return 1.0 if (action == 1) == (obs > 0) else -1.0


class ContinuousActionProbe(ObservationProbe):
    """One step, reward −(a − s/2)² for an action a in [−1, 1]: the best action is half the observation, V
    = 0 there.
    """

    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reward(self, obs: float, action, step: int) -> float:
        return -((float(action[0]) - obs / 2) ** 2)


PROBES: dict[str, Callable[[], gym.Env]] = {
    "constant": ConstantProbe,
    "observation": ObservationProbe,
    "delayed": DelayedProbe,
    "action": ActionProbe,
    "observation_action": ObservationActionProbe,
    "continuous_action": ContinuousActionProbe,
}
