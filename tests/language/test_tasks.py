"""Tasks: their answers, their rewards, what is held out, and demonstrations with a share of wrong ones."""

import itertools
import math
import random

import pytest

from policyopt.language.tasks import (
    TASKS,
    Addition,
    Brackets,
    Problem,
    SortDigits,
    Task,
    closing,
    make_task,
)
from policyopt.language.tokenizer import CharTokenizer

CHECKED = [Addition, SortDigits, Brackets]  # tasks whose rewards need not be learned


@pytest.fixture(scope="module", params=CHECKED, ids=lambda kind: kind.name)
def task(request):
    return request.param()


def everything(task):
    return task.train + task.held_out


# Every task


def test_every_reference_answer_is_right(task):
    for problem in everything(task):
        assert task.reward(problem, problem.answer) == 1


def test_rewards_lie_in_0_1(task):
    rng, problems = random.Random(0), everything(task)
    outputs = ["", " ", "=", "nonsense", "9" * 50, "()" * 50, "é\n", "-1", "1.0", "٣"]
    for _ in range(3000):
        problem, length = rng.choice(problems), rng.randint(0, task.max_new_tokens)
        outputs[-1] = "".join(rng.choices(task.characters, k=length))
        for output in outputs[-1:] if rng.random() < 0.9 else outputs:
            reward = task.reward(problem, output)
            assert isinstance(reward, float)
            assert 0 <= reward <= 1
            if output == "":
                assert reward == 0


def test_spaces_around_an_answer_do_not_count(task):
    for problem in task.held_out[:50]:
        assert task.reward(problem, f" {problem.answer}\n") == 1
        assert task.reward(problem, f"{problem.answer[:1]} x{problem.answer[1:]}") < 1


def test_rewards_are_those_of_each_in_turn(task):
    rng = random.Random(0)
    problems = rng.choices(task.train, k=200)
    outputs = [p.answer if rng.random() < 0.5 else rng.choice(task.train).answer for p in problems]
    rewards = task.rewards(problems, outputs)
    assert rewards == [task.reward(*pair) for pair in zip(problems, outputs, strict=True)]
    assert 1 in rewards
    assert min(rewards) < 1
    with pytest.raises(ValueError, match="shorter"):
        task.rewards(problems, outputs[:-1])


def test_held_out_problems_are_not_trained_on(task):
    prompts = [problem.prompt for problem in everything(task)]
    assert len(set(prompts)) == len(prompts)
    assert len(task.held_out) == task.settings["held_out"]
    assert len(task.train) > 10 * len(task.held_out)


def test_held_out_problems_are_like_the_others(task):
    """A draw without regard to length: the share of each length agrees within 4 standard errors."""
    total = everything(task)
    for length in {len(problem.prompt) for problem in total}:
        share = sum(len(p.prompt) == length for p in total) / len(total)
        held_out = sum(len(p.prompt) == length for p in task.held_out) / len(task.held_out)
        assert abs(held_out - share) <= 4 * math.sqrt(share * (1 - share) / len(task.held_out)), length


@pytest.mark.parametrize("kind", CHECKED)
def test_problems_follow_from_the_seed_alone(kind):
    random.seed(1)
    one = kind(num_problems=300, held_out=40, seed=5)
    random.seed(2)
    state = random.getstate()
    again, other = (kind(num_problems=300, held_out=40, seed=seed) for seed in (5, 6))
    assert random.getstate() == state
    assert (one.train, one.held_out) == (again.train, again.held_out)
    assert one.held_out != other.held_out
    assert len(one.train) == 260


def test_characters_suffice(task):
    tokenizer = CharTokenizer(task.characters)
    used = set()
    for problem in everything(task):
        tokenizer.encode_prompt(problem.prompt)
        tokenizer.encode_output(problem.answer)
        used |= set(problem.prompt + problem.answer)
    assert used == set(task.characters)  # and none is in vain


def test_every_answer_fits_with_its_end(task):
    tokenizer = CharTokenizer(task.characters)
    lengths = [len(tokenizer.encode_output(problem.answer)) for problem in everything(task)]
    assert max(lengths) <= task.max_new_tokens <= max(lengths) + 2


def test_an_output_that_was_cut_off_is_never_right(task):
    """It has as many characters as there is room for, so it has not ended."""
    rng = random.Random(0)
    for problem in rng.choices(everything(task), k=300):
        filler = rng.choice(["()", "[]", "{}"] if isinstance(task, Brackets) else ["0", "9", problem.answer])
        for output in (problem.answer + filler * 20, filler * 20 + problem.answer):
            assert task.reward(problem, output[: task.max_new_tokens]) < 1
    if isinstance(task, Brackets):  # balanced, but not ended
        assert task.reward(Problem("(:", ")"), ")" + "()" * 5) == 0
        assert task.reward(Problem("(:", ")"), ")" + "()" * 4) == 1


def test_wrong_answers_are_wrong(task):
    rng = random.Random(0)
    for problem in rng.choices(task.train, k=500):
        wrong = task.wrong_answer(problem, rng)
        assert task.reward(problem, wrong) < 1
        assert set(wrong) <= set(task.characters)
        assert 0 < len(wrong) < task.max_new_tokens


