"""PPO on a language model: rewards, advantages and losses of tokens by hand, padding that counts for nothing,
and runs that learn, repeat and resume.
"""

import dataclasses
import math
from functools import partial

import pytest
import torch
from language_helpers import made_up_samples, tiny_model

from policyopt.language.grpo import GRPOConfig, group_samples, grpo_loss
from policyopt.language.model import Transformer, TransformerConfig
from policyopt.language.ppo import (
    PolicyAndValue,
    PPOConfig,
    TokenSamples,
    clipped_value_loss,
    ppo_loss,
    token_advantages,
    token_rewards,
    token_samples,
    token_values,
    train,
)
from policyopt.language.sampling import Samples, TokenScorer, encode_prompts
from policyopt.language.scalar_model import ScalarModel
from policyopt.language.tasks import Addition
from policyopt.language.tokenizer import CharTokenizer
from policyopt.language.variants import Variant, per_token_mean
from policyopt.returns import group_relative_advantages

NAN = math.nan
LENGTHS = torch.tensor([[1, 2, 4]])
MASK = torch.arange(4) < LENGTHS[..., None]  # [1, 3, 4]: outputs of length 1, of 2 and of all 4
SMALL = TransformerConfig(layers=1, width=16, heads=2, hidden=24, context=12)
TASK = Addition(0, 9, held_out=20)
QUICK = PPOConfig(updates=3, num_prompts=8, group_size=2, epochs=2, minibatch_size=4, kl_coef=0.05)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_model(seed=0):
    return Transformer(CharTokenizer(TASK.characters), SMALL, seed)


def made_up_batch(seed=0, dtype=torch.float64, **settings):
    """Outputs of many lengths, ``[4, 3, 6]``, with random numbers for all that a model would say of them."""
    samples = made_up_samples(tiny_model(), ["a", "bcb", "ca", "bb"], 3, 6, seed)
    generator = torch.Generator().manual_seed(seed)
    shape = samples.tokens.shape
    log_probs, reference, values = torch.randn(3, *shape, generator=generator, dtype=dtype)
    rewards = torch.randn(shape[:2], generator=generator, dtype=dtype)
    samples = dataclasses.replace(samples, log_probs=torch.where(samples.mask, log_probs, 0.0))
    config = PPOConfig(**{"kl_coef": 0.3, "gamma": 0.9, "gae_lambda": 0.8, **settings})
    return token_samples(samples, rewards, values, reference, config), rewards, values, reference, config


def test_token_rewards_by_hand():
    log_probs = torch.tensor([[[-1.0, NAN, NAN, NAN], [-1.0, -2.0, NAN, NAN], [-1.0, -2.0, -3.0, -4.0]]])
    reference = torch.tensor([[[-3.0, NAN, NAN, NAN], [-1.0, -1.0, NAN, NAN], [-2.0, -2.0, -1.0, -4.0]]])
    rewards = torch.tensor([[10.0, 20.0, 30.0]])
    # β = 1/2: the first output is e² times as likely as in the reference and pays 1, and so on.
    expected = [[[9.0, 0, 0, 0], [0, 20.5, 0, 0], [-0.5, 0, 1, 30]]]
    assert token_rewards(rewards, log_probs, reference, MASK, 0.5).tolist() == expected
    free = [[[10.0, 0, 0, 0], [0, 20, 0, 0], [0, 0, 0, 30]]]
    assert token_rewards(rewards, log_probs, reference, MASK, 0.0).tolist() == free


def test_advantages_by_hand():
    """γ = λ = 1/2. Third output: δ = (0, 0, −2, 4), each Â_t = δ_t + Â_{t+1}/4."""
    rewards = torch.tensor([[[3.0, NAN, 9, 9], [0, 4, NAN, 9], [1, 0, 0, 8]]])
    values = torch.tensor([[[1.0, 9, NAN, 9], [1, 2, 9, NAN], [2, 2, 4, 4]]])
    expected = [[[2.0, 0, 0, 0], [0.5, 2, 0, 0], [-0.0625, -0.25, -1, 4]]]
    assert token_advantages(rewards, values, MASK, 0.5, 0.5).tolist() == expected


