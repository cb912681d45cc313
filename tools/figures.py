"""Makes what the repository keeps as files: the pictures of the introduction and the README, the network that
plays in *Balance it yourself*, the episodes of the *GAE explorer* and the run of *Training outputs*.
Everything follows from seeds, so a second run changes nothing.
"""

import dataclasses
import io
import json
import os
from pathlib import Path

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from policyopt import RandomAgent, evaluate, make_env, ppo, tuned_config
from policyopt.book import COLORS, animation, episode_frames, use_style
from policyopt.files import write_whole
from policyopt.language.recording import record_run
from policyopt.widgets.balance import PACKAGED_POLICY, export_mlp
from policyopt.widgets.gae_explorer import PACKAGED_EPISODES, record_episodes
from policyopt.widgets.training_outputs import PACKAGED_RUN

mpl.use("agg")
IMAGES = Path(__file__).parent.parent / "book" / "images"
ENV = "CartPole-v1"
ALT = "A cart slides left and right on a track in small quick moves and keeps the pole on top of it upright."


def png(figure: plt.Figure) -> bytes:
    """A figure as a small PNG: a palette of 64 colours is enough for lines and letters."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    small = io.BytesIO()
    Image.open(buffer).convert("RGB").quantize(64).save(small, "PNG", optimize=True)
    return small.getvalue()


def packaged_policy() -> None:
    """The weights of *Balance it yourself*: PPO with half as wide layers, so that the page stays small."""
    config = dataclasses.replace(tuned_config("ppo", ENV), hidden=(32, 32))
    agent, _ = ppo.train(ENV, config, seed=0)
    worst = evaluate(agent, ENV, 100, seed=1_000_000).min()
    if worst < 500:
        raise SystemExit(f"the network for the page falls after {worst:.0f} steps; choose another seed")
    write_whole(PACKAGED_POLICY, (json.dumps(export_mlp(agent.policy_net)) + "\n").encode())


def gae_episodes() -> None:
    """What the *GAE explorer* shows."""
    text = json.dumps(record_episodes(), ensure_ascii=False, separators=(",", ":")) + "\n"
    write_whole(PACKAGED_EPISODES, text.encode())


def training_outputs() -> None:
    """The run that *Training outputs* shows."""
    text = json.dumps(record_run(), ensure_ascii=False, separators=(",", ":")) + "\n"
    write_whole(PACKAGED_RUN, text.encode())


def introduction(agent: ppo.ActorCritic) -> None:
    """The trained agent, moving and still."""
    # A start further off balance than Gymnasium's own gives it something to do.
    frames, total = episode_frames(agent, ENV, 1, max_steps=250, options={"low": -0.15, "high": 0.15})
    if total < 250:
        raise SystemExit(f"the agent of the introduction falls after {total:.0f} steps; choose another start")
    moving = animation([frame[100:340] for frame in frames], ALT, width=600, fps=25, colors=8)
    moving.save(IMAGES / "cartpole_trained.gif")
    write_whole(IMAGES / "cartpole_still.png", moving.still)


def readme(agent: ppo.ActorCritic, history: ppo.History) -> None:
    """The cart and pole beside the rising return."""
    env = make_env(ENV)
    chance = evaluate(RandomAgent(env.action_space), ENV, 100).mean()
    env.close()
    frames, _ = episode_frames(agent, ENV, 1, max_steps=10, options={"low": -0.15, "high": 0.15})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1, 1.25))
    left.imshow(frames[-1][120:330])
    left.set_axis_off()
    right.axhline(chance, color=COLORS["random"], linestyle="--", label="random policy")
    history.plot("episode_return", ax=right, color=COLORS["ppo"], label="PPO, last 20 episodes")
    right.set_ylim(0, 510)
    right.legend(loc="upper left")
    write_whole(IMAGES / "readme.png", png(figure))
    first, last = np.nanmin(history["episode_return"]), history.last["episode_return"]
    print(f"README: the return rises from {first:.0f} to {last:.0f}")


def main() -> None:
    use_style()
    IMAGES.mkdir(exist_ok=True)
    packaged_policy()
    gae_episodes()
    training_outputs()
    agent, history = ppo.train(ENV, tuned_config("ppo", ENV), seed=0)
    introduction(agent)
    readme(agent, history)
    for path in (*sorted(IMAGES.iterdir()), PACKAGED_POLICY):
        print(f"{path.stat().st_size / 1000:6.1f} kB  {path.name}")


if __name__ == "__main__":
    main()
