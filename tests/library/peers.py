"""Agents of Stable-Baselines3 and sb3-contrib with our weights and our rollout, to update side by side."""

import dataclasses

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger

from policyopt.networks import ActorCritic
from policyopt.rollout import Batch, Collector, make_envs


class Pair:
    """Our agent with a rollout, and theirs with the same weights and the same rollout in its buffer.

    Args:
        peer: their class, e.g. ``stable_baselines3.PPO``.
        env_id: a Gymnasium id.
        num_envs: N.
        horizon: T.
        gamma: γ.
        gae_lambda: λ.
        settings: further arguments of ``peer``.
    """

    def __init__(self, peer, env_id, num_envs, horizon, gamma, gae_lambda, **settings):
        self.num_envs, self.horizon = num_envs, horizon
        envs = make_envs(env_id, num_envs)
        self.agent = ActorCritic.for_envs(envs, (64, 64), seed=0)
        rollout = Collector(envs, seed=0).collect(self.agent, horizon)
        envs.close()
        # An inserted reset has no counterpart in their buffer; declared a step here, both see the same rows.
        self.rollout = dataclasses.replace(rollout, valid=torch.ones_like(rollout.valid))
        self.theirs = peer(
            "MlpPolicy",
            env_id,
            n_steps=horizon * num_envs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            device="cpu",
            **settings,
        )
        self.theirs.set_logger(Logger(folder=None, output_formats=[]))
        policy, agent = self.theirs.policy, self.agent
        self.layers = [
            (policy.mlp_extractor.policy_net[0], agent.policy_net[0]),
            (policy.mlp_extractor.policy_net[2], agent.policy_net[2]),
            (policy.action_net, agent.policy_net[4]),
            (policy.mlp_extractor.value_net[0], agent.value_net[0]),
            (policy.mlp_extractor.value_net[2], agent.value_net[2]),
            (policy.value_net, agent.value_net[4]),
        ]
        for their_layer, our_layer in self.layers:
            their_layer.load_state_dict(our_layer.state_dict())
        self.theirs.rollout_buffer = self._buffer(gamma, gae_lambda)
        self.before = [parameter.clone() for parameter in agent.parameters()]

    def _buffer(self, gamma, gae_lambda):
        """Rewards with γ V(s_{t+1}) added at truncations, as their collect_rollouts does."""
        rollout = self.rollout
        with torch.no_grad():
            all_values = self.agent.value(rollout.all_obs)
        spaces = self.theirs.observation_space, self.theirs.action_space
        buffer = RolloutBuffer(self.horizon, *spaces, "cpu", gae_lambda, gamma, self.num_envs)
        starts = np.ones(self.num_envs)
        for t in range(self.horizon):
            cut = rollout.truncated[t] & ~rollout.terminated[t]
            buffer.add(
                rollout.obs[t].numpy(),
                rollout.actions[t].reshape(self.num_envs, -1).numpy(),
                (rollout.rewards[t] + gamma * all_values[t + 1] * cut).numpy(),
                starts,
                all_values[t],
                rollout.log_probs[t],
            )
            starts = (rollout.terminated[t] | rollout.truncated[t]).numpy().astype(float)
        buffer.compute_returns_and_advantage(last_values=all_values[-1], dones=starts)
        return buffer

    def same_order(self, monkeypatch, epochs, passes_of_the_peer_before=0):
        """Let both draw their minibatches in the same order, for so many epochs.

        Args:
            monkeypatch: pytest's.
            epochs: how many passes are made.
            passes_of_the_peer_before: how often the peer asks for an order before them.
        """
        size, horizon, num_envs = self.horizon * self.num_envs, self.horizon, self.num_envs
        orders = [np.random.default_rng(epoch).permutation(size) for epoch in range(epochs)]
        their_orders = iter([np.arange(size)] * passes_of_the_peer_before + orders)
        our_orders = iter(orders)
        monkeypatch.setattr(np.random, "permutation", lambda n: next(their_orders))

        def minibatches(batch, size, generator):
            # Their flat index counts environments first, n · T + t; ours counts time first, t · N + n.
            n, t = np.divmod(next(our_orders), horizon)
            for index in torch.from_numpy(t * num_envs + n).split(size):
                yield batch[index]

        monkeypatch.setattr(Batch, "minibatches", minibatches)

    def assert_equal(self, atol, moved_by):
        """The weights are equal to ``atol``, and one of them has moved by more than ``moved_by``."""
        changes = [
            (now - before).abs().max()
            for now, before in zip(self.agent.parameters(), self.before, strict=True)
        ]
        assert max(changes) > moved_by
        for their_layer, our_layer in self.layers:
            torch.testing.assert_close(their_layer.weight, our_layer.weight, atol=atol, rtol=0)
            torch.testing.assert_close(their_layer.bias, our_layer.bias, atol=atol, rtol=0)
        if not self.agent.discrete:
            torch.testing.assert_close(self.theirs.policy.log_std, self.agent.log_std, atol=atol, rtol=0)
