"""GRPO of a language model: its loss by hand and by finite differences, what an update does to the outputs of
a group, and the training loop with its variants, its errors and its checkpoints.
"""

import copy
import dataclasses
import itertools
import math

import pytest
import torch

from policyopt.language import grpo
from policyopt.language.grpo import GroupSamples, GRPOConfig, collect, group_samples, grpo_loss, weigh
from policyopt.language.model import Transformer, TransformerConfig
from policyopt.language.parallel import OneProcess
from policyopt.language.sampling import Samples, TokenScorer, encode_prompts, generate, token_noise
from policyopt.language.tasks import Problem, Task
from policyopt.language.tokenizer import CharTokenizer
from policyopt.language.training import learn, update_generator
from policyopt.language.variants import VARIANTS, Variant, informative_groups, per_token_mean
from policyopt.returns import group_relative_advantages

NAMES = list(VARIANTS)
NO_PENALTY = GRPOConfig(clip=0.2, kl_coef=0.0)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Last(Task):
    """``cab>`` is answered ``b``, the last letter; what follows it does not count."""

    name, instruction, characters, max_new_tokens = "last", "Repeat the last letter.", "abc>", 2

    def draw(self, rng, count):
        texts = ["".join(text) for n in (1, 2, 3) for text in itertools.product("abc", repeat=n)]
        rng.shuffle(texts)
        return [Problem(f"{text}>", text[-1]) for text in texts[:count]]

    def reward(self, problem, output):
        return float(output[:1] == problem.answer)


class Nothing(Last):
    """Leaves no room for an answer."""

    max_new_tokens = 0


TASK = Last(held_out=9)
TINY = GRPOConfig(
    updates=4, num_prompts=4, group_size=4, minibatch_size=2, learning_rate=3e-3, evaluate_every=2
)


def make_model(seed=0, characters=TASK.characters, context=8):
    config = TransformerConfig(layers=1, width=16, heads=2, hidden=16, context=context)
    return Transformer(CharTokenizer(characters), config, seed)


def weights_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def table(log_ratio, mask, advantages, reference_log_ratio=None, variant=VARIANTS["grpo"], limit=3):
    """Log-probabilities, and the batch in which they have the ratios given, to π_old and of π_ref to them."""
    log_probs = torch.where(mask, -1.0, torch.zeros_like(log_ratio))
    reference = log_probs if reference_log_ratio is None else log_probs + reference_log_ratio * mask
    prompts = torch.full((len(mask), 1), 2)
    return log_probs, GroupSamples(
        prompts=prompts,
        prompt_mask=prompts > 0,
        tokens=torch.where(mask, 2, 0),
        mask=mask,
        log_probs=log_probs - log_ratio * mask,
        advantages=advantages,
        reference_log_probs=reference,
        weights=variant.weights(mask, limit),
    )


