"""The transformer: what a token may see, that cache and padding change nothing, and its gradient."""

import inspect

import pytest
import torch
from language_helpers import TINY, made_up_samples, plain_log_probs, tiny_model
from torch import nn

from policyopt.language import model as model_module
from policyopt.language.model import Transformer, TransformerConfig
from policyopt.language.sampling import encode_prompts, read_states
from policyopt.language.tokenizer import CharTokenizer

CONTEXT = TINY.context
CLOSE = dict(atol=1e-4, rtol=1e-4)  # float32, and processors differ in the order of their sums


def random_tokens(*shape, vocabulary=5, seed=0):
    return torch.randint(2, vocabulary, shape, generator=torch.Generator().manual_seed(seed))


# Shapes and size


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("length", [1, 2, CONTEXT])
def test_shapes(batch, length):
    model = tiny_model()
    tokens = random_tokens(batch, length)
    assert model.features(tokens).shape == (batch, length, TINY.width)
    assert model(tokens).shape == (batch, length, 5)
    assert model(tokens).dtype == torch.float32
    assert (model.context, model.width) == (TINY.context, TINY.width)


def test_number_of_parameters_by_hand():
    model = Transformer(CharTokenizer("0123456789+="))
    attention = 64 * 3 * 64 + 64 * 64
    feed_forward = 64 * 2 * 172 + 172 * 64
    by_hand = 2 * (attention + feed_forward + 2 * 64) + 2 * 14 * 64 + 64
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand
    assert 95_000 < by_hand < 105_000


def test_it_can_be_read_in_one_sitting():
    assert len(inspect.getsource(model_module).splitlines()) <= 200


def test_every_parameter_has_a_gradient():
    model = tiny_model()
    model(random_tokens(4, CONTEXT)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_first_weights_say_next_to_nothing():
    """At the start every token is about as likely, so the loss of a guess is log V."""
    logits = Transformer(CharTokenizer("0123456789+="))(random_tokens(8, 32, vocabulary=14))
    log_probs = logits.log_softmax(dim=-1)
    torch.testing.assert_close(log_probs, torch.full_like(log_probs, 1 / 14).log(), atol=1.0, rtol=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", 0),
        ("width", -8),
        ("heads", 0),
        ("hidden", 1.5),
        ("context", 1),
        ("context", True),
        ("width", 63),
        ("heads", 3),
        ("heads", 64),
    ],
)
def test_bad_sizes(field, value):
    with pytest.raises(ValueError, match=r"TransformerConfig\.(width|" + field + ")"):
        TransformerConfig(**{field: value})


def test_width_names_what_it_must_be():
    with pytest.raises(ValueError, match=r"width is 12; .* multiple of 2 · heads = 8"):
        TransformerConfig(width=12, heads=4)


# Randomness


def test_weights_follow_from_the_seed_alone():
    tokenizer = CharTokenizer("abc")
    first = Transformer(tokenizer, TINY, seed=3).state_dict()
    torch.manual_seed(123)
    again = Transformer(tokenizer, TINY, seed=3).state_dict()
    other = Transformer(tokenizer, TINY, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    matrices = [name for name in first if first[name].dim() > 1]
    assert len(matrices) == 2 + 4 * TINY.layers
    assert not any(torch.equal(first[name], other[name]) for name in matrices)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Transformer(CharTokenizer("abc"), TINY, seed=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("seed", [-1, 1.5, None, 2**31])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="seed is"):
        Transformer(CharTokenizer("abc"), TINY, seed=seed)


# What a token may see


@pytest.mark.parametrize("padded", [False, True])
def test_a_token_changes_nothing_before_it(padded):
    model, tokens = tiny_model(), random_tokens(1, CONTEXT)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, :3] = not padded
    before = model(tokens, mask)
    for place in range(3, CONTEXT):
        changed = tokens.clone()
        changed[:, place] = 2 + (changed[:, place] - 1) % 3
        after = model(changed, mask)
        torch.testing.assert_close(after[:, 3:place], before[:, 3:place], **CLOSE)
        difference = (after[:, place:] - before[:, place:]).abs().amax(dim=-1)
        assert (difference > 1e-4).all()  # and it changes everything after it


def test_order_matters():
    model = tiny_model()
    one, other = model(torch.tensor([[2, 3, 4], [3, 2, 4]]))[:, -1]
    assert (one - other).abs().max() > 1e-2


def test_only_relative_positions_count():
    """With the angles of positions 5, 6, … in place of those of 0, 1, … every logit is as it was."""
    model, moved = tiny_model(), tiny_model()
    tokens = random_tokens(2, CONTEXT - 5)
    tables = [table for table in moved.buffers() if table.shape[0] == CONTEXT]
    assert tables
    for table in tables:
        table.copy_(table.roll(-5, dims=0))
    torch.testing.assert_close(moved(tokens), model(tokens), **CLOSE)
    for table in tables:
        table.copy_(table.flip(0))  # the other way round they do not
    assert (moved(tokens) - model(tokens)).abs().max() > 1e-2


# Padding


