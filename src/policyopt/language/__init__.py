"""The language laboratory: a small transformer, tasks with rewards, and training by SFT, GRPO and PPO."""
