"""What the training loops share: problems, rewards, learning in parts, and memory that runs out."""

import copy
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from language_helpers import TINY, made_up_samples, plain_log_probs, table_of, tiny_model

from policyopt.language.model import Transformer
from policyopt.language.parallel import OneProcess
from policyopt.language.sampling import Samples, TokenScorer
from policyopt.language.tasks import Addition, Problem, SortDigits, Task
from policyopt.language.tokenizer import CharTokenizer
from policyopt.language.training import (
    check_rewards,
    draw_problems,
    evaluate_outputs,
    fingerprint,
    held_out_reward,
    learn,
    make_adamw,
    memory_errors,
    output_metrics,
    scheduled_rate,
    update_generator,
    write_outputs,
)

PROBLEMS = [Problem("ab", "x"), Problem("cd", "y"), Problem("ef", "z")]
OUTPUTS = ["one", "two", "three"]


# Rewards


@pytest.mark.parametrize(
    "rewards",
    [
        [0, 0.5, 1],
        (0.0, 0.5, 1.0),
        np.array([0, 0.5, 1]),
        np.array([1, 0.5, 0])[::-1],
        np.frombuffer(np.array([0, 0.5, 1]).tobytes()),  # may not be written to
        torch.tensor([0, 0.5, 1], dtype=torch.double),
        torch.tensor([0, 0.5, 1], requires_grad=True),
        [torch.tensor(x, requires_grad=True) for x in (0.0, 0.5, 1.0)],
        [np.float64(0), 0.5, True],
    ],
)
def test_rewards_in_any_form(rewards):
    values = check_rewards(rewards, PROBLEMS, OUTPUTS)
    assert values.tolist() == [0, 0.5, 1]
    assert values.dtype == torch.float32
    assert not values.requires_grad


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([0, math.nan, math.nan], r"output 'two' to prompt 'cd' is nan; .* \(2 of 3 are not\)"),
        ([0, 1, math.inf], r"output 'three' to prompt 'ef' is inf; .* \(1 of 3 are not\)"),
        ([-math.inf, 1, 1], r"output 'one' to prompt 'ab' is -inf"),
        (torch.tensor([0, 1, math.nan], requires_grad=True), "output 'three'"),
        ([1e300, 0, 0], "is inf"),
        ([10**400, 0, 0], "gave list, not numbers"),
        ([0, 1], r"shape \(2,\) for 3 outputs; it must give one number for each"),
        ([], r"shape \(0,\) for 3"),
        ([0, 1, 0, 1], r"shape \(4,\) for 3"),
        (0.5, r"shape \(\) for 3"),
        ([[0], [1], [0]], r"shape \(3, 1\) for 3"),
        (torch.zeros(1, 3), r"shape \(1, 3\) for 3"),
        ([[0, 1], [1]], "gave list, not numbers"),
        (None, r"gave NoneType, not numbers .* give a list of 3 numbers, one for each output"),
        ([0, None, 1], "gave list, not numbers"),
        (["0", "1", "1"], "gave list, not numbers"),
        ("101", "gave str, not numbers"),
        ({0: 1, 1: 1, 2: 1}, "gave dict, not numbers"),
        ((x for x in [0, 1, 0]), "gave generator, not numbers"),
        (np.array(["a", 1, 2], dtype=object), "gave ndarray, not numbers"),
        ([1j, 0, 0], "gave list, not numbers"),
    ],
)
def test_rewards_that_are_none(rewards, message):
    with pytest.raises(ValueError, match=message):
        check_rewards(rewards, PROBLEMS, OUTPUTS)


def test_long_texts_are_cut_short_in_the_message():
    with pytest.raises(ValueError, match="nan") as error:
        check_rewards([math.nan], [Problem("p" * 500, "")], ["o" * 500])
    assert len(str(error.value)) < 250


def test_each_output_is_judged_beside_its_problem():
    tokenizer = CharTokenizer("abc")
    tokens = torch.tensor([[[2, 1], [3, 1]], [[4, 1], [1, 0]]])
    samples = Samples(torch.zeros(2, 1), torch.ones(2, 1), tokens, tokens > 0, torch.zeros(2, 2, 2))
    seen = []

    def reward(problems, outputs):
        seen.extend(zip(problems, outputs, strict=True))
        return [0.0, 1.0, 2.0, 3.0]

    rewards = evaluate_outputs(reward, PROBLEMS[:2], samples, tokenizer)
    assert rewards.tolist() == [[0, 1], [2, 3]]
    assert seen == [(PROBLEMS[0], "a"), (PROBLEMS[0], "b"), (PROBLEMS[1], "c"), (PROBLEMS[1], "")]