def test_a_sole_token_and_a_sole_output():
    mask = torch.ones(1, 1, 1, dtype=torch.bool)
    five, two = torch.full((1, 1, 1), 5.0), torch.full((1, 1, 1), 2.0)
    assert token_advantages(five, two, mask).tolist() == [[[3.0]]]
    assert token_rewards(five[0], two, two, mask, 1.0).tolist() == [[[5.0]]]
    samples = Samples(*encode_prompts(tiny_model(), ["a"], 1), torch.full((1, 1, 1), 2), mask, -two)
    batch = token_samples(samples, five[0], two, -two, PPOConfig())
    assert (batch.advantages.item(), batch.returns.item()) == (3.0, 5.0)  # nothing to compare it with


def test_without_values_the_advantage_is_the_return_to_go():
    batch, rewards, _, reference, config = made_up_batch()
    earned = token_rewards(rewards, batch.log_probs, reference, batch.mask, config.kl_coef)
    advantages = token_advantages(earned, torch.zeros_like(earned), batch.mask, 1.0, 1.0)
    to_go = earned.flip(-1).cumsum(dim=-1).flip(-1)
    torch.testing.assert_close(advantages, torch.where(batch.mask, to_go, 0.0))
    penalty = ((batch.log_probs - reference) * batch.mask).sum(dim=-1)
    torch.testing.assert_close(advantages[..., 0], rewards - config.kl_coef * penalty)  # eq. 2 of InstructGPT


def plain_batch(samples, rewards, values, reference, config):
    """Advantages and returns of each output by itself, as lists, the advantages then whitened together."""
    advantages, returns = [], []
    for q, g in torch.cartesian_prod(*map(torch.arange, rewards.shape)).tolist():
        length = int(samples.mask[q, g].sum())
        new, old, value = (x[q, g, :length].tolist() for x in (samples.log_probs, reference, values))
        earned = [-config.kl_coef * (p - r) for p, r in zip(new, old, strict=True)]
        earned[-1] += rewards[q, g].item()
        ahead, following = 0.0, 0.0
        row = []
        for t in reversed(range(length)):
            ahead = earned[t] + config.gamma * following - value[t] + config.gamma * config.gae_lambda * ahead
            following = value[t]
            row.insert(0, ahead)
        advantages.append(row)
        returns.append([a + v for a, v in zip(row, value, strict=True)])
    if config.normalize_advantages:
        flat = [a for row in advantages for a in row]
        mean = sum(flat) / len(flat)
        spread = math.sqrt(sum((a - mean) ** 2 for a in flat) / (len(flat) - 1))
        advantages = [[(a - mean) / spread for a in row] for row in advantages]
    return advantages, returns


def plain_loss(batch, advantages, returns, values, log_probs, new_values, config):
    """The mean over tokens of both losses, one token at a time."""
    losses = []
    for i, (row, goals) in enumerate(zip(advantages, returns, strict=True)):
        for t, (advantage, goal) in enumerate(zip(row, goals, strict=True)):
            new, old, now, before = (
                x.flatten(0, 1)[i, t].item() for x in (log_probs, batch.log_probs, new_values, values)
            )
            ratio = math.exp(new - old)
            clipped = min(max(ratio, 1 - config.clip), 1 + config.clip)
            nearby = min(max(now, before - config.value_clip), before + config.value_clip)
            loss = -min(ratio * advantage, clipped * advantage)
            losses.append(loss + max((now - goal) ** 2, (nearby - goal) ** 2))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("whiten", [True, False])
