"""Small models and outputs for the tests of the language laboratory."""

import torch
from torch import nn
from torch.nn import functional as F

from policyopt.language.model import Transformer, TransformerConfig
from policyopt.language.sampling import Samples, encode_prompts
from policyopt.language.tokenizer import CharTokenizer

TINY = TransformerConfig(layers=2, width=8, heads=2, hidden=12, context=24)


def tiny_model(characters="abc", config=TINY, seed=0, std=0.6, dtype=torch.float32):
    """A transformer of about a thousand parameters, large ones, so that every token sways every later one."""
    model = Transformer(CharTokenizer(characters), config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(std * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)


class NoCache:
    """For a model that needs to remember nothing."""

    def repeat(self, times):
        """Nothing to repeat."""


class TableModel(nn.Module):
    """The log-odds of the next token are a row of a table ``[V, V]``, chosen by the token before it."""

    def __init__(self, characters, table, context=64):
        super().__init__()
        self.tokenizer, self.context, self.width = CharTokenizer(characters), context, len(table)
        self.head = nn.Linear(self.width, self.width, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.as_tensor(table).T)

    def new_cache(self):
        return NoCache()

    def features(self, tokens, mask=None, cache=None):
        return F.one_hot(tokens, self.width).to(self.head.weight.dtype)


def table_of(characters, rows):
    """A model that writes after each character what ``rows`` says: ``{"a": {"b": 0.3, "end": 0.7}}``."""
    names = ["pad", "end", *characters]
    table = torch.full((len(names), len(names)), -torch.inf)
    table[:, 1] = 0.0  # after anything else the end
    for before, shares in rows.items():
        row = torch.tensor([shares.get(name, 0.0) for name in names])
        table[names.index(before)] = row.log()
    return TableModel(characters, table.clamp(min=-1e4))


def made_up_samples(model, prompts, group_size, length, seed=0):
    """Outputs of many lengths that no model wrote: Q prompts, G of each, the last with all T tokens and no
    end; log-probabilities are 0.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens, mask = encode_prompts(model, prompts, length)
    shape = (len(prompts), group_size)
    lengths = torch.randint(1, length + 1, shape, generator=generator)
    lengths[-1, -1] = length
    written = torch.randint(2, len(model.tokenizer), (*shape, length), generator=generator)
    place = torch.arange(length)
    written[place == lengths[..., None] - 1] = model.tokenizer.end_id
    written[-1, -1, -1] = 2
    written_mask = place < lengths[..., None]
    written = torch.where(written_mask, written, model.tokenizer.pad_id)
    return Samples(tokens, mask, written, written_mask, torch.zeros(*shape, length))


def uncached_logits(model, samples, q, g):
    """The logits of each token of output g of prompt q, ``[|o|, V]``, from a forward pass over it alone."""
    prompt = samples.prompts[q][samples.prompt_mask[q]]
    output = samples.tokens[q, g][samples.mask[q, g]]
    logits = model(torch.cat([prompt, output[:-1]])[None])[0]
    return logits[len(prompt) - 1 :]


def plain_log_probs(model, samples, temperature=1.0):
    """What ``TokenScorer`` gives, ``[Q, G, T]``, computed output by output without cache or padding."""
    result = torch.zeros(samples.tokens.shape, dtype=next(model.parameters()).dtype)
    for q, g in torch.cartesian_prod(*map(torch.arange, samples.tokens.shape[:2])).tolist():
        log_probs = (uncached_logits(model, samples, q, g) / temperature).log_softmax(dim=-1)
        output = samples.tokens[q, g][samples.mask[q, g]]
        result[q, g, : len(output)] = log_probs.gather(-1, output[:, None]).squeeze(-1)
    return result