@pytest.mark.parametrize(
    ("count", "wrong", "expected"),
    [(400, 0.0, 0), (400, 0.5, 200), (400, 1.0, 400), (7, 0.3, 2), (1, 0.4, 0), (10, 0.25, 2)],
)
def test_the_share_of_wrong_demonstrations_is_exact(task, count, wrong, expected):
    demonstrations = task.demonstrations(count, wrong, seed=3)
    assert len(demonstrations) == count
    assert len(right(task, demonstrations)) == count - expected


def right(task, demonstrations):
    """Those whose answer is right for the problem they belong to."""
    known = {problem.prompt: problem for problem in task.train}  # nothing held out is shown
    return [d for d in demonstrations if task.reward(known[d.prompt], d.answer) == 1]


def test_demonstrations_follow_from_the_seed(task):
    one, again, other = (task.demonstrations(50, 0.5, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    prompts = [[d.prompt for d in task.demonstrations(50, wrong, seed=1)] for wrong in (0.0, 0.5)]
    assert prompts[0] == prompts[1]  # the share of wrong ones does not change what is asked


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_a_share_that_is_none(task, wrong):
    with pytest.raises(ValueError, match=rf"wrong is {wrong}; it must be a share in \[0, 1\]"):
        task.demonstrations(10, wrong)


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_a_count_that_is_none(task, count):
    with pytest.raises(ValueError, match=f"count is {count}; it must be a whole number ≥ 1"):
        task.demonstrations(count)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_problems": 1}, "num_problems is 1; it must be a whole number ≥ 2"),
        ({"num_problems": 10.0}, "num_problems is 10.0"),
        ({"held_out": 0}, "held_out is 0; it must be a whole number ≥ 1"),
        ({"held_out": -3}, "held_out is -3"),
        ({"num_problems": 100, "held_out": 100}, "held_out is 100; of 100 problems .* at most 99"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
    ],
)
@pytest.mark.parametrize("kind", CHECKED)
def test_bad_arguments_of_every_task(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_repr_tells_tasks_apart_and_makes_them_again(task):
    kind = type(task)
    assert repr(kind()) == repr(task)
    assert eval(repr(task)).train == task.train
    settings = [{}, {"seed": 1}, {"held_out": 9}, {"num_problems": 500, "held_out": 9}]
    assert len({repr(kind(**each)) for each in settings}) == 4


def test_tasks_by_name():
    for kind in CHECKED:
        assert TASKS[kind.name] is kind
        assert type(make_task(kind.name)) is kind
    assert repr(make_task("addition", high=20, held_out=8)) == repr(Addition(high=20, held_out=8))
    with pytest.raises(
        ValueError, match="there is no task 'subtraction'; there are addition, sort_digits, brackets"
    ):
        make_task("subtraction")
    for name, kind in TASKS.items():
        assert name == kind.name
        assert issubclass(kind, Task)
        assert kind.instruction.endswith(".")


# Addition


def test_addition_asks_for_every_pair_once():
    task = Addition(low=3, high=12, held_out=10)
    pairs = {f"{a}+{b}=": str(a + b) for a in range(3, 13) for b in range(3, 13)}
    assert dict(everything(task)) == pairs
    assert len(everything(task)) == 100
    assert task.max_new_tokens == 3


def test_addition_by_default_has_two_digits():
    problems = everything(Addition())
    assert len(problems) == 90 * 90
    assert {len(problem.prompt) for problem in problems} == {6}


def test_addition_by_hand():
    task, problem = Addition(), Problem("23+58=", "81")
    rewards = {"81": 1, " 81 ": 1, "82": 0, "081": 0, "8": 0, "811": 0, "8 1": 0, "": 0, "+81": 0}
    assert {output: task.reward(problem, output) for output in rewards} == rewards


def test_addition_of_great_numbers_lists_no_pairs():
    task = Addition(low=0, high=10**9, num_problems=50, held_out=10)
    assert len(everything(task)) == 50
    for problem in everything(task):
        assert sum(map(int, problem.prompt[:-1].split("+"))) == int(problem.answer)
    assert task.max_new_tokens == 11


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": -1}, "low is -1; it must be a whole number ≥ 0"),
        ({"low": 10.5}, "low is 10.5"),
        ({"high": "99"}, "high is '99'"),
        ({"high": 10**9 + 1}, "high is 1000000001; .* ≤ 1000000000"),
        ({"low": 5, "high": 4}, "low is 5 and high 4; low ≤ high"),
        ({"low": 5, "high": 5}, "held_out is 512; of 1 problems"),
    ],
)
def test_bad_arguments_of_addition(settings, message):
    with pytest.raises(ValueError, match=message):
        Addition(**settings)