def test_batch_and_loss_equal_a_plain_loop(whiten):
    batch, rewards, values, reference, config = made_up_batch(normalize_advantages=whiten)
    assert {1, 2, 6} <= set(batch.lengths.flatten().tolist())
    advantages, returns = plain_batch(batch, rewards, values, reference, config)
    for ours, plain in ((batch.advantages, advantages), (batch.returns, returns)):
        flat = torch.tensor([x for row in plain for x in row], dtype=torch.float64)
        torch.testing.assert_close(ours[batch.mask], flat, rtol=1e-6, atol=1e-6)
        assert (ours[~batch.mask] == 0).all()
    generator = torch.Generator().manual_seed(5)
    shift = torch.randn(2, *values.shape, generator=generator, dtype=torch.float64)
    log_probs, new_values = batch.log_probs + 0.3 * shift[0], values + 0.3 * shift[1]
    loss, metrics = ppo_loss(log_probs, new_values, batch, config)
    plain = plain_loss(batch, advantages, returns, values, log_probs, new_values, config)
    assert loss.item() == pytest.approx(plain, rel=1e-6)
    assert (metrics["policy_loss"] + metrics["value_loss"]).item() == pytest.approx(plain, rel=1e-6)
    assert 0 < metrics["clip_fraction"].item() < 1
    parts = [
        ppo_loss(log_probs[i : i + 1], new_values[i : i + 1], batch[i : i + 1], config) for i in range(4)
    ]
    assert sum(part.item() for part, _ in parts) == pytest.approx(loss.item())


def test_whitening_is_over_what_was_written():
    batch, *_ = made_up_batch()
    written = batch.advantages[batch.mask]
    assert written.mean().item() == pytest.approx(0, abs=1e-12)
    assert written.std().item() == pytest.approx(1, abs=1e-6)
    plain, *_ = made_up_batch(normalize_advantages=False)
    torch.testing.assert_close(batch.returns, plain.returns)  # what the values are to become stays as it is


def test_value_loss_by_hand():
    """The old value is 1, c = 1/2, the goal 3."""
    values = torch.tensor([1.2, 2.0, 0.0, 4.0, 6.0], requires_grad=True)
    loss = clipped_value_loss(values, torch.ones(5), torch.full((5,), 3.0), 0.5)
    # Little moved; moved far to the goal: as if at 1.5; away from it; past it, as near as 1.5; far past it.
    assert loss.tolist() == pytest.approx([1.8**2, 1.5**2, 3.0**2, 1.5**2, 3.0**2])
    loss.sum().backward()
    assert values.grad.tolist() == pytest.approx([-3.6, 0, -6, 0, 6])  # where it counts as at 1.5, none
    squares = clipped_value_loss(values.detach(), torch.ones(5), torch.full((5,), 3.0), math.inf)
    assert squares.tolist() == pytest.approx([1.8**2, 1, 9, 1, 9])


def three_lengths(**settings):
    """Lengths 1, 2 and 4; ρ is 1 or, for the last token of each, 3/2; each has its own advantage."""
    zeros = torch.zeros(1, 3, 4)
    ends = MASK & ~torch.nn.functional.pad(MASK[..., 1:], (0, 1))
    log_probs = torch.where(ends, math.log(1.5), 0.0)
    advantages = torch.tensor([1.0, -2.0, 4.0]).view(1, 3, 1) * MASK
    columns = dict(log_probs=zeros, values=zeros, returns=MASK * 1.0, weights=MASK / 7)
    prompts = torch.ones(1, 1, dtype=torch.long)
    batch = TokenSamples(prompts, prompts > 0, zeros.long(), MASK, advantages=advantages, **columns)
    return log_probs, 0.5 * MASK, batch, PPOConfig(**settings)


def test_loss_by_hand():
    log_probs, values, batch, config = three_lengths(clip=0.2, value_clip=0.1)
    loss, metrics = ppo_loss(log_probs, values, batch, config)
    objective = (1.2 * 1) + (-2 - 1.5 * 2) + (4 + 4 + 4 + 1.2 * 4)  # a bad token's ratio is not clipped above
    assert metrics["policy_loss"].item() == pytest.approx(-objective / 7)
    assert metrics["clip_fraction"].item() == pytest.approx(2 / 7)
    assert metrics["value_loss"].item() == pytest.approx(0.9**2)  # at 0.1 of the way from 0 to 1
    assert loss.item() == pytest.approx(-objective / 7 + 0.81)
    _, metrics = ppo_loss(log_probs, values, batch, PPOConfig(value_clip=None))
    assert metrics["value_loss"].item() == pytest.approx(0.5**2)


