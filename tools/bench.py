"""The tables of `make bench`: how fast the library is, as ratios within one run, and how reliably it learns.

    python tools/bench.py                                   # everything
    python tools/bench.py speed import                      # some of it
    python tools/bench.py learning --only trpo Acrobot-v1   # runs of these algorithms or environments

Run it on a quiet machine. Speeds are medians over seeds, measured in turn with the peer's in one process;
both have trained once beforehand, so that neither pays for torch's late imports. Learning is compared with
nothing, so its seeds run side by side, one process for each core.
"""

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import gymnasium as gym
import psutil
import torch

from policyopt import (
    TUNED,
    A2CConfig,
    DQNConfig,
    PPOConfig,
    TRPOConfig,
    a2c,
    a3c,
    dqn,
    evaluate,
    grpo,
    ppo,
    trpo,
)
from policyopt.cli import ALGORITHMS
from policyopt.language import grpo as language_grpo
from policyopt.language import recipes
from policyopt.language.model import Cache, Transformer
from policyopt.language.sampling import Samples, encode_prompts, generate, token_noise
from policyopt.language.tasks import Addition
from policyopt.language.tokenizer import CharTokenizer
from policyopt.language.training import held_out_reward, update_generator

SOLVED = {
    "CartPole-v1": 475.0,
    "Acrobot-v1": -100.0,
    "Pendulum-v1": -200.0,
    "MountainCarContinuous-v0": 90.0,
}
# How many of ten seeds are wanted to reach that.
WANTED = {
    ("reinforce", "CartPole-v1"): 8,
    ("a2c", "CartPole-v1"): 9,
    ("a2c", "Acrobot-v1"): 9,
    ("a3c", "CartPole-v1"): 8,
    ("ppo", "CartPole-v1"): 9,
    ("ppo", "Acrobot-v1"): 9,
    ("ppo", "Pendulum-v1"): 9,
    ("ppo_penalty", "CartPole-v1"): 9,
    ("trpo", "CartPole-v1"): 9,
    ("trpo", "Acrobot-v1"): 9,
    ("trpo", "Pendulum-v1"): 9,
    ("grpo", "CartPole-v1"): 9,
    ("dqn", "CartPole-v1"): 8,
    ("dqn", "Acrobot-v1"): 8,
    ("ddpg", "Pendulum-v1"): 9,
    ("td3", "Pendulum-v1"): 9,
    ("sac", "Pendulum-v1"): 10,
    ("td3", "MountainCarContinuous-v0"): 8,
}


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


def peer_ppo(steps: int, seed: int) -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env("CartPole-v1", 8, seed=seed)
    PPO("MlpPolicy", envs, n_steps=128, batch_size=256, n_epochs=10, seed=seed).learn(steps)


def peer_a2c(steps: int, seed: int) -> None:
    from stable_baselines3 import A2C
    from stable_baselines3.common.env_util import make_vec_env

    A2C("MlpPolicy", make_vec_env("CartPole-v1", 16, seed=seed), n_steps=5, seed=seed).learn(steps)


def peer_trpo(steps: int, seed: int) -> None:
    from sb3_contrib import TRPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env("CartPole-v1", 8, seed=seed)
    TRPO(
        "MlpPolicy",
        envs,
        n_steps=128,
        batch_size=128,
        n_critic_updates=10,
        cg_max_steps=10,
        cg_damping=0.1,
        seed=seed,
    ).learn(steps)


REPLAYED = {"buffer_size": 50_000, "learning_starts": 500}


def our_dqn(steps: int, seed: int) -> None:
    """The settings that Stable-Baselines3's DQN has by default."""
    config = DQNConfig(
        total_steps=steps,
        **REPLAYED,
        batch_size=32,
        train_every=4,
        target_every=2_500,
        learning_rate=1e-4,
        epsilon_fraction=0.1,
        clip_error=True,
    )
    dqn.train("CartPole-v1", config, seed)


