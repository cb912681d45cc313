"""Our advantages and losses against those of TRL, from the same rewards, masks and log-probabilities.

The trainers of TRL are real ones. Only what they would sample, and what models would say of it, comes from
the test: so everything between a reward and a gradient is compared, in values and in gradients.
"""

import dataclasses

import pytest
import torch

from policyopt.language import grpo
from policyopt.language.grpo import GRPOConfig, group_samples, grpo_loss
from policyopt.language.sampling import Samples
from policyopt.language.variants import VARIANTS
from policyopt.losses import normalize

pytest.importorskip("trl")
pytestmark = [
    pytest.mark.xdist_group("llm"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Q, G, T = 4, 4, 10  # prompts, outputs of each, tokens at most


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with its tokenizer, as a folder."""
    import transformers
    from tokenizers import Tokenizer, models

    folder = str(tmp_path_factory.mktemp("model"))
    words = {word: i for i, word in enumerate(["<pad>", "<end>", "a", "b", "c"])}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="<end>",
    ).save_pretrained(folder)
    size = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=5, **size)).save_pretrained(folder)
    return folder


class Case:
    """Q groups of G outputs of 1 to T tokens, one group with equal rewards, and what three policies say of
    them: π_θ, the one that sampled, and the reference.
    """

    def __init__(self, spread=0.3, seed=0):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, T + 1, (Q, G), generator=generator)
        lengths[0, 0], lengths[0, 1] = 1, T
        self.mask = torch.arange(T) < lengths[..., None]  # [Q, G, T]
        self.rewards = torch.rand(Q, G, generator=generator)
        self.rewards[1] = 0.1
        noise = torch.randn(3, Q, G, T, generator=generator, dtype=torch.float64)
        self.old = torch.where(self.mask, -1.0 - noise[0].abs(), 0.0)
        self.now = torch.where(self.mask, self.old + spread * noise[1], 0.0)
        self.reference = torch.where(self.mask, self.old + 0.3 * noise[2], 0.0)
        self.tokens = torch.where(self.mask, 2, 0)

    def ours(self, config, variant, rows=slice(None)):
        """Advantages, loss, gradient and metrics of ours."""
        prompts = torch.full((Q, 1), 2)
        samples = Samples(prompts, prompts > 0, self.tokens, self.mask, self.old)
        reference = "the reference" if config.kl_coef > 0 else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grpo, "TokenScorer", lambda model, temperature: lambda part: self.reference)
            batch = group_samples(samples, self.rewards, reference, config, T, variant)[rows]
        batch = dataclasses.replace(batch, weights=variant.weights(batch.mask, T))
        log_probs = self.now[rows].clone().requires_grad_()
        loss, metrics = grpo_loss(log_probs, batch, config, variant)
        loss.backward()
        return batch.advantages.flatten(), loss.detach(), log_probs.grad.flatten(0, 1), metrics

    def theirs(self, trainer, steps=1, window=1):
        """Advantages, and the loss and gradient of each of ``steps`` steps on the batch, as a trainer has
        them; ``window`` of them are accumulated.
        """
        rows = [int(n) * [2] for n in self.mask.sum(-1).flatten()]
        prompts = [[2] for _ in rows]
        texts = ["a" * len(row) for row in rows]
        if type(trainer).__name__ == "GRPOTrainer":
            generated = (prompts, rows, None, texts, None, {}, None, None)
        else:
            generated = (prompts, rows, texts)
        said = {"by": None}

        def score(model, *args, **kwargs):
            log_probs = said["by"]
            if log_probs is None:
                log_probs = self.reference if model is trainer.ref_model else self.old
                log_probs = log_probs.flatten(0, 1)
            return log_probs, torch.zeros_like(log_probs), None

        trainer.model.train()
        trainer.current_gradient_accumulation_steps = window
        trainer._generate = lambda prompts: generated
        trainer._get_per_token_logps_and_entropies = score
        trainer.reward_funcs[0] = lambda **columns: self.rewards.flatten().tolist()
        inputs = trainer._generate_and_score_completions([{"prompt": "a"}] * len(rows))
        results = []
        for part in torch.arange(len(rows)).chunk(steps):
            taken = {
                k: v[part] if getattr(v, "dim", int)() else v for k, v in inputs.items() if v is not None
            }
            said["by"] = log_probs = self.now.flatten(0, 1)[part].clone().requires_grad_()
            loss = trainer._compute_loss(trainer.model, taken)
            loss.backward()
            results.append((loss.detach(), log_probs.grad))
        return inputs["advantages"], *(torch.stack(column) for column in zip(*results, strict=True))


@pytest.fixture(scope="module")
def make_trainer(folder, tmp_path_factory):
    """A trainer of TRL by the name of its algorithm and its settings."""
    import datasets
    import transformers
    import trl

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    dataset = datasets.Dataset.from_dict({"prompt": ["a"] * 64})

    def make(kind, *rewards, **settings):
        config = getattr(trl, f"{kind}Config")(
            output_dir=str(tmp_path_factory.mktemp("run")),
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            per_device_train_batch_size=Q * G,
            num_generations=G,
            num_iterations=2,
            max_completion_length=T,
            **settings,
        )
        reward = lambda **columns: [0.0] * Q * G  # noqa: E731
        return getattr(trl, f"{kind}Trainer")(
            folder, [reward, *rewards], config, dataset, processing_class=tokenizer
        )

    return make


SETTINGS = {
    "grpo": dict(loss_type="grpo"),
    "dr_grpo": dict(loss_type="dr_grpo", scale_rewards="none"),
    "dapo": dict(loss_type="dapo", epsilon_high=0.28),
    "gspo": dict(loss_type="grpo", importance_sampling_level="sequence"),
}
for settings in SETTINGS.values():
    settings["use_bias_correction_kl"] = False  # the penalty of the GRPO paper; see the test of the other one


def overlong():
    from trl.rewards import get_soft_overlong_punishment

    return get_soft_overlong_punishment(max_completion_len=T, soft_punish_cache=T // 5)


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("name", SETTINGS)
def test_advantages_loss_and_gradient(make_trainer, name, beta):
    """From rewards to the gradient. The length penalty of DAPO is a second reward function in TRL."""
    case = Case()
    clip = 0.05 if name == "gspo" else 0.2  # a mean of log-ratios is smaller than they are
    rewards = [overlong()] if name == "dapo" else []
    trainer = make_trainer("GRPO", *rewards, beta=beta, epsilon=clip, **SETTINGS[name])
    advantages, loss, gradient = case.theirs(trainer)
    config = GRPOConfig(clip=clip, kl_coef=beta)
    ours = case.ours(config, VARIANTS[name])
    assert (ours[0][G : 2 * G] == 0).all() or name == "dapo"
    torch.testing.assert_close(ours[0], advantages, rtol=1e-5, atol=1e-6)
    assert ours[3]["clip_fraction"] > 0.05
    torch.testing.assert_close(ours[1], loss[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours[2], gradient[0], rtol=1e-5, atol=1e-7)
    if name == "dapo":
        assert ours[3]["clip_fraction"].item() == pytest.approx(
            trainer._metrics["train"]["clip_ratio/region_mean"][-1]
        )
        if beta > 0:
            assert ours[3]["reference_kl"].item() == pytest.approx(trainer._metrics["train"]["kl"][-1])


def test_sequence_ratio_with_the_clip_of_its_paper(make_trainer):
    case = Case(spread=1e-3)
    trainer = make_trainer("GRPO", beta=0.0, epsilon=3e-4, **SETTINGS["gspo"])
    _, loss, gradient = case.theirs(trainer)
    ours = case.ours(GRPOConfig(kl_coef=0.0), VARIANTS["gspo"])
    assert 0.05 < ours[3]["clip_fraction"] < 0.6
    torch.testing.assert_close(ours[1], loss[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours[2], gradient[0], rtol=1e-5, atol=1e-7)


def test_the_penalty_of_trl_by_default(make_trainer):
    """Unless told otherwise TRL multiplies k₃ by ρ, and lets the gradient through ρ. The paper's eq. 3 does
    not, nor do we. The difference is exactly β Σ weights · (ρ − 1) k₃.
    """
    case = Case()
    settings = SETTINGS["grpo"] | {"use_bias_correction_kl": True}
    _, loss, gradient = case.theirs(make_trainer("GRPO", beta=0.1, epsilon=0.2, **settings))
    ours = case.ours(GRPOConfig(kl_coef=0.1), VARIANTS["grpo"])
    now = case.now.clone().requires_grad_()
    k3 = (case.reference - now).exp() - 1 - (case.reference - now)
    weights = case.mask / (Q * G * case.mask.sum(-1, keepdim=True))
    difference = 0.1 * (weights * ((now - case.old).exp() - 1) * k3).sum()
    difference.backward()
    assert difference.abs() > 1e-5
    torch.testing.assert_close(ours[1] + difference.detach(), loss[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours[2] + now.grad.flatten(0, 1), gradient[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_rloo(make_trainer, beta):
    """Leave-one-out advantages, the penalty in the reward, the ratio of a whole output."""
    case = Case(spread=0.1)
    advantages, loss, gradient = case.theirs(make_trainer("RLOO", beta=beta, epsilon=0.2))
    ours = case.ours(GRPOConfig(kl_coef=beta), VARIANTS["rloo"])
    torch.testing.assert_close(ours[0], advantages.float(), rtol=1e-5, atol=1e-6, check_dtype=False)
    assert ours[3]["clip_fraction"] > 0.05
    torch.testing.assert_close(ours[1], loss[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours[2], gradient[0], rtol=1e-5, atol=1e-7)


def test_other_scales_of_advantages(make_trainer):
    """What we do without. TRL can divide by the deviation of all rewards of the batch, and it can standardise
    the advantages of RLOO over the batch; both follow from ours.
    """
    case = Case()
    advantages, _, _ = case.theirs(make_trainer("GRPO", beta=0.0, scale_rewards="batch"))
    centred = case.ours(GRPOConfig(kl_coef=0.0), VARIANTS["dr_grpo"])[0]
    torch.testing.assert_close(advantages, centred / (case.rewards.std() + 1e-4), rtol=1e-5, atol=1e-6)
    advantages, _, _ = case.theirs(make_trainer("RLOO", beta=0.0, normalize_advantages=True))
    left_out = case.ours(GRPOConfig(kl_coef=0.0), VARIANTS["rloo"])[0]
    expected = normalize(left_out.float(), epsilon=1e-4)
    torch.testing.assert_close(advantages, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_gradient_accumulation(make_trainer, name):
    """The sum of the losses of TRL's four accumulated quarters of a batch is ours of the whole batch."""
    case = Case()
    trainer = make_trainer("GRPO", beta=0.1, epsilon=0.2, **SETTINGS[name])
    trainer.args.steps_per_generation = 4
    _, loss, gradient = case.theirs(trainer, steps=4, window=4)
    variant = dataclasses.replace(VARIANTS[name], shape_rewards=VARIANTS["grpo"].shape_rewards)
    ours = case.ours(GRPOConfig(clip=0.2, kl_coef=0.1), variant)
    torch.testing.assert_close(ours[1], loss.sum(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours[2], gradient.flatten(0, 1), rtol=1e-5, atol=1e-7)


def test_token_mean_of_a_minibatch(make_trainer):
    """Where a batch is learnt in several optimiser steps, TRL divides each by an equal share of the tokens of
    the *batch*; we, by the tokens of the minibatch, as the mean over them has it. Otherwise they agree.
    """
    case = Case()
    trainer = make_trainer("GRPO", beta=0.1, epsilon=0.2, **SETTINGS["dapo"])
    trainer.args.steps_per_generation = 2
    _, loss, gradient = case.theirs(trainer, steps=2, window=1)
    variant = dataclasses.replace(VARIANTS["dapo"], shape_rewards=VARIANTS["grpo"].shape_rewards)
    for i, rows in enumerate((slice(0, 2), slice(2, 4))):
        ours = case.ours(GRPOConfig(clip=0.2, kl_coef=0.1), variant, rows)
        factor = case.mask[rows].sum() / (case.mask.sum() / 2)
        assert abs(factor - 1) > 0.01
        torch.testing.assert_close(ours[1] * factor, loss[i], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(ours[2] * factor, gradient[i], rtol=1e-5, atol=1e-7)


def test_first_step(make_trainer):
    """TRL too reports a loss of 0 at the first step on a batch, and has a gradient."""
    case = Case(spread=0.0)
    _, loss, gradient = case.theirs(make_trainer("GRPO", beta=0.0, loss_type="grpo"))
    ours = case.ours(GRPOConfig(kl_coef=0.0), VARIANTS["grpo"])
    assert abs(loss[0]) < 1e-7
    assert abs(ours[1]) < 1e-7
    assert gradient[0].abs().max() > 0.01
    torch.testing.assert_close(ours[2], gradient[0], rtol=1e-5, atol=1e-7)
