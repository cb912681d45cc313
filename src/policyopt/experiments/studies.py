"""The studies of the book, by name. What each is to answer stands above it.

Settings were tuned on seeds from 100 on; studies use seeds from 0 on.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from policyopt.algorithms.a2c import A2CConfig
from policyopt.algorithms.ppo import PPOConfig
from policyopt.experiments.details import ABLATION_RUNS, ablation_config
from policyopt.experiments.language import SINGLE_CHANGES, CostConfig, GRPORun, HackingConfig
from policyopt.experiments.measures import (
    GradientErrorConfig,
    GroupConfig,
    RandomConfig,
    SameShapeConfig,
    VarianceConfig,
)
from policyopt.experiments.peers import ExampleConfig
from policyopt.experiments.study import Study
from policyopt.language.cost import SIZES
from policyopt.language.grpo import GRPOConfig
from policyopt.language.ppo import PPOConfig as TokenPPOConfig
from policyopt.tuned import tuned_config

__all__ = ["STUDIES", "TASKS"]

CARTPOLE, ACROBOT, PENDULUM = TASKS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")

COLUMNS = ("step", "episode_return", "entropy", "approximate_kl", "kl", "explained_variance")
KEPT = {"columns": COLUMNS, "max_rows": 100}


def tuned(algorithm: str, **changes: Any) -> Callable[[str], Any]:
    """An algorithm's tuned settings for an environment, with some changed."""
    return lambda environment: replace(tuned_config(algorithm, environment), **changes)


def only(environments: tuple[str, ...], config: Any) -> Callable[[str], Any]:
    """A configuration in some environments, no run in the others."""
    return lambda environment: (
        None if environment not in environments else config(environment) if callable(config) else config
    )


# --- all algorithms on all tasks ---


def reinforce_without_critic(baseline: str, environment: str) -> Any:
    """REINFORCE as tuned, but for its baseline; without any, smaller steps were found to work better."""
    learning_rate = {"none": 3e-3, "mean": 1e-2}[baseline]
    config = tuned_config("reinforce", environment)
    return replace(config, baseline=baseline, learning_rate=learning_rate)


def ppo_at_equal_steps(environment: str) -> PPOConfig:
    """PPO as tuned, with 100,000 steps on CartPole, as its relatives have; 50,000 were enough for it."""
    changes = {"total_steps": 100_000} if environment == CARTPOLE else {}
    return replace(tuned_config("ppo", environment), **changes)


BENCHMARK = Study(
    "benchmark",
    {
        "random": ("policyopt.experiments.measures:random_policy", RandomConfig()),
        "REINFORCE": ("reinforce", partial(reinforce_without_critic, "none")),
        "REINFORCE, mean": ("reinforce", partial(reinforce_without_critic, "mean")),
        "REINFORCE, value": ("reinforce", tuned("reinforce")),
        "A2C": ("a2c", tuned("a2c")),
        "A3C": ("a3c", tuned("a3c")),
        "PPO": ("ppo", ppo_at_equal_steps),
        "PPO-penalty": ("ppo_penalty", tuned("ppo_penalty")),
        "TRPO": ("trpo", tuned("trpo")),
        "GRPO": ("grpo", tuned("grpo")),
    },
    TASKS,
    **KEPT,
)

REPLAYED = {"columns": ("step", "episode_return", "q_value", "entropy", "temperature"), "max_rows": 100}

# Those that learn from replayed steps, each where it can: beside the benchmark's runs.
OFF_POLICY = Study(
    "off_policy",
    {
        "DQN": ("dqn", only((CARTPOLE, ACROBOT), tuned("dqn"))),
        "Double DQN": ("dqn", only((CARTPOLE, ACROBOT), tuned("dqn", double=True))),
        "DDPG": ("ddpg", only((PENDULUM,), tuned("ddpg"))),
        "TD3": ("td3", only((PENDULUM,), tuned("td3"))),
        "SAC": ("sac", only((PENDULUM,), tuned("sac"))),
    },
    TASKS,
    **REPLAYED,
)