# Randomness of an update


def test_every_update_of_every_seed_has_its_own_numbers():
    drawn = {
        tuple(torch.rand(4, generator=update_generator(seed, update)).tolist())
        for seed in range(40)
        for update in range(40)
    }
    assert len(drawn) == 1600
    again = torch.rand(4, generator=update_generator(3, 7))
    assert torch.equal(again, torch.rand(4, generator=update_generator(3, 7)))
    with pytest.raises(ValueError, match="seed is -1"):
        update_generator(-1, 0)


def test_drawing_problems():
    problems = [Problem(str(i), "") for i in range(10)]
    drawn = draw_problems(problems, 7, update_generator(0, 0))
    assert len(set(drawn)) == 7
    assert drawn != problems[:7]
    assert drawn == draw_problems(problems, 7, update_generator(0, 0))
    assert drawn != draw_problems(problems, 7, update_generator(0, 1))
    assert sorted(draw_problems(problems, 10, update_generator(0, 0))) == sorted(problems)
    often = draw_problems(problems, 25, update_generator(0, 0))
    assert len(often) == 25
    assert {often.count(problem) for problem in problems} == {2, 3}
    with pytest.raises(ValueError, match="no problem to draw from"):
        draw_problems([], 3, update_generator(0, 0))


def test_every_problem_is_drawn_as_often():
    problems = [Problem(str(i), "") for i in range(5)]
    counts = np.zeros(5)
    for update in range(2000):
        for problem in draw_problems(problems, 2, update_generator(0, update)):
            counts[int(problem.prompt)] += 1
    assert np.abs(counts / 2000 - 0.4).max() < 4 * math.sqrt(0.4 * 0.6 / 2000)


# Writing and evaluation


def test_writing_outputs():
    model = tiny_model()
    problems = [Problem("ab", ""), Problem("c", "")]
    samples = write_outputs(model, problems, 3, 5, 0.8, update_generator(0, 0), OneProcess())
    assert samples.tokens.shape[:2] == (2, 3)
    assert samples.tokens.shape[2] <= 5
    torch.testing.assert_close(TokenScorer(model, 0.8)(samples), samples.log_probs, atol=1e-5, rtol=1e-5)
    again = write_outputs(model, problems, 3, 5, 0.8, update_generator(0, 0), OneProcess())
    assert torch.equal(samples.tokens, again.tokens)
    with pytest.raises(ValueError, match=f"context of {TINY.context}"):
        write_outputs(model, problems, 3, TINY.context, 1.0, update_generator(0, 0), OneProcess())


class Echo(Task):
    """``a`` is answered ``b`` and ``c`` is answered ``a``."""

    name, instruction, characters, max_new_tokens = "echo", "", "abc", 3

    def draw(self, rng, count):
        return [Problem("a", "b"), Problem("c", "a"), Problem("b", "c")]

    def reward(self, problem, output):
        return float(problem.answer == output)


def test_held_out_reward_by_hand():
    """Greedily the likeliest output is judged; when sampled, an output is right as often as it is likely."""
    task = Echo(num_problems=3, held_out=2)
    # After "a" comes "b" six times of ten. What comes next depends on the last token alone.
    model = table_of("abc", {"a": {"b": 0.6, "c": 0.4}, "c": {"a": 1.0}})
    assert held_out_reward(model, task, [Problem("a", "b")]) == 1
    assert held_out_reward(model, task, [Problem("b", "")]) == 1
    assert held_out_reward(model, task, [Problem("c", "ab")]) == 1
    assert held_out_reward(model, task, [Problem("a", "b"), Problem("b", ""), Problem("a", "ca")]) == 2 / 3
    assert held_out_reward(model, task) == 0.5  # a → b is right, c → ab is not
    sampled = held_out_reward(model, task, [Problem("a", "b")] * 4000, temperature=1.0)
    assert sampled == pytest.approx(0.6, abs=4 * math.sqrt(0.24 / 4000))
    assert sampled == held_out_reward(model, task, [Problem("a", "b")] * 4000, temperature=1.0)
    assert sampled != held_out_reward(model, task, [Problem("a", "b")] * 4000, temperature=1.0, seed=1)
    with pytest.raises(ValueError, match="no problem to judge"):
        held_out_reward(model, task, [])


def test_the_size_of_a_batch_does_not_change_greedy_evaluation():
    task = SortDigits(num_problems=40, held_out=15)
    model = Transformer(CharTokenizer(task.characters), TINY)
    with torch.no_grad():
        model.head.weight.mul_(20)
    rewards = {held_out_reward(model, task, task.train, batch_size=size) for size in (1, 7, 128)}
    assert len(rewards) == 1