@pytest.mark.parametrize("gap", [1, 4, CONTEXT - 3])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_padding_anywhere_changes_nothing(gap, place):
    """Three tokens alone, and with a gap before, between or after them."""
    model, tokens = tiny_model(), random_tokens(2, 3)
    alone = model(tokens)
    for filler in (0, 3):  # whatever stands in the gap
        filling = torch.full((2, gap), filler)
        padded = torch.cat([tokens[:, :place], filling, tokens[:, place:]], dim=1)
        mask = torch.ones_like(padded, dtype=torch.bool)
        mask[:, place : place + gap] = False
        logits = model(padded, mask)
        assert logits.isfinite().all()
        torch.testing.assert_close(logits[mask].view_as(alone), alone, **CLOSE)


@pytest.mark.parametrize(
    "prompts",
    [
        ["ab", "bcabcbcab", "c"],  # nothing in common: padding at the left
        ["abcabc", "abca", "abcabcbcbb", "abcb"],  # something: padding after it
        ["abcabcabcabbb", "abcabcabcabc", "abcabcabcabacca"],  # enough to be read once for all
    ],
)
def test_a_prompt_beside_longer_ones(prompts):
    model = tiny_model()
    tokens, mask = encode_prompts(model, prompts, 4)
    assert not mask.all()
    together = model(tokens, mask)
    for i, prompt in enumerate(prompts):
        alone = model(torch.tensor([model.tokenizer.encode(prompt)]))[0]
        torch.testing.assert_close(together[i][mask[i]], alone, **CLOSE)


def test_a_row_without_tokens_does_no_harm():
    model, tokens = tiny_model(), random_tokens(2, 4)
    mask = torch.tensor([[True] * 4, [False] * 4])
    logits = model(tokens, mask)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[:1], model(tokens[:1]), **CLOSE)
    logits[0].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# Cache


def in_pieces(model, tokens, mask, sizes):
    cache = model.new_cache()
    parts = [
        model(part, part_mask, cache)
        for part, part_mask in zip(tokens.split(sizes, dim=1), mask.split(sizes, dim=1), strict=True)
    ]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("length", range(1, CONTEXT + 1))
