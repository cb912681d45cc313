"""Settings that were found to work, in one place: by algorithm, then by environment.

Each was chosen on seeds that are not used to report results.
"""

from typing import Any

from policyopt.algorithms.ppo import PPOConfig

__all__ = ["TUNED", "tuned_config"]

TUNED: dict[str, dict[str, Any]] = {
    "ppo": {
        "CartPole-v1": PPOConfig(
            total_steps=50_000,
            num_envs=16,
            horizon=64,
            epochs=6,
            minibatch_size=256,
            learning_rate=4e-3,
            learning_rate_end=0.0,
            gamma=0.98,
            gae_lambda=0.9,
        ),
        "Pendulum-v1": PPOConfig(
            total_steps=200_000,
            num_envs=8,
            horizon=256,
            epochs=10,
            minibatch_size=256,
            learning_rate=1e-3,
            learning_rate_end=0.0,
            gamma=0.9,
            gae_lambda=0.95,
        ),
    },
}


def tuned_config(algorithm: str, env_id: str) -> Any:
    """The settings for an algorithm on an environment.

    Raises:
        KeyError: there are none; the message lists the environments there are.
    """
    try:
        return TUNED[algorithm][env_id]
    except KeyError:
        known = ", ".join(TUNED.get(algorithm, {})) or "none"
        raise KeyError(
            f"no tuned settings for {algorithm} on {env_id!r}; there are some for: {known}"
        ) from None
