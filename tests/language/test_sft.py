"""Supervised fine-tuning: its loss by hand and by transformers, what it learns, and resuming."""

import dataclasses
import math

import pytest
import torch
from language_helpers import TINY, plain_log_probs, tiny_model
from torch import nn

from policyopt.language.model import Transformer
from policyopt.language.sampling import Samples, encode_prompts
from policyopt.language.sft import SFTConfig, encode_demonstrations, sft_loss, train
from policyopt.language.tasks import Addition, Brackets, Problem, SortDigits
from policyopt.language.tokenizer import CharTokenizer, pad
from policyopt.language.training import held_out_reward

DEMONSTRATIONS = [Problem("ab", "c"), Problem("c", "abcab"), Problem("abca", "")]


def loss_of(model, demonstrations):
    return sft_loss(model, *encode_demonstrations(model, demonstrations))


# The loss


def test_demonstrations_by_hand():
    tokens, mask, answers = encode_demonstrations(tiny_model(), DEMONSTRATIONS)
    assert tokens.tolist() == [[2, 3, 4, 1, 0, 0, 0], [4, 2, 3, 4, 2, 3, 1], [2, 3, 4, 2, 1, 0, 0]]
    assert mask.int().tolist() == [[1, 1, 1, 1, 0, 0, 0], [1] * 7, [1, 1, 1, 1, 1, 0, 0]]
    assert answers.int().tolist() == [[0, 0, 1, 1, 0, 0, 0], [0] + [1] * 6, [0, 0, 0, 0, 1, 0, 0]]


def test_loss_of_a_model_that_knows_nothing():
    """Every token is as likely, so −log of one is log V, whatever is asked and answered."""
    model = tiny_model()
    nn.init.zeros_(model.head.weight)
    assert loss_of(model, DEMONSTRATIONS).item() == pytest.approx(math.log(5))
    assert loss_of(model, DEMONSTRATIONS[1:2]).item() == pytest.approx(math.log(5))


def test_loss_by_hand():
    """The mean over the tokens of all answers, 2 + 6 + 1 of them, each from a forward pass of its own."""
    model = tiny_model()
    terms = []
    for prompt, answer in DEMONSTRATIONS:
        known, output = model.tokenizer.encode(prompt), model.tokenizer.encode_output(answer)
        for token in output:
            terms.append(-model(torch.tensor([known]))[0, -1].log_softmax(dim=-1)[token].item())
            known = [*known, token]
    assert len(terms) == 9
    assert loss_of(model, DEMONSTRATIONS).item() == pytest.approx(sum(terms) / 9, rel=1e-5)


def test_loss_is_minus_the_log_probability_of_sampling():
    model = tiny_model()
    prompts, prompt_mask = encode_prompts(model, [d.prompt for d in DEMONSTRATIONS], 6)
    outputs, mask = pad([model.tokenizer.encode_output(d.answer) for d in DEMONSTRATIONS], 0, "right")
    samples = Samples(prompts, prompt_mask, outputs[:, None], mask[:, None], torch.zeros(3, 1, 6))
    expected = -plain_log_probs(model, samples).sum() / mask.sum()
    torch.testing.assert_close(loss_of(model, DEMONSTRATIONS), expected, atol=1e-5, rtol=1e-5)


def test_prompt_and_padding_do_not_count():
    """Logits that foretell neither prompt nor padding cost nothing."""
    model = tiny_model(dtype=torch.double)
    tokens, mask, answers = encode_demonstrations(model, DEMONSTRATIONS)
    logits = torch.zeros(3, 6, 5, dtype=torch.double, requires_grad=True)
    stand_in = StandIn(logits)
    sft_loss(stand_in, tokens, mask, answers).backward()
    counts = logits.grad.abs().sum(dim=-1) > 0
    assert torch.equal(counts, answers[:, 1:])  # the logits at a token are of the one after it


class StandIn:
    """A model whose logits ``[B, L, V]`` are given."""

    def __init__(self, logits):
        self.logits, self.head = logits, nn.Identity()

    def features(self, tokens, mask=None, cache=None):
        assert tokens.shape == mask.shape == self.logits.shape[:2]
        return self.logits


