import sys

import pytest
from PIL import Image

from policyopt import cli
from policyopt.agents import load_agent
from policyopt.tuned import TUNED

SMALL = ["--config.total-steps", "2048", "--eval-episodes", "5", "--quiet"]


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


def failure(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    return captured.err + captured.out


def test_train_then_watch(tmp_path, capsys):
    file = tmp_path / "agent.pt"
    run("train", "ppo", "--env", "CartPole-v1", "--seed", 3, "--save", file, *SMALL)
    printed = capsys.readouterr().out
    for words in ("algorithm", "CartPole-v1", "2,048", "5 fresh episodes, greedy, mean return", str(file)):
        assert words in printed
    _, about = load_agent(file)
    assert about["seed"] == 3
    assert about["config"]["total_steps"] == 2048
    run("watch", file, "--width", 120)
    assert "episode return" in capsys.readouterr().out
    image = Image.open(tmp_path / "agent.gif")
    assert (image.format, image.width) == ("GIF", 120)
    assert image.n_frames > 3
    image.close()


@pytest.mark.parametrize("name", cli.ALGORITHMS)
def test_every_algorithm_can_be_trained(name, tmp_path, capsys):
    bounded = dict.fromkeys(("ddpg", "td3", "sac"), "Pendulum-v1")
    env = {"q_learning": "FrozenLake-v1", **bounded}.get(name, "CartPole-v1")
    run("train", name, "--env", env, "--save", tmp_path / "agent.pt", *SMALL)
    printed = capsys.readouterr().out
    assert name in printed
    assert "5 fresh episodes, greedy, mean return" in printed
    assert load_agent(tmp_path / "agent.pt")[1]["algorithm"] == name


def test_every_tuned_setting_belongs_to_its_algorithm():
    for name, environments in TUNED.items():
        assert all(type(config) is cli.ALGORITHMS[name][1] for config in environments.values())
    assert set(TUNED) == set(cli.ALGORITHMS)


def test_the_same_seed_gives_the_same_agent(tmp_path):
    for name in "ab":
        run("train", "ppo", "--env", "CartPole-v1", "--save", tmp_path / name, *SMALL)
    first, second = (load_agent(tmp_path / name)[0].state_dict() for name in "ab")
    assert all((first[key] == second[key]).all() for key in first)


def test_settings_tuned_for_an_environment_are_its_defaults(capsys):
    for env in ("--env=CartPole-v1", "--env CartPole-v1"):
        with pytest.raises(SystemExit):
            run("train", "ppo", *env.split(), "--help")
        tuned = " ".join(capsys.readouterr().out.split())
        assert "total_steps" not in tuned
        assert "(default: 50000)" in tuned
    with pytest.raises(SystemExit):
        run("train", "ppo", "--env", "Other-v0", "--help")
    assert "(default: 200000)" in " ".join(capsys.readouterr().out.split())


def test_a_progress_bar_unless_quiet(capsys):
    run("train", "ppo", "--env", "CartPole-v1", *SMALL[:-1])
    assert "update" in capsys.readouterr().err
    run("train", "ppo", "--env", "CartPole-v1", *SMALL)
    assert capsys.readouterr().err == ""


def test_errors_are_one_message_and_exit_code_2(capsys, tmp_path):
    base = ("train", "ppo", "--env")
    assert "cannot make the environment 'Nope-v0'" in failure(capsys, *base, "Nope-v0", *SMALL)
    assert "PPOConfig.gamma is 1.5" in failure(capsys, *base, "CartPole-v1", "--config.gamma", 1.5)
    assert "seed is -1" in failure(capsys, *base, "CartPole-v1", "--seed", -1)
    missing = tmp_path / "no" / "agent.pt"
    assert f"there is no folder {missing.parent}" in failure(capsys, *base, "CartPole-v1", "--save", missing)
    assert "it is a folder" in failure(capsys, *base, "CartPole-v1", "--save", tmp_path)
    assert "there is no file" in failure(capsys, "watch", tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("hello")
    assert "not a file of policyopt" in failure(capsys, "watch", tmp_path / "text.pt")
    assert list(tmp_path.iterdir()) == [tmp_path / "text.pt"]


def test_no_arguments_list_the_commands(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["policyopt"])
    with pytest.raises(SystemExit):
        cli.main()
    captured = capsys.readouterr()
    assert "train" in captured.out + captured.err
    assert "watch" in captured.out + captured.err