@pytest.mark.parametrize("garbage", [NAN, math.inf, -1e30])
def test_nothing_at_padding_counts(garbage):
    log_probs, values, batch, config = three_lengths()

    def spoil(tensor):
        return torch.where(MASK, tensor, garbage)

    names = ("log_probs", "values", "advantages", "returns", "weights")
    spoiled = dataclasses.replace(batch, **{name: spoil(getattr(batch, name)) for name in names})
    results = []
    for these, inputs in ((batch, (log_probs, values)), (spoiled, (spoil(log_probs), spoil(values)))):
        inputs = [x.clone().requires_grad_() for x in inputs]
        loss, metrics = ppo_loss(*inputs, these, config)
        loss.backward()
        results.append([loss.detach(), *metrics.values(), *(x.grad for x in inputs)])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)
    assert (results[1][-1][~MASK] == 0).all()
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    samples = Samples(*(getattr(batch, field.name) for field in dataclasses.fields(Samples)))
    dirty = dataclasses.replace(samples, log_probs=spoil(samples.log_probs))
    clean = token_samples(samples, rewards, values, log_probs, config)
    dirty = token_samples(dirty, rewards, spoil(values), spoil(log_probs), config)
    for name in names[1:]:
        assert torch.equal(getattr(clean, name), getattr(dirty, name)), name


def test_tokens_at_padding_count_for_nothing_in_either_network():
    model = tiny_model()
    value_model = ScalarModel(tiny_model(seed=1), scale=1.0)
    samples = made_up_samples(model, ["a", "bcb", "ca"], 3, 6)
    other = dataclasses.replace(
        samples,
        tokens=torch.where(samples.mask, samples.tokens, 4),
        prompts=torch.where(samples.prompt_mask, samples.prompts, 3),
    )
    networks = PolicyAndValue(model, value_model)
    for before, after in zip(networks(samples), networks(other), strict=True):
        torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)
        assert (before[~samples.mask] == 0).all()


def test_values_are_read_before_each_token():
    value_model = ScalarModel(tiny_model(), scale=1.0)
    samples = made_up_samples(value_model.body, ["a", "bcb"], 2, 5)
    values = token_values(value_model, samples)
    for q in range(2):
        prompt = samples.prompts[q][samples.prompt_mask[q]]
        for g in range(2):
            output = samples.tokens[q, g][samples.mask[q, g]]
            for t in range(len(output)):
                read = value_model.body.features(torch.cat([prompt, output[:t]])[None])[0, -1]
                assert values[q, g, t].item() == pytest.approx(
                    value_model.score(read).item(), rel=1e-3, abs=1e-5
                )


def test_loss_gradients_by_finite_differences():
    batch, _, values, _, config = made_up_batch()
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(4, *values.shape, generator=generator, dtype=torch.float64)
    inputs = [(x + 0.2 * n).requires_grad_() for x, n in zip((batch.log_probs, values), noise, strict=False)]
    gradients = torch.autograd.grad(ppo_loss(*inputs, batch, config)[0], inputs)
    for i in range(2):  # along a direction for each network's output
        direction = noise[2 + i]

        def loss_at(step, i=i, direction=direction):
            moved = [x.detach() + step * direction if j == i else x.detach() for j, x in enumerate(inputs)]
            return ppo_loss(*moved, batch, config)[0]

        slope = (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6
        torch.testing.assert_close((gradients[i] * direction).sum(), slope, rtol=1e-6, atol=1e-8)


def test_neither_loss_touches_the_other_network():
    model, value_model = tiny_model(), ScalarModel(tiny_model(seed=1), scale=1.0)
    samples = made_up_samples(model, ["a", "bcb"], 2, 5)
    log_probs, values = PolicyAndValue(model, value_model)(samples)
    zeros = torch.zeros_like(values)
    batch = token_samples(samples, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), zeros, zeros, PPOConfig(kl_coef=0))
    policy_only = ppo_loss(log_probs, values.detach(), batch, PPOConfig(clip=100.0))[0]
    value_only = ppo_loss(log_probs.detach(), values, batch, PPOConfig(value_clip=None))[0]
    mine, others = ([p for p in m.parameters() if p.requires_grad] for m in (model, value_model))
    for loss, touched, untouched in ((policy_only, mine, others), (value_only, others, mine)):
        grads = torch.autograd.grad(loss, [*touched, *untouched], retain_graph=True, allow_unused=True)
        assert any(grad is not None and grad.abs().sum() > 0 for grad in grads[: len(touched)])
        assert all(grad is None for grad in grads[len(touched) :])