@pytest.mark.parametrize("padding", ["none", "left", "middle", "right"])
def test_cached_is_uncached(length, padding):
    """In one piece, token by token, and in two pieces cut anywhere: every logit and log-probability."""
    model, tokens = tiny_model(), random_tokens(3, length, seed=length)
    mask = torch.ones(3, length, dtype=torch.bool)
    for row, gap in enumerate((0, length // 3, length // 2)):
        start = {"none": 0, "left": 0, "middle": 1, "right": length - gap}[padding]
        if padding != "none":
            mask[row, start : start + gap] = False
    with torch.no_grad():
        expected = model(tokens, mask)
        cuts = [[length], [1] * length] + [[cut, length - cut] for cut in {1, length // 2, length - 1} - {0}]
        for sizes in cuts:
            if sum(sizes) == length and min(sizes) > 0:
                got = in_pieces(model, tokens, mask, sizes)
                torch.testing.assert_close(got[mask], expected[mask], **CLOSE)
                log_probs = got.log_softmax(dim=-1), expected.log_softmax(dim=-1)
                torch.testing.assert_close(*(part[mask] for part in log_probs), **CLOSE)


def test_a_mask_may_be_left_out():
    model, tokens = tiny_model(), random_tokens(2, 6)
    everything = torch.ones_like(tokens, dtype=torch.bool)
    assert torch.equal(model(tokens), model(tokens, everything))
    cache = model.new_cache()
    model(tokens[:, :4], cache=cache)
    torch.testing.assert_close(model(tokens[:, 4:], cache=cache), model(tokens)[:, 4:], **CLOSE)


def test_a_cache_of_prompts_repeated_for_their_outputs():
    model, prompts, outputs = tiny_model(), random_tokens(2, 5), random_tokens(6, 4, seed=1)
    mask = torch.ones_like(prompts, dtype=torch.bool)
    mask[0, :2] = False
    cache = model.new_cache()
    model(prompts, mask, cache)
    cache.repeat(3)
    got = model(outputs, torch.ones_like(outputs, dtype=torch.bool), cache)
    for i in range(6):
        prompt = prompts[i // 3][mask[i // 3]]
        expected = model(torch.cat([prompt, outputs[i]])[None])[0, len(prompt) :]
        torch.testing.assert_close(got[i], expected, **CLOSE)


def test_more_tokens_than_the_context():
    model = tiny_model()
    model(random_tokens(1, CONTEXT))
    message = f"has {CONTEXT + 1} tokens, but the model's context is {CONTEXT}"
    with pytest.raises(ValueError, match=message):
        model(random_tokens(1, CONTEXT + 1))
    cache = model.new_cache()
    model(random_tokens(1, CONTEXT), cache=cache)
    with pytest.raises(ValueError, match=message):
        model(random_tokens(1, 1), cache=cache)


# Gradient

PROMPTS = {
    "one": ["abcb"],
    "several": ["ab", "cbabc", "b"],
    "shared beginning": ["abcabcabca", "abcabcabcabb", "abcabcabcacb"],
}


def weighed(log_probs, seed=0):
    """A sum of log-probabilities with weights of both signs."""
    weights = torch.randn(log_probs.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return (weights * log_probs).sum()


def read_log_probs(model, samples):
    log_probs = model.head(read_states(model, samples)).log_softmax(dim=-1)
    chosen = log_probs.gather(-1, samples.tokens[..., None]).squeeze(-1)
    return torch.where(samples.mask, chosen, 0.0)


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_gradient_through_the_cache(prompts):
    """Prompts are read once for G outputs, and what they share once for all; the gradient is that of reading
    each output with its prompt by itself.
    """
    model = tiny_model(dtype=torch.double)
    samples = made_up_samples(model, prompts, group_size=3, length=5)
    parameters = list(model.parameters())
    plain, read = plain_log_probs(model, samples), read_log_probs(model, samples)
    torch.testing.assert_close(read, plain, atol=1e-12, rtol=1e-12)
    expected = torch.autograd.grad(weighed(plain), parameters)
    got = torch.autograd.grad(weighed(read), parameters)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_gradient_by_finite_differences(prompts):
    model = tiny_model(dtype=torch.double)
    samples = made_up_samples(model, prompts, group_size=2, length=4)
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(weighed(read_log_probs(model, samples)), parameters)
    vector = nn.utils.parameters_to_vector(parameters).detach()
    generator, step = torch.Generator().manual_seed(1), 1e-5
    for _ in range(8):
        direction = torch.randn(vector.shape, generator=generator, dtype=torch.double)
        sides = []
        for sign in (1, -1):
            nn.utils.vector_to_parameters(vector + sign * step * direction, parameters)
            with torch.no_grad():
                sides.append(weighed(read_log_probs(model, samples)).item())
        slope = sum((g * d).sum() for g, d in zip(gradient, split_like(direction, parameters), strict=True))
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(slope.item(), rel=1e-5, abs=1e-6)
        nn.utils.vector_to_parameters(vector, parameters)


def split_like(vector, parameters):
    sizes = [parameter.numel() for parameter in parameters]
    return [p.view_as(q) for p, q in zip(vector.split(sizes), parameters, strict=True)]


def test_padding_has_no_gradient():
    """What is embedded for padding gets none, wherever the padding stands."""
    model = tiny_model(dtype=torch.double)
    samples = made_up_samples(model, ["ab", "acb", "abbbc"], group_size=3, length=5)
    assert not samples.prompt_mask.all()
    assert not samples.mask.all()
    weighed(read_log_probs(model, samples)).backward()
    embedding = next(part for part in model.modules() if isinstance(part, nn.Embedding))
    assert (embedding.weight.grad[model.tokenizer.pad_id] == 0).all()
    assert (embedding.weight.grad[2:].abs().amax(dim=1) > 0).all()


# A peer


@pytest.mark.xdist_group("llm")
@pytest.mark.parametrize("seed", range(3))
def test_it_is_a_small_llama(seed):
    """With the same weights transformers' Llama gives the same logits."""
    transformers = pytest.importorskip("transformers")
    config = TransformerConfig(layers=3, width=16, heads=2, hidden=20, context=32)
    ours = tiny_model("abcdef", config, seed, std=0.3)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=8,
            hidden_size=16,
            intermediate_size=20,
            num_hidden_layers=3,
            num_attention_heads=2,
            rms_norm_eps=torch.finfo(torch.float32).eps,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        theirs.model.embed_tokens.weight.copy_(ours.embedding.weight)
        theirs.model.norm.weight.copy_(ours.norm.weight)
        theirs.lm_head.weight.copy_(ours.head.weight)
        for block, layer in zip(ours.blocks, theirs.model.layers, strict=True):
            attention, feed = layer.self_attn, layer.mlp
            layer.input_layernorm.weight.copy_(block.attention_norm.weight)
            layer.post_attention_layernorm.weight.copy_(block.feed_norm.weight)
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            queries, keys, values = block.to_qkv.weight.chunk(3)
            # We turn pairs of neighbours; theirs lie half a head apart.
            queries, keys = (
                part.unflatten(0, (config.heads, -1, 2)).transpose(1, 2).flatten(0, 2)
                for part in (queries, keys)
            )
            for part, weight in zip(projections, (queries, keys, values), strict=True):
                part.weight.copy_(weight)
            attention.o_proj.weight.copy_(block.from_heads.weight)
            gate, hidden = block.to_hidden.weight.chunk(2)
            feed.gate_proj.weight.copy_(gate)
            feed.up_proj.weight.copy_(hidden)
            feed.down_proj.weight.copy_(block.from_hidden.weight)
        tokens = random_tokens(3, 20, vocabulary=8, seed=seed)
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, **CLOSE)
        mask = torch.ones_like(tokens, dtype=torch.bool)
        mask[1, :6] = False
        logits = theirs(tokens, attention_mask=mask.long()).logits
        torch.testing.assert_close(ours(tokens, mask)[mask], logits[mask], **CLOSE)
