"""The studies of the language laboratory: where runs begin, what they measure, how they are judged."""

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from policyopt.experiments import language
from policyopt.experiments.language import (
    SINGLE_CHANGES,
    GRPORun,
    HackingConfig,
    LanguageAgent,
    kl_estimates,
    starting_model,
    train_grpo,
    train_on_learned_reward,
    train_ppo,
)
from policyopt.experiments.studies import STUDIES
from policyopt.experiments.study import Study, run_study
from policyopt.experiments.tables import evaluations, load
from policyopt.language.grpo import GRPOConfig
from policyopt.language.model import Transformer, TransformerConfig
from policyopt.language.ppo import PPOConfig
from policyopt.language.recipes import Recipe
from policyopt.language.reward_model import RewardModelConfig
from policyopt.language.sampling import Samples, TokenScorer
from policyopt.language.sft import SFTConfig
from policyopt.language.style import Style
from policyopt.language.tasks import Addition
from policyopt.language.tokenizer import CharTokenizer
from policyopt.language.variants import VARIANTS, Variant

TINY = TransformerConfig(layers=1, width=16, heads=2, hidden=24)
FEW = SFTConfig(updates=3, batch_size=4)
QUICK = dict(updates=2, num_prompts=4, minibatch_size=2, learning_rate=1e-2)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Tiny models, hardly trained, and a place for their weights."""
    starts = {
        "addition": Recipe(Addition, FEW, GRPOConfig(), model=TINY, demonstrations=20),
        "style": Recipe(Style, FEW, GRPOConfig(), model=TINY, demonstrations=20),
    }
    monkeypatch.setattr(language, "STARTS", starts)
    monkeypatch.setattr(language.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_runs_of_a_seed_begin_alike_and_find_the_weights_again(small, monkeypatch):
    first, task = starting_model("addition", 3)
    assert len(list(small.glob("policyopt-*.pt"))) == 1
    monkeypatch.setattr(language, "fine_tuned", None)  # it is not needed a second time
    again, _ = starting_model("addition", 3)
    assert torch.equal(weights(first), weights(again))
    assert task.name == "addition"
    with pytest.raises(TypeError):
        starting_model("addition", 4)


def test_another_version_of_the_package_begins_anew(small, monkeypatch):
    starting_model("addition", 3)
    monkeypatch.setattr(language, "_version", lambda: "another")
    starting_model("addition", 3)
    assert len(list(small.glob("policyopt-*.pt"))) == 2


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="there is no task 'chess' to run on; there are addition, style"):
        starting_model("chess", 0)


def all_outputs(length):
    """Every output of so many characters for one prompt, as the group of that prompt."""
    tokenizer = CharTokenizer("01")
    tokens = torch.tensor([list(row) for row in itertools.product(range(len(tokenizer)), repeat=length)])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    prompts = torch.tensor([tokenizer.encode("01")])
    samples = Samples(
        prompts, torch.ones_like(prompts, dtype=torch.bool), tokens[None], mask[None], 0.0 * tokens[None]
    )
    return tokenizer, samples


def test_estimates_of_the_kl_by_enumeration():
    """Over all outputs of two tokens the probability-weighted means of k1, of k3 and of the exact terms are
    the divergence of the whole distributions; that of k2 is half the mean square of the log-ratio.
    """
    tokenizer, samples = all_outputs(2)
    model, reference = (Transformer(tokenizer, TINY, seed).double() for seed in (0, 1))
    log_p, log_q = (
        TokenScorer(each)(samples).double().sum(dim=-1)[0].detach() for each in (model, reference)
    )
    assert log_p.exp().sum().item() == pytest.approx(1)
    divergence = (log_p.exp() * (log_p - log_q)).sum().item()
    assert divergence > 0.001
    found = kl_estimates(model, reference, samples)
    means = {name: (log_p.exp() * values[0]).sum().item() for name, values in found.items()}
    for name in ("exact", "k1", "k3"):
        assert means[name] == pytest.approx(divergence, rel=1e-4), name
    token_ratios = [TokenScorer(each)(samples)[0].detach() for each in (reference, model)]
    squares = (token_ratios[0] - token_ratios[1]).square().sum(dim=-1) / 2
    assert means["k2"] == pytest.approx((log_p.exp() * squares).sum().item(), rel=1e-4)


def test_padding_counts_for_no_estimate():
    tokenizer, samples = all_outputs(2)
    model, reference = (Transformer(tokenizer, TINY, seed) for seed in (0, 1))
    whole = kl_estimates(model, reference, samples)
    shorter = replace(samples, mask=samples.mask & torch.tensor([True, False]))
    for name, values in kl_estimates(model, reference, shorter).items():
        assert not torch.allclose(values, whole[name])
        other = replace(shorter, tokens=torch.where(shorter.mask, shorter.tokens, 0))
        torch.testing.assert_close(kl_estimates(model, reference, other)[name], values)


def test_grpo_is_that_of_the_laboratory_and_measures_the_kl_at_the_end(monkeypatch):
    def longer(problems, outputs):
        return [float(len(output)) for output in outputs]

    monkeypatch.setattr(language, "REWARDS", {"addition": longer})
    settings = GRPOConfig(**QUICK, group_size=4, kl_coef=0.1)
    agent, history = train_grpo("addition", GRPORun(settings, measure_kl=True), seed=1)
    model, task = starting_model("addition", 1)
    plain = language.grpo.train(model, task, settings, 1, reward=longer)
    assert torch.equal(weights(agent.model), weights(model))
    np.testing.assert_array_equal(history["reward"], plain["reward"])
    assert math.isnan(history["kl_exact"][0])
    for name in ("exact", "k1", "k2", "k3"):
        assert math.isfinite(history[f"kl_{name}"][-1])
        assert history[f"kl_{name}_std"][-1] > 0
    assert "kl_exact" not in train_grpo("addition", GRPORun(settings), seed=1)[1].columns


@pytest.mark.parametrize("variant", SINGLE_CHANGES)
def test_a_single_change_is_one(variant):
    changed, plain = SINGLE_CHANGES[variant], VARIANTS["grpo"]
    differing = [
        name for name in Variant.__dataclass_fields__ if getattr(changed, name) != getattr(plain, name)
    ]
    assert len(differing) == 1
    _, history = train_grpo("addition", GRPORun(GRPOConfig(**QUICK, kl_coef=0.0), variant), seed=0)
    assert len(history) == 2


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match=r"GRPORun\.variant is 'best'"):
        GRPORun(variant="best")


def test_ppo_counts_outputs_and_shows_its_critic():
    _, history = train_ppo("addition", PPOConfig(**QUICK), seed=0)
    assert history["outputs"].tolist() == [4, 8]
    assert np.isfinite(history["explained_variance"]).all()


def test_a_learned_reward_is_watched_by_the_hidden_taste():
    config = HackingConfig(
        pairs=20, reward_settings=RewardModelConfig(updates=2, batch_size=4), settings=GRPOConfig(**QUICK)
    )
    agent, history = train_on_learned_reward("style", config, seed=0)
    assert len(history["taste"]) == 2
    assert ((history["taste"] >= 0) & (history["taste"] <= 1)).all()
    assert 0 <= history["reward_accuracy"][-1] <= 1
    rewards = agent.held_out_rewards(5)
    assert rewards.shape == (5,)
    assert ((rewards >= 0) & (rewards <= 1)).all()


def test_an_agent_is_judged_greedily_by_problems_held_out():
    model, task = starting_model("addition", 0)
    asked = []

    def reward(problems, outputs):
        asked.extend(zip(problems, outputs, strict=True))
        return [float(len(output)) for output in outputs]

    agent = LanguageAgent(model, task, reward)
    first = agent.held_out_rewards(3)
    assert [problem for problem, _ in asked] == list(task.held_out[:3])
    assert first.tolist() == [len(output) for _, output in asked]
    assert agent.held_out_rewards(3).tolist() == first.tolist()
    assert len(LanguageAgent(copy.deepcopy(model), task).held_out_rewards(10**6)) == len(task.held_out)


def test_a_study_of_a_language_model_is_kept_like_any_other(tmp_path):
    study = Study(
        "words",
        {"GRPO": ("policyopt.experiments.language:costs", language.CostConfig())},
        ["0.1M"],
        seeds=[0],
        eval_episodes=1,
    )
    assert run_study(study, tmp_path / "results", jobs=1, quiet=True)["done"] == 1
    row = load(study, tmp_path / "results").iloc[0]
    assert evaluations(study, tmp_path / "results")["return"].tolist() == [0.0]
    assert 0.4 < 1 - row.bytes_GRPO_no_frozen_model / row.bytes_PPO_no_frozen_model < 0.6
    assert row.kept_PPO_policy_weights == pytest.approx(
        4 * row.parameters, rel=0.05
    )  # and its tables of angles
    assert row.flops_one_output_both < row.flops_PPO_both


def test_the_studies_compare_at_equal_outputs_and_gradient_steps():
    for name in ("outputs", "critic", "token_clock"):
        settings = [getattr(config, "settings", config) for _, config in STUDIES[name].runs.values()]
        assert len({each.num_prompts * each.group_size for each in settings}) == 1
        assert (
            len({(each.updates, each.epochs, each.num_prompts // each.minibatch_size) for each in settings})
            == 1
        )
