"""The reward model: its loss by hand and beside TRL's, its score, and what it learns of a hidden taste."""

import copy
import math
import random
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from language_helpers import tiny_model

from policyopt.language import reward_model
from policyopt.language.model import Transformer, TransformerConfig
from policyopt.language.reward_model import (
    LearnedReward,
    Preference,
    RewardModelConfig,
    accuracy,
    bradley_terry_loss,
    encode_outputs,
    reward_scores,
    score_tokens,
)
from policyopt.language.scalar_model import ScalarModel
from policyopt.language.style import Style, judge_accuracy
from policyopt.language.tasks import Problem
from policyopt.language.tokenizer import CharTokenizer
from policyopt.training import single_thread

pytestmark = pytest.mark.xdist_group("llm")  # one test imports TRL

PAIRS = [Preference("a", "bb", "c"), Preference("ab", "c", ""), Preference("c", "abc", "cba")]


def scalar_model(seed=0, characters="abc", dtype=torch.float32):
    return ScalarModel(tiny_model(characters, seed=seed, dtype=dtype), scale=1.0, seed=seed).to(dtype)


def test_loss_by_hand():
    chosen, rejected = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, math.log(3.0), 2.0 - math.log(3.0)])
    expected = [math.log(2), math.log(4), math.log(4 / 3)]  # σ = 1/2, 1/4, 3/4
    assert bradley_terry_loss(chosen, rejected).tolist() == pytest.approx(expected)
    torch.testing.assert_close(bradley_terry_loss(chosen + 5, rejected + 5), torch.tensor(expected))
    # Far apart it neither overflows nor vanishes: −log σ(−x) → x.
    far = bradley_terry_loss(torch.tensor([-1000.0, 1000.0]), torch.tensor([1000.0, -1000.0]))
    assert far.tolist() == [2000.0, 0.0]


def test_loss_gradient_by_hand_and_by_finite_differences():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(bradley_terry_loss, (scores[0], scores[1]))
    (gradient,) = torch.autograd.grad(bradley_terry_loss(*scores).sum(), scores)
    wrong = torch.sigmoid(scores[1] - scores[0]).detach()  # how much the model errs
    torch.testing.assert_close(gradient, torch.stack([-wrong, wrong]))


def test_gradient_of_a_model_by_finite_differences():
    model = scalar_model(dtype=torch.float64)
    prompts, chosen, rejected = (list(column) for column in zip(*PAIRS, strict=True))

    def loss():
        first, second = (reward_scores(model, prompts, texts).double() for texts in (chosen, rejected))
        return bradley_terry_loss(first, second).mean()

    # score gives single precision; its steps would drown the differences
    def exact_loss():
        halves = []
        for texts in (chosen, rejected):
            tokens, mask = encode_outputs(model, prompts, texts)
            last = mask.sum(dim=1) - 1
            halves.append(model.score(model.body.features(tokens, mask))[torch.arange(len(last)), last])
        return bradley_terry_loss(*halves).mean()

    parameters = [p for name, p in model.named_parameters() if "head" not in name]
    gradients = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for p, d in zip(parameters, directions, strict=True):
                p += step * d
            values.append(exact_loss())
    torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_loss_is_trls():
    """The same number and the same gradient as TRL's ``RewardTrainer`` from the same scores."""
    pytest.importorskip("trl")
    from trl import RewardTrainer

    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 7, generator=generator).requires_grad_()
    peer_scores = scores.detach().flatten().clone().requires_grad_()
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=None),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )

    def model(**inputs):
        return SimpleNamespace(logits=peer_scores[:, None])  # chosen above rejected, one label

    peer = RewardTrainer.compute_loss(trainer, model, {})
    peer.backward()
    loss = bradley_terry_loss(*scores).mean()
    loss.backward()
    torch.testing.assert_close(loss, peer)
    torch.testing.assert_close(scores.grad.flatten(), peer_scores.grad)
    right = (scores[0] > scores[1]).float().mean().item()
    assert trainer._metrics["eval"]["accuracy"] == [pytest.approx(right)]


def test_score_is_read_after_the_end_token():
    model = scalar_model()
    tokens, mask = encode_outputs(model, ["ab", "c"], ["c", ""])
    assert tokens.tolist() == [[2, 3, 4, 1], [4, 1, 0, 0]]
    assert mask.tolist() == [[True, True, True, True], [True, True, False, False]]
    scores = reward_scores(model, ["ab", "c"], ["c", ""])
    for i, row in enumerate(([2, 3, 4, 1], [4, 1])):
        features = model.body.features(torch.tensor([row]))
        torch.testing.assert_close(scores[i], model.score(features)[0, -1])
    # What comes before the end counts, all of it, and so does where the end stands.
    texts = ["abcabc", "bbcabc", "abcab", "abcabcb"]
    assert len({round(value, 5) for value in reward_scores(model, ["a"] * 4, texts).tolist()}) == 4


