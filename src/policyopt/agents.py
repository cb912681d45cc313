"""Trained agents as files."""

import os
from pathlib import Path
from typing import Any

from torch import Generator

from policyopt.files import load_file, save_file, space_from_dict, space_to_dict
from policyopt.networks import Actor, ActorCritic, Agent
from policyopt.q_networks import (
    DeterministicActorCritic,
    QNetwork,
    SquashedActorCritic,
    TwinDeterministicActorCritic,
)
from policyopt.tabular import TabularAgent

__all__ = ["load_agent", "save_agent"]

CLASSES: dict[str, type] = {
    agent.__name__: agent
    for agent in (
        Actor,
        ActorCritic,
        DeterministicActorCritic,
        QNetwork,
        SquashedActorCritic,
        TabularAgent,
        TwinDeterministicActorCritic,
    )
}


def save_agent(path: str | os.PathLike, agent: Agent | TabularAgent, **about: Any) -> Path:
    """Write an agent to a file that ``load_agent`` reads.

    Args:
        path: the file; it is complete afterwards or as it was before.
        agent: the agent.
        about: plain values to keep with it, e.g. ``environment="CartPole-v1"``.

    Raises:
        OSError: the file cannot be written.
    """
    content = {
        "kind": "agent",
        "class": type(agent).__name__,
        "obs_space": space_to_dict(agent.obs_space),
        "action_space": space_to_dict(agent.action_space),
        "hidden": list(getattr(agent, "hidden", ())),  # a table has none
        "weights": agent.state_dict(),
        "about": about,
    }
    return save_file(path, content)


def load_agent(path: str | os.PathLike) -> tuple[Agent | TabularAgent, dict[str, Any]]:
    """Read an agent, and what was kept with it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, was written by something else, or its weights fit no agent.
    """
    content = load_file(path, "agent")
    try:
        agent_class = CLASSES[content["class"]]
        spaces = space_from_dict(content["obs_space"]), space_from_dict(content["action_space"])
        network = () if agent_class is TabularAgent else (tuple(content["hidden"]), Generator())
        agent = agent_class(*spaces, *network)
        agent.load_state_dict(content["weights"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} holds no agent this version of policyopt can rebuild: {error}") from error
    return agent, content["about"]
