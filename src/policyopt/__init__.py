"""Policy optimisation from REINFORCE to PPO and GRPO: small, tested, and made to be read."""

from policyopt.agents import load_agent, save_agent
from policyopt.algorithms import ppo
from policyopt.algorithms.ppo import PPOConfig
from policyopt.distributions import Categorical, DiagonalGaussian
from policyopt.envs import GridWorld
from policyopt.evaluation import RandomAgent, evaluate
from policyopt.history import History
from policyopt.losses import clipped_surrogate
from policyopt.networks import ActorCritic, mlp
from policyopt.returns import discounted_returns, gae, td_errors
from policyopt.rollout import Collector, Rollout, make_env, make_envs
from policyopt.tuned import TUNED, tuned_config

__version__ = "0.1.0"

__all__ = [
    "TUNED",
    "ActorCritic",
    "Categorical",
    "Collector",
    "DiagonalGaussian",
    "GridWorld",
    "History",
    "PPOConfig",
    "RandomAgent",
    "Rollout",
    "clipped_surrogate",
    "discounted_returns",
    "evaluate",
    "gae",
    "load_agent",
    "make_env",
    "make_envs",
    "mlp",
    "ppo",
    "save_agent",
    "td_errors",
    "tuned_config",
]
