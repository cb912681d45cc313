"""Policy optimisation from REINFORCE to PPO and GRPO: small, tested, and made to be read."""

from policyopt.agents import load_agent, save_agent
from policyopt.algorithms import (
    a2c,
    a3c,
    ddpg,
    dqn,
    grpo,
    ppo,
    ppo_penalty,
    q_learning,
    reinforce,
    sac,
    td3,
    trpo,
)
from policyopt.algorithms.a2c import A2CConfig
from policyopt.algorithms.a3c import A3CConfig
from policyopt.algorithms.ddpg import DDPGConfig
from policyopt.algorithms.dqn import DQNConfig
from policyopt.algorithms.grpo import GRPOConfig
from policyopt.algorithms.ppo import PPOConfig
from policyopt.algorithms.ppo_penalty import PPOPenaltyConfig
from policyopt.algorithms.q_learning import QLearningConfig
from policyopt.algorithms.reinforce import ReinforceConfig
from policyopt.algorithms.sac import SACConfig
from policyopt.algorithms.td3 import TD3Config
from policyopt.algorithms.trpo import TRPOConfig
from policyopt.distributions import Categorical, DiagonalGaussian, SquashedGaussian
from policyopt.envs import GridWorld
from policyopt.evaluation import RandomAgent, evaluate
from policyopt.history import History
from policyopt.losses import clipped_surrogate, policy_gradient, td_targets
from policyopt.networks import Actor, ActorCritic, mlp
from policyopt.noise import OrnsteinUhlenbeck
from policyopt.q_networks import (
    DeterministicActorCritic,
    QNetwork,
    SquashedActorCritic,
    TwinDeterministicActorCritic,
    TwinQ,
)
from policyopt.replay import ReplayBuffer, ReplayCollector, Transitions
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
    "DDPGConfig",
    "DQNConfig",
    "DeterministicActorCritic",
    "DiagonalGaussian",
    "EpisodeCollector",
    "GRPOConfig",
    "GridWorld",
    "History",
    "OrnsteinUhlenbeck",
    "PPOConfig",
    "PPOPenaltyConfig",
    "QLearningConfig",
    "QNetwork",
    "RandomAgent",
    "ReinforceConfig",
    "ReplayBuffer",
    "ReplayCollector",
    "Rollout",
    "SACConfig",
    "SquashedActorCritic",
    "SquashedGaussian",
    "TD3Config",
    "TRPOConfig",
    "TabularAgent",
    "TabularModel",
    "Transitions",
    "TwinDeterministicActorCritic",
    "TwinQ",
    "a2c",
    "a3c",
    "clipped_surrogate",
    "ddpg",
    "discounted_returns",
    "dqn",
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
    "sac",
    "save_agent",
    "tabular_model",
    "td3",
    "td_errors",
    "td_targets",
    "trpo",
    "tuned_config",
    "value_iteration",
]
