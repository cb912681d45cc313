"""Interactive figures: each computes in the page, with or without a kernel."""

from policyopt.widgets.balance import BalanceYourself, export_mlp
from policyopt.widgets.bandit import BanditGradient
from policyopt.widgets.base import Figure
from policyopt.widgets.gae_explorer import GAEExplorer
from policyopt.widgets.gridworld import GridWorldFigure

__all__ = ["BalanceYourself", "BanditGradient", "Figure", "GAEExplorer", "GridWorldFigure", "export_mlp"]
