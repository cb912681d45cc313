"""The cost meter: bytes and FLOPs counted by hand, its two ways of measuring against each other, and its
tables against its own measurements.
"""

import dataclasses
import gc
import math

import pytest
import torch
from torch import nn
from torch.optim import optimizer as torch_optimizer
from torch.utils._python_dispatch import _get_current_dispatch_mode

from policyopt import cli
from policyopt.language import cost, grpo
from policyopt.language.cost import Kept, Load, kept_bytes, measure_flops, measure_memory
from policyopt.language.model import Transformer, TransformerConfig
from policyopt.language.tasks import Addition
from policyopt.language.tokenizer import CharTokenizer
from policyopt.language.training import make_adamw
from policyopt.training import flatten_parameters

TINY = TransformerConfig(layers=2, width=16, heads=2, hidden=24, context=32)
SMALL = Load(num_prompts=2, group_size=3, prompt_tokens=5, output_tokens=4)


def tiny_policy(config=TINY):
    return Transformer(CharTokenizer(cost._LoadTask.characters), config)


def models_of(algorithm, frozen=("reference", "reward model")):
    return cost.make_models(tiny_policy(), frozen, algorithm == "PPO")


@pytest.fixture(scope="module")
def comparison():
    return cost.compare(tiny_policy(), SMALL)


@pytest.fixture
def two_sizes(monkeypatch, comparison):
    """Two sizes whose comparisons are there already, the second of twice as much."""
    twice = {
        name: cost.Usage(
            {model: Kept(*(2 * size for size in kept)) for model, kept in usage.kept.items()},
            {phase: 2 * peak for phase, peak in usage.peaks.items()},
            2 * usage.saved,
        )
        for name, usage in comparison.memory.items()
    }
    found = {
        2: comparison,
        1: comparison._replace(parameters=2 * comparison.parameters, memory=twice),
    }
    sizes = {"one": TINY, "two": dataclasses.replace(TINY, layers=1)}
    monkeypatch.setattr(cost, "SIZES", sizes)
    monkeypatch.setattr(cost, "compare", lambda policy, load: found[policy.config.layers])
    return list(sizes)


def one_step(model, optimizer, inputs):
    model(inputs).square().sum().backward()
    optimizer.step()


# Memory


@pytest.mark.parametrize("fused", [False, True])
def test_kept_bytes_by_hand(fused):
    """A linear layer of 3 × 2 weights and 2 biases: 8 numbers of 4 bytes; Adam has 16, and a counter for each
    of two tensors.
    """
    model = nn.Linear(3, 2)
    assert kept_bytes({"net": model}) == {"net": Kept(32, 0, 0)}
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    one_step(model, optimizer, torch.ones(5, 3))
    assert kept_bytes({"net": model}, [optimizer]) == {"net": Kept(32, 32, 64 + 2 * 4)}
    assert kept_bytes({"net": model.double()})["net"].weights == 64


def test_shared_storages_count_once():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    assert kept_bytes({"both": nn.Sequential(first, second)})["both"].weights == 64
    kept = kept_bytes({"first": first, "second": second})
    assert (kept["first"].weights, kept["second"].weights) == (64, 0)
    # Parameters and gradients that are views of two vectors, and an optimiser that has only these.
    model = nn.Linear(3, 2)
    vector = flatten_parameters(model.parameters())
    one_step(model, torch.optim.AdamW([vector]), torch.ones(5, 3))
    assert kept_bytes({"net": model})["net"][:2] == (32, 32)


def test_saved_activations_by_hand():
    """The linear layer keeps its input [5, 3], the rectifier its output [5, 2], as 4-byte numbers; at the
    peak there are both, the layer's own output, the sum, and the gradient of the rectifier's output.
    """
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def run():
        for _ in range(2):
            optimizer.zero_grad(set_to_none=False)
            loss = model(torch.ones(5, 3)).sum()
            loss.backward()
            optimizer.step()

    usage = measure_memory(run, {"policy": model})
    assert usage.saved == 4 * (5 * 3 + 5 * 2)
    assert usage.kept == {"policy": Kept(32, 32, 0)}
    assert usage.peak >= usage.saved