def test_gradient_by_finite_differences():
    """The loss is computed in single precision, so its slope agrees to about three digits."""
    model = tiny_model(dtype=torch.double)
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(loss_of(model, DEMONSTRATIONS), parameters)
    gradient = torch.cat([part.flatten() for part in gradient])
    vector = nn.utils.parameters_to_vector(parameters).detach()
    generator, step = torch.Generator().manual_seed(0), 1e-3
    directions = torch.randn(6, len(vector), generator=generator, dtype=torch.double)
    for direction in [gradient / gradient.norm(), *directions / directions.norm(dim=1, keepdim=True)]:
        sides = []
        for sign in (1, -1):
            nn.utils.vector_to_parameters(vector + sign * step * direction, parameters)
            sides.append(loss_of(model, DEMONSTRATIONS).item())
        nn.utils.vector_to_parameters(vector, parameters)
        slope = (gradient * direction).sum().item()
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(slope, rel=2e-3, abs=1e-3)


@pytest.mark.xdist_group("llm")
def test_loss_and_gradient_are_those_of_transformers():
    """Its loss of a causal language model, labels −100 at prompt and padding, from the same logits."""
    pytest.importorskip("transformers")
    from transformers.loss.loss_utils import ForCausalLMLoss

    model = tiny_model()
    tokens, mask, answers = encode_demonstrations(model, DEMONSTRATIONS)
    logits = model(tokens, mask)
    theirs = ForCausalLMLoss(logits, tokens.masked_fill(~answers, -100), vocab_size=5)
    ours = sft_loss(model, tokens, mask, answers)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    gradients = (torch.autograd.grad(loss, list(model.parameters())) for loss in (ours, theirs))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


# Training

SMALL = SFTConfig(updates=12, batch_size=4, learning_rate=0.01, warmup=2)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def fresh():
    return Transformer(CharTokenizer("abc"), TINY)


def test_it_learns_five_problems():
    task = SortDigits(shortest=2, longest=4, num_problems=50, held_out=5)
    model = Transformer(CharTokenizer(task.characters), TINY)
    assert held_out_reward(model, task, task.held_out) < 0.5
    config = SFTConfig(updates=200, batch_size=10, learning_rate=0.01, warmup=5)
    history = train(model, task.held_out, config)
    assert held_out_reward(model, task, task.held_out) == 1
    assert len(history) == 200
    assert history.columns == ["update", "loss", "grad_norm"]
    assert history["update"].tolist() == list(range(1, 201))
    assert history["loss"][0] == pytest.approx(math.log(13), abs=0.3)
    assert history["loss"][-1] < 0.05


def test_a_mixture_of_answers_is_learned_as_a_mixture():
    """What is right a quarter of the time is then written a quarter of the time: SFT imitates."""
    model = fresh()
    demonstrations = [Problem("a", "b")] + [Problem("a", "c")] * 3
    train(model, demonstrations, SFTConfig(updates=300, batch_size=64, learning_rate=0.01))
    shares = model(torch.tensor([[2]]))[0, -1].softmax(dim=-1)
    torch.testing.assert_close(shares, torch.tensor([0, 0, 0, 0.25, 0.75]), atol=0.05, rtol=0)


def test_first_steps_by_hand():
    """Two steps of AdamW at the scheduled rates, on rows drawn for these updates."""
    from policyopt.language.training import scheduled_rate, update_generator

    model, plain = fresh(), fresh()
    config = SFTConfig(
        updates=2, batch_size=5, learning_rate=0.02, warmup=1, weight_decay=0.1, max_grad_norm=0.1
    )
    history = train(model, DEMONSTRATIONS, config, seed=7)
    optimizer = torch.optim.AdamW(plain.parameters(), 0.02, weight_decay=0.1)
    for update in range(2):
        rows = torch.randint(3, (5,), generator=update_generator(7, update)).tolist()
        optimizer.param_groups[0]["lr"] = scheduled_rate(config, update, 2)
        optimizer.zero_grad()
        loss = loss_of(plain, [DEMONSTRATIONS[row] for row in rows])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimizer.step()
        assert history["loss"][update] == pytest.approx(loss.item(), rel=1e-4)
        assert history["grad_norm"][update] == pytest.approx(norm.item(), rel=1e-4)
    torch.testing.assert_close(weights(model), weights(plain), atol=1e-4, rtol=1e-3)


def test_same_seed_same_weights_to_the_bit():
    results = []
    for seed, global_seed in ((1, 0), (1, 99), (2, 0)):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        model = fresh()
        history = train(model, DEMONSTRATIONS, SMALL, seed)
        assert torch.equal(torch.get_rng_state(), state)
        results.append((weights(model), history.rows))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not torch.equal(results[0][0], results[2][0])


