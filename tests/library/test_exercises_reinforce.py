"""The checkers of the chapter on REINFORCE: right answers pass, usual mistakes are named."""

import numpy as np
import pytest
import torch

from policyopt.exercises.reinforce import check_reinforce_loss, check_reward_to_go, check_softmax_score
from policyopt.losses import normalize
from policyopt.returns import discounted_returns

SEEDS = range(3)


# --- reward-to-go ---


def to_go(rewards, gamma):
    """By the definition, not from the back."""
    return [sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]


def library_to_go(rewards, gamma):
    column = torch.as_tensor(np.array(rewards))[:, None]
    ends = torch.zeros(column.shape, dtype=torch.bool)
    ends[-1] = True
    returns = discounted_returns(column, torch.zeros_like(column), ends, torch.zeros_like(ends), gamma)
    return returns[:, 0]


@pytest.mark.parametrize("answer", [to_go, library_to_go])
@pytest.mark.parametrize("seed", SEEDS)
def test_right_returns_pass(answer, seed):
    assert check_reward_to_go(answer, seed)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda r, g: [to_go(r, g)[0]] * len(r), "whole episode"),
        (lambda r, g: [*to_go(r, g)[1:], 0.0], "off by one"),
        (lambda r, g: [g * x for x in to_go(r, g)], "not discounted"),
        (lambda r, g: [x - own for x, own in zip(to_go(r, g), r, strict=True)], "own reward r_t is missing"),
        (lambda r, g: to_go(r, g * g), "two factors γ"),
        (lambda r, g: to_go(r, 1.0), "discount is forgotten"),
        (lambda r, g: np.cumsum(r), "forwards and without a discount"),
        (lambda r, g: np.cumsum([g**k * x for k, x in enumerate(r)]), "forwards, over the rewards"),
        (lambda r, g: to_go(r[::-1], g)[::-1], "forwards: each step"),
        (lambda r, g: [g**t * x for t, x in enumerate(to_go(r, g))], "from the start of the episode"),
        (lambda r, g: r, "only the reward of the step"),
        (lambda r, g: to_go(r, g)[::-1], "reverse order"),
        (lambda r, g: -np.array(to_go(r, g)), "wrong sign"),
        (lambda r, g: sum(r), "shape"),
    ],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_wrong_returns_are_named(wrong, words, seed):
    found = check_reward_to_go(wrong, seed)
    assert not found
    assert words in found.message


# --- the score ---


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


def score(logits, action):
    """By autograd."""
    logits = torch.tensor(logits, requires_grad=True)
    logits.log_softmax(dim=0)[action].backward()
    return logits.grad


@pytest.mark.parametrize("seed", SEEDS)
def test_the_score_by_autograd_passes(seed):
    assert check_softmax_score(score, seed)


def gradient_of_probability(logits, action):
    logits = torch.tensor(logits, requires_grad=True)
    logits.softmax(dim=0)[action].backward()
    return logits.grad


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda logits, action: np.eye(len(logits))[action], "−π is missing"),
        (lambda logits, action: -score(logits, action), "the sign is wrong"),
        (gradient_of_probability, "gradient of π(a)"),
        (lambda logits, action: -softmax(logits), "the 1 for the action"),
        (lambda logits, action: np.log(softmax(logits)), "these are the log-probabilities"),
        (
            lambda logits, action: np.eye(len(logits))[action] / softmax(logits),
            "respect to the prob",
        ),
        (lambda logits, action: np.eye(len(logits))[action] - logits, "take their softmax first"),
        (lambda logits, action: np.eye(len(logits))[action] - np.exp(logits), "not divided by its sum"),
        (lambda logits, action: np.eye(len(logits))[action] - 1 / (1 + np.exp(-logits)), "a sigmoid of each"),
        (lambda logits, action: np.eye(len(logits))[action] * (1 - softmax(logits)), "only the logit of"),
        (lambda logits, action: score(logits, action)[action], "a single number"),
    ],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_wrong_scores_are_named(wrong, words, seed):
    found = check_softmax_score(wrong, seed)
    assert not found
    assert words in found.message


# --- the loss ---


@pytest.mark.parametrize("seed", SEEDS)
def test_the_right_loss_passes(seed):
    def my_loss(log_probs, weights, num_episodes):
        return sum(-log_p * w.item() for log_p, w in zip(log_probs, weights, strict=True)) / num_episodes

    assert check_reinforce_loss(my_loss, seed)


def held(log_probs, weights):
    return log_probs * weights.detach()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda lp, w, n: held(lp, w).sum() / n, "the sign is wrong"),
        (lambda lp, w, n: -held(lp, w).mean(), "mean over all steps"),
        (lambda lp, w, n: -held(lp, w).sum(), "not divided by the number of episodes"),
        (lambda lp, w, n: -(lp * w).sum() / n, "value is right, but the gradient runs through"),
        (lambda lp, w, n: (lp * w).sum() / n, "and the sign is wrong"),
        (lambda lp, w, n: -(lp * w).mean(), "and it is the mean"),
        (lambda lp, w, n: -held(w, lp).sum() / n, "log-probabilities are held constant"),
        (lambda lp, w, n: -held(lp, w).mean() / n, "as well; take the sum"),
        (lambda lp, w, n: -held(lp, w - w.mean()).sum() / n, "mean of the weights is subtracted"),
        (
            lambda lp, w, n: -held(lp, (w - w.mean()) / (w.std() + 1e-8)).sum() / n,
            "normalised; use",
        ),
        (lambda lp, w, n: -held(lp, normalize(w)).sum() / n, "weights are normalised"),
        (lambda lp, w, n: -held(lp, (w - w.mean()) / w.std(correction=0)).sum() / n, "of a population"),
        (lambda lp, w, n: -lp.sum() / n, "weights are missing"),
        (lambda lp, w, n: -held(lp.exp(), w).sum() / n, "not log-probabilities"),
        (lambda lp, w, n: -held(lp, w) / n, "must be a single number"),
        (lambda lp, w, n: -held(lp.detach(), w).sum() / n, "has no gradient"),
        (lambda lp, w, n: -held(lp, w).sum().item() / n, "that autograd can follow"),
        (lambda lp, w, n: None, "that autograd can follow"),
    ],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_wrong_losses_are_named(wrong, words, seed):
    found = check_reinforce_loss(wrong, seed)
    assert not found
    assert words in found.message


def test_a_call_in_place_of_the_function_is_refused():
    for checker in (check_reward_to_go, check_softmax_score, check_reinforce_loss):
        with pytest.raises(TypeError, match="without calling it"):
            checker(3.0)


def test_the_message_names_the_function_of_the_reader():
    def my_loss(log_probs, weights, num_episodes):
        return -held(log_probs, weights).sum()

    assert check_reinforce_loss(my_loss, 0).message.startswith("my_loss: ")