def test_no_wrong_answer_to_be_found():
    task = SortDigits(shortest=2, longest=2, held_out=2, seed=0)
    task.train = [Problem("01>", "01"), Problem("10>", "01")]
    with pytest.raises(ValueError, match=r"no wrong answer to '(01|10)>': each of the 2 problems"):
        task.demonstrations(4, wrong=0.5)
    task.train += [Problem("22>", "22")] + [Problem("01>", "01")] * 10_000  # one in ten thousand is wrong
    assert task.wrong_answer(Problem("01>", "01"), random.Random(0)) == "22"


def test_a_wrong_sum_differs_in_one_digit():
    task = Addition()
    for problem in (Problem("10+10=", "20"), Problem("99+99=", "198")):
        rng = random.Random(0)
        slips = {task.wrong_answer(problem, rng) for _ in range(1000)}
        digits = len(problem.answer)
        assert len(slips) == 9 * digits - 1  # nine other digits in each place, but no 0 in the first
        for slip in slips:
            assert sum(a != b for a, b in zip(slip, problem.answer, strict=True)) == 1


# Sorting digits


def test_sorting_by_hand():
    """The share of digits in their place; an output of another length has nothing."""
    task, problem = SortDigits(), Problem("5213>", "1235")
    rewards = {"1235": 1, "1253": 0.5, "5213": 0.25, "5321": 0, "123": 0, "12355": 0, "": 0, "1 35": 0.75}
    assert {output: task.reward(problem, output) for output in rewards} == rewards


def test_sorted_are_the_digits_that_were_given():
    task = SortDigits(shortest=2, longest=5, num_problems=500, held_out=50)
    for prompt, answer in everything(task):
        assert prompt[-1] == ">"
        assert sorted(prompt[:-1]) == list(answer)
    assert {len(problem.answer) for problem in everything(task)} == {2, 3, 4, 5}
    assert task.max_new_tokens == 6


def test_sorting_covers_everything_when_there_is_little():
    task = SortDigits(shortest=1, longest=2, held_out=10)
    digits = "0123456789"
    assert {p.prompt[:-1] for p in everything(task)} == {
        *digits,
        *map("".join, itertools.product(digits, digits)),
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shortest": 0}, "shortest is 0; it must be a whole number ≥ 1"),
        ({"longest": 4.0}, "longest is 4.0"),
        ({"shortest": 5, "longest": 4}, "shortest is 5 and longest 4; shortest ≤ longest"),
    ],
)
def test_bad_arguments_of_sorting(settings, message):
    with pytest.raises(ValueError, match=message):
        SortDigits(**settings)


# Brackets


def balanced(text):
    """By taking out pairs until nothing is left."""
    while (shorter := text.replace("()", "").replace("[]", "").replace("{}", "")) != text:
        text = shorter
    return text == ""


def test_closing_by_brute_force():
    """Of all texts of up to 4 brackets: the shortest that balances, among all of up to 4."""
    endings = ["".join(t) for n in range(5) for t in itertools.product(")]}", repeat=n)]
    for length in range(5):
        for text in map("".join, itertools.product("()[]{}", repeat=length)):
            by_hand = next((ending for ending in endings if balanced(text + ending)), None)
            assert closing(text) == by_hand


def test_brackets_are_judged_as_by_brute_force():
    task = Brackets(longest=3, held_out=10)
    outputs = ["".join(t) for n in range(5) for t in itertools.product("()[]{}", repeat=n)]
    rng = random.Random(0)
    for problem in everything(task):
        right = 0
        for output in [*rng.sample(outputs, 300), problem.answer]:
            expected = balanced(problem.prompt[:-1] + output)
            assert task.reward(problem, output) == float(expected)
            right += expected
        assert right >= 1


def test_brackets_by_hand():
    task, problem = Brackets(), Problem("([]{:", "})")
    rewards = {"})": 1, "()})": 1, "})[]": 1, ")}": 0, "}": 0, "": 0, "}):": 0, "} )": 0, "})a": 0, "})(": 0}
    assert {output: task.reward(problem, output) for output in rewards} == rewards


def test_brackets_cover_everything_when_there_is_little():
    """Every beginning of a balanced text in which something is open, and nothing else."""
    task = Brackets(longest=3, held_out=10)
    texts = ("".join(t) for n in range(1, 4) for t in itertools.product("()[]{}", repeat=n))
    assert {p.prompt[:-1] for p in everything(task)} == {text for text in texts if closing(text)}


def test_the_reference_is_the_shortest():
    for problem in everything(Brackets(num_problems=500, held_out=50)):
        assert problem.answer == closing(problem.prompt[:-1])
        assert 1 <= len(problem.answer) <= 8


@pytest.mark.parametrize("longest", [0, -2, 1.5, None])
def test_bad_arguments_of_brackets(longest):
    with pytest.raises(ValueError, match=f"longest is {longest}; it must be a whole number ≥ 1"):
        Brackets(longest=longest)


class Repeated(SortDigits):
    """Draws problems that are not all different."""

    def draw(self, rng, count):
        return super().draw(rng, count - 2) + [Problem("1>", "1")] * 2


def test_no_problem_can_be_both_trained_on_and_held_out():
    with pytest.raises(ValueError, match="draw gave 1 of 20 problems again; all must be different"):
        Repeated(shortest=3, num_problems=20, held_out=5)