def peer_dqn(steps: int, seed: int) -> None:
    from stable_baselines3 import DQN

    settings = {"batch_size": 32, "train_freq": 4, "target_update_interval": 10_000, "device": "cpu"}
    DQN("MlpPolicy", "CartPole-v1", seed=seed, **REPLAYED, **settings).learn(steps)


def our_continuous(name: str, hidden: tuple[int, ...], batch_size: int, steps: int, seed: int) -> None:
    _, config_class, train = ALGORITHMS[name]
    train("Pendulum-v1", config_class(steps, **REPLAYED, batch_size=batch_size, hidden=hidden), seed)


def peer_continuous(name: str, hidden: tuple[int, ...], batch_size: int, steps: int, seed: int) -> None:
    import numpy as np
    import stable_baselines3
    from stable_baselines3.common.noise import NormalActionNoise

    settings = {"batch_size": batch_size, "policy_kwargs": {"net_arch": list(hidden)}, "device": "cpu"}
    if name != "sac":
        settings["action_noise"] = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))
    peer = getattr(stable_baselines3, name.upper())
    peer("MlpPolicy", "Pendulum-v1", seed=seed, train_freq=1, **REPLAYED, **settings).learn(steps)


# For each: how to train with both, what is equal, the steps, and the ratio wanted; what is not named here
# (networks of 64 and 64 units, γ, …) is the same by both libraries' defaults.
EQUAL_SETTINGS: list[tuple[str, Callable, Callable, str, int, float | None]] = [
    (
        "PPO",
        lambda steps, seed: ppo.train(
            "CartPole-v1", PPOConfig(total_steps=steps, num_envs=8, horizon=128, minibatch_size=256), seed
        ),
        peer_ppo,
        "8 environments × 128 steps",
        10_240,
        1.5,
    ),
    (
        "A2C",
        lambda steps, seed: a2c.train(
            "CartPole-v1", A2CConfig(total_steps=steps, num_envs=16, horizon=5), seed
        ),
        peer_a2c,
        "16 environments × 5 steps",
        10_240,
        2,
    ),
    (
        "TRPO",
        lambda steps, seed: trpo.train(
            "CartPole-v1", TRPOConfig(total_steps=steps, num_envs=8, horizon=128, minibatch_size=128), seed
        ),
        peer_trpo,
        "8 environments × 128 steps",
        10_240,
        2,
    ),
    ("DQN", our_dqn, peer_dqn, "batches of 32, every 4th step", 8_000, 2),
]
for size, size_batch, size_wanted in (((64, 64), 64, 1.5), ((256, 256), 256, None)):
    EQUAL_SETTINGS += [
        (
            name.upper(),
            functools.partial(our_continuous, name, size, size_batch),
            functools.partial(peer_continuous, name, size, size_batch),
            f"batches of {size_batch}, {size[0]} and {size[1]} units",
            2_000,
            size_wanted,
        )
        for name in ("ddpg", "td3", "sac")
    ]


def bench_throughput(seeds: int, only: list[str]) -> None:
    """Environment steps a second with the same settings."""
    threads = torch.get_num_threads()
    rows = [("algorithm", "settings", "policyopt", "peer", "peer, one thread", "ratio", "wanted")]
    for name, ours, theirs, settings, steps, wanted in EQUAL_SETTINGS:
        if only and name.lower() not in only:
            continue
        speeds: list[list[float]] = [[], [], []]
        ours(steps, 0), theirs(steps, 0)
        for seed in range(seeds):
            speeds[0].append(steps / seconds(functools.partial(ours, steps, seed))[0])
            speeds[1].append(steps / seconds(functools.partial(theirs, steps, seed))[0])
            torch.set_num_threads(1)
            speeds[2].append(steps / seconds(functools.partial(theirs, steps, seed))[0])
            torch.set_num_threads(threads)
        our_speed, default, single = map(statistics.median, speeds)
        ratio = f"{our_speed / max(default, single):.2f}"
        numbers = (f"{speed:,.0f}" for speed in (our_speed, default, single))
        rows.append((name, settings, *numbers, ratio, "" if wanted is None else f"at least {wanted}"))
    print_table(
        f"Environment steps a second on CartPole-v1 and (DDPG, TD3, SAC) Pendulum-v1, medians over {seeds} "
        f"seeds; peers are Stable-Baselines3 and sb3-contrib, by default with {threads} threads; the ratio "
        "is to the faster of their two runs",
        rows,
    )