def test_peak_by_hand():
    """1,000 numbers and those made of them stand side by side, then the first are given back."""

    def run():
        numbers = torch.ones(1_000)  # 4,000 bytes
        for _ in range(3):
            numbers = numbers + 1  # the old ones are there until the new ones are
        return numbers.view(10, 100)[0]  # a view has no storage of its own

    assert measure_memory(run, {}).peak == 8_000


def allocator_peak(run):
    """The peak of what torch's allocator for the CPU gave out, by its own events."""
    gc.collect()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("algorithm", ["PPO", "GRPO"])
def test_peak_is_the_allocators(algorithm, capfd):
    """What the meter has beyond kept bytes, with these, is what the allocator saw without a meter."""
    load = dataclasses.replace(SMALL, prompt_tokens=12, output_tokens=12)
    models = models_of(algorithm)
    usage = measure_memory(cost.make_run(models, load, 2), models)
    made = sum(kept.gradients + kept.optimizer for kept in usage.kept.values())
    expected = allocator_peak(cost.make_run(models_of(algorithm), load, 2))
    assert usage.peak + made == pytest.approx(expected, rel=0.01)
    assert usage.peak > usage.saved > made


def test_critic_is_the_difference(comparison):
    first, second = comparison.memory["PPO"], comparison.memory["GRPO"]
    assert {**second.kept, "value model": first.kept["value model"]} == first.kept
    policy, value = first.kept["policy"], first.kept["value model"]
    count = comparison.parameters
    tensors = sum(1 for _ in tiny_policy().parameters())
    buffers = sum(buffer.nbytes for buffer in tiny_policy().buffers())
    assert policy == Kept(4 * count + buffers, 4 * count, 8 * count + 4 * tensors)
    # Instead of the head, which is never asked and never trained, the value model has a layer to one number.
    trained = count - 64 * TINY.width + TINY.width + 1
    assert value == Kept(policy.weights + 4 * (TINY.width + 1), 4 * trained, 8 * trained + 4 * (tensors + 1))
    for name in ("reference", "reward model"):
        assert first.kept[name].weights > 0
        assert first.kept[name][1:] == (0, 0)


def test_both_graphs_are_held_at_once(comparison):
    """PPO keeps what the value model needs for its backward pass beside what the policy needs."""
    assert 1.8 < comparison.memory["PPO"].saved / comparison.memory["GRPO"].saved < 2.0
    assert comparison.memory["PPO"].peak > comparison.memory["PPO"].saved


def test_micro_batches_halve_what_is_saved():
    models = models_of("GRPO", ())
    whole = measure_memory(cost.make_run(models, SMALL, 2), models)
    parts = dataclasses.replace(SMALL, micro_batch_size=1)
    half = measure_memory(cost.make_run(models, parts, 2), models)
    assert half.saved / whole.saved == pytest.approx(0.5, abs=0.03)
    assert whole.kept == half.kept
    assert (SMALL.tokens_in_flight, parts.tokens_in_flight) == (24, 12)


@pytest.mark.parametrize("algorithm", ["PPO", "GRPO"])
@pytest.mark.parametrize("setting", ["no frozen model", "a reference", "a reward model"])
def test_settings_follow_from_the_parts(comparison, algorithm, setting):
    """What is reckoned for a setting is what is measured in it."""
    models = models_of(algorithm, cost.SETTINGS_COMPARED[setting])
    usage = measure_memory(cost.make_run(models, SMALL, 2), models)
    total = sum(kept.total for kept in usage.kept.values()) + usage.peak
    assert comparison.bytes_in(algorithm, setting) == pytest.approx(total, rel=0.005)
    flops = measure_flops(cost.make_run(models, SMALL, 1), models)
    assert comparison.flops_in(algorithm, setting) == sum(part.total for part in flops.values())


# FLOPs


def test_flops_of_a_product():
    first, second = torch.ones(3, 5), torch.ones(5, 7)
    assert measure_flops(lambda: first @ second, {}) == {"elsewhere": (2 * 3 * 5 * 7, 0)}


