"""The algorithms, one file each, in the order of the field's story: q_learning, reinforce, a2c, a3c, ppo,
ppo_penalty, trpo, grpo, dqn, ddpg, td3, sac.

Each has a frozen dataclass of settings and one function of the same signature::

    agent, history = ppo.train("CartPole-v1", PPOConfig(total_steps=50_000), seed=0)

Its arguments:

- ``env_id``: a Gymnasium id, or a callable that makes an environment.
- ``config``: the settings.
- ``seed``: everything random follows from it; the same seed on the same machine gives the same numbers to the
  bit (``a3c`` with several workers excepted: it is asynchronous).
- ``checkpoint``: a file to resume from if it exists, and to write to; ``checkpoint_every``: updates between
  two writes.
- ``progress``: show a progress bar.

It returns the agent, and a ``History`` with one row of metrics for each update. It raises ``ValueError`` for
an environment, a space, a setting or a file that cannot be used, and ``FloatingPointError`` when training
diverged; the message says what and why.

``config.total_steps`` is never exceeded. A step is one call of an environment's ``step``, and where
environments are stepped together (``a2c``, ``ppo``, ``ppo_penalty``, ``trpo``) the resets that Gymnasium
inserts between two episodes are counted as steps too.

Which actions: ``q_learning`` and ``dqn`` choose among a Discrete set, ``ddpg``, ``td3`` and ``sac`` give
points of a bounded Box, the others do both.
"""