def random_batch(seed, variant, shape=(3, 4), limit=6, spread=0.3):
    """A random batch in float64 with outputs of 1 to ``limit`` tokens, one of each extreme among them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, limit + 1, shape, generator=generator)
    lengths[0, 0], lengths[0, 1] = 1, limit
    noise = torch.randn(2, *shape, limit, generator=generator, dtype=torch.float64)
    mask = torch.arange(limit) < lengths[..., None]
    advantages = variant.advantages(torch.rand(shape, generator=generator, dtype=torch.float64))
    return table(spread * noise[0], mask, advantages, 0.3 * noise[1], variant, limit)


# --- the loss ---

# Two prompts with outputs of one and three tokens. Of each output the ratios, and the advantage.
RATIOS = [[[1.5, 1, 1], [0.5, 1, 1.1]], [[2, 1, 0.9], [0.7, 1, 1]]]
MASK = torch.tensor([[[1, 0, 0], [1, 1, 1]], [[1, 1, 1], [1, 0, 0]]], dtype=torch.bool)
ADVANTAGES = torch.tensor([[1.0, -1.0], [-2.0, 2.0]])
K3 = (
    2 - 1 - math.log(2)
)  # the reference finds the first token of each output twice as likely, the others alike

BY_HAND = {
    # Objective of each output, what weighs it, and the part of K3 that is left in the loss.
    # ρ Â: 1.5 is clipped to 1.2; 0.5 · (−1) to −0.8; 2 · (−2) and 0.7 · 2 are the smaller ones, so they stay.
    "grpo": ((1.2 + (-0.8 - 1 - 1.1) / 3 + (-4 - 2 - 1.8) / 3 + 1.4) / 4, (1 + 1 / 3 + 1 / 3 + 1) / 4),
    # Sums over tokens, divided by 4 outputs of at most 5 tokens.
    "dr_grpo": ((1.2 - 2.9 - 7.8 + 1.4) / 20, 4 / 20),
    # 1.5 is clipped to 1.28; sums over tokens, divided by the 8 tokens there are.
    "dapo": ((1.28 - 2.9 - 7.8 + 1.4) / 8, 4 / 8),
    # Ratios of outputs are 1.5, 0.55, 1.8, 0.7; the penalty is in the reward.
    "rloo": ((1.2 - 0.8 - 3.6 + 1.4) / 4, 0),
    # Their geometric means: 1.5, 0.819, 1.216, 0.7.
    "gspo": ((1.2 - 0.55 ** (1 / 3) - 2 * 1.8 ** (1 / 3) + 1.4) / 4, (1 + 1 / 3 + 1 / 3 + 1) / 4),
}


@pytest.mark.parametrize("name", NAMES)
def test_loss_by_hand(name):
    variant, (objective, penalty) = VARIANTS[name], BY_HAND[name]
    reference = torch.tensor([math.log(2), 0, 0]).expand(2, 2, 3)
    log_probs, batch = table(torch.tensor(RATIOS).log(), MASK, ADVANTAGES, reference, variant, limit=5)
    loss, metrics = grpo_loss(log_probs, batch, NO_PENALTY, variant)
    assert loss.item() == pytest.approx(-objective)
    assert set(metrics) == {"clip_fraction"}
    config = dataclasses.replace(NO_PENALTY, kl_coef=0.5)
    loss, metrics = grpo_loss(log_probs, batch, config, variant)
    assert loss.item() == pytest.approx(-objective + 0.5 * penalty * K3)
    measured = {"rloo": (1 + 1 / 3 + 1 / 3 + 1) / 4}.get(name, penalty)
    assert metrics["reference_kl"].item() == pytest.approx(measured * K3)


def test_clip_fraction_by_hand():
    """Of the ratios above 1.5 and 0.5 · (−1) are clipped: a whole output and a third of one, out of four."""
    log_probs, batch = table(torch.tensor(RATIOS).log(), MASK, ADVANTAGES)
    assert grpo_loss(log_probs, batch, NO_PENALTY)[1]["clip_fraction"].item() == pytest.approx(
        (1 + 1 / 3) / 4
    )


def test_clip_is_the_variants_unless_it_is_set():
    """GSPO's own range is a thousandth of PPO's: beyond it an output that was good earns nothing more."""
    log_ratio = torch.full((1, 2, 4), 1e-3)
    log_probs, batch = table(log_ratio, torch.ones(1, 2, 4, dtype=torch.bool), torch.tensor([[1.0, -1.0]]))
    for clip, ratio in ((None, 1 + 3e-4), (5e-4, 1 + 5e-4), (0.2, math.exp(1e-3))):
        config = dataclasses.replace(NO_PENALTY, clip=clip)
        loss, _ = grpo_loss(log_probs, batch, config, VARIANTS["gspo"])
        assert loss.item() == pytest.approx(-(ratio - math.exp(1e-3)) / 2, abs=1e-7)
    assert GRPOConfig().clip is None
    assert VARIANTS["grpo"].clip == VARIANTS["dapo"].clip == 0.2


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_to_log_probabilities_by_finite_differences(name, kl_coef):
    log_probs, batch = random_batch(1, VARIANTS[name], shape=(2, 3), limit=4)
    config = dataclasses.replace(NO_PENALTY, kl_coef=kl_coef)
    assert 0 < grpo_loss(log_probs, batch, config, VARIANTS[name])[1]["clip_fraction"] < 0.6
    inputs = log_probs.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: grpo_loss(x, batch, config, VARIANTS[name])[0], inputs, atol=1e-8
    )
    (gradient,) = torch.autograd.grad(grpo_loss(inputs, batch, config, VARIANTS[name])[0], inputs)
    assert (gradient[~batch.mask] == 0).all()


def sample(model, group_size=4, limit=4, seed=0, prompts=("a>", "bca>", "cc>")):
    tokens, mask = encode_prompts(model, prompts, limit)
    noise = token_noise((len(prompts), group_size, limit), torch.Generator().manual_seed(seed))
    return generate(model, tokens, mask, noise)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_to_weights_by_finite_differences(name, monkeypatch):
    """Along a random direction of the weights of a transformer, in float64 throughout."""
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # the scorer works in float32
    variant, config = VARIANTS[name], dataclasses.replace(NO_PENALTY, kl_coef=0.3)
    generator = torch.Generator().manual_seed(0)

    def disturbed(scale):
        model = make_model().double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        return model

    model, sampler, reference = disturbed(0.2), disturbed(0.2), disturbed(0.2)
    samples, rewards = sample(sampler), torch.rand(3, 4, generator=generator, dtype=torch.float64)
    batch = group_samples(samples, rewards, reference, config, 4, variant)
    scorer, parameters = TokenScorer(model), list(model.parameters())
    loss, metrics = grpo_loss(scorer(batch), batch, config, variant)
    assert loss.dtype == torch.float64
    assert 0 < metrics["clip_fraction"] < 1
    gradients = torch.autograd.grad(loss, parameters)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))

    @torch.no_grad()
    def loss_at(step):
        for p, d in zip(parameters, directions, strict=True):
            p += step * d
        value = grpo_loss(scorer(batch), batch, config, variant)[0]
        for p, d in zip(parameters, directions, strict=True):
            p -= step * d
        return value

    torch.testing.assert_close(slope, (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_parts_add_up_to_the_whole(name):
    variant, config = VARIANTS[name], dataclasses.replace(NO_PENALTY, kl_coef=0.3)
    log_probs, batch = random_batch(2, variant)
    whole, metrics = grpo_loss(log_probs, batch, config, variant)
    parts = [grpo_loss(log_probs[i : i + 1], batch[i : i + 1], config, variant) for i in range(3)]
    torch.testing.assert_close(sum(loss for loss, _ in parts), whole)
    for key, value in metrics.items():
        torch.testing.assert_close(sum(part[key] for _, part in parts), value)


def test_variants_coincide_where_they_should():
    """With outputs of one token every ratio is the same; with outputs of equal length the token mean is the
    output mean, at full length so is Dr. GRPO's; with G = 2 its advantages are half of RLOO's.
    """
    advantages = group_relative_advantages(torch.rand(3, 4, generator=torch.Generator().manual_seed(0)))
    one, full = torch.arange(4).expand(3, 4, 4) < 1, torch.ones(3, 4, 4, dtype=torch.bool)
    log_ratio = 0.3 * torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))

    def loss(mask, **changes):
        variant = Variant(**changes)
        return grpo_loss(*table(log_ratio, mask, advantages, None, variant, 4), NO_PENALTY, variant)[0]

    for name in ("gspo", "rloo"):
        torch.testing.assert_close(loss(one, ratio=VARIANTS[name].ratio), loss(one))
    for name in ("dapo", "dr_grpo"):
        torch.testing.assert_close(loss(full, weights=VARIANTS[name].weights), loss(full))
    torch.testing.assert_close(loss(one, weights=per_token_mean), loss(one))
    rewards = torch.rand(5, 2, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        VARIANTS["rloo"].advantages(rewards), 2 * VARIANTS["dr_grpo"].advantages(rewards)
    )


# --- the first step on a batch ---


def test_at_the_first_step_the_loss_is_zero_and_its_gradient_is_not():
    """The most asked question about GRPO: why is the loss 0, and how can it learn?

    The policy that learns is still the one that sampled, so every ratio is 1 and the surrogate of each token
    is its output's advantage. Advantages of a group sum to 0 and every output weighs alike: the loss is 0.
    But the ratio is a function of the weights. Its gradient at ρ = 1 is ∇log π_θ, so that of the loss is the
    policy gradient −Σ weights · Â ∇log π_θ, which is not 0. The value of a surrogate says nothing; only its
    gradient does.
    """
    model = make_model()
    samples = sample(model)
    rewards = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    batch = group_samples(samples, rewards, None, NO_PENALTY, 4)
    scorer, parameters = TokenScorer(model), list(model.parameters())
    loss, metrics = grpo_loss(scorer(batch), batch, NO_PENALTY)
    assert abs(loss.item()) < 1e-6
    assert metrics["clip_fraction"] == 0
    gradients = torch.autograd.grad(loss, parameters)
    assert torch.cat([g.flatten() for g in gradients]).norm() > 0.01
    policy_gradient = -(batch.weights * batch.advantages[..., None] * scorer(batch)).sum()
    for ours, expected in zip(gradients, torch.autograd.grad(policy_gradient, parameters), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)

    # The step lowers it, so at the second one on the same batch it is below 0.
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 0.1 * gradient
    assert grpo_loss(scorer(batch), batch, NO_PENALTY)[0] < -1e-4


def test_the_value_at_the_first_step_is_zero_only_with_weights_that_are_alike():
    """It is −Σ weights · Â: 0 where each output weighs the same, and where all are of equal length; not in
    general where tokens do. The penalty adds nothing as long as the policy is the reference.
    """
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(2, 3, generator=generator)
    lengths = torch.tensor([[1, 4, 2], [3, 1, 4]])
    for name, variant in VARIANTS.items():
        for mask in (torch.arange(4) < lengths[..., None], torch.ones(2, 3, 4, dtype=torch.bool)):
            advantages = variant.advantages(rewards)
            log_probs, batch = table(torch.zeros(2, 3, 4), mask, advantages, None, variant, 4)
            value = grpo_loss(log_probs, batch, GRPOConfig(kl_coef=0.5), variant)[0].item()
            expected = -(batch.weights * advantages[..., None]).sum().item()
            assert value == pytest.approx(expected, abs=1e-6)
            zero = name in ("grpo", "rloo", "gspo") or bool(mask.all())
            assert (abs(value) < 1e-6) == zero


# --- groups that say nothing ---


@pytest.mark.parametrize("group_size", [2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_equal_rewards_have_no_gradient(name, group_size):
    """All groups equal, outputs of every length: advantages and gradient are exactly 0, nothing is NaN."""
    variant, model = VARIANTS[name], make_model()
    limit = math.ceil(4 * variant.room)  # DAPO's penalty for long outputs would tell them apart
    samples = sample(model, group_size)
    rewards = torch.tensor([[0.0], [1.0], [0.1]]).expand(3, group_size)
    config = dataclasses.replace(NO_PENALTY, kl_coef=0.0)
    batch = group_samples(samples, rewards, None, config, limit, variant)
    assert (batch.advantages == 0).all()
    loss, metrics = grpo_loss(TokenScorer(model)(batch), batch, config, variant)
    assert loss == 0
    assert all(value.isfinite() for value in metrics.values())
    assert all((g == 0).all() for g in torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("limit", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_all_of_one_token_or_all_of_full_length(name, limit):
    variant, model = VARIANTS[name], make_model()
    model.tokenizer.end_ids = (99,)  # nothing ends an output before its limit
    samples = sample(model, group_size=2, limit=limit)
    assert samples.mask.all()
    assert samples.mask.shape == (3, 2, limit)
    rewards = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    batch = group_samples(samples, rewards, None, NO_PENALTY, 4, variant)
    loss, _ = grpo_loss(TokenScorer(model)(batch), batch, NO_PENALTY, variant)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert gradient.isfinite().all()
    assert gradient.norm() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_leaving_them_out_changes_nothing(name):
    """Loss, gradient and metrics of a minibatch without its groups of equal rewards are those of all."""
    variant = VARIANTS[name]
    log_probs, batch = random_batch(3, variant, shape=(6, 4))
    advantages = batch.advantages.clone()
    advantages[[0, 2, 3]] = 0
    batch = dataclasses.replace(batch, advantages=advantages)
    rows = torch.tensor([1, 4, 5])
    kept = weigh(batch, NO_PENALTY, 6, variant)
    assert torch.equal(kept.advantages, advantages[rows])  # in their order
    assert torch.equal(kept.weights, variant.weights(batch.mask, 6)[rows])
    inputs = log_probs.clone().requires_grad_()
    loss, metrics = grpo_loss(inputs, batch, NO_PENALTY, variant)
    (gradient,) = torch.autograd.grad(loss, inputs)
    few, few_metrics = grpo_loss(inputs[rows], kept, NO_PENALTY, variant)
    (few_gradient,) = torch.autograd.grad(few, inputs)
    torch.testing.assert_close(few, loss)
    torch.testing.assert_close(few_gradient, gradient)
    torch.testing.assert_close(few_metrics, metrics)


def test_how_many_prompts_stay():
    """As many as have advantages, one at least, a multiple of the processes; all where there is a penalty."""
    variant = VARIANTS["grpo"]
    _, batch = random_batch(3, variant, shape=(6, 4))
    for useful, processes, expected in ((3, 1, 3), (0, 1, 1), (6, 1, 6), (3, 2, 4), (0, 3, 3), (4, 2, 4)):
        advantages = batch.advantages * (torch.arange(6) < useful)[:, None]
        part = dataclasses.replace(batch, advantages=advantages)
        kept = weigh(part, NO_PENALTY, 6, variant, processes)
        assert len(kept) == expected
        assert int(kept.advantages.ne(0).any(dim=1).sum()) == useful
        assert len(weigh(part, GRPOConfig(kl_coef=0.1), 6, variant, processes)) == 6


# --- what an update does ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(8))
def test_better_than_average_outputs_become_likelier(name, seed):
    """Groups whose outputs share no state: after a small step an output is likelier exactly where its reward
    is above the mean of its group.
    """
    variant, generator = VARIANTS[name], torch.Generator().manual_seed(seed)
    size = int(torch.randint(2, 7, (), generator=generator))
    lengths = torch.randint(1, 6, (3, size), generator=generator)
    mask = torch.arange(5) < lengths[..., None]
    tokens = torch.randint(4, (3, size, 5), generator=generator)
    logits = torch.randn(3, size, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    rewards = torch.rand(3, size, generator=generator, dtype=torch.float64)

    def score():
        chosen = logits.log_softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)
        return torch.where(mask, chosen, 0.0)

    before = score()
    _, batch = table(torch.zeros_like(before), mask, variant.advantages(rewards), None, variant, 5)
    batch = dataclasses.replace(batch, log_probs=before.detach())
    (gradient,) = torch.autograd.grad(grpo_loss(before, batch, NO_PENALTY, variant)[0], logits)
    with torch.no_grad():
        logits -= 1e-4 * gradient
        change = (score() - before).sum(dim=-1)
    assert torch.equal(change > 0, rewards > rewards.mean(dim=1, keepdim=True))


@pytest.mark.parametrize("seed", range(5))
def test_a_model_moves_towards_the_better_outputs(seed):
    """In a model all outputs share weights, so one can drag another along; their weighted sum rises."""
    model = make_model(seed)
    rewards = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed))
    batch = group_samples(sample(model, seed=seed), rewards, None, NO_PENALTY, 4)
    scorer, before = TokenScorer(model), batch.log_probs
    loss, _ = grpo_loss(scorer(batch), batch, NO_PENALTY)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.05 * parameter.grad
        change = scorer(batch) - before
    assert (batch.weights * batch.advantages[..., None] * change).sum() > 1e-4


# --- from rewards to the batch ---


def test_group_samples_by_hand(monkeypatch):
    """The penalty of RLOO is taken off the reward: β (log π_old − log π_ref), summed over an output."""
    mask = torch.arange(3) < torch.tensor([[[1], [3]]])
    old = torch.where(mask, -1.0, 0.0)
    reference = torch.where(mask, torch.tensor([-1.5, -2.0, -1.0]), 0.0)
    monkeypatch.setattr(grpo, "TokenScorer", lambda model, temperature: lambda samples: reference)
    prompts = torch.full((1, 2), 3)
    samples = Samples(prompts, prompts > 0, torch.where(mask, 2, 0), mask, old)
    rewards = torch.tensor([[1.0, 0.0]])
    config = GRPOConfig(kl_coef=0.2)
    # Log-ratios: 0.5, and 0.5 + 1 + 0. So 1 − 0.1 and 0 − 0.3; each against the other.
    batch = group_samples(samples, rewards, "the reference", config, 3, VARIANTS["rloo"])
    assert batch.advantages[0].tolist() == pytest.approx([1.2, -1.2])
    # DAPO, at most 5 tokens: the last is the margin, no output is near it.
    batch = group_samples(samples, rewards, "the reference", config, 5, VARIANTS["dapo"])
    half = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert batch.advantages[0].tolist() == pytest.approx([half, -half])
    assert batch.weights[0][mask[0]].tolist() == pytest.approx([0.25] * 4)
    # At most 3 tokens: the second output fills them. 1 and 0 − 1.
    batch = group_samples(samples, rewards, "the reference", config, 3, VARIANTS["dapo"])
    assert batch.advantages[0].tolist() == pytest.approx(
        [1 / (math.sqrt(2) + 1e-4), -1 / (math.sqrt(2) + 1e-4)]
    )
    assert batch.reference_log_probs is not old
    assert torch.equal(batch.reference_log_probs, reference)
    without = group_samples(samples, rewards, None, dataclasses.replace(config, kl_coef=0.0), 3)
    assert torch.equal(without.reference_log_probs, old)


def test_the_reference_reads_a_few_prompts_at_a_time():
    model, reference = make_model(), make_model(1)
    samples, rewards = sample(model), torch.rand(3, 4)
    config = GRPOConfig(kl_coef=0.1)
    whole = group_samples(samples, rewards, reference, config, 4)
    parts = group_samples(samples, rewards, reference, dataclasses.replace(config, micro_batch_size=2), 4)
    torch.testing.assert_close(parts.reference_log_probs, whole.reference_log_probs)
    assert (whole.reference_log_probs != whole.log_probs).any()


def by_answer(useful):
    """A reward that differs between the outputs of a prompt only if its answer is one of ``useful``."""

    def reward(problems, outputs):
        return [float(i % 2 and problem.answer in useful) for i, problem in enumerate(problems)]

    return reward


def collect_with(useful, rounds, num_prompts=6):
    config = GRPOConfig(num_prompts=num_prompts, group_size=2)
    generator = update_generator(0, 0)
    return collect(make_model(), TASK, by_answer(useful), config, 3, generator, OneProcess(), rounds)


def test_dynamic_sampling_fills_the_batch():
    """A third of the prompts is of use; rounds are drawn until there are six of them."""
    samples, rewards, drawn = collect_with("b", rounds=5)
    assert len(samples) == len(rewards) == 6
    assert informative_groups(rewards).all()
    rounds = drawn["written"] / (6 * 2)
    assert 2 <= rounds <= 5
    useful = drawn["informative"] * 6 * rounds
    assert useful >= 6
    assert useful == pytest.approx(round(useful))
    assert drawn["reward"] == pytest.approx(
        drawn["informative"] / 2
    )  # of all that was written, not of what is kept
    texts = [
        tuple(row[mask].tolist()) for row, mask in zip(samples.prompts, samples.prompt_mask, strict=True)
    ]
    assert len(set(texts)) == 6  # no problem twice


def test_dynamic_sampling_stops():
    """At once, if every prompt is of use; after the last round, if none is."""
    _, rewards, drawn = collect_with("abc", rounds=5)
    assert drawn == {"reward": 0.5, "informative": 1.0, "written": 12}
    assert informative_groups(rewards).all()
    samples, rewards, drawn = collect_with("", rounds=3)
    assert drawn == {"reward": 0.0, "informative": 0.0, "written": 36}
    assert len(samples) == 6
    assert not informative_groups(rewards).any()


def test_dynamic_sampling_keeps_what_came_first():
    """With one round nothing is replaced; with two the useful ones come first, then others, each in order."""
    plain, first_rewards, drawn = collect_with("b", rounds=1)
    assert drawn["written"] == 12
    both, rewards, drawn = collect_with("b", rounds=2)
    assert drawn["written"] == 24
    useful = informative_groups(rewards)
    assert useful.tolist() == sorted(useful.tolist(), reverse=True)
    kept = plain.prompts[informative_groups(first_rewards)]
    assert torch.equal(both.prompts[: len(kept), -kept.shape[1] :], kept)


# --- training ---

LEARNING = GRPOConfig(
    updates=45, num_prompts=8, group_size=8, minibatch_size=8, learning_rate=6e-3, kl_coef=0.0
)
LONGER = dataclasses.replace(LEARNING, updates=70, learning_rate=4e-3)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns(name):
    """From a random model, right once in six, to the last letter of prompts of one to three. With DAPO it
    also has to learn to end in time, and takes longer.
    """
    model, config = make_model(), LONGER if name == "dapo" else LEARNING
    history = grpo.train(model, TASK, config, seed=0, variant=name)
    assert history["reward"][0] < 0.4
    assert history["reward"][-3:].mean() > 0.85
    if name == "dapo":
        assert history["outputs"][-1] > 70 * 64
        assert history["finished"][0] < 0.6
        assert history["finished"][-3:].mean() > 0.9
    else:
        assert history["outputs"][-1] == 45 * 64


def test_a_run_learns_whose_loss_is_always_zero():
    """With one step on each batch every step is the first: the reward rises, the loss says nothing of it."""
    config = dataclasses.replace(LEARNING, updates=60, epochs=1, learning_rate=8e-3)
    history = grpo.train(make_model(), TASK, config, seed=0)
    assert abs(history["loss"]).max() < 1e-6
    assert history["reward"][0] < 0.4
    assert history["reward"][-3:].mean() > 0.85
    assert (
        grpo.train(make_model(), TASK, dataclasses.replace(config, updates=3, epochs=2))["loss"] < 0
    ).all()


def test_it_learns_with_the_penalty_of_the_paper():
    model = make_model()
    config = dataclasses.replace(LEARNING, kl_coef=0.04, reference_every=10)
    history = grpo.train(model, TASK, config, seed=0)
    assert history["reward"][-3:].mean() > 0.8
    assert history["reference_kl"][-1] > 0


def test_the_penalty_keeps_the_policy_close():
    distances = []
    for kl_coef in (1e-9, 10.0):
        config = dataclasses.replace(LEARNING, updates=10, kl_coef=kl_coef)
        distances.append(grpo.train(make_model(), TASK, config, seed=0)["reference_kl"][-1])
    assert distances[0] > 5 * distances[1] > 0


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_is_one_run_to_the_bit(name):
    runs = []
    for seed in (0, 0, 1):
        model = make_model()
        history = grpo.train(model, TASK, TINY, seed=seed, variant=name)
        runs.append((weights_of(model), history.rows))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not torch.equal(runs[0][0], runs[2][0])


def test_what_a_row_holds():
    history = grpo.train(make_model(), TASK, TINY, seed=0)
    assert [row["update"] for row in history.rows] == [1, 2, 3, 4]
    assert history["outputs"].tolist() == [16, 32, 48, 64]
    assert [("held_out" in row) for row in history.rows] == [False, True, False, True]
    expected = {
        "reward",
        "informative",
        "length",
        "finished",
        "entropy",
        "loss",
        "clip_fraction",
        "grad_norm",
    }
    assert expected | {"reference_kl"} <= set(history.rows[0])
    assert (
        "reference_kl" not in grpo.train(make_model(), TASK, dataclasses.replace(TINY, kl_coef=0.0)).columns
    )


def test_the_reward_in_a_row_is_that_of_all_outputs():
    """Also of those that dynamic sampling throws away, or its curve would stay at one half."""
    config = dataclasses.replace(TINY, updates=2, kl_coef=0.0)
    history = grpo.train(make_model(), TASK, config, reward=by_answer("b"), variant="dapo")
    assert (history["informative"] < 0.9).all()
    assert history["reward"].tolist() == pytest.approx((history["informative"] / 2).tolist())


class Broken(Exception):
    pass


def breaks_after(calls):
    """The reward of the task, which fails once it has been asked often enough."""
    count = itertools.count(1)

    def reward(problems, outputs):
        if next(count) > calls:
            raise Broken
        return TASK.rewards(problems, outputs)

    return reward


@pytest.mark.parametrize("reference_every", [None, 3])
def test_a_run_goes_on_from_its_checkpoint_to_the_bit(tmp_path, reference_every):
    """Interrupted in its sixth update, written after every second one: four are behind it, and the reference
    is that of after three.
    """
    config = dataclasses.replace(
        TINY, updates=7, reference_every=reference_every, warmup=2, learning_rate_end=0.0
    )
    whole = make_model()
    expected = grpo.train(whole, TASK, config, seed=3, reward=breaks_after(100))
    path = tmp_path / "run.pt"
    options = dict(seed=3, checkpoint=path, checkpoint_every=2)
    with pytest.raises(Broken):
        grpo.train(make_model(), TASK, config, reward=breaks_after(5), **options)
    model = make_model()
    history = grpo.train(model, TASK, config, reward=breaks_after(3), **options)
    assert torch.equal(weights_of(model), weights_of(whole))
    assert history.rows == expected.rows
    assert list(tmp_path.iterdir()) == [path]


def test_the_reference_is_renewed(tmp_path):
    """Where it is renewed before every update, one step on a batch finds the policy at the reference."""
    config = dataclasses.replace(TINY, epochs=1, minibatch_size=4, kl_coef=0.5, learning_rate=1e-2)
    kept = grpo.train(make_model(), TASK, config, seed=0)
    renewed = grpo.train(make_model(), TASK, dataclasses.replace(config, reference_every=1), seed=0)
    assert renewed["reference_kl"].max() < 1e-6 < kept["reference_kl"][-1]
    assert kept["reference_kl"][0] < 1e-6


def test_a_reference_of_ones_own_is_left_as_it_is():
    """It counts until it is renewed, and what is renewed is a copy of it."""
    reference = make_model(1)
    with torch.no_grad():
        reference.head.weight.mul_(50)
    before = weights_of(reference).clone()
    config = dataclasses.replace(TINY, reference_every=2)
    history = grpo.train(make_model(), TASK, config, seed=0, reference=reference)
    assert torch.equal(weights_of(reference), before)
    assert history["reference_kl"][:2].min() > 10 * history["reference_kl"][2:].max()


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_minibatch_make_the_same_update(name):
    """Memory is saved, nothing else changes: one update, four prompts at once or three and one."""
    runs = []
    for size in (None, 3):
        model = make_model()
        config = dataclasses.replace(TINY, updates=1, minibatch_size=4, micro_batch_size=size)
        history = grpo.train(model, TASK, config, seed=0, variant=name)
        runs.append((weights_of(model), history.last["grad_norm"]))
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=1e-3, atol=2e-5)
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-4)


def test_leaving_out_prompts_makes_the_same_update(monkeypatch):
    """A step of the optimiser on a batch in which half of the groups say nothing, with and without them."""
    model, sizes = make_model(), []
    samples = sample(model, prompts=("a>", "b>", "ab>", "bca>"))
    rewards = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    rewards[1:3] = 1.0
    batch = group_samples(samples, rewards, None, NO_PENALTY, 4)
    config = dataclasses.replace(NO_PENALTY, epochs=2, minibatch_size=4)
    weights = []
    for thin in (True, False):
        student = copy.deepcopy(model)
        scorer = TokenScorer(student)
        optimizer = torch.optim.SGD(student.parameters(), 0.1)

        def loss_function(part, scorer=scorer):
            sizes.append(len(part))
            return grpo_loss(scorer(part), part, config)

        def weighed(minibatch, thin=thin):
            return weigh(minibatch, config, 4, VARIANTS["grpo"]) if thin else minibatch

        learn(batch, loss_function, weighed, optimizer, config, update_generator(0, 0), OneProcess())
        weights.append(weights_of(student))
    assert sizes == [2, 2, 4, 4]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-7)


def test_a_batch_that_says_nothing_does_not_stop_the_run():
    """All rewards equal: no gradient, the model stays as it is, and every metric is a number."""
    model = make_model()
    before = weights_of(model).clone()
    config = dataclasses.replace(TINY, kl_coef=0.0)
    history = grpo.train(model, TASK, config, reward=lambda problems, outputs: [1.0] * len(outputs))
    assert torch.equal(weights_of(model), before)
    assert (history["grad_norm"] == 0).all()
    assert (history["informative"] == 0).all()
    assert all(math.isfinite(value) for row in history.rows for value in row.values())


def test_a_recipe_of_ones_own():
    """GRPO with one of DAPO's changes: neither of the two, as long as lengths differ."""
    runs = []
    for variant in ("grpo", "dapo", Variant(weights=per_token_mean), Variant()):
        model = make_model()
        grpo.train(model, TASK, TINY, seed=0, variant=variant)
        runs.append(weights_of(model))
    assert torch.equal(runs[0], runs[3])
    assert not torch.equal(runs[2], runs[0])
    assert not torch.equal(runs[2], runs[1])


