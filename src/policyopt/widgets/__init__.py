"""Interactive figures: each computes in the page, with or without a kernel."""

from policyopt.widgets.balance import BalanceYourself, export_mlp
from policyopt.widgets.base import Figure

__all__ = ["BalanceYourself", "Figure", "export_mlp"]
