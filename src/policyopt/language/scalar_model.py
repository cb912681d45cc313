"""A language model that gives numbers instead of tokens: a value function, or a reward model."""

import torch
from torch import Tensor, nn

from policyopt.language.model import LanguageModel
from policyopt.settings import check_seed

__all__ = ["ScalarModel"]


class ScalarModel(nn.Module):
    """A language model whose last layer gives one number a token: a value function or a reward model.

    Args:
        body: the language model, changed in training; pass a copy of the policy. What its head alone has is
            not used, and no longer trained.
        scale: standard deviation of the first weights of the new layer; 0 starts with 0 everywhere.
        seed: of those weights.
    """

    def __init__(self, body: LanguageModel, scale: float = 0.0, seed: int = 0):
        super().__init__()
        self.body = body
        rest = set(body.modules()) - set(body.head.modules())
        shared = {parameter for module in rest for parameter in module.parameters(recurse=False)}
        for parameter in set(body.head.parameters()) - shared:  # an embedding may serve as head too
            parameter.requires_grad_(False)
        generator = torch.Generator().manual_seed(check_seed(seed))
        self.out = nn.Linear(body.width, 1)
        with torch.no_grad():
            self.out.weight.copy_(scale * torch.randn(1, body.width, generator=generator))
            self.out.bias.zero_()

    def score(self, features: Tensor) -> Tensor:
        """Features ``[..., D]`` to numbers ``[...]``."""
        return self.out(features).squeeze(-1)