# What are replay and target network for? Beside the whole DQN above.
REPLAY = Study(
    "replay",
    {
        "no replay": ("dqn", tuned("dqn", replay=False)),
        "no target network": ("dqn", tuned("dqn", target_network=False)),
        "neither": ("dqn", tuned("dqn", replay=False, target_network=False)),
    },
    [CARTPOLE],
    **REPLAYED,
)

# Why does GRPO fail on Pendulum? The same runs, each action judged by less of what came after it.
CREDIT = Study(
    "credit",
    {
        "the episode's return": ("grpo", tuned("grpo")),
        "the rewards after it": ("grpo", tuned("grpo", credit="to_go")),
        "those, discounted": ("grpo", tuned("grpo", credit="to_go", gamma=0.9)),
    },
    [PENDULUM],
    **KEPT,
)

GAE_LAMBDAS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)

# Does λ matter for learning? A2C as tuned, with a horizon long enough for λ to make a difference.
LAMBDA = Study(
    "lambda",
    {
        f"λ = {value:g}": ("a2c", tuned("a2c", total_steps=200_000, horizon=32, gae_lambda=value))
        for value in GAE_LAMBDAS
    },
    [CARTPOLE, ACROBOT],
    **KEPT,
)

# --- what PPO's parts are for ---

UNCLIPPED = 1e6  # ε so large that no ratio gets there
CLIP_LEARNING_RATES = (1e-3, 4e-3, 1.6e-2)
CLIP_EPOCHS = (5, 20)


def clip_label(clip: float, learning_rate: float, epochs: int) -> str:
    """Of a run of the study ``clip``."""
    return f"{'clip' if clip < UNCLIPPED else 'no clip'}, lr {learning_rate:g}, {epochs} epochs"


# Does the clip keep PPO from falling off a cliff? The learning rate is constant: annealing protects, too.
CLIP = Study(
    "clip",
    {
        clip_label(clip, learning_rate, epochs): (
            "ppo",
            tuned("ppo", clip=clip, learning_rate=learning_rate, learning_rate_end=None, epochs=epochs),
        )
        for clip in (0.2, UNCLIPPED)
        for learning_rate in CLIP_LEARNING_RATES
        for epochs in CLIP_EPOCHS
    },
    [CARTPOLE],
    **KEPT,
)

EPOCHS = (1, 2, 4, 6, 10, 20)

# Are several epochs on one batch worth it? One epoch has a second chance with larger steps.
EPOCHS_STUDY = Study(
    "epochs",
    {
        **{f"{epochs} epochs": ("ppo", tuned("ppo", epochs=epochs)) for epochs in EPOCHS},
        "1 epochs, lr × 4": ("ppo", tuned("ppo", epochs=1, learning_rate=1.6e-2)),
    },
    [CARTPOLE],
    **KEPT,
)

PPO_LEARNING_RATES = (2.5e-4, 1e-3, 4e-3, 1.6e-2, 6.4e-2)
A2C_LEARNING_RATES = (1.9e-4, 7.5e-4, 3e-3, 1.2e-2, 4.8e-2)

# Does PPO collapse easily? Learning rates from a sixteenth of the tuned one to sixteen times it.
STABILITY = Study(
    "stability",
    {
        **{
            f"PPO, lr {learning_rate:g}": ("ppo", tuned("ppo", learning_rate=learning_rate))
            for learning_rate in PPO_LEARNING_RATES
        },
        **{
            f"A2C, lr {learning_rate:g}": (
                "a2c",
                tuned("a2c", learning_rate=learning_rate, total_steps=200_000),
            )
            for learning_rate in A2C_LEARNING_RATES
        },
    },
    [CARTPOLE],
    **KEPT,
)

