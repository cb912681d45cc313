"""Problems small enough to write every probability down: exact planning, and an agent that is a table.

S is the number of states, A of actions. State s is the observation s + ``observation_space.start``, and
actions are counted in the same way. All tensors are float64, and everything that takes a tensor takes a NumPy
array too.
"""

from dataclasses import dataclass, fields

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Generator, Tensor, nn

__all__ = [
    "TabularAgent",
    "TabularModel",
    "action_values",
    "exact_policy_gradient",
    "greedy_policy",
    "policy_evaluation",
    "state_visits",
    "tabular_model",
    "value_iteration",
]


# --- models ---


@dataclass(frozen=True)
class TabularModel:
    """A Markov decision process, complete.

    ``transitions[s, a]`` sums to 1, or to less: what is missing is the probability that the episode ends with
    this step, so that nothing follows. In a terminal state nothing follows whatever is done, and nothing is
    earned: there both ``transitions[s]`` and ``rewards[s]`` are 0.

    Raises:
        ValueError: shapes that do not fit, or numbers that are no probabilities or no rewards.
    """

    transitions: Tensor  # [S, A, S]      P(s'|s, a)
    rewards: Tensor  # [S, A]             r(s, a), expected over s'
    start_distribution: Tensor  # [S]     P(s_0)

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _float64(getattr(self, field.name)))
        transitions, rewards, start = self.transitions, self.rewards, self.start_distribution
        if rewards.ndim != 2 or transitions.shape != (*rewards.shape, len(rewards)):
            raise ValueError(
                f"transitions have shape {tuple(transitions.shape)} and rewards {tuple(rewards.shape)}; "
                "they must be [S, A, S] and [S, A]"
            )
        if not (transitions >= 0).all() or not (transitions.sum(dim=-1) <= 1 + 1e-9).all():
            raise ValueError("transitions must be probabilities: none below 0, each row's sum at most 1")
        if not rewards.isfinite().all():
            raise ValueError("rewards must be finite numbers")
        _check_distribution("start_distribution", start, (len(rewards),))


def tabular_model(env: gym.Env) -> TabularModel:
    """The model of an environment that shows it: ``GridWorld``, or FrozenLake, CliffWalking and Taxi.

    Wrappers are looked through, so a time limit is no part of the model.

    Raises:
        ValueError: the environment shows no model, or not all of it.
    """
    env = env.unwrapped
    if all(hasattr(env, name) for name in ("transitions", "rewards", "start_distribution")):
        expected = (env.transitions * env.rewards).sum(axis=-1)  # Σ_s' P(s'|s, a) r(s, a, s')
        return TabularModel(env.transitions, expected, env.start_distribution)
    if not hasattr(env, "P") or not hasattr(env, "initial_state_distrib"):
        raise ValueError(
            f"{type(env).__name__} shows no model of its dynamics; needed are the attributes transitions, "
            "rewards and start_distribution (GridWorld) or P and initial_state_distrib (Gymnasium's toy text)"
        )
    if getattr(env, "fickle_passenger", False):
        raise ValueError("a taxi with fickle_passenger=True does more than its P says; it has no such model")
    size, num_actions = len(env.P), len(env.P[0])
    transitions, rewards = np.zeros((size, num_actions, size)), np.zeros((size, num_actions))
    for state, actions in env.P.items():
        for action, outcomes in actions.items():
            for probability, next_state, reward, done in outcomes:
                rewards[state, action] += probability * reward
                if not done:
                    transitions[state, action, next_state] += probability
    return TabularModel(transitions, rewards, env.initial_state_distrib)


# --- planning ---


def action_values(model: TabularModel, values: Tensor, gamma: float) -> Tensor:
    r"""One step of looking ahead, :math:`Q(s,a) = r(s,a) + \gamma\, \mathbb{E}[V(s')]`.

    Book: eq-q-from-v. Sutton & Barto (2018), eq. 4.6.

    Args:
        model: the problem.
        values: V, ``[S]``.
        gamma: γ in [0, 1].

    Returns:
        Q, ``[S, A]``.

    Raises:
        ValueError: γ out of range.
    """
    return model.rewards + _check_gamma(gamma) * (model.transitions @ _float64(values))


