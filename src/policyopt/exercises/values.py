"""Checkers for the exercises of the chapter "Values"."""

from collections.abc import Callable

import numpy as np

from policyopt.exercises.base import Check, Mistakes, check

__all__ = ["check_bellman_backup", "check_q_target"]


def check_bellman_backup(bellman_backup: Callable) -> Check:
    """Check one sweep of value iteration. Book: eq-bellman-optimality. Sutton & Barto (2018), eq. 4.10.

    Args:
        bellman_backup: ``(transitions [S, A, S], rewards [S, A], values [S], gamma) -> new values [S]`` for
            NumPy arrays. A row of ``transitions`` may sum to less than 1: the rest ends the episode.

    Raises:
        TypeError: it is not a function.
    """
    return check(bellman_backup, _bellman_backup, _draw_model, _BACKUP_MISTAKES)


def check_q_target(q_target: Callable) -> Check:
    """Check the targets of Q-learning for a batch. Book: eq-q-learning. Sutton & Barto (2018), eq. 6.8.

    Args:
        q_target: ``(rewards [B], next_q [B, A], terminated [B], truncated [B], gamma) -> targets [B]`` for
            NumPy arrays, the two ends of type bool.

    Raises:
        TypeError: it is not a function.
    """
    return check(q_target, _q_target, _draw_batch, _TARGET_MISTAKES)


# --- one sweep ---


def _draw_model(rng: np.random.Generator) -> tuple:
    num_states, num_actions = int(rng.integers(4, 8)), int(rng.integers(2, 4))  # never equal
    transitions = rng.dirichlet(np.ones(num_states + 1), size=(num_states, num_actions))[..., :-1]
    rewards, values = rng.normal(size=(num_states, num_actions)), rng.normal(size=num_states)
    return transitions, rewards, values, float(rng.uniform(0.5, 0.95))


def _bellman_backup(transitions, rewards, values, gamma):
    return (rewards + gamma * transitions @ values).max(axis=1)


def _in_place(transitions, rewards, values, gamma):
    new_values = values.copy()
    for state in range(len(values)):
        new_values[state] = (rewards[state] + gamma * transitions[state] @ new_values).max()
    return new_values


_BACKUP_MISTAKES: Mistakes = {
    "the next states' values are not discounted; where does γ belong?": lambda p, r, v, g: (r + p @ v).max(1),
    "γ multiplies the reward too; the reward is earned now": lambda p, r, v, g: (g * (r + p @ v)).max(1),
    "averages over the actions; that sweep belongs to the policy that draws them evenly, and the optimal "
    "backup takes the best": lambda p, r, v, g: (r + g * p @ v).mean(1),
    "sums over the actions; the agent takes one of them": lambda p, r, v, g: (r + g * p @ v).sum(1),
    "takes the worst action": lambda p, r, v, g: (r + g * p @ v).min(1),
    "returns which action is best, not how much it is worth": lambda p, r, v, g: (r + g * p @ v).argmax(1),
    "leaves out the rewards": lambda p, r, v, g: (g * p @ v).max(1),
    "maximises the reward alone; the next state depends on the action too, so the maximum is over the sum of "
    "both": lambda p, r, v, g: r.max(1) + g * (p @ v).max(1),
    "takes the best next state for granted; which one comes is drawn with the probabilities in transitions": (
        lambda p, r, v, g: (r + g * np.where(p > 0, v, -np.inf).max(2)).max(1)
    ),
    "gives every next state the same weight; use the probabilities in transitions": (
        lambda p, r, v, g: r.max(1) + g * v.mean()
    ),
    "rescales the rows of transitions to the sum 1; what is missing there is the probability of the end": (
        lambda p, r, v, g: (r + g * p @ v / p.sum(2)).max(1)
    ),
    "takes a maximum over the next states; the agent does not choose among them, and the expectation is a "
    "sum weighted with the probabilities": lambda p, r, v, g: (r + g * (p * v).max(2)).max(1),
    "adds up over the wrong axis of transitions; its first axis is the state where the step starts, its last "
    "the state where it leads": lambda p, r, v, g: (r + g * np.einsum("tas,t->sa", p, v)).max(1),
    "never goes below 0; where every action is worth less than that, the best of them is negative too (what "
    "does a running maximum start from?)": lambda p, r, v, g: (r + g * p @ v).max(1).clip(0),
    "keeps the old value where it is larger; one sweep replaces it, whichever is larger": (
        lambda p, r, v, g: np.maximum(v, (r + g * p @ v).max(1))
    ),
    "adds the new values to the old ones; they take their place": (
        lambda p, r, v, g: v + (r + g * p @ v).max(1)
    ),
    "uses new values within the same sweep; one sweep reads only the old ones (this order converges too, but "
    "it is another algorithm)": _in_place,
}