def test_score_depends_on_neither_padding_nor_neighbours():
    model = scalar_model()
    rng = random.Random(0)
    prompts = ["".join(rng.choices("abc", k=rng.randint(1, 5))) for _ in range(40)]
    outputs = ["".join(rng.choices("abc", k=rng.randint(0, 15))) for _ in range(40)]
    alone = torch.cat([reward_scores(model, [p], [o]) for p, o in zip(prompts, outputs, strict=True)])
    together = reward_scores(model, prompts, outputs)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = reward_scores(model, [prompts[i] for i in order], [outputs[i] for i in order])
    torch.testing.assert_close(shuffled, together[order], rtol=1e-4, atol=1e-5)
    tokens, mask = encode_outputs(model, prompts, outputs)
    padded = [torch.nn.functional.pad(x, (0, 2)) for x in (tokens, mask)]
    torch.testing.assert_close(score_tokens(model, *padded), together, rtol=1e-4, atol=1e-5)
    rubbish = torch.where(mask, tokens, 3)  # what stands in the padding does not matter
    torch.testing.assert_close(score_tokens(model, rubbish, mask), together, rtol=0, atol=0)


def test_learned_reward_is_the_sigmoid_of_the_score():
    model = scalar_model()
    problems = [Problem(pair.prompt, "") for pair in PAIRS]
    outputs = [pair.chosen for pair in PAIRS]
    expected = reward_scores(model, [pair.prompt for pair in PAIRS], outputs).sigmoid().tolist()
    for batch_size in (1, 2, 100):
        values = LearnedReward(model, batch_size)(problems, outputs)
        assert values == pytest.approx(expected, rel=1e-4)
    assert LearnedReward(model)([], []) == []
    assert repr(LearnedReward(model)) == repr(LearnedReward(copy.deepcopy(model)))
    assert repr(LearnedReward(model)) != repr(LearnedReward(scalar_model(1)))
    with pytest.raises(ValueError, match="3 problems and 2 outputs"):
        LearnedReward(model)(problems, outputs[:2])


def test_accuracy_and_its_error():
    """A model whose score is a count of the letter a: its accuracy can be counted."""
    model = scalar_model()
    model.score = lambda features: features[..., 0]
    tokenizer = model.body.tokenizer
    model.body.features = lambda tokens, mask: (
        ((tokens == tokenizer.encode("a")[0]) & mask).cumsum(dim=1)[..., None].float()
    )
    pairs = [Preference("b", "aa", "a"), Preference("a", "b", "ab"), Preference("c", "abab", "bab")]
    pairs += [Preference("b", "ac", "ca")]  # equal: half right
    p = 2.5 / 4
    for batch_size in (1, 3, 100):
        assert accuracy(model, pairs, batch_size) == pytest.approx((p, math.sqrt(p * (1 - p) / 4)))
    assert accuracy(model, pairs[:1]) == (1.0, 0.0)


@pytest.fixture(scope="module")
def learned():
    """A small reward model after training on the choices of the style task's judge."""
    task = Style()
    pairs, held_out = task.preferences(600, seed=0), task.preferences(1000, seed=1, held_out=True)
    body = Transformer(CharTokenizer(task.characters), TransformerConfig(1, 32, 4, 64, 32))
    model = ScalarModel(body)
    config = RewardModelConfig(updates=200, batch_size=48, learning_rate=3e-3, evaluate_every=100)
    with single_thread():
        history = reward_model.train(model, pairs, config, held_out=held_out)
    return model, pairs, held_out, history


def test_it_learns_the_taste(learned):
    model, _, held_out, history = learned
    share, error = accuracy(model, held_out)
    ceiling = judge_accuracy(held_out)
    assert error == pytest.approx(math.sqrt(share * (1 - share) / 1000))
    assert share - 5 * error > 0.65  # far above one half
    assert 0.8 < ceiling < 0.95
    assert share < ceiling  # the judge cannot be foretold better
    assert history.last["held_out_accuracy"] == share
    assert history.last["held_out_error"] == error
    assert math.isnan(history["held_out_accuracy"][0])
    assert (~torch.tensor(history["held_out_accuracy"]).isnan()).nonzero().flatten().tolist() == [99, 199]
    assert history["loss"][:1] == pytest.approx(math.log(2))  # nothing is preferred before the first step
    assert history["accuracy"][:1] == 0
    assert history["loss"][-20:].mean() < 0.5


