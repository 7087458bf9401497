"""The loop by itself, on a regression of a few numbers: averaging, stopping, resuming, what ends a run."""

import errno

import numpy as np
import pytest
import torch
from torch import nn

from lowlight_iqa import wholefile
from lowlight_iqa.distributed import Ranks
from lowlight_iqa.training import loop
from lowlight_iqa.training.loop import Schedule, check_numbers, train

ALONE = Ranks(0, 1)
X = torch.linspace(-1, 1, 64).view(16, 4)
Y = X.sum(1) + 0.3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def schedule(**changes):
    numbers = {"epochs": 4, "steps_per_epoch": 5, "warmup": 2, "weight_decay": 0.01, "average": 0.9, "seed": 3}
    return Schedule(**{**numbers, **changes})


def batch_loss(net, rng, ranks):
    rows = rng.choice(16, 8, replace=False)
    loss = (net(X[rows])[:, 0] - Y[rows]).square().mean()
    return loss, {"mse": loss.item()}


def run(out, net=None, loss=batch_loss, settings=None, **options):
    out.mkdir(exist_ok=True)
    loop.start_log(out, ALONE)
    net = net or network()
    return train(net, [(list(net.parameters()), 0.05)], loss, settings or schedule(), out, ranks=ALONE, **options)


def equal(one, other):
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def dying_after(epochs, monkeypatch):
    """Let training die after so many epochs."""
    save = loop.Checkpoint.save

    def save_and_die(checkpoint, step, stopped):
        save(checkpoint, step, stopped)
        if step == 5 * epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Checkpoint, "save", save_and_die)


def test_it_learns_and_returns_the_average_in_evaluation_mode(tmp_path):
    net = network()
    average = run(tmp_path, net, settings=schedule(epochs=20))
    with torch.no_grad():
        assert (average(X)[:, 0] - Y).square().mean() < 0.1 * Y.var()
    assert not any(module.training for module in average.modules())
    assert not equal(net, average)


def test_the_average_is_what_it_says(tmp_path):
    """By hand: parameters and a batch norm's statistics, the start counted as the first; counts are not averaged."""
    net, states = network(), []
    expected = {key: value.clone() for key, value in net.state_dict().items()}

    def noted(net, rng, ranks):
        states.append({key: value.clone() for key, value in net.state_dict().items()})
        return batch_loss(net, rng, ranks)

    average = run(tmp_path, net, noted)
    states = [*states[1:], net.state_dict()]  # after each step
    for step, state in enumerate(states):
        decay = min(0.9, (step + 1) / (step + 10))
        for key, value in state.items():
            moving = value.is_floating_point()
            expected[key] = expected[key] * decay + value * (1 - decay) if moving else value
    for key, value in average.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6)
    assert average[1].running_mean.abs().max() > 0


def test_without_averaging_the_last_weights_are_returned(tmp_path):
    net = network()
    assert run(tmp_path, net, settings=schedule(average=0)) is net
    assert not net.training


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path, monkeypatch, epochs):
    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        dying_after(epochs, patch)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken")
    assert equal(run(tmp_path / "broken", resume=True), whole)
    assert equal(run(tmp_path / "broken", resume=True), whole)  # there is nothing left to do


def test_a_run_that_stopped_early_does_not_go_on_when_it_is_resumed(tmp_path):
    seen = []

    def stop(figures):
        seen.append(figures["mse"])
        return len(seen) == 2

    early = run(tmp_path, stop=stop)
    assert len(seen) == 2
    assert equal(run(tmp_path, stop=stop, resume=True), early)
    assert len(seen) == 2
    assert not equal(early, run(tmp_path / "whole"))


def test_settings_that_differ_are_named(tmp_path):
    run(tmp_path, settings=schedule(made_from={"crop": 64, "data": "one"}))
    for changes, named in (
        ({"made_from": {"crop": 32, "data": "one"}}, "crop: 64, not 32"),
        ({"made_from": {"crop": 64, "data": "other"}}, "data: one, not other"),
        ({"made_from": {"crop": 64, "data": "one"}, "epochs": 5}, "epochs: 4, not 5"),
    ):
        with pytest.raises(ValueError, match=named) as error:
            run(tmp_path, settings=schedule(**changes), resume=True)
        assert "start again" in str(error.value)


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        run(tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "other", "pickle"])
def test_a_damaged_checkpoint_is_one_error(tmp_path, damage):
    run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    if damage == "other":
        torch.save([1, 2], path)
    elif damage == "pickle":
        torch.save({"schedule": np.random.default_rng}, path)
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 400]) + whole[middle + 400 :]
        path.write_bytes({"cut": whole[:middle], "flipped": flipped, "empty": b"", "text": b"<html>"}[damage])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is (damaged|of another version).*start again") as error:
        run(tmp_path, resume=True)
    assert "\n" not in str(error.value)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    def broken(net, rng, ranks):
        return batch_loss(net, rng, ranks)[0] * torch.nan, {}

    with pytest.raises(FloatingPointError, match="at step 0; lower the learning rate"):
        run(tmp_path, loss=broken)


# Disks


def test_a_full_disk_leaves_the_old_checkpoint_and_names_the_file(tmp_path, monkeypatch):
    run(tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(states, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0\nstack")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"checkpoint\.pt cannot be written .*make room") as error:
        run(tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.new"))


def test_a_log_on_a_full_disk_ends_the_run_with_its_name(tmp_path, monkeypatch):
    loop.start_log(tmp_path, ALONE)
    (handler,) = loop.log.handlers

    def full(text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(handler.stream, "write", full, raising=False)
    with pytest.raises(OSError, match=r"train\.log cannot be written .*No space left"):
        loop.log.info("a line")
    loop.start_log(tmp_path / "other", ALONE)


def test_what_fails_for_another_reason_leaves_nothing_and_keeps_its_error(tmp_path):
    path = tmp_path / "file"

    def fail():
        with wholefile.replacing(path) as new:
            new.write_bytes(b"half")
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="file cannot be written"), wholefile.replacing(tmp_path / "none" / "file") as new:
        new.write_bytes(b"x")


# Numbers


@pytest.mark.parametrize("value", [-1, 0, float("nan"), float("inf")])
def test_numbers_that_cannot_be_trained_with_are_refused(value):
    from lowlight_iqa.training.iaca import Recipe

    with pytest.raises(ValueError, match=f"--epochs is {value}; give a number above 0"):
        Recipe(epochs=value)
    if value != 0:
        with pytest.raises(ValueError, match=r"--warmup is .*; give a number of at least 0"):
            Recipe(warmup=value)
    assert Recipe(warmup=0).warmup == 0


def test_every_recipe_checks_its_numbers():
    from lowlight_iqa.training import bmqa, iaca, leiq, leiq_authors

    for recipe in (bmqa.Recipe, iaca.Recipe, leiq.Recipe, leiq_authors.Recipe):
        with pytest.raises(ValueError, match="--seed is -1"):
            recipe(seed=-1)
    check_numbers(leiq.Recipe(epochs=0))


def test_a_schedule_without_steps_or_warm_up_has_a_rate():
    assert schedule(epochs=0).factor(0) == pytest.approx(0.5)
    assert schedule(warmup=0).factor(0) == 1
