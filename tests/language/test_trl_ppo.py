"""PPO against its peers: the advantages of tokens against Stable-Baselines3, the losses against TRL.

TRL has had a trainer for PPO up to 1.10 at least and has none in 1.16. Where there is one, an update of it is
run, and everything that it computes between a reward and its losses is compared with ours. Elsewhere the
surrogate is compared with that of TRL's ``GRPOTrainer``, given an advantage for each token.
"""

import random
import sys

import numpy as np
import pytest
import torch

from policyopt.language.ppo import (
    PPOConfig,
    clipped_value_loss,
    ppo_loss,
    token_advantages,
    token_rewards,
    token_samples,
)
from policyopt.language.sampling import Samples
from policyopt.losses import clipped_surrogate, masked_mean, normalize

pytest.importorskip("trl")
pytestmark = [
    pytest.mark.xdist_group("llm"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

B, T = 16, 6  # outputs, tokens at most
WORDS = {word: i for i, word in enumerate(["<pad>", "<end>", "<unknown>", *"abcdefg"])}


class Case:
    """B outputs of 1 to T tokens, and random numbers for what models say of them, all ``[B, 1, T]``."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, T + 1, (B, 1), generator=generator)
        lengths[:3, 0] = torch.tensor([1, 2, T])
        self.mask = torch.arange(T) < lengths[..., None]
        self.rewards = torch.randn(B, 1, generator=generator)
        noise = torch.randn(5, B, 1, T, generator=generator)
        self.old, self.reference, self.values = noise[0] - 2, noise[0] - 2 + 0.3 * noise[1], noise[2]
        self.now, self.new_values = self.old + 0.3 * noise[3], self.values + 0.3 * noise[4]

    def batch(self, config):
        tokens = torch.where(self.mask, 4, 0)
        prompts = torch.full((B, 1), 4)
        samples = Samples(prompts, prompts > 0, tokens, self.mask, torch.where(self.mask, self.old, 0.0))
        return token_samples(samples, self.rewards, self.values, self.reference, config)


def test_advantages_are_those_of_stable_baselines3():
    """Outputs are episodes: laid end to end they are what one environment would have sent."""
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    from gymnasium.spaces import Discrete

    case, config = Case(), PPOConfig(kl_coef=0.3, gamma=0.9, gae_lambda=0.8, normalize_advantages=False)
    batch, mask = case.batch(config), case.mask
    earned = token_rewards(case.rewards, batch.log_probs, case.reference, mask, config.kl_coef)
    first = torch.zeros_like(mask)
    first[..., 0] = True
    size = int(mask.sum())
    buffer = buffers.RolloutBuffer(size, Discrete(2), Discrete(2), gamma=0.9, gae_lambda=0.8, n_envs=1)
    rows = zip(earned[mask], case.values[mask], first[mask], strict=True)
    for reward, value, start in rows:
        nothing = np.zeros((1, 1))
        buffer.add(nothing, nothing, np.array([reward.item()]), np.array([start.item()]), value, value)
    buffer.compute_returns_and_advantage(torch.full((1,), 7.0), np.array([True]))  # the last one ended too
    ours = (batch.advantages, batch.returns)
    for peer, mine in zip((buffer.advantages, buffer.returns), ours, strict=True):
        torch.testing.assert_close(mine[mask], torch.from_numpy(peer)[:, 0], rtol=1e-5, atol=1e-5)


def make_llama(kind, seed, **settings):
    import transformers

    size = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    marks = dict(pad_token_id=0, eos_token_id=1, bos_token_id=None)
    size |= dict(vocab_size=len(WORDS), max_position_embeddings=64, initializer_range=0.3)
    config = transformers.LlamaConfig(**size, **marks, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return getattr(transformers, kind)(config)


def make_tokenizer():
    import transformers
    from tokenizers import Tokenizer, models

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(WORDS, unk_token="<unknown>")),
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unknown>",
        padding_side="left",
    )


@pytest.fixture
def everything_restored():
    """Trainers of transformers seed the global generators."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


def test_surrogate_is_that_of_the_grpo_trainer(tmp_path, everything_restored):
    """Value, gradient and share of clipped tokens, from one advantage a token."""
    import datasets
    import trl

    case, config = Case(), PPOConfig(kl_coef=0.3, gae_lambda=0.9, clip=0.2, value_clip=None)
    batch = case.batch(config)
    settings = trl.GRPOConfig(
        output_dir=str(tmp_path),
        loss_type="bnpo",  # the mean over all tokens
        beta=0.0,
        epsilon=config.clip,
        per_device_train_batch_size=B,
        num_generations=2,
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = trl.GRPOTrainer(
        make_llama("LlamaForCausalLM", 0),
        lambda **columns: [0.0],
        settings,
        datasets.Dataset.from_dict({"prompt": ["a"] * B}),
        processing_class=make_tokenizer(),
    )
    theirs = case.now[:, 0].clone().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (theirs, torch.zeros(B, T), None)
    trainer.current_gradient_accumulation_steps = 1
    inputs = {
        "prompt_ids": batch.prompts,
        "prompt_mask": batch.prompt_mask.long(),
        "completion_ids": batch.tokens[:, 0],
        "completion_mask": batch.mask[:, 0].long(),
        "advantages": batch.advantages[:, 0],
        "old_per_token_logps": batch.log_probs[:, 0],
    }
    trainer.model.train()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    ours = case.now.clone().requires_grad_()
    both, metrics = ppo_loss(ours, case.new_values, batch, config)
    both.backward()
    torch.testing.assert_close(metrics["policy_loss"], loss.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours.grad[:, 0], theirs.grad, rtol=1e-5, atol=1e-7)
    clipped = trainer._metrics["train"]["clip_ratio/region_mean"][-1]
    assert metrics["clip_fraction"].item() == pytest.approx(clipped)
    assert 0.1 < clipped < 0.9


def run_ppo_trainer(folder, monkeypatch, **settings):
    """One update of TRL's ``PPOTrainer`` on random models; the tensors it had at each of its steps."""
    import datasets
    from trl.experimental import ppo
    from trl.experimental.ppo import ppo_trainer

    config = ppo.PPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        num_mini_batches=2,
        num_ppo_epochs=2,
        total_episodes=B,
        local_rollout_forward_batch_size=B,
        response_length=T,
        stop_token="eos",
        learning_rate=5e-2,
        num_sample_generations=0,
        gradient_checkpointing=False,
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        **settings,
    )
    prompts = [[3 + (i * j) % 7 for j in range(1, 2 + i % 3)] for i in range(B)]
    dataset = datasets.Dataset.from_dict({"input_ids": prompts})
    policy, reference = (make_llama("LlamaForCausalLM", seed) for seed in (0, 1))
    value, reward = (make_llama("LlamaForSequenceClassification", seed, num_labels=1) for seed in (2, 3))
    trainer = ppo.PPOTrainer(
        config, make_tokenizer(), policy, reference, reward, dataset, value, eval_dataset=dataset
    )
    steps, masked_mean_of_trl = [], ppo_trainer.masked_mean

    def watch(*args, **kwargs):
        frame = sys._getframe(1)
        if frame.f_code.co_name == "train":
            names = {name: x.clone() for name, x in frame.f_locals.items() if isinstance(x, torch.Tensor)}
            steps.append(names | {"rows": torch.tensor(frame.f_locals["micro_batch_inds"])})
        return masked_mean_of_trl(*args, **kwargs)

    monkeypatch.setattr(ppo_trainer, "masked_mean", watch)
    trainer.train()
    return steps[3::4]  # it takes four means a step; at the last, everything is there


def test_an_update_of_the_ppo_trainer(tmp_path, monkeypatch, everything_restored, capsys):
    """Rewards, advantages, whitening and both losses, from what its models said.

    It pays the reward one place later: an output that ended before the limit gets it in a state after its
    end, which has a value too. So its rewards, advantages and values are ours with a mask that reaches one
    token further; its surrogate and whitening are ours with the mask as it is. Its value loss is halved.
    """
    pytest.importorskip("trl.experimental.ppo", reason="this version of TRL has no PPO")
    clips = dict(cliprange=0.1, cliprange_value=0.1)
    steps = run_ppo_trainer(tmp_path, monkeypatch, kl_coef=0.2, gamma=0.9, lam=0.8, **clips)
    assert len(steps) == 8
    theirs = {name: x.unsqueeze(1) for name, x in steps[0].items() if getattr(x, "ndim", 0) > 0}
    mask, longer = ~theirs["padding_mask"], ~theirs["padding_mask_p1"]
    lengths = set(mask.sum(-1).flatten().tolist())
    assert {1, T} < lengths
    earned = token_rewards(theirs["scores"], theirs["logprobs"], theirs["ref_logprobs"], longer, 0.2)
    torch.testing.assert_close(earned, theirs["rewards"])
    advantages = token_advantages(earned, theirs["values"], longer, 0.9, 0.8)
    torch.testing.assert_close(advantages + theirs["values"], theirs["returns"])
    white = torch.zeros_like(advantages).masked_scatter(mask, normalize(advantages[mask]))
    torch.testing.assert_close(white, theirs["advantages"], rtol=1e-5, atol=1e-6)
    ratios = []
    for step in steps:
        written, valued = (~step[name][step["rows"]] for name in ("padding_mask", "padding_mask_p1"))
        ratio = (step["new_logprobs"] - step["mb_logprobs"]).exp()
        surrogate = masked_mean(clipped_surrogate(ratio, step["mb_advantage"], 0.1), written)
        torch.testing.assert_close(-surrogate, step["pg_loss"])
        errors = clipped_value_loss(step["vpred"], step["mb_values"], step["mb_return"], 0.1)
        torch.testing.assert_close(masked_mean(errors, valued) / 2, step["vf_loss"])
        ratios.append(ratio[written])
    assert (torch.cat(ratios) - 1).abs().max() > 0.5  # the later steps were well off the first policy