def value_iteration(
    model: TabularModel, gamma: float, tolerance: float = 1e-10, max_sweeps: int = 100_000
) -> tuple[Tensor, Tensor]:
    r"""The optimal values, from :math:`V(s) \leftarrow \max_a Q(s,a)` until nothing changes any more.

    Book: eq-bellman-optimality. Sutton & Barto (2018), eqs. 3.19 and 4.10.

    Args:
        model: the problem.
        gamma: γ in [0, 1].
        tolerance: stop after a sweep that changed no value by more. Below γ = 1 no value is then further than
            tolerance · γ / (1 − γ) from the optimal one.
        max_sweeps: give up after so many.

    Returns:
        V*, ``[S]``, and Q*, ``[S, A]``.

    Raises:
        ValueError: γ out of range, or values that did not settle. With γ = 1 they may grow for ever.
    """
    values = torch.zeros_like(model.start_distribution)
    for _ in range(max_sweeps):
        q = action_values(model, values, gamma)
        before, values = values, q.amax(dim=-1)
        if (values - before).abs().max() <= tolerance:
            return values, q
    raise ValueError(
        f"the values have not settled to {tolerance} after max_sweeps = {max_sweeps}; allow more, or choose "
        f"a gamma below {gamma!r}: with gamma = 1 an episode that never ends may earn without bound"
    )


def greedy_policy(q: Tensor) -> Tensor:
    """The policy that takes the action of highest value, of equal ones the first, as ``TabularAgent`` does.

    Book: eq-greedy-policy. Sutton & Barto (2018), eq. 4.9.

    Args:
        q: Q, ``[S, A]``.

    Returns:
        Its probabilities, all of them 0 or 1, ``[S, A]``.
    """
    q = _float64(q)
    return nn.functional.one_hot(q.argmax(dim=-1), q.shape[-1]).double()


def policy_evaluation(model: TabularModel, policy: Tensor, gamma: float) -> Tensor:
    r"""The values of a policy, :math:`V^\pi = r_\pi + \gamma P_\pi V^\pi` solved for :math:`V^\pi`.

    Book: eq-bellman-expectation. Sutton & Barto (2018), eq. 3.14. Autograd can follow ``policy``.

    Args:
        model: the problem.
        policy: π(a|s), ``[S, A]``.
        gamma: γ in [0, 1].

    Returns:
        V^π, ``[S]``.

    Raises:
        ValueError: γ out of range, no policy, or γ = 1 and a state from which the episode never ends.
    """
    policy = _check_distribution("policy", policy, model.rewards.shape)
    return torch.linalg.solve(_one_minus_gamma_p(model, policy, gamma), (policy * model.rewards).sum(dim=-1))


def state_visits(model: TabularModel, policy: Tensor, gamma: float) -> Tensor:
    r"""How often a policy is in each state, :math:`d^\pi(s) = \sum_t \gamma^t P(s_t = s)`.

    Book: eq-state-visits. Sutton & Barto (2018), eq. 9.2, with γ. The sum over all states is the expected
    (discounted) length of an episode. Arguments and errors are those of ``policy_evaluation``.

    Returns:
        d^π, ``[S]``.
    """
    policy = _check_distribution("policy", policy, model.rewards.shape)
    return torch.linalg.solve(_one_minus_gamma_p(model, policy, gamma).T, model.start_distribution)


def exact_policy_gradient(model: TabularModel, logits: Tensor, gamma: float) -> Tensor:
    r"""The gradient of :math:`J(\theta) = \sum_s P(s_0 = s) V^\pi(s)` for a softmax policy, exactly.

    Book: eq-policy-gradient-theorem. Sutton et al. (2000), theorem 1, with a logit θ(s, a) for every action
    in every state; there it is :math:`d^\pi(s)\, \pi(a|s)\, A^\pi(s,a)`.

    Args:
        model: the problem.
        logits: θ, ``[S, A]``; π(·|s) is the softmax of row s.
        gamma: γ in [0, 1].

    Returns:
        ∂J/∂θ, ``[S, A]``.

    Raises:
        ValueError: as for ``policy_evaluation``.
    """
    policy = _float64(logits).softmax(dim=-1)
    values = policy_evaluation(model, policy, gamma)
    advantages = action_values(model, values, gamma) - values[:, None]
    return state_visits(model, policy, gamma)[:, None] * policy * advantages