# --- errors ---


def never(problems, outputs):
    raise AssertionError("no output was to be written")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(variant="ppo"), "there is no variant 'ppo'; there are grpo, dr_grpo, dapo, rloo, gspo"),
        (dict(variant=per_token_mean), "there is no variant <function per_token_mean"),
        (dict(task="last"), r"task is 'last'; it must be a Task, such as make_task\('addition'\)"),
        (dict(reward="accuracy"), "reward is 'accuracy'; it must be a function that takes problems and outp"),
        (dict(model=make_model().requires_grad_(False)), "there is nothing to train: no parameter"),
        (dict(task=Nothing(held_out=9)), "the task's max_new_tokens is 0; it must be at least 1"),
        (dict(model=make_model(characters="abc")), "the vocabulary lacks '>', which 'abc>' needs"),
        (dict(model=make_model(context=5)), r"the prompt '...>' has 4 tokens; with 2 more .* context of 5"),
        (dict(seed=-1), "seed is -1; it must be a whole number"),
        (dict(checkpoint_every=0), "checkpoint_every is 0; it must be at least 1"),
    ],
)
def test_errors_before_any_work(changes, message):
    arguments = dict(model=make_model(), task=TASK, config=TINY, reward=never) | changes
    with pytest.raises(ValueError, match=message):
        grpo.train(**arguments)