def test_output_metrics_by_hand():
    tokens = torch.tensor([[[2, 3, 1], [1, 0, 0]], [[4, 4, 4], [2, 1, 0]]])
    mask = torch.tensor([[[1, 1, 1], [1, 0, 0]], [[1, 1, 1], [1, 1, 0]]], dtype=torch.bool)
    samples = Samples(torch.zeros(2, 1), torch.ones(2, 1), tokens, mask, -0.5 * mask)
    metrics = output_metrics(samples, torch.tensor([[1.0, 0.0], [0.5, 0.0]]), CharTokenizer("abc"))
    assert metrics == {"reward": 0.375, "length": 2.25, "finished": 0.75, "entropy": 0.5}


# Memory


def test_memory_that_runs_out_on_the_cpu():
    message = "out while testing; a smaller micro_batch_size, group_size or num_prompts"
    with pytest.raises(MemoryError, match=message) as error, memory_errors("testing"):
        torch.empty(2**60, dtype=torch.uint8)
    assert isinstance(error.value.__cause__, RuntimeError)
    assert str(error.value).endswith("go on from its last one with more memory or a smaller micro_batch_size")


@pytest.mark.parametrize(
    "kind", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: out of memory")]
)
def test_memory_that_runs_out_elsewhere(kind):
    message = "out while testing; a smaller batch_size needs less"
    with pytest.raises(MemoryError, match=message) as error, memory_errors("testing", "batch_size"):
        raise kind
    assert error.value.__cause__ is kind
    assert str(error.value).endswith("go on from its last one with more memory")


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes cannot be multiplied"), ValueError("x"), KeyboardInterrupt()]
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, memory_errors("testing"):
        raise error
    assert caught.value is error


# Learning


@dataclass(frozen=True)
class Weighed(Samples):
    """Outputs with targets for their log-probabilities, and weights."""

    targets: torch.Tensor
    weights: torch.Tensor


def batch_of(model, num_prompts=5, group_size=3, length=4):
    prompts = ["ab", "c", "bca", "abcab", "cc", "ba", "bb"][:num_prompts]
    samples = made_up_samples(model, prompts, group_size, length)
    targets = torch.randn(samples.tokens.shape, generator=torch.Generator().manual_seed(1)) - 2
    columns = (samples.prompts, samples.prompt_mask, samples.tokens, samples.mask, samples.log_probs)
    return Weighed(*columns, targets, torch.full_like(targets, math.nan))


def weigh(minibatch):
    return replace(minibatch, weights=minibatch.mask / minibatch.mask.sum())