# --- targets ---


def _draw_batch(rng: np.random.Generator) -> tuple:
    size, num_actions = int(rng.integers(6, 10)), int(rng.integers(2, 5))  # never equal
    ends = rng.permutation(np.arange(size) % 4)  # every batch has all: goes on, terminated, truncated, both
    rewards, next_q = rng.normal(size=size), rng.normal(size=(size, num_actions))
    return rewards, next_q, ends % 2 == 1, ends >= 2, float(rng.uniform(0.5, 0.95))


def _q_target(rewards, next_q, terminated, truncated, gamma):
    return rewards + gamma * ~terminated * next_q.max(axis=1)


_TARGET_MISTAKES: Mistakes = {
    "treats a truncation as a termination; the task would have gone on, so the last state keeps its value": (
        lambda r, q, te, tr, g: r + g * ~(te | tr) * q.max(1)
    ),
    "bootstraps after a termination; nothing can follow it, so the target there is the reward": (
        lambda r, q, te, tr, g: r + g * q.max(1)
    ),
    "goes on where both flags are set; that step ended the episode, and that time ran out with it changes "
    "nothing": lambda r, q, te, tr, g: r + g * ~(te & ~tr) * q.max(1),
    "has the two ends the wrong way round: it stops at truncations and goes on after terminations": (
        lambda r, q, te, tr, g: r + g * ~tr * q.max(1)
    ),
    "uses the terminated flag the wrong way round: it looks ahead only where the episode is over": (
        lambda r, q, te, tr, g: r + g * te * q.max(1)
    ),
    "the value of the next state is not discounted": lambda r, q, te, tr, g: r + ~te * q.max(1),
    "γ multiplies the reward too; the reward is earned now": lambda r, q, te, tr, g: g * (r + ~te * q.max(1)),
    "loses the reward of the step that terminates; that step was still paid": (
        lambda r, q, te, tr, g: ~te * (r + g * q.max(1))
    ),
    "averages over the next actions; Q-learning looks at the best of them": (
        lambda r, q, te, tr, g: r + g * ~te * q.mean(1)
    ),
    "always takes the first of the next actions; which one is best differs from row to row": (
        lambda r, q, te, tr, g: r + g * ~te * q[:, 0]
    ),
    "never looks ahead to less than 0; where every next action is worth less, the best of them is negative "
    "too": lambda r, q, te, tr, g: r + g * ~te * q.max(1).clip(0),
    "takes the worst next action": lambda r, q, te, tr, g: r + g * ~te * q.min(1),
    "takes one maximum over the whole batch; each transition has its own next state, a row of next_q": (
        lambda r, q, te, tr, g: r + g * ~te * q.max()
    ),
    "uses the number of the best action in place of its value": (
        lambda r, q, te, tr, g: r + g * ~te * q.argmax(1)
    ),
    "leaves out the rewards": lambda r, q, te, tr, g: g * ~te * q.max(1),
    "subtracts the next state's value; it is added to the reward": (
        lambda r, q, te, tr, g: r - g * ~te * q.max(1)
    ),
}