def test_flops_of_a_transformer_by_formula():
    """2N a token forward and 4N backward; two products of attention forward and five backward."""
    policy, sequences, length = tiny_policy(), 3, 10
    tokens = torch.ones(sequences, length, dtype=torch.long)
    body, head = cost.linear_weights(policy)
    assert body == TINY.layers * (4 * TINY.width**2 + 3 * TINY.width * TINY.hidden)
    assert head == TINY.width * 64
    products = 2 * (body + head) * sequences * length
    attention = 4 * sequences * length**2 * TINY.width * TINY.layers

    def forward():
        with torch.no_grad():
            policy(tokens)

    assert measure_flops(forward, {"policy": policy}) == {"policy: sampling": (products, attention)}
    both = measure_flops(lambda: policy(tokens).sum().backward(), {"policy": policy})
    assert both == {"policy: steps": (3 * products, 3.5 * attention)}
    # With padding the mask is given in full, and another kernel's turn it might be.
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, :4] = False
    both = measure_flops(lambda: policy(tokens, mask).sum().backward(), {"policy": policy})
    assert both == {"policy: steps": (3 * products, 3.5 * attention)}


def test_flops_of_an_update_are_the_arithmetic(comparison):
    """Products with weights to the last one, in every phase; attention from the lengths."""
    for algorithm, flops in comparison.flops.items():
        assert {phase: part.products for phase, part in flops.items()} == comparison.reckoned_flops[algorithm]
    prompts, outputs, read = SMALL.num_prompts, SMALL.outputs, SMALL.output_tokens - 1
    before, unit = SMALL.prompt_tokens, 4 * TINY.width * TINY.layers
    reading = unit * (prompts * before**2 + outputs * read * (before + read))
    expected = {
        "policy: sampling": unit * (prompts * before**2 + outputs * sum(before + t for t in (1, 2, 3))),
        "reward model: reading": unit * outputs * (before + SMALL.output_tokens) ** 2,
        "value model: reading": reading,
        "reference: reading": reading,
        "policy: steps": 3.5 * reading,
        "value model: steps": 3.5 * reading,
    }
    assert {phase: part.attention for phase, part in comparison.flops["PPO"].items()} == expected


def test_epochs_multiply_the_steps():
    models = models_of("GRPO", ())
    once = measure_flops(cost.make_run(models, SMALL, 1), models)
    thrice = measure_flops(cost.make_run(models, dataclasses.replace(SMALL, epochs=3), 1), models)
    assert thrice["policy: steps"].total == 3 * once["policy: steps"].total
    assert thrice["policy: sampling"] == once["policy: sampling"]


# The meter itself


def hooks_of(models):
    return [
        hook
        for model in models.values()
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_pre_hooks)
        for hook in hooks.values()
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_meter_leaves_nothing_behind(fails):
    models = models_of("GRPO", ())
    hooks = len(torch_optimizer._global_optimizer_post_hooks)
    update = cost.make_run(models, SMALL, 1)

    def run():
        update()
        if fails:
            raise ZeroDivisionError

    for measure in (measure_memory, measure_flops):
        if fails:
            with pytest.raises(ZeroDivisionError):
                measure(run, models)
        else:
            measure(run, models)
        assert not hooks_of(models)
        assert len(torch_optimizer._global_optimizer_post_hooks) == hooks
        assert _get_current_dispatch_mode() is None
        weight = torch.ones(2, requires_grad=True)
        assert isinstance((weight * weight).grad_fn._saved_self, torch.Tensor)  # nothing is packed any more


def test_measuring_again_gives_the_same(comparison):
    policy = tiny_policy()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    tokenizer = policy.tokenizer
    again = cost.compare(policy, SMALL)
    assert again == comparison
    assert policy.tokenizer is tokenizer
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    # And with models that have their gradients already.
    models = models_of("GRPO", ())
    usages = [measure_memory(cost.make_run(models, SMALL, 2), models) for _ in range(2)]
    assert usages[0].kept == usages[1].kept
    assert usages[0].saved == usages[1].saved
    assert usages[0].peak == usages[1].peak