def learn_from(model, batch, seed=0, **settings):
    config = SimpleNamespace(
        **({"epochs": 2, "minibatch_size": 5, "micro_batch_size": None, "max_grad_norm": 1e9} | settings)
    )
    scorer, sizes = TokenScorer(model), []

    def loss_function(part):
        sizes.append(len(part))
        errors = (scorer(part) - part.targets).square()
        return (part.weights * errors).sum(), {
            "length": (part.weights * part.lengths[..., None]).sum().detach()
        }

    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    generator = torch.Generator().manual_seed(seed)
    return learn(batch, loss_function, weigh, optimizer, config, generator, OneProcess()), sizes


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("minibatch_size", [2, 3, 5, 100])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_learning_in_parts_is_learning_at_once(minibatch_size, micro_batch_size):
    """Whether or not the sizes divide 5, the number of prompts."""
    first = tiny_model()
    batch, results = batch_of(first), []
    for size in (None, micro_batch_size):
        model = copy.deepcopy(first)
        settings = {"minibatch_size": minibatch_size, "micro_batch_size": size}
        results.append((*learn_from(model, batch, **settings), weights(model)))
    (metrics, sizes, at_once), (metrics_of_parts, part_sizes, in_parts) = results
    torch.testing.assert_close(in_parts, at_once, atol=1e-5, rtol=1e-5)
    assert (at_once - weights(first)).abs().max() > 1e-2
    assert metrics_of_parts == pytest.approx(metrics, rel=1e-4)
    assert sum(sizes) == sum(part_sizes) == 2 * 5
    assert max(sizes) == min(minibatch_size, 5)
    assert max(part_sizes) == min(minibatch_size, micro_batch_size, 5)
    assert len(sizes) == 2 * -(-5 // minibatch_size)


def test_steps_by_hand():
    """Two epochs over all prompts are two steps of gradient descent on the mean over tokens."""
    model, plain = tiny_model(), tiny_model()
    batch = batch_of(model)
    metrics, _ = learn_from(model, batch)
    optimizer, losses, norms = torch.optim.SGD(plain.parameters(), 0.05), [], []
    for _ in range(2):
        errors = (plain_log_probs(plain, batch) - batch.targets)[batch.mask]
        loss = errors.square().mean()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norms.append(math.sqrt(sum(p.grad.square().sum().item() for p in plain.parameters())))
        optimizer.step()
    torch.testing.assert_close(weights(model), weights(plain), atol=1e-4, rtol=1e-4)
    assert metrics["loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)
    assert metrics["grad_norm"] == pytest.approx(sum(norms) / 2, rel=1e-4)
    lengths = batch.lengths.float()
    assert metrics["length"] == pytest.approx((lengths.square().sum() / lengths.sum()).item(), rel=1e-4)


def test_gradients_are_clipped():
    model = tiny_model()
    before = weights(model)
    metrics, _ = learn_from(model, batch_of(model), epochs=1, max_grad_norm=0.1)
    assert metrics["grad_norm"] > 0.1  # as it was before
    assert (weights(model) - before).norm().item() == pytest.approx(0.05 * 0.1, rel=1e-3)


def test_the_order_follows_from_the_generator():
    results = []
    for seed in (0, 0, 1):
        model = tiny_model()
        learn_from(model, batch_of(model), seed, minibatch_size=2)
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = tiny_model()
    before, batch = weights(model), batch_of(model)
    with pytest.raises(FloatingPointError, match="diverged"):
        learn_from(model, replace(batch, targets=batch.targets / 0))
    assert torch.equal(weights(model), before)


def test_memory_that_runs_out_while_learning():
    model = tiny_model()

    def too_large(part):
        torch.empty(2**60, dtype=torch.uint8)

    config = SimpleNamespace(epochs=1, minibatch_size=4, micro_batch_size=2, max_grad_norm=1.0)
    optimizer = make_adamw(model.parameters(), 0.1)
    with pytest.raises(MemoryError, match="gradient of 2 prompts"):
        learn(batch_of(model), too_large, weigh, optimizer, config, torch.Generator(), OneProcess())


# Small parts


def test_fingerprints():
    """The same for the same weights, another for others, down to the step of one parameter."""
    model = tiny_model()
    assert fingerprint(model) == fingerprint(tiny_model())
    prints = {fingerprint(tiny_model(seed=seed)) for seed in range(20)}
    assert len(prints) == 20
    changed = tiny_model()
    with torch.no_grad():
        changed.head.weight[0, 0] += 1e-4
    assert fingerprint(changed) != fingerprint(model)
    with torch.no_grad():
        changed.head.weight[0, 0] -= 2e-4
    assert fingerprint(changed) != fingerprint(model)
    negative = tiny_model()
    with torch.no_grad():
        negative.head.weight.neg_()
    assert fingerprint(negative) != fingerprint(model)


def test_scheduled_rate_by_hand():
    config = SimpleNamespace(learning_rate=0.8, learning_rate_end=0.0, warmup=3)
    rates = [scheduled_rate(config, update, 8) for update in range(8)]
    # A straight line .8, .7, …, times 1/4, 2/4 and 3/4 in the first three updates.
    assert rates == pytest.approx([0.2, 0.35, 0.45, 0.5, 0.4, 0.3, 0.2, 0.1])
    config = SimpleNamespace(learning_rate=0.8, learning_rate_end=None, warmup=0)
    assert [scheduled_rate(config, update, 4) for update in range(4)] == [0.8] * 4
    config = SimpleNamespace(learning_rate=0.1, learning_rate_end=0.3, warmup=0)
    assert [scheduled_rate(config, update, 4) for update in range(4)] == pytest.approx([0.1, 0.15, 0.2, 0.25])


def test_only_what_is_trained_is_optimised():
    model = tiny_model()
    model.head.requires_grad_(False)
    optimizer = make_adamw(model.parameters(), 0.3, 0.2)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(model.parameters())) - 1
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.2)


def test_a_task_of_ones_own():
    """Four names and two methods make a task."""
    task = Echo(num_problems=3, held_out=1)
    assert task.held_out == [Problem("a", "b")]
    assert repr(task) == "Echo(num_problems=3, held_out=1, seed=0)"
    assert task.demonstrations(20, wrong=1.0)[0].answer in ("a", "c")
    assert isinstance(Addition(held_out=3), Task)