def bench_workers(seeds: int, steps: int = 60_000) -> None:
    """A3C with two workers against one."""
    quick = dataclasses.replace(TUNED["a3c"]["CartPole-v1"], total_steps=100)
    a3c.train("CartPole-v1", quick)  # the server from which workers are forked starts once
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for seed, workers in itertools.product(range(seeds), speeds):
        config = dataclasses.replace(
            TUNED["a3c"]["CartPole-v1"], total_steps=steps, num_workers=workers, learning_rate_end=None
        )
        taken, _ = seconds(functools.partial(a3c.train, "CartPole-v1", config, seed))
        speeds[workers].append(steps / taken)
    one, two = (statistics.median(speeds[workers]) for workers in (1, 2))
    print_table(
        f"A3C on CartPole-v1, {steps:,} steps, medians over {seeds} seeds",
        [
            ("workers", "environment steps a second", "ratio"),
            ("1", f"{one:,.0f}", ""),
            ("2", f"{two:,.0f}", f"{two / one:.2f}"),
        ],
    )


def bench_environments(seeds: int, batch: int = 1024) -> None:
    """PPO with 1 to 1,024 environments, the batch of an update kept at 1,024 steps."""
    rows = [("environments × steps", "steps a second", "steps to 475", "seconds to 475")]
    budgets = [25_000, 50_000, 100_000]
    for num_envs in (1, 4, 16, 64, 256, 1024):
        tuned = dataclasses.replace(TUNED["ppo"]["CartPole-v1"], num_envs=num_envs, horizon=batch // num_envs)
        label, reached = f"{num_envs} × {batch // num_envs}", None
        for budget in budgets:
            runs, config = [], dataclasses.replace(tuned, total_steps=budget)
            for seed in range(seeds):
                taken, (agent, history) = seconds(functools.partial(ppo.train, "CartPole-v1", config, seed))
                mean = evaluate(agent, "CartPole-v1", 100, seed=seed + 1_000_000).mean()
                runs.append((taken, history.last["step"], mean))
            speed = statistics.median(step / taken for taken, step, _ in runs)
            if all(mean >= SOLVED["CartPole-v1"] for *_, mean in runs):
                reached = statistics.median(taken for taken, *_ in runs)
                break
        rows.append(
            (
                label,
                f"{speed:,.0f}",
                f"{runs[0][1]:,}" if reached else f"not in {budgets[-1]:,}",
                f"{reached:.1f}" if reached else "",
            )
        )
    print_table(
        f"PPO on CartPole-v1: the shortest run of {', '.join(f'{b:,}' for b in budgets)} steps after which "
        f"all {seeds} seeds have a greedy mean return ≥ 475",
        rows,
    )


def peak_memory(name: str) -> tuple[float, str]:
    """Peak memory in MB of a fresh process that trains with the tuned settings, its children included."""
    code = (
        "import resource\n"
        "from policyopt import TUNED\n"
        "from policyopt.cli import ALGORITHMS\n"
        "if __name__ == '__main__':\n"
        f"    env_id, config = next(iter(TUNED[{name!r}].items()))\n"
        f"    ALGORITHMS[{name!r}][2](env_id, config, 0)\n"
        "    print(env_id, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
    )
    process = psutil.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            total = 0
            for part in [process, *process.children(recursive=True)]:
                try:
                    total += part.memory_full_info().pss  # pages that are shared are counted once
                except psutil.Error:
                    continue  # it has ended meanwhile
            peak = max(peak, total / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"training with {name} failed")
    env_id, resident = printed.split()
    return max(peak, float(resident)) if name != "a3c" else peak, env_id


def bench_memory() -> None:
    """Peak memory of each algorithm."""
    rows = [("algorithm", "task", "peak memory, MB", "")]
    for name in ALGORITHMS:
        peak, env_id = peak_memory(name)
        rows.append((ALGORITHMS[name][0], env_id, f"{peak:,.0f}", "below 500 is wanted"))
    print_table("Peak memory of a process that imports the library and trains with the tuned settings", rows)


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


def learn(name: str, env_id: str, seed: int) -> tuple[float, int, float]:
    """Greedy mean return over 100 fresh episodes, the steps taken, and the seconds of training."""
    start = time.perf_counter()
    agent, history = ALGORITHMS[name][2](env_id, TUNED[name][env_id], seed)
    taken = time.perf_counter() - start
    return evaluate(agent, env_id, 100, seed=seed + 1_000_000).mean(), history.last["step"], taken


def bench_learning(seeds: int, only: list[str]) -> None:
    """Greedy mean return over 100 fresh episodes, tuned settings, several seeds."""
    rows = [("algorithm", "environment", "steps", "returns by seed", "reached", "wanted", "seconds a seed")]
    runs = [(name, env_id) for name, tuned in TUNED.items() for env_id in tuned if env_id in SOLVED]
    algorithms, environments = set(only) & set(TUNED), set(only) & set(SOLVED)
    runs = [
        (name, env_id)
        for name, env_id in runs
        if (not algorithms or name in algorithms) and (not environments or env_id in environments)
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        pending = {run: [pool.submit(learn, *run, seed) for seed in range(seeds)] for run in runs}
        for (name, env_id), futures in pending.items():
            means, steps, taken = zip(*(future.result() for future in futures), strict=True)
            reached = sum(mean >= SOLVED[env_id] for mean in means)
            wanted = WANTED.get((name, env_id))
            row = (
                ALGORITHMS[name][0],
                env_id,
                f"{max(steps):,} of {TUNED[name][env_id].total_steps:,}",
                " ".join(f"{mean:.0f}" for mean in means),
                f"{reached} of {seeds} ≥ {SOLVED[env_id]:.0f}",
                "" if wanted is None else f"{wanted} of 10",
                f"{statistics.median(taken):.1f}",
            )
            rows.append(row)
            print("  " + "  ".join(row), flush=True)
    print_table(f"Greedy mean return over 100 fresh episodes, {seeds} seeds", rows)


def learn_with_credit(credit: str, gamma: float, seed: int) -> float:
    config = dataclasses.replace(TUNED["grpo"]["Pendulum-v1"], credit=credit, gamma=gamma)
    agent, _ = grpo.train("Pendulum-v1", config, seed)
    return evaluate(agent, "Pendulum-v1", 100, seed=seed + 1_000_000).mean()


def bench_credit(seeds: int) -> None:
    """Why GRPO fails on Pendulum: the same runs with each action judged by less of what came after it."""
    kinds = {
        "the return of the episode": ("outcome", 1.0),
        "the rewards after the step": ("to_go", 1.0),
        "those, γ = 0.9": ("to_go", 0.9),
    }
    rows = [("an action is judged by", "returns by seed", "mean")]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        pending = {
            name: [pool.submit(learn_with_credit, *kind, seed) for seed in range(seeds)]
            for name, kind in kinds.items()
        }
        for name, futures in pending.items():
            means = [future.result() for future in futures]
            rows.append((name, " ".join(f"{mean:.0f}" for mean in means), f"{statistics.mean(means):.0f}"))
    print_table("GRPO on Pendulum-v1, greedy mean return over 100 fresh episodes", rows)


def bench_recipes(seeds: int, names: list[str]) -> None:
    """The small transformer's tasks: supervised fine-tuning on half-wrong answers, then GRPO."""
    for name in names:
        recipe = recipes.RECIPES[name]
        columns: list[list[float]] = [[], [], [], []]
        for seed in range(seeds):
            taken, (model, task) = seconds(functools.partial(recipes.fine_tuned, name, seed))
            columns[0].append(taken)
            columns[1].append(held_out_reward(model, task, temperature=1.0))
            train = functools.partial(language_grpo.train, model, task, recipe.grpo, seed)
            columns[2].append(seconds(train)[0])
            columns[3].append(held_out_reward(model, task, temperature=1.0))
        fitting, before, training, after = (
            " ".join(f"{value:.3g}" for value in column) for column in columns
        )
        wanted = ("at most 40", "at most 0.5", "at most 30", "at least 0.95")
        if name != "addition":
            wanted = ("",) * 4
        print_table(
            f"{task!r}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters, by seed",
            [
                ("what", "figure", "wanted"),
                (f"seconds of fine-tuning, {recipe.sft.updates:,} steps", fitting, wanted[0]),
                ("reward of outputs sampled for problems held out", before, wanted[1]),
                (f"seconds of GRPO, {recipe.grpo.updates:,} updates", training, wanted[2]),
                ("reward of outputs sampled for problems held out", after, wanted[3]),
            ],
        )


class Reread(Cache):
    """Keeps tokens instead of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: torch.Tensor | None = None

    def repeat(self, times: int) -> None:
        super().repeat(times)
        self.tokens = self.tokens.repeat_interleave(times, dim=0)


class WithoutCache(torch.nn.Module):
    """A model that reads all tokens again for each new one."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.model, self.tokenizer, self.context, self.head = (
            model,
            model.tokenizer,
            model.context,
            model.head,
        )

    def new_cache(self) -> Reread:
        return Reread()

    def features(self, tokens: torch.Tensor, mask: torch.Tensor, cache: Reread) -> torch.Tensor:
        cache.extend_mask(mask)
        cache.tokens = tokens if cache.tokens is None else torch.cat([cache.tokens, tokens], dim=1)
        return self.model.features(cache.tokens, cache.mask)[:, -tokens.shape[1] :]


def writers(length: int, num_prompts: int) -> tuple[Callable[[], Samples], Callable[[], Samples]]:
    """The same outputs of so many tokens, written with a cache and without."""
    task = Addition()
    model = Transformer(CharTokenizer(task.characters))
    model.tokenizer.end_ids = ()  # no output ends before its last token
    prompts, mask = encode_prompts(model, [problem.prompt for problem in task.train[:num_prompts]], length)
    noise = token_noise((num_prompts, 1, length), update_generator(0, 0))
    with_cache, without = (
        functools.partial(generate, writer, prompts, mask, noise) for writer in (model, WithoutCache(model))
    )
    return with_cache, without


def bench_cache(repeats: int, length: int = 128, num_prompts: int = 16) -> None:
    """Writing with the cache against reading everything again for each token."""
    with_cache, without = writers(length, num_prompts)
    columns: list[list[float]] = [[], []]
    for _ in range(repeats):
        (ours, written), (theirs, again) = seconds(with_cache), seconds(without)
        columns[0].append(ours), columns[1].append(theirs)
    same = torch.equal(written.tokens, again.tokens)
    cached, uncached = map(statistics.median, columns)
    print_table(
        f"{num_prompts} outputs of {length} tokens, medians over {repeats} runs",
        [
            ("what", "figure", "wanted"),
            ("seconds with the cache", f"{cached:.3f}", ""),
            ("seconds without", f"{uncached:.3f}", ""),
            ("ratio", f"{uncached / cached:.1f}", "at least 3"),
            ("the same tokens", "yes" if same else "no", "yes"),
        ],
    )


def peer_grpo(config: language_grpo.GRPOConfig, task: Addition) -> list[float]:
    """Seconds of each update but the first of TRL's trainer on a Llama of the same shape as our model."""
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from policyopt.language.trl_bridge import as_dataset, reward_function, trl_settings

    path = Path(__file__).parents[1] / "examples" / "train_with_trl.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    moments: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, arguments, state, control, **others):
            moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        model = example.make_tiny_model(Path(folder, "model"), task.characters)
        trainer = GRPOTrainer(
            model,
            reward_funcs=reward_function(task),
            args=GRPOConfig(
                folder,
                **trl_settings(config, task),
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_num_workers=0,
            ),
            train_dataset=as_dataset(task.train),
            processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
            callbacks=[Clock()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    ends = moments[config.epochs - 1 :: config.epochs]
    return [end - begin for begin, end in itertools.pairwise(ends)]


def our_grpo(config: language_grpo.GRPOConfig, task: Addition) -> list[float]:
    """Seconds of each update but the first."""
    history = language_grpo.train(Transformer(CharTokenizer(task.characters)), task, config)
    return [end - begin for begin, end in itertools.pairwise(history.logged_at)]


def bench_trl(rounds: int, updates: int = 8) -> None:
    """An update of our GRPO against one of TRL's: 32 prompts with 16 outputs, two steps on them."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    task, threads = Addition(), torch.get_num_threads()
    config = language_grpo.GRPOConfig(updates=updates, num_prompts=32, group_size=16, epochs=2)
    runs: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for (name, train), count in itertools.product(
            (("policyopt", our_grpo), ("TRL", peer_grpo)), sorted({threads, 1})
        ):
            torch.set_num_threads(count)
            runs.setdefault((name, count), []).extend(train(config, task))
    torch.set_num_threads(threads)
    medians = {run: statistics.median(taken) for run, taken in runs.items()}
    fastest = {name: min(taken for (who, _), taken in medians.items() if who == name) for name, _ in medians}
    print_table(
        f"GRPO on two-digit addition, 512 outputs and two steps an update, medians over "
        f"{len(runs['TRL', 1])} updates; both models have the shape of a Llama of 101,000 parameters",
        [
            ("what", "figure", "wanted"),
            *(
                (f"seconds an update, {name}, {count} thread{'s' if count > 1 else ''}", f"{taken:.3f}", "")
                for (name, count), taken in medians.items()
            ),
            ("ratio of the fastest", f"{fastest['TRL'] / fastest['policyopt']:.1f}", "at least 3"),
        ],
    )


def bench_language(seeds: int) -> None:
    """The language laboratory."""
    bench_recipes(seeds, ["addition"])
    bench_recipes(1, ["sort_digits", "brackets"])
    bench_cache(repeats=5)
    bench_trl(rounds=3)


SECTIONS = {
    "speed": lambda only: bench_speed(seeds=3),
    "throughput": lambda only: bench_throughput(seeds=3, only=only),
    "workers": lambda only: bench_workers(seeds=3),
    "environments": lambda only: bench_environments(seeds=3),
    "memory": lambda only: bench_memory(),
    "import": lambda only: bench_import(),
    "credit": lambda only: bench_credit(seeds=5),
    "learning": lambda only: bench_learning(seeds=10, only=only),
    "language": lambda only: bench_language(seeds=5),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"any of {', '.join(SECTIONS)}; all by default"
    )
    names = [*TUNED, *SOLVED]
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        choices=names,
        help=f"of throughput (algorithms) and learning: {', '.join(names)}",
    )
    arguments = parser.parse_args()
    chosen = arguments.sections or list(SECTIONS)
    unknown = set(chosen) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    warnings.filterwarnings("ignore", module="stable_baselines3|transformers")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads by default")
    if set(chosen) & {"speed", "throughput", "environments"}:
        warm_up()
    for name in chosen:
        SECTIONS[name](arguments.only)


if __name__ == "__main__":
    main()