def test_all_updates_do_the_same_work():
    """Outputs never end early, and the rewards of a group are never equal."""
    models = models_of("PPO")
    flops = [measure_flops(cost.make_run(models, SMALL, updates), models) for updates in (1, 3)]
    assert {phase: 3 * part.total for phase, part in flops[0].items()} == {
        phase: part.total for phase, part in flops[1].items()
    }
    task = cost._LoadTask(SMALL)
    config = grpo.GRPOConfig(**SMALL.settings(reference=False) | {"updates": 2})
    history = grpo.train(models["policy"], task, config)
    assert history["length"].tolist() == [SMALL.output_tokens] * 2
    assert history["informative"].tolist() == [1.0, 1.0]
    assert not {problem.prompt[0] for problem in task.train} & {p.prompt[0] for p in task.held_out}


def test_any_update_can_be_measured():
    """The meter asks nothing of what it measures but that it be called."""
    task = Addition(low=1, high=5, held_out=5)
    policy = Transformer(CharTokenizer(task.characters), TINY)
    optimizer = make_adamw(policy.parameters(), 1e-3)

    def run():
        for _ in range(2):
            optimizer.zero_grad(set_to_none=False)
            policy(torch.ones(2, 8, dtype=torch.long)).logsumexp(dim=-1).mean().backward()
            optimizer.step()

    usage = measure_memory(run, {"policy": policy})
    assert usage.kept["policy"].gradients == 4 * sum(p.numel() for p in policy.parameters())
    assert usage.peaks["policy: steps"] >= usage.saved > 0


# Tables


def test_reckoned_bytes(comparison):
    """16 bytes for each trained parameter, 4 or 2 for each that is not."""

    def saved(frozen):
        return [
            1
            - comparison.reckoned_bytes_in("GRPO", setting, frozen)
            / comparison.reckoned_bytes_in("PPO", setting, frozen)
            for setting in cost.SETTINGS_COMPARED
        ]

    assert saved(4) == pytest.approx([16 / 32, 16 / 36, 16 / 36, 16 / 40])
    assert saved(2) == pytest.approx([16 / 32, 16 / 34, 16 / 34, 16 / 36])


def test_tables_say_what_was_measured(two_sizes):
    costs = cost.cost_tables(two_sizes, load=SMALL)
    for table in (costs.memory, costs.compute):
        assert len(table) == 2 * table["part"].nunique()
        assert table["saved"].to_numpy() == pytest.approx(1 - (table["grpo"] / table["ppo"]).to_numpy())
    last = costs.comparisons[-1]
    memory = costs.memory[costs.memory["parameters"] == last.parameters].set_index("part")
    kept = memory[memory.index.str.contains(": ")]
    assert kept["grpo"].sum() + last.memory["GRPO"].peak == memory.loc["all, both", "grpo"]
    assert kept["ppo"].sum() + last.memory["PPO"].peak == memory.loc["all, both", "ppo"]
    assert memory.loc["value model: weights", "ratio"] == math.inf
    compute = costs.compute[costs.compute["parameters"] == last.parameters].set_index("part")
    phases = compute[compute.index.str.contains(": ")]
    assert phases["ppo"].sum() == compute.loc["all, both", "ppo"]
    assert (
        phases.drop(["reference: reading", "reward model: reading"])["grpo"].sum()
        == (compute.loc["all, no frozen model", "grpo"])
    )
    assert (compute["reckoned_ppo"] < compute["ppo"]).all()  # attention comes on top
    equal = compute.loc["1 to 3 outputs, both"]
    assert equal["ratio"] < 1 < compute.loc["all, both", "ratio"]


def usage(kept, peak):
    return cost.Usage({name: Kept(size, 0, 0) for name, size in kept.items()}, {"policy: steps": peak}, 0)