def _one_minus_gamma_p(model: TabularModel, policy: Tensor, gamma: float) -> Tensor:
    """I − γ P_π, ``[S, S]``."""
    chain = torch.einsum("sa,sat->st", policy, model.transitions)  # P_π(s'|s)
    if _check_gamma(gamma) == 1:
        ends = (policy * (1 - model.transitions.sum(dim=-1))).sum(dim=-1) > 1e-9  # with the next step
        while not torch.equal(ends, more := ends | (chain[:, ends] > 0).any(dim=-1)):
            ends = more  # with one step more
        if not ends.all():
            raise ValueError(
                f"from state {int((~ends).nonzero()[0])} this policy never ends the episode; "
                "with gamma = 1 such a state has no value, so choose a gamma below 1"
            )
    return torch.eye(len(chain), dtype=torch.float64) - gamma * chain


def _float64(values: Tensor | np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _check_gamma(gamma: float) -> float:
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is {gamma!r}; it must be a number in [0, 1]")
    return gamma


def _check_distribution(name: str, probabilities: Tensor, shape: tuple[int, ...]) -> Tensor:
    probabilities = _float64(probabilities)
    if probabilities.shape != shape:
        raise ValueError(f"{name} has shape {tuple(probabilities.shape)}; it must be {tuple(shape)}")
    if not (probabilities >= 0).all() or not ((probabilities.sum(dim=-1) - 1).abs() < 1e-6).all():
        raise ValueError(f"{name} must be probabilities: none below 0, with the sum 1")
    return probabilities


# --- the agent ---


class TabularAgent(nn.Module):
    """A table of action values, and the policy that is greedy in it.

    Args:
        obs_space: Discrete.
        action_space: Discrete.
        initial_value: of every action in every state.

    Attributes:
        q: Q(s, a), ``[S, A]`` float64.

    Raises:
        ValueError: a space that is not Discrete, named.
    """

    q: Tensor

    def __init__(self, obs_space: gym.Space, action_space: gym.Space, initial_value: float = 0.0):
        super().__init__()
        for name, space in (("observation", obs_space), ("action", action_space)):
            if not isinstance(space, Discrete):
                raise ValueError(
                    f"{name} space {space} is not supported: a table has a row for each state and a column "
                    "for each action, so both spaces must be Discrete"
                )
        self.obs_space, self.action_space = obs_space, action_space
        shape = (int(obs_space.n), int(action_space.n))
        self.register_buffer("q", torch.full(shape, initial_value, dtype=torch.float64))

    def predict(
        self,
        obs: np.ndarray,
        deterministic: bool = True,
        *,
        generator: Generator | None = None,
        state: None = None,
        episode_start: np.ndarray | None = None,
    ) -> tuple[np.ndarray, None]:
        """The action of highest value for one observation, or for a batch of them; of equal ones the first.

        Args:
            obs: one observation, or a batch ``[N]``.
            deterministic: ignored, as are the others. The policy learnt is the greedy one; the random actions
                of training belong to the training.
            generator: ignored.
            state: ignored.
            episode_start: ignored.

        Returns:
            The action (or the batch) as the environment counts them, and None (no recurrent state).

        Raises:
            ValueError: an observation of another shape, or outside the observation space.
        """
        array = np.asarray(obs)
        if array.ndim > 1:
            raise ValueError(f"obs has shape {array.shape}; it must be (), or a batch of such")
        states = array - int(self.obs_space.start)
        if array.dtype.kind not in "iu" or not ((states >= 0) & (states < len(self.q))).all():
            raise ValueError(f"obs is {obs!r}; it must be in {self.obs_space}, or a batch of such")
        actions = self.q[torch.as_tensor(states)].argmax(dim=-1)
        return actions.numpy() + int(self.action_space.start), None