def test_scores_have_mean_0_in_the_end(learned):
    model, pairs, _, _ = learned
    prompts = [pair.prompt for pair in pairs]
    with torch.no_grad():
        scores = [
            reward_scores(model, prompts, [getattr(pair, side) for pair in pairs])
            for side in ("chosen", "rejected")
        ]
    assert torch.cat(scores).mean().item() == pytest.approx(0, abs=1e-4)
    assert scores[0].mean() > scores[1].mean() + 1


def state(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


CONFIG = RewardModelConfig(updates=6, batch_size=4, warmup=2, evaluate_every=3)


def test_same_seed_same_weights():
    results = []
    for seed in (0, 0, 1):
        model = scalar_model()
        history = reward_model.train(model, PAIRS, CONFIG, seed, held_out=PAIRS)
        results.append((state(model), history.rows))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not torch.equal(results[0][0], results[2][0])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [2, 5])
def test_resuming_gives_the_uninterrupted_run(tmp_path, monkeypatch, after):
    whole = scalar_model()
    history = reward_model.train(whole, PAIRS, CONFIG, held_out=PAIRS)
    path, step, steps = tmp_path / "run.pt", reward_model.gradient_step, []

    def interrupt(*arguments):
        if len(steps) == after:
            raise Interrupted
        steps.append(1)
        return step(*arguments)

    options = dict(held_out=PAIRS, checkpoint=path, checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(reward_model, "gradient_step", interrupt)
        with pytest.raises(Interrupted):
            reward_model.train(scalar_model(), PAIRS, CONFIG, **options)
    resumed = scalar_model()
    rows = reward_model.train(resumed, PAIRS, CONFIG, **options).rows
    assert torch.equal(state(resumed), state(whole))
    assert rows == history.rows
    again = scalar_model()  # the run is over: nothing is learned, the scores are still shifted
    reward_model.train(again, PAIRS, CONFIG, **options)
    assert torch.equal(state(again), state(whole))
    with pytest.raises(ValueError, match="belongs to another run"):
        reward_model.train(scalar_model(), PAIRS[::-1], CONFIG, **options)
    with pytest.raises(ValueError, match="belongs to another run"):
        reward_model.train(scalar_model(1), PAIRS, CONFIG, **options)


def test_wrong_preferences_are_refused():
    model = scalar_model()
    before = state(model)
    with pytest.raises(ValueError, match="there are no preferences"):
        reward_model.train(model, [])
    with pytest.raises(ValueError, match="there are no preferences"):
        reward_model.train(model, PAIRS, held_out=[])
    with pytest.raises(ValueError, match="there are no preferences"):
        accuracy(model, [])
    same = [*PAIRS, Preference("a", "bc", "bc")]
    for refuse in (reward_model.train, accuracy):
        with pytest.raises(ValueError, match=r"in preference 3, for the prompt 'a', .* both 'bc'"):
            refuse(model, same)
    with pytest.raises(ValueError, match="the vocabulary lacks 'x', which 'ax' needs"):
        reward_model.train(model, [Preference("a", "b", "ax")])
    with pytest.raises(ValueError, match="a prompt needs at least one character"):
        reward_model.train(model, [Preference("", "b", "a")])
    with pytest.raises(ValueError, match=r"to the prompt 'ab' makes 25 tokens; .* context is 24"):
        reward_model.train(model, [Preference("ab", "b" * 22, "a")])
    with pytest.raises(ValueError, match="2 prompts and 1 outputs"):
        reward_scores(model, ["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no row was given"):
        reward_scores(model, [], [])
    assert torch.equal(state(model), before)


def test_numbers_that_are_none():
    model = scalar_model()
    model.out.weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="scores of preference 0, for the prompt 'a', are nan and nan"):
        accuracy(model, PAIRS)
    with pytest.raises(FloatingPointError, match="training has diverged"):
        reward_model.train(model, PAIRS, CONFIG)


@pytest.mark.parametrize(
    ("name", "value"),
    [("updates", 0), ("batch_size", 1.5), ("learning_rate", 0.0), ("warmup", -1), ("evaluate_every", 0)],
)
def test_wrong_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"RewardModelConfig.{name} is {value}"):
        RewardModelConfig(**{name: value})