# How much of the return is due to the details around PPO and TRPO? Beside the benchmark's runs.
PLAIN_PPO = {"normalize_advantages": False, "learning_rate_end": None, "max_grad_norm": 1e6}
DETAILS = Study(
    "details",
    {
        "PPO, plain": ("ppo", lambda environment: replace(ppo_at_equal_steps(environment), **PLAIN_PPO)),
        "TRPO, plain": ("trpo", tuned("trpo", normalize_advantages=False)),
    },
    TASKS,
    **KEPT,
)


# Which of the details matters? PPO as tuned, with one of them changed, in as few steps as it needs.
ABLATION = Study(
    "ablation",
    {label: ("policyopt.experiments.details:ppo_with", ablation_config(label)) for label in ABLATION_RUNS},
    TASKS,
    **KEPT,
)


def default_ppo(environment: str) -> PPOConfig:
    """The defaults, one configuration for all tasks, with the benchmark's number of steps."""
    return PPOConfig(total_steps=ppo_at_equal_steps(environment).total_steps)


# How far does one configuration get on every task? Beside the benchmark's tuned runs.
ROBUSTNESS = Study("robustness", {"PPO, defaults": ("ppo", default_ppo)}, TASKS, **KEPT)

ENTROPY_COEFS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)

# Does the entropy bonus keep a policy exploring? A small reward is near, a large one far.
ENTROPY = Study(
    "entropy",
    {
        f"c₂ = {coef:g}": (
            "ppo",
            PPOConfig(
                total_steps=40_000,
                num_envs=16,
                horizon=64,
                epochs=6,
                minibatch_size=256,
                learning_rate=1e-3,
                entropy_coef=coef,
            ),
        )
        for coef in ENTROPY_COEFS
    },
    ["policyopt/DeceptiveGrid-v0"],
    seeds=range(20),
    eval_episodes=10,
    **KEPT,
)

# --- seconds ---

ENVIRONMENTS = (1, 4, 16, 64, 256)
WORKERS = (1, 2, 4)