def test_a_prompt_must_leave_room_for_what_a_variant_may_write():
    """DAPO may exceed the limit of the task by a quarter: 4 + 2 tokens fit a context of 6, 4 + 3 do not."""
    config = dataclasses.replace(TINY, updates=1, evaluate_every=None)
    grpo.train(make_model(context=6), TASK, config)
    with pytest.raises(ValueError, match="with 3 more to write that is over the model's context of 6"):
        grpo.train(make_model(context=6), TASK, config, variant="dapo")


BAD_REWARDS = [
    (
        lambda count: [math.nan] + [0.0] * (count - 1),
        "the reward of output .* to prompt .* is nan; rewards must",
    ),
    (lambda count: [0.0] * (count - 1) + [math.inf], "is inf; rewards must be finite"),
    (lambda count: [0.0] * (count - 1), r"an array of shape \(15,\) for 16 outputs"),
    (lambda count: [[0.0]] * count, r"an array of shape \(16, 1\) for 16 outputs"),
    (lambda count: 1.0, r"an array of shape \(\) for 16 outputs"),
    (lambda count: None, "the reward function gave NoneType, not numbers"),
    (lambda count: ["good"] * count, "the reward function gave list, not numbers"),
]


@pytest.mark.parametrize(("give", "message"), BAD_REWARDS)
def test_a_reward_function_that_fails_loses_no_more_than_its_update(tmp_path, give, message):
    """It goes wrong in the third update; the run goes on from the second, to the same end as without it."""
    whole, path, count = make_model(), tmp_path / "run.pt", itertools.count(1)
    options = dict(seed=0, checkpoint=path, checkpoint_every=1)

    def reward(problems, outputs):
        return give(len(outputs)) if next(count) == 3 else TASK.rewards(problems, outputs)

    with pytest.raises(ValueError, match=message):
        grpo.train(make_model(), TASK, TINY, reward=reward, **options)
    model = make_model()
    history = grpo.train(model, TASK, TINY, reward=reward, **options)
    assert next(count) == 6  # three more calls
    expected = grpo.train(whole, TASK, TINY, seed=0)
    assert history.rows == expected.rows
    assert torch.equal(weights_of(model), weights_of(whole))


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    """The step is not taken, and the checkpoint is that of the update before."""
    path, model = tmp_path / "run.pt", make_model()
    options = dict(seed=0, checkpoint=path, checkpoint_every=1)
    config = dataclasses.replace(TINY, minibatch_size=4, epochs=1)
    grpo.train(good := make_model(), TASK, dataclasses.replace(config, updates=2), seed=0)
    real, count = grpo_loss, itertools.count(1)

    def diverges(*arguments):
        loss, metrics = real(*arguments)
        return (loss * math.inf if next(count) == 3 else loss), metrics

    monkeypatch.setattr(grpo, "grpo_loss", diverges)
    with pytest.raises(FloatingPointError, match="the gradient's norm is nan"):
        grpo.train(model, TASK, config, **options)
    assert torch.equal(weights_of(model), weights_of(good))
    assert len(grpo.train(make_model(), TASK, config, **options)) == 4