def test_verdict_is_made_from_the_numbers():
    """Bytes 300 and 150, FLOPs 8 and 2: a half, and three quarters."""
    kept = {"policy": 100, "reference": 50, "reward model": 250}
    flops = {"policy: steps": cost.Flops(2, 0), "reference: reading": cost.Flops(0, 2)}
    one = cost.Comparison(
        parameters=10,
        load=SMALL,
        memory={"PPO": usage(kept | {"value model": 100}, 100), "GRPO": usage(kept, 50)},
        flops={
            "PPO": flops | {"value model: steps": cost.Flops(6, 0)},
            "GRPO": flops,
            cost.ONE_OUTPUT: {"policy: steps": cost.Flops(1, 0)},
        },
        reckoned_flops={},
    )
    memory, reckoned, passing, compute, prompts = cost._verdict([one])
    assert memory == (
        "Memory: GRPO saves 50 % with no frozen model, 43 % with a reference, 27 % with a reward model, 25 % "
        "with both. Within 5 points of one half at this size: with no frozen model."
    )
    assert "50 %, 44 %, 44 %, 40 %; with frozen models in 2 bytes a parameter: 50 %, 47 %, 47 %, 44 %." in (
        reckoned
    )
    assert "saves 50 %, with 24 tokens" in passing
    # In turn PPO has 200 + 50 and GRPO 100 + 50.
    assert "GRPO would save 40 % with no frozen model, 33 % with a reference" in passing
    assert "75 % with no frozen model, 60 % with a reference, 75 %" in compute
    assert compute.endswith("Within 5 points of one half at this size: in no setting.")
    assert prompts.endswith(
        "with 3 outputs of 4 tokens for GRPO and 1 for PPO: GRPO takes 2.0 to 4.0 times PPO's."
    )
    other = one._replace(memory=one.memory | {"GRPO": usage(kept, 80)})
    assert cost._verdict([one, other])[0].startswith("Memory: GRPO saves 40 to 50 % with no frozen model, ")


def test_printed(two_sizes, capsys):
    costs = cost.print_costs(two_sizes, load=SMALL)
    text = capsys.readouterr().out
    for comparison in costs.comparisons:
        assert f"{comparison.parameters:,} parameters" in text
    assert text.count("policy: sampling") == text.count("value model: optimizer") == 2
    assert text.rstrip().endswith("\n".join(costs.verdict))
    assert max(map(len, text.split("Memory:")[0].splitlines())) <= 110
    assert "nan" not in text
    assert "inf" not in text


def test_sizes_are_what_they_are_called():
    for name, config in cost.SIZES.items():
        with torch.device("meta"):  # no numbers are made
            policy = Transformer(cost._EndlessTokenizer(cost._LoadTask.characters), config)
        millions = sum(parameter.numel() for parameter in policy.parameters()) / 1e6
        assert millions == pytest.approx(float(name.removesuffix("M")), rel=0.1)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": ["0.1M", "7B"]}, "there is no size '7B'; there are 0.1M, 3M, 30M"),
        ({"sizes": []}, "sizes is \\[\\]; it must be a list"),
        ({"sizes": "0.1M"}, "sizes is '0.1M'; it must be a list with some of 0.1M"),
        ({"device": "abacus"}, "device is 'abacus'; memory can be measured on 'cpu' and on 'cuda'"),
        ({"device": "meta"}, "device is 'meta'"),
        ({"device": "cuda:99"}, "device is 'cuda:99', which torch does not find here"),
        ({"load": Load(prompt_tokens=250)}, "are 266 together; the model's context is 256"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        cost.cost_tables(**arguments)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_prompts", 0), ("group_size", 1), ("output_tokens", 2.5), ("micro_batch_size", 0)],
)
def test_bad_loads(field, value):
    with pytest.raises(ValueError, match=f"Load.{field} is {value}"):
        Load(**{field: value})


def test_frozen_parameters():
    policy = tiny_policy()
    policy.embedding.requires_grad_(False)
    with pytest.raises(ValueError, match="the policy has frozen parameters"):
        cost.compare(policy, SMALL)


def test_memory_that_runs_out(monkeypatch):
    def fail(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(cost, "make_models", fail)
    with pytest.raises(MemoryError, match="measuring PPO with a policy of"):
        cost.compare(tiny_policy(), SMALL)


def test_the_command_prints_the_tables_and_what_becomes_of_half(capsys):
    load = ["--load.group-size", "2", "--load.prompt-tokens", "4", "--load.output-tokens", "4"]
    cli.main(["cost", "--sizes", "0.1M", *load])
    printed = capsys.readouterr().out
    for words in ("2 outputs of each", "parameters", "memory, MB", "GFLOP", "half"):
        assert words in printed
    with pytest.raises(SystemExit):
        cli.main(["cost", "--sizes", "7B"])
    assert "'7B'" in capsys.readouterr().err
