"""The studies of the book, by name."""

from policyopt.algorithms.a2c import A2CConfig
from policyopt.algorithms.ppo import PPOConfig
from policyopt.experiments.study import Study

__all__ = ["STUDIES"]

SMOKE = Study(
    "smoke",
    {
        "PPO": ("ppo", PPOConfig(total_steps=2_048, num_envs=4, horizon=128, epochs=2)),
        "A2C": ("a2c", A2CConfig(total_steps=2_048, num_envs=4)),
    },
    ["CartPole-v1"],
    seeds=range(2),
    eval_episodes=5,
)

STUDIES: dict[str, Study] = {study.name: study for study in (SMOKE,)}