@pytest.mark.parametrize("size", ["learning_rate", "value_learning_rate"])
def test_each_network_has_its_own_step(size):
    """One update: the rate of one network makes no difference to the other, nor does its gradient's norm."""
    results = []
    for rate in (1e-3, 1e-1):
        model, value_model = small_model(), ScalarModel(small_model(), scale=1.0)
        config = dataclasses.replace(QUICK, updates=1, max_grad_norm=0.01, **{size: rate})
        train(model, TASK, config, value_model=value_model, reward=lambda p, o: [len(x) for x in o])
        results.append((model.state_dict(), value_model.state_dict()))
    same = 1 if size == "learning_rate" else 0
    for i in range(2):
        equal = all(torch.equal(a, b) for a, b in zip(*(r[i].values() for r in results), strict=True))
        assert equal == (i == same)


def test_with_a_perfect_value_its_surrogate_is_grpos():
    """β = 0, γ = λ = 1: where V is the mean reward of a prompt's outputs, each token's Â is that of GRPO."""
    samples = made_up_batch()[0]
    samples = Samples(*(getattr(samples, field.name) for field in dataclasses.fields(Samples)))
    rewards = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = rewards.mean(dim=1)[:, None, None].expand(samples.tokens.shape)
    config = PPOConfig(kl_coef=0.0, gae_lambda=1.0, normalize_advantages=False)
    ours = token_samples(samples, rewards, values, samples.log_probs, config)
    centred = Variant(partial(group_relative_advantages, divide_by_std=False), weights=per_token_mean)
    theirs = group_samples(samples, rewards, None, GRPOConfig(kl_coef=0.0), 6, centred)
    torch.testing.assert_close(ours.advantages, theirs.advantages[..., None] * samples.mask)
    shift = torch.randn(samples.tokens.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    log_probs = (samples.log_probs + 0.3 * shift * samples.mask).requires_grad_()
    loss, metrics = ppo_loss(log_probs, values, ours, config)
    group_loss, _ = grpo_loss(log_probs, theirs, GRPOConfig(kl_coef=0.0), centred)
    assert metrics["policy_loss"].item() == pytest.approx(group_loss.item(), rel=1e-9)
    slopes = [torch.autograd.grad(x, log_probs)[0] for x in (loss, group_loss)]
    torch.testing.assert_close(*slopes)
    assert slopes[0].abs().sum() > 0


def first_digit(problems, outputs):
    """1 for an output that begins with the digit the prompt begins with."""
    return [float(output[:1] == problem.prompt[0]) for problem, output in zip(problems, outputs, strict=True)]


def test_learns_what_is_rewarded():
    """To begin with the digit with which the prompt begins: 0, 1 or 2."""
    model, value_model = small_model(), ScalarModel(small_model())
    rates = dict(learning_rate=1e-2, value_learning_rate=1e-2)
    config = PPOConfig(updates=20, num_prompts=64, minibatch_size=64, epochs=4, kl_coef=0.0, **rates)
    task = Addition(0, 2, held_out=2)
    history = train(model, task, config, value_model=value_model, reward=first_digit)
    assert history["reward"][0] < 0.2
    assert history["reward"][-3:].mean() > 0.9
    assert history["explained_variance"].max() > 0.3  # some prompts are learnt before others
    assert {"kl", "held_out"}.isdisjoint(history.columns)  # there is no reference, and nobody asked
    assert value_model.out.bias.abs().item() > 0  # trained in place


def test_penalty_holds_it_back():
    def drift(kl_coef):
        config = PPOConfig(updates=10, num_prompts=64, minibatch_size=64, learning_rate=5e-3, kl_coef=kl_coef)
        history = train(small_model(), TASK, config, reward=first_digit)
        assert history["kl"][0] == pytest.approx(0, abs=1e-5)
        return history["kl"][-1]

    assert drift(2.0) < 0.5 * drift(0.001)


def test_row_of_an_update_by_hand(monkeypatch):
    seen = []

    def watch(samples, *rest):
        seen.append(samples)
        return token_samples(samples, *rest)

    monkeypatch.setattr("policyopt.language.ppo.token_samples", watch)
    model, reference, value_model = small_model(), small_model(seed=3), ScalarModel(small_model(), scale=1.0)
    sizes = dict(updates=1, epochs=1, minibatch_size=8, evaluate_every=1, evaluate_problems=5)
    config = dataclasses.replace(QUICK, **sizes)
    settings = dict(reward=lambda problems, outputs: [float(len(x)) for x in outputs], reference=reference)
    row = train(model, TASK, config, value_model=value_model, **settings).last
    samples = seen[0]
    assert samples.tokens.shape == (8, 2, 3)
    kl = (samples.log_probs - TokenScorer(reference)(samples)).sum(dim=-1)
    assert row["kl"] == pytest.approx(kl.mean().item(), rel=1e-5)
    assert row["length"] == pytest.approx(samples.mask.sum(dim=-1).float().mean().item())
    lengths = [len(text) for group in samples.texts(model.tokenizer) for text in group]
    assert row["reward"] == pytest.approx(sum(lengths) / 16)
    assert (row["update"], row["outputs"]) == (1, 16)
    values = token_values(ScalarModel(small_model(), scale=1.0), samples)
    rewards = torch.tensor(lengths).view(8, 2).float()
    batch = token_samples(samples, rewards, values, TokenScorer(reference)(samples), config)
    errors = (batch.returns - values)[samples.mask].var() / batch.returns[samples.mask].var()
    assert row["explained_variance"] == pytest.approx(1 - errors.item(), rel=1e-4)
    # Its one step is the first on the batch: every ρ is 1 and every value the old one.
    squares = (batch.returns - values)[samples.mask].square()
    assert row["value_loss"] == pytest.approx(squares.mean().item(), rel=1e-4)
    assert row["policy_loss"] == pytest.approx(0, abs=1e-5)  # minus the mean of what has been whitened
    assert row["clip_fraction"] == 0
    assert row["grad_norm"] > 0.01
    assert {"finished", "entropy", "value_grad_norm", "held_out"} <= row.keys()
    assert row["loss"] == pytest.approx(row["policy_loss"] + row["value_loss"], rel=1e-5)


def weights_of(*modules):
    return [tensor.clone() for module in modules for tensor in module.state_dict().values()]


def test_same_seed_same_bits_and_another_seed_others():
    runs = []
    for seed in (0, 0, 1):
        model, value_model = small_model(), ScalarModel(small_model())
        history = train(model, TASK, QUICK, seed, value_model=value_model, reward=first_digit)
        runs.append((history.rows, weights_of(model, value_model)))
    assert runs[0][0] == runs[1][0]
    assert all(map(torch.equal, runs[0][1], runs[1][1]))
    assert runs[0][0] != runs[2][0]


@pytest.mark.parametrize("own_value_model", [True, False])
def test_resumes_to_the_bit(tmp_path, own_value_model):
    config = dataclasses.replace(QUICK, updates=5, learning_rate_end=0.0, warmup=2)

    def run(path, reward):
        model = small_model()
        value_model = ScalarModel(small_model(), scale=0.1) if own_value_model else None
        history = train(
            model, TASK, config, value_model=value_model, reward=reward, checkpoint=path, checkpoint_every=2
        )
        content = torch.load(path, weights_only=True)["parts"]
        return history.rows, content

    calls = []

    def power_cut(problems, outputs):
        calls.append(len(calls))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return first_digit(problems, outputs)

    rows, whole = run(tmp_path / "whole.pt", first_digit)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut.pt", power_cut)
    resumed_rows, resumed = run(tmp_path / "cut.pt", power_cut)
    assert len(calls) == 4 + 3  # updates 3, 4 and 5; the third had been lost
    assert resumed_rows == rows
    assert set(whole) == {"model", "value_model", "optimizer", "value_optimizer", "history"}
    for part in ("model", "value_model"):
        assert all(torch.equal(whole[part][name], resumed[part][name]) for name in whole[part])
    for part in ("optimizer", "value_optimizer"):
        for i, state in whole[part]["state"].items():
            assert all(torch.equal(state[name], resumed[part]["state"][i][name]) for name in state)


def test_the_model_itself_as_reference_is_copied():
    model, other = small_model(), small_model()
    history = train(model, TASK, QUICK, reward=first_digit, reference=model)
    assert history.rows == train(other, TASK, QUICK, reward=first_digit).rows
    assert history.last["kl"] != 0


def test_micro_batches_add_up():
    results = []
    for size in (None, 1, 3):
        model, value_model = small_model(), ScalarModel(small_model(), scale=0.3)
        config = dataclasses.replace(QUICK, updates=1, epochs=1, minibatch_size=8, micro_batch_size=size)
        history = train(model, TASK, config, value_model=value_model, reward=first_digit)
        results.append((history.last, weights_of(model, value_model)))
    for row, weights in results[1:]:
        for name in ("loss", "policy_loss", "value_loss", "clip_fraction", "grad_norm", "value_grad_norm"):
            assert row[name] == pytest.approx(results[0][0][name], rel=1e-4, abs=1e-6), name
        assert all(map(partial(torch.allclose, atol=1e-4), weights, results[0][1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_size": 0}, r"PPOConfig.group_size is 0; it must be a whole number in \[1"),
        ({"value_clip": 0.0}, "PPOConfig.value_clip is 0.0"),
        ({"gae_lambda": 1.5}, "PPOConfig.gae_lambda is 1.5"),
        ({"value_learning_rate": -1.0}, "PPOConfig.value_learning_rate is -1.0"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        PPOConfig(**settings)
    PPOConfig(group_size=1, value_clip=None)


def test_wrong_input(tmp_path):
    model = small_model()
    with pytest.raises(ValueError, match="shares parameters with the policy; give it a copy of the body"):
        train(model, TASK, QUICK, value_model=ScalarModel(model))
    with pytest.raises(ValueError, match=r"the reward of output .* is nan"):
        train(model, TASK, QUICK, reward=lambda problems, outputs: [NAN] * len(outputs))
    with pytest.raises(ValueError, match="give one number for each"):
        train(model, TASK, QUICK, reward=lambda problems, outputs: [1.0])
    with pytest.raises(ValueError, match=r"over the model's context of 12"):
        train(model, Addition(10**5, 10**5 + 9, held_out=5), QUICK)
    path = tmp_path / "run.pt"
    train(small_model(), TASK, QUICK, checkpoint=path, reward=first_digit)
    with pytest.raises(ValueError, match="another run: its value_model is"):
        train(small_model(), TASK, QUICK, checkpoint=path, value_model=ScalarModel(small_model(), scale=1.0))
    with pytest.raises(ValueError, match=r"another run: its config.clip is 0.2, this run's is 0.3"):
        train(small_model(), TASK, dataclasses.replace(QUICK, clip=0.3), checkpoint=path)
    with pytest.raises(ValueError, match="another run: its reward is 'first_digit', this run's"):
        train(small_model(), TASK, QUICK, checkpoint=path)
    other = dict(reward=first_digit, reference=small_model(1))
    with pytest.raises(ValueError, match="another run: its reference is"):
        train(small_model(), TASK, QUICK, checkpoint=path, **other)
    poor = Transformer(CharTokenizer("012345678+="), SMALL)  # found out from the task, not from a prompt
    one = dataclasses.replace(QUICK, updates=1, num_prompts=1, minibatch_size=1)
    with pytest.raises(ValueError, match="the vocabulary lacks '9', which '0123456789"):
        train(poor, TASK, one)
    broken = ScalarModel(small_model())
    with torch.no_grad():
        broken.out.bias.fill_(NAN)
    with pytest.raises(FloatingPointError, match="the gradient's norm is nan"):
        train(small_model(), TASK, QUICK, value_model=broken)
