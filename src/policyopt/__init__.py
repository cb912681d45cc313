"""Policy optimisation from REINFORCE to PPO and GRPO: small, tested, and made to be read."""

from policyopt.agents import load_agent, save_agent
from policyopt.algorithms import a2c, a3c, grpo, ppo, ppo_penalty, q_learning, reinforce, trpo
from policyopt.algorithms.a2c import A2CConfig
from policyopt.algorithms.a3c import A3CConfig
from policyopt.algorithms.grpo import GRPOConfig
from policyopt.algorithms.ppo import PPOConfig
from policyopt.algorithms.ppo_penalty import PPOPenaltyConfig
from policyopt.algorithms.q_learning import QLearningConfig
from policyopt.algorithms.reinforce import ReinforceConfig
from policyopt.algorithms.trpo import TRPOConfig
from policyopt.distributions import Categorical, DiagonalGaussian
from policyopt.envs import GridWorld
from policyopt.evaluation import RandomAgent, evaluate
from policyopt.history import History
from policyopt.losses import clipped_surrogate, policy_gradient
from policyopt.networks import Actor, ActorCritic, mlp
from policyopt.replay import ReplayBuffer, Transitions
from policyopt.returns import discounted_returns, gae, group_relative_advantages, td_errors
from policyopt.rollout import Collector, EpisodeCollector, Rollout, make_env, make_envs
from policyopt.tabular import (
    TabularAgent,
    TabularModel,
    exact_policy_gradient,
    greedy_policy,
    policy_evaluation,
    tabular_model,
    value_iteration,
)
from policyopt.tuned import TUNED, tuned_config

__version__ = "0.1.0"

__all__ = [
    "TUNED",
    "A2CConfig",
    "A3CConfig",
    "Actor",
    "ActorCritic",
    "Categorical",
    "Collector",
    "DiagonalGaussian",
    "EpisodeCollector",
    "GRPOConfig",
    "GridWorld",
    "History",
    "PPOConfig",
    "PPOPenaltyConfig",
    "QLearningConfig",
    "RandomAgent",
    "ReinforceConfig",
    "ReplayBuffer",
    "Rollout",
    "TRPOConfig",
    "TabularAgent",
    "TabularModel",
    "Transitions",
    "a2c",
    "a3c",
    "clipped_surrogate",
    "discounted_returns",
    "evaluate",
    "exact_policy_gradient",
    "gae",
    "greedy_policy",
    "group_relative_advantages",
    "grpo",
    "load_agent",
    "make_env",
    "make_envs",
    "mlp",
    "policy_evaluation",
    "policy_gradient",
    "ppo",
    "ppo_penalty",
    "q_learning",
    "reinforce",
    "save_agent",
    "tabular_model",
    "td_errors",
    "trpo",
    "tuned_config",
    "value_iteration",
]
