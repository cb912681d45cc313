"""The tables of `make bench`: how fast the library is, as ratios within one run, and how reliably it learns.

    python tools/bench.py                 # everything
    python tools/bench.py speed import    # some of it

Run it on a quiet machine. Speeds are medians over seeds, measured in turn with the peer's in one process;
both have trained once beforehand, so that neither pays for torch's late imports.
"""

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import gymnasium as gym
import torch

from policyopt import TUNED, PPOConfig, evaluate, ppo

SOLVED = {"CartPole-v1": 475.0, "Pendulum-v1": -200.0}


def seconds(call: Callable) -> tuple[float, object]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def article_example(seed: int):
    """The article's closing example, with a seed."""
    from stable_baselines3 import PPO

    model = PPO(policy="MlpPolicy", env=gym.make("CartPole-v1"), seed=seed)
    return model.learn(total_timesteps=50_000)


def warm_up() -> None:
    from stable_baselines3 import PPO

    ppo.train("CartPole-v1", PPOConfig(total_steps=1024))
    PPO("MlpPolicy", "CartPole-v1", n_steps=64).learn(128)


def print_table(title: str, rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print(f"\n{title}")
    for number, row in enumerate(rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))


def bench_speed(seeds: int) -> None:
    """From the call to an agent that passes CartPole's 475, against the article's own example."""
    config, threads = TUNED["ppo"]["CartPole-v1"], torch.get_num_threads()
    ours, default, single, passed, their_passed = [], [], [], 0, 0
    for seed in range(seeds):
        taken, (agent, _) = seconds(lambda seed=seed: ppo.train("CartPole-v1", config, seed))
        ours.append(taken)
        passed += evaluate(agent, "CartPole-v1", seed=seed + 1_000_000).mean() >= SOLVED["CartPole-v1"]
        taken, model = seconds(lambda seed=seed: article_example(seed))
        default.append(taken)
        their_passed += evaluate(model, "CartPole-v1", seed=seed + 1_000_000).mean() >= SOLVED["CartPole-v1"]
        torch.set_num_threads(1)
        single.append(seconds(lambda seed=seed: article_example(seed))[0])
        torch.set_num_threads(threads)
    our_median = statistics.median(ours)
    their_median = min(statistics.median(default), statistics.median(single))
    print_table(
        f"CartPole-v1, from the call to the trained agent, medians over {seeds} seeds",
        [
            ("who", "seconds", "greedy mean return ≥ 475"),
            (f"policyopt, {config.total_steps:,} steps", f"{our_median:.2f}", f"{passed} of {seeds}"),
            (
                f"Stable-Baselines3 as in the article, 50,000 steps, {threads} threads",
                f"{statistics.median(default):.2f}",
                f"{their_passed} of {seeds}",
            ),
            ("the same on one thread", f"{statistics.median(single):.2f}", ""),
            ("ratio to the faster of these", f"{their_median / our_median:.1f}", "at least 10 is wanted"),
        ],
    )


def bench_throughput(seeds: int) -> None:
    """Environment steps a second with the same settings."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    steps = 8 * 128 * 10
    config = PPOConfig(total_steps=steps, num_envs=8, horizon=128, epochs=10, minibatch_size=256)
    threads, ours, theirs, single = torch.get_num_threads(), [], [], []

    def peer(seed: int) -> None:
        envs = make_vec_env("CartPole-v1", 8, seed=seed)
        PPO("MlpPolicy", envs, n_steps=128, batch_size=256, n_epochs=10, seed=seed).learn(steps)

    for seed in range(seeds):
        ours.append(steps / seconds(lambda seed=seed: ppo.train("CartPole-v1", config, seed))[0])
        theirs.append(steps / seconds(lambda seed=seed: peer(seed))[0])
        torch.set_num_threads(1)
        single.append(steps / seconds(lambda seed=seed: peer(seed))[0])
        torch.set_num_threads(threads)
    ratio = statistics.median(ours) / max(statistics.median(theirs), statistics.median(single))
    print_table(
        f"CartPole-v1, 8 environments × 128 steps, batch 256, 10 epochs, medians over {seeds} seeds",
        [
            ("who", "environment steps a second", ""),
            ("policyopt", f"{statistics.median(ours):,.0f}", ""),
            (f"Stable-Baselines3, {threads} threads", f"{statistics.median(theirs):,.0f}", ""),
            ("Stable-Baselines3, one thread", f"{statistics.median(single):,.0f}", ""),
            ("ratio to the faster of these", f"{ratio:.2f}", "at least 1.5 is wanted"),
        ],
    )


def bench_import(repeats: int = 5) -> None:
    """What `import policyopt` adds to its two large dependencies."""
    code = (
        "import time; a = time.perf_counter(); import torch, gymnasium; b = time.perf_counter();"
        "import policyopt; print(b - a, time.perf_counter() - b)"
    )
    base, added = [], []
    for _ in range(repeats):
        printed = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for column, value in zip((base, added), printed.split(), strict=True):
            column.append(float(value))
    print_table(
        f"Imports, medians over {repeats} fresh processes",
        [
            ("what", "seconds", ""),
            ("import torch, gymnasium", f"{statistics.median(base):.2f}", ""),
            ("import policyopt after them", f"{statistics.median(added):.2f}", "at most 0.3 is wanted"),
        ],
    )


def bench_learning(seeds: int) -> None:
    """Greedy mean return over 100 fresh episodes, tuned settings, several seeds."""
    rows = [("environment", "steps", "returns by seed", "reached", "seconds a seed")]
    for env_id, config in TUNED["ppo"].items():
        means, taken = [], []
        for seed in range(seeds):
            duration, (agent, history) = seconds(
                lambda env_id=env_id, seed=seed: ppo.train(env_id, TUNED["ppo"][env_id], seed)
            )
            taken.append(duration)
            means.append(evaluate(agent, env_id, 100, seed=seed + 1_000_000).mean())
        reached = sum(mean >= SOLVED[env_id] for mean in means)
        rows.append(
            (
                env_id,
                f"{history.last['step']:,} of {config.total_steps:,}",
                " ".join(f"{mean:.0f}" for mean in means),
                f"{reached} of {seeds} ≥ {SOLVED[env_id]:.0f}",
                f"{statistics.median(taken):.1f}",
            )
        )
    print_table(f"PPO, greedy mean return over 100 fresh episodes, {seeds} seeds", rows)


SECTIONS = {
    "speed": lambda: bench_speed(seeds=3),
    "throughput": lambda: bench_throughput(seeds=5),
    "import": bench_import,
    "learning": lambda: bench_learning(seeds=10),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"any of {', '.join(SECTIONS)}; all by default"
    )
    chosen = parser.parse_args().sections or list(SECTIONS)
    unknown = set(chosen) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    warnings.filterwarnings("ignore", module="stable_baselines3")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads by default")
    warm_up()
    for name in chosen:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
