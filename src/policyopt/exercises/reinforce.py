"""Checkers for the chapter on the policy gradient and REINFORCE."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from policyopt.exercises.agent_environment import terminated_returns
from policyopt.exercises.base import Check, Mistakes, check

__all__ = ["check_reinforce_loss", "check_reward_to_go", "check_softmax_score"]


# --- reward-to-go ---


def _reward_to_go(rewards: np.ndarray, gamma: float) -> np.ndarray:
    return np.array(terminated_returns(rewards, gamma))


def _weights(rewards: np.ndarray, gamma: float) -> np.ndarray:
    return gamma ** np.arange(len(rewards))


TO_GO_MISTAKES: Mistakes = {
    "every step got the return of the whole episode; an action cannot be praised for rewards before it": (
        lambda rewards, gamma: np.full(len(rewards), _reward_to_go(rewards, gamma)[0])
    ),
    "off by one: the reward for the action itself, r_t, belongs to G_t": (
        lambda rewards, gamma: np.append(_reward_to_go(rewards, gamma)[1:], 0.0)
    ),
    "off by one, with the discount: G_t begins with r_t, which is not discounted": (
        lambda rewards, gamma: gamma * _reward_to_go(rewards, gamma)
    ),
    "the step's own reward r_t is missing, and only what follows it is there; G_t begins with r_t": (
        lambda rewards, gamma: _reward_to_go(rewards, gamma) - rewards
    ),
    "two factors γ for each step; a reward k steps later counts γ^k, with one factor for each": (
        lambda rewards, gamma: _reward_to_go(rewards, gamma**2)
    ),
    "the discount is forgotten: a reward k steps later counts γ^k times as much": (
        lambda rewards, gamma: _reward_to_go(rewards, 1.0)
    ),
    "the sums run forwards, over the rewards up to step t; those from step t on are asked for": (
        lambda rewards, gamma: np.cumsum(_weights(rewards, gamma) * rewards)
    ),
    "the sums run forwards and without a discount; the rewards from step t on are asked for": (
        lambda rewards, gamma: np.cumsum(rewards)
    ),
    "the sums run forwards: each step takes up what came before it, not what comes after": (
        lambda rewards, gamma: _reward_to_go(rewards[::-1], gamma)[::-1]
    ),
    "the discount counts from the start of the episode, so this is γ^t G_t; count the steps from t": (
        lambda rewards, gamma: _weights(rewards, gamma) * _reward_to_go(rewards, gamma)
    ),
    "only the reward of the step itself is there; those that follow belong to G_t too": (
        lambda rewards, gamma: rewards
    ),
}


def check_reward_to_go(student: Callable[[np.ndarray, float], np.ndarray], seed: int | None = None) -> Check:
    """Check ``reward_to_go(rewards, gamma) -> returns`` for one episode that terminated.

    Book: eq-policy-gradient.

    Args:
        student: takes the rewards r_t, ``[T]``, and γ, and gives G_t for every step, ``[T]``.
        seed: of the inputs; None draws others every time.
    """

    def draw(rng: np.random.Generator) -> tuple:
        return rng.normal(size=rng.integers(3, 9)), rng.uniform(0.3, 0.95)

    return check(student, _reward_to_go, draw, TO_GO_MISTAKES, seed=seed)


# --- the score ---


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _one_hot(logits: np.ndarray, action: int) -> np.ndarray:
    return np.eye(len(logits))[action]


def _softmax_score(logits: np.ndarray, action: int) -> np.ndarray:
    return _one_hot(logits, action) - _softmax(logits)


SCORE_MISTAKES: Mistakes = {
    "−π is missing: raising any logit makes all other actions less likely": _one_hot,
    "the sign is wrong: raising the logit of the action taken must make it likelier": (
        lambda logits, action: _softmax(logits) - _one_hot(logits, action)
    ),
    "this is the gradient of π(a); that of log π(a) is asked for, which is it divided by π(a)": (
        lambda logits, action: _softmax(logits)[action] * _softmax_score(logits, action)
    ),
    "the 1 for the action taken is missing": lambda logits, action: -_softmax(logits),
    "these are the log-probabilities; their derivatives with respect to the logits are asked for": (
        lambda logits, action: np.log(_softmax(logits))
    ),
    "the derivative is with respect to the probabilities; it should be with respect to the logits": (
        lambda logits, action: _one_hot(logits, action) / _softmax(logits)
    ),
    "the logits stand where the probabilities should: take their softmax first": (
        lambda logits, action: _one_hot(logits, action) - logits
    ),
    "exp of the logits is not divided by its sum": (
        lambda logits, action: _one_hot(logits, action) - np.exp(logits)
    ),
    "a sigmoid of each logit stands where the softmax of all should": (
        lambda logits, action: _one_hot(logits, action) - 1 / (1 + np.exp(-logits))
    ),
    "only the logit of the action taken moves; the others are missing": (
        lambda logits, action: _one_hot(logits, action) * (1 - _softmax(logits))
    ),
}


def check_softmax_score(student: Callable[[np.ndarray, int], np.ndarray], seed: int | None = None) -> Check:
    """Check ``softmax_score(logits, action) -> score``, log π(a) differentiated with respect to the logits.

    Book: eq-reinforce-softmax-score.

    Args:
        student: takes logits ``[A]`` and the number of an action, and gives ``[A]``.
        seed: of the inputs; None draws others every time.
    """

    def draw(rng: np.random.Generator) -> tuple:
        size = int(rng.integers(2, 6))
        return rng.normal(size=size), int(rng.integers(size))

    return check(student, _softmax_score, draw, SCORE_MISTAKES, seed=seed)


# --- the loss ---


def _reinforce_loss(log_probs: Tensor, weights: Tensor, num_episodes: int) -> Tensor:
    return -(log_probs * weights.detach()).sum() / num_episodes


def _shifted(weights: Tensor) -> Tensor:
    return weights.detach() - weights.detach().mean()


LOSS_MISTAKES: Mistakes = {
    "the sign is wrong: an optimiser minimises, and this loss would make good actions rarer": (
        lambda log_probs, weights, num_episodes: -_reinforce_loss(log_probs, weights, num_episodes)
    ),
    "this is the mean over all steps; divide the sum by the number of episodes instead": (
        lambda log_probs, weights, num_episodes: -(log_probs * weights.detach()).mean()
    ),
    "the sum is not divided by the number of episodes: the step would grow with the batch": (
        lambda log_probs, weights, num_episodes: -(log_probs * weights.detach()).sum()
    ),
    "the value is right, but the gradient runs through the weights too; hold them constant": (
        lambda log_probs, weights, num_episodes: -(log_probs * weights).sum() / num_episodes
    ),
    "the gradient runs through the weights, and the sign is wrong": (
        lambda log_probs, weights, num_episodes: (log_probs * weights).sum() / num_episodes
    ),
    "the gradient runs through the weights, and it is the mean over all steps": (
        lambda log_probs, weights, num_episodes: -(log_probs * weights).mean()
    ),
    "the log-probabilities are held constant instead of the weights": (
        lambda log_probs, weights, num_episodes: _reinforce_loss(weights, log_probs, num_episodes)
    ),
    "this is the mean over all steps, and divided by the number of episodes as well; take the sum": (
        lambda log_probs, weights, num_episodes: -(log_probs * weights.detach()).mean() / num_episodes
    ),
    "the mean of the weights is subtracted; use them as they are": (
        lambda log_probs, weights, num_episodes: _reinforce_loss(log_probs, _shifted(weights), num_episodes)
    ),
    "the weights are normalised; use them as they are": (
        lambda log_probs, weights, num_episodes: _reinforce_loss(
            log_probs, _shifted(weights) / weights.std(), num_episodes
        )
    ),
    "the weights are normalised, with the standard deviation of a population; use them as they are": (
        lambda log_probs, weights, num_episodes: _reinforce_loss(
            log_probs, _shifted(weights) / weights.std(correction=0), num_episodes
        )
    ),
    "the weights are missing: every action becomes likelier, good or bad": (
        lambda log_probs, weights, num_episodes: -log_probs.sum() / num_episodes
    ),
    "probabilities are weighted, not log-probabilities": (
        lambda log_probs, weights, num_episodes: -(log_probs.exp() * weights.detach()).sum() / num_episodes
    ),
}


def _with_gradient(loss: Callable[[Tensor, Tensor, int], Tensor]) -> Callable:
    """The loss and its gradient as one array, for log-probabilities and weights that share a parameter."""

    @functools.wraps(loss)
    def of_arrays(log_probs: np.ndarray, weights: np.ndarray, num_episodes: int) -> Tensor | None:
        parameter = torch.zeros(len(log_probs), dtype=torch.float64, requires_grad=True)
        value = loss(
            torch.as_tensor(log_probs) + parameter, torch.as_tensor(weights) + 2 * parameter, num_episodes
        )
        if not isinstance(value, Tensor):
            raise TypeError(f"got {value!r}; a loss must be a tensor that autograd can follow")
        if value.shape != ():
            raise ValueError(f"the loss has shape {tuple(value.shape)}; it must be a single number")
        if not value.requires_grad:
            raise ValueError(
                "the loss has no gradient; detach the weights, and leave the log_probs as they are"
            )
        (gradient,) = torch.autograd.grad(value, parameter)
        return torch.cat([value.detach()[None], gradient])

    return of_arrays


def check_reinforce_loss(student: Callable[[Tensor, Tensor, int], Tensor], seed: int | None = None) -> Check:
    """Check ``my_loss(log_probs, weights, num_episodes) -> loss``, its value and its gradient.

    Book: eq-reinforce.

    Args:
        student: takes log π(a_t|s_t) of all steps of the episodes, ``[B]``, the weights w_t, ``[B]``, which a
            gradient could follow, and N; gives the loss, a tensor of shape ``[]``.
        seed: of the inputs; None draws others every time.
    """
    if not callable(student):
        raise TypeError(f"got {student!r}; give the function itself, without calling it")

    def draw(rng: np.random.Generator) -> tuple:
        episodes = int(rng.integers(2, 5))
        steps = int(rng.integers(episodes + 1, 12))
        return -rng.exponential(size=steps), rng.normal(size=steps), episodes

    mistakes = {words: _with_gradient(loss) for words, loss in LOSS_MISTAKES.items()}
    return check(_with_gradient(student), _with_gradient(_reinforce_loss), draw, mistakes, seed=seed)