def interrupted(monkeypatch, path, after):
    """Train until the given number of updates is done, and stop as a crash would."""
    from policyopt.language import sft

    def stops(model, *columns):
        if stops.left == 0:
            raise KeyboardInterrupt
        stops.left -= 1
        return sft_loss(model, *columns)

    stops.left = after
    with monkeypatch.context() as patch:
        patch.setattr(sft, "sft_loss", stops)
        with pytest.raises(KeyboardInterrupt):
            train(fresh(), DEMONSTRATIONS, SMALL, 3, checkpoint=path, checkpoint_every=4)


@pytest.mark.parametrize("after", [0, 3, 4, 7, 11])
def test_resuming_gives_the_uninterrupted_run_to_the_bit(tmp_path, monkeypatch, after):
    whole = fresh()
    history = train(whole, DEMONSTRATIONS, SMALL, 3)
    interrupted(monkeypatch, tmp_path / "sft.pt", after)
    assert (tmp_path / "sft.pt").exists() == (after >= 4)
    resumed = fresh()
    again = train(resumed, DEMONSTRATIONS, SMALL, 3, checkpoint=tmp_path / "sft.pt", checkpoint_every=4)
    assert torch.equal(weights(resumed), weights(whole))
    assert again.rows == history.rows


def test_a_finished_run_is_not_run_again(tmp_path):
    models = [fresh(), fresh()]
    rows = [train(model, DEMONSTRATIONS, SMALL, checkpoint=tmp_path / "sft.pt").rows for model in models]
    assert rows[0] == rows[1]
    assert torch.equal(*map(weights, models))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run | {"seed": 4}, "its seed is 3"),
        (
            lambda run: run | {"config": dataclasses.replace(SMALL, batch_size=5)},
            "its config.batch_size is 4",
        ),
        (
            lambda run: run | {"demonstrations": [*DEMONSTRATIONS[:2], Problem("abca", "a")]},
            "3 demonstrations",
        ),
        (lambda run: run | {"model": tiny_model()}, "its model is"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    run = {"model": fresh(), "demonstrations": DEMONSTRATIONS, "config": SMALL, "seed": 3}
    train(**run, checkpoint=tmp_path / "sft.pt")
    with pytest.raises(ValueError, match=f"belongs to another run: .*{message}"):
        train(**change(run | {"model": fresh()}), checkpoint=tmp_path / "sft.pt")


def test_progress_is_shown(capsys):
    train(fresh(), DEMONSTRATIONS, SMALL, progress=True)
    assert "loss" in capsys.readouterr().err
    train(fresh(), DEMONSTRATIONS, SMALL)
    assert capsys.readouterr() == ("", "")


# What is refused


def test_no_demonstrations():
    with pytest.raises(ValueError, match="no demonstration was given"):
        train(fresh(), [], SMALL)


def test_a_vocabulary_that_lacks_the_characters_of_a_task():
    model = fresh()
    before = weights(model)
    for task in (Addition(held_out=8), SortDigits(), Brackets()):
        with pytest.raises(ValueError, match=r"the vocabulary lacks '.', which .* needs; it has 'abc'"):
            train(model, task.demonstrations(4), SMALL)
    assert torch.equal(weights(model), before)


def test_a_demonstration_longer_than_the_context():
    fits = Problem("a" * 20, "b" * (TINY.context - 21))
    train(fresh(), [fits], SMALL)
    with pytest.raises(ValueError, match=r"'aaa.*a' has 25 tokens; the model's context is 24"):
        train(fresh(), [fits, fits._replace(answer=fits.answer + "b")], SMALL)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("updates", 0),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate_end", -1e-3),
        ("warmup", -1),
        ("weight_decay", -0.1),
        ("max_grad_norm", 0.0),
    ],
)
def test_bad_settings(field, value):
    with pytest.raises(ValueError, match=rf"SFTConfig\.{field} is {value}"):
        SFTConfig(**{field: value})


def test_divergence_is_an_error():
    model = fresh()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="diverged"):
        train(model, DEMONSTRATIONS, SMALL)


def test_memory_that_runs_out(monkeypatch):
    from policyopt.language import sft

    def too_large(*_):
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(sft, "sft_loss", too_large)
    with pytest.raises(MemoryError, match="fitting 4 demonstrations; a smaller batch_size"):
        train(fresh(), DEMONSTRATIONS, SMALL)