# What costs how much time? One run at a time. PPO and TRPO make updates of 1,024 steps.
CLOCK = Study(
    "clock",
    {
        **{
            f"PPO, {number} environments": ("ppo", tuned("ppo", num_envs=number, horizon=1024 // number))
            for number in ENVIRONMENTS
        },
        "TRPO, 16 environments": ("trpo", tuned("trpo", num_envs=16, horizon=64)),
        "A2C": ("a2c", tuned("a2c", total_steps=300_000)),
        **{f"A3C, {number} workers": ("a3c", tuned("a3c", num_workers=number)) for number in WORKERS},
    },
    [CARTPOLE],
    timed=True,
    **KEPT,
)

# --- beside other libraries ---

A2C_PAPER = A2CConfig(total_steps=200_000, horizon=16, learning_rate=3e-3, learning_rate_end=0.0, gamma=0.98)

# Do Stable-Baselines3 and sb3-contrib give the same curves with the same settings?
PEERS = Study(
    "peers",
    {
        "PPO": ("ppo", tuned("ppo")),
        "PPO, theirs": ("policyopt.experiments.peers:ppo", tuned("ppo")),
        "A2C": ("a2c", only((CARTPOLE,), A2C_PAPER)),
        "A2C, theirs": ("policyopt.experiments.peers:a2c", only((CARTPOLE,), A2C_PAPER)),
        "TRPO": ("trpo", tuned("trpo")),
        "TRPO, theirs": ("policyopt.experiments.peers:trpo", tuned("trpo")),
    },
    [CARTPOLE, PENDULUM],
    **KEPT,
)

# In the first ten seeds PPO ends a little better on Pendulum than theirs. Does it with fresh ones?
REPLICATION = Study(
    "replication",
    {
        "PPO": ("ppo", tuned("ppo")),
        "PPO, theirs": ("policyopt.experiments.peers:ppo", tuned("ppo")),
    },
    [PENDULUM],
    seeds=range(10, 24),
    **KEPT,
)

# Does the article's closing example balance the pole?
EXAMPLE = Study(
    "example",
    {"as printed": ("policyopt.experiments.peers:article_example", ExampleConfig())},
    [CARTPOLE],
    **KEPT,
)

# --- measurements without training ---

# How noisy is the policy's gradient with each weight of an action?
VARIANCE = Study(
    "variance",
    {"PPO's policy": ("policyopt.experiments.measures:gradient_variance", VarianceConfig())},
    [CARTPOLE],
)

# Is REINFORCE's estimate right on average?
GRADIENT = Study(
    "gradient",
    {"REINFORCE": ("policyopt.experiments.measures:gradient_error", GradientErrorConfig())},
    ["FrozenLake-v1"],
)

# Does a step of GRPO make the better outputs of a group likelier? Is its surrogate PPO's?
GROUPS = Study(
    "groups",
    {
        "no state shared": ("policyopt.experiments.measures:group_advantage", GroupConfig(kind="separate")),
        "one network": ("policyopt.experiments.measures:group_advantage", GroupConfig(kind="shared")),
        "beside PPO": ("policyopt.experiments.measures:grpo_is_ppo", SameShapeConfig()),
    },
    [CARTPOLE],
    eval_episodes=1,
)

# --- language models: the tiny transformer after supervised fine-tuning, 512 outputs an update ---

LANGUAGE_COLUMNS = (
    "update", "outputs", "reward", "length", "entropy", "informative", "clip_fraction", "reference_kl", "kl",
    "explained_variance", "taste", "reward_accuracy",
    *(f"kl_{name}{end}" for name in ("exact", "k1", "k2", "k3") for end in ("", "_std")),
)  # fmt: skip
TRAIN_GRPO = "policyopt.experiments.language:train_grpo"
TRAIN_PPO = "policyopt.experiments.language:train_ppo"
TOKEN_RATES = {"learning_rate": 2e-3, "learning_rate_end": 0.0, "warmup": 5}


def grpo_run(group_size: int = 8, outputs: int = 512, variant: str = "grpo", **changes: Any) -> GRPORun:
    """Forty updates of GRPO, two passes over two minibatches each."""
    prompts, measure_kl = outputs // group_size, changes.pop("measure_kl", False)
    sizes = {"num_prompts": prompts, "minibatch_size": prompts // 2, "group_size": group_size}
    return GRPORun(GRPOConfig(**{"updates": 40, **sizes, **TOKEN_RATES, **changes}), variant, measure_kl)


def token_ppo(group_size: int = 1, outputs: int = 512, **changes: Any) -> TokenPPOConfig:
    """PPO with as many outputs, updates and gradient steps; its learning rate is what served it best."""
    prompts = outputs // group_size
    sizes = {"num_prompts": prompts, "minibatch_size": prompts // 2, "group_size": group_size}
    return TokenPPOConfig(**{"updates": 40, **sizes, **TOKEN_RATES, "value_learning_rate": 4e-3, **changes})


LANGUAGE = {"columns": LANGUAGE_COLUMNS, "eval_episodes": 512}
GROUP_SIZES = (2, 4, 8, 16, 32)

# GRPO and PPO on one model and task, at equal outputs: what does the size of the groups do?
OUTPUTS = Study(
    "outputs",
    {
        **{f"GRPO, G = {size}": (TRAIN_GRPO, grpo_run(size)) for size in GROUP_SIZES},
        "PPO, 1 output": (TRAIN_PPO, token_ppo()),
        "PPO, 8 outputs": (TRAIN_PPO, token_ppo(8)),
    },
    ["addition"],
    **LANGUAGE,
)

BETAS = (0.0, 0.01, 0.04, 0.1, 0.3, 1.0)
FREE = 1e-6  # β so small that it does nothing, but the KL is measured

# Does the penalty keep the policy close to its reference, and at what price?
REFERENCE = Study(
    "reference",
    {f"β = {beta:g}": (TRAIN_GRPO, grpo_run(kl_coef=beta or FREE, measure_kl=True)) for beta in BETAS},
    ["addition"],
    **LANGUAGE,
)

# Which of the published changes to GRPO matter here? None has a penalty.
WHOLE_VARIANTS = {"GRPO": "grpo", "Dr. GRPO": "dr_grpo", "DAPO": "dapo", "RLOO": "rloo", "GSPO": "gspo"}
VARIANTS_STUDY = Study(
    "variants",
    {
        **{
            label: (TRAIN_GRPO, grpo_run(variant=name, kl_coef=0.0, updates=30))
            for label, name in {**WHOLE_VARIANTS, **{name: name for name in SINGLE_CHANGES}}.items()
        },
    },
    ["addition", "brackets"],
    **LANGUAGE,
)

# Where values are hard to learn: is GRPO steadier than PPO? Eight to ten digits are sorted, all or nothing.
CRITIC = Study(
    "critic",
    {
        "GRPO": (TRAIN_GRPO, grpo_run(outputs=256)),
        "PPO": (TRAIN_PPO, token_ppo(outputs=256)),
        "PPO, λ = 1": (TRAIN_PPO, token_ppo(outputs=256, gae_lambda=1.0)),
    },
    ["long_sort"],
    **LANGUAGE,
)

HACKING_BETAS = (0.0, 0.1, 0.3)

# What becomes of a hidden taste while a policy learns from a reward that was learned from it?
HACKING = Study(
    "hacking",
    {
        f"β = {beta:g}": (
            "policyopt.experiments.language:train_on_learned_reward",
            HackingConfig(
                settings=GRPOConfig(
                    updates=100,
                    num_prompts=16,
                    group_size=16,
                    minibatch_size=8,
                    learning_rate=1e-3,
                    kl_coef=beta or FREE,
                )
            ),
        )
        for beta in HACKING_BETAS
    },
    ["style"],
    **LANGUAGE,
)

# Bytes and FLOPs of an update: nothing is random in them.
MEMORY = Study(
    "memory",
    {"PPO and GRPO": ("policyopt.experiments.language:costs", CostConfig())},
    list(SIZES),
    seeds=range(1),
    eval_episodes=1,
)

# Seconds of an update at equal outputs. One run at a time.
TOKEN_CLOCK = Study(
    "token_clock",
    {
        "GRPO, G = 8": (TRAIN_GRPO, grpo_run(updates=15)),
        "PPO, 1 output": (TRAIN_PPO, token_ppo(updates=15)),
        "PPO, 8 outputs": (TRAIN_PPO, token_ppo(8, updates=15)),
    },
    ["addition"],
    seeds=range(5),
    timed=True,
    **LANGUAGE,
)

# Two quick algorithms, to see that studies work.
SMOKE = Study(
    "smoke",
    {
        "PPO": ("ppo", PPOConfig(total_steps=2_048, num_envs=4, horizon=128, epochs=2)),
        "A2C": ("a2c", A2CConfig(total_steps=2_048, num_envs=4)),
    },
    [CARTPOLE],
    seeds=range(2),
    eval_episodes=5,
)

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        BENCHMARK,
        CREDIT,
        LAMBDA,
        CLIP,
        EPOCHS_STUDY,
        STABILITY,
        DETAILS,
        ABLATION,
        ROBUSTNESS,
        ENTROPY,
        CLOCK,
        PEERS,
        REPLICATION,
        EXAMPLE,
        VARIANCE,
        GRADIENT,
        GROUPS,
        OUTPUTS,
        REFERENCE,
        VARIANTS_STUDY,
        CRITIC,
        HACKING,
        MEMORY,
        TOKEN_CLOCK,
        SMOKE,
    )
}
