"""Interactive figures: each computes in the page, with or without a kernel."""

from policyopt.widgets.balance import BalanceYourself, export_mlp
from policyopt.widgets.bandit import BanditGradient
from policyopt.widgets.base import Figure
from policyopt.widgets.clip_explorer import ClipExplorer
from policyopt.widgets.four_models import FourModels
from policyopt.widgets.gae_explorer import GAEExplorer
from policyopt.widgets.gridworld import GridWorldFigure
from policyopt.widgets.group_advantages import GroupAdvantages
from policyopt.widgets.kl_estimators import KLEstimators
from policyopt.widgets.training_outputs import TrainingOutputs

__all__ = [
    "BalanceYourself",
    "BanditGradient",
    "ClipExplorer",
    "Figure",
    "FourModels",
    "GAEExplorer",
    "GridWorldFigure",
    "GroupAdvantages",
    "KLEstimators",
    "TrainingOutputs",
    "export_mlp",
]