def own_reward(problems, outputs):
    return TASK.rewards(problems, outputs)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (dict(seed=1), "seed is 0, this run's is 1"),
        (dict(config=dataclasses.replace(TINY, clip=0.1)), r"config\.clip is None, this run's is 0\.1"),
        (dict(variant="gspo"), "variant is 'grpo', this run's is 'gspo'"),
        (dict(variant=Variant(weights=per_token_mean)), "variant is 'grpo', this run's is .*per_token_mean"),
        (dict(model=make_model(1)), "model is "),
        (dict(reference=make_model(1)), "reference is "),
        (dict(reward=own_reward), r"reward is 'Task\.rewards', this run's is 'own_reward'"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes, what):
    arguments = dict(model=make_model(), task=TASK, config=TINY, seed=0, checkpoint=tmp_path / "run.pt")
    grpo.train(**arguments)
    written = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(ValueError, match=f"belongs to another run: its {what}"):
        grpo.train(**arguments | {"model": make_model()} | changes)
    assert (tmp_path / "run.pt").read_bytes() == written


def test_a_run_goes_on_with_smaller_parts(tmp_path):
    """What the message says that stands where memory runs out."""
    calls = itertools.count(1)

    def power_cut(problems, outputs):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return TASK.rewards(problems, outputs)

    options = dict(reward=power_cut, checkpoint=tmp_path / "run.pt", checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        grpo.train(make_model(), TASK, TINY, **options)
    parts = dataclasses.replace(TINY, micro_batch_size=1)
    resumed = grpo.train(make_model(), TASK, parts, **options)
    whole = grpo.train(make_model(), TASK, TINY)
    assert resumed["reward"].tolist() == whole["reward"].tolist()
    assert resumed["loss"].tolist() == pytest.approx(whole["loss"].tolist(), rel=1e-4, abs=1e-6)


def test_the_model_itself_as_reference_is_copied():
    model = make_model()
    config = dataclasses.replace(TINY, kl_coef=0.5)
    history = grpo.train(model, TASK, config, reference=model)
    assert history.rows == grpo.train(make_model(), TASK, config).rows
    assert history.last["reference_kl"] > 0


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("group_size", 1, r"\[2, inf\)"),
        ("clip", 0.0, r"\(0, inf\) or None"),
        ("kl_coef", -0.1, r"\[0, inf\)"),
        ("temperature", 0.0, r"\(0, inf\)"),
        ("reference_every", 0, r"\[1, inf\) or None"),
        ("micro_batch_size", 0, r"\[1, inf\) or None"),
        ("updates", 1.5, r"a whole number in \[1, inf\)"),
    ],
)
def test_settings_out_of_range_are_named(field, value, allowed):
    with pytest.raises(ValueError, match=rf"GRPOConfig\.{field} is .*{allowed}"):
        GRPOConfig(**{field: value})
