"""Checkpoints: whole or absent, verified, and only the ones worth keeping are kept."""

import json

import pytest
import torch
from torch import nn

from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.imitation import checkpoint as c


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(2, 1)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


def save(folder: c.CheckpointFolder, step: int, *, best: bool = False):
    tensors = c.CheckpointTensors(linear(step), linear(step + 0.5), {"weight/step": torch.tensor(float(step))})
    return folder.save(tensors, {"step": step, "config": {"lr": 0.1, "model": {"n_obs": 2}}}, best=best)


@pytest.fixture
def folder(tmp_path):
    return c.CheckpointFolder(tmp_path / "checkpoints")


def test_what_is_saved_comes_back(folder):
    path = save(folder, 7)
    model, ema = linear(0), linear(0)
    config = {"lr": 0.1, "model": {"n_obs": 2}}
    state, optimizer = c.load_checkpoint(path, model=model, ema=ema, expected_config=config)
    assert (state["step"], model.bias.item(), ema.bias.item(), optimizer["weight/step"].item()) == (7, 7.0, 7.5, 7.0)


@pytest.mark.parametrize(("ema", "value"), [(True, 7.5), (False, 7.0)])
def test_weights_load_alone_through_the_link(folder, ema, value):
    save(folder, 7)
    model = linear(0)
    c.load_model_weights(model, folder.path / "last", ema=ema)
    assert model.weight.tolist() == [[value, value]]


def test_last_previous_and_best_are_kept_and_the_rest_deleted(folder):
    for step in (1, 2, 3, 4, 5):
        save(folder, step, best=step == 2)
    (folder.path / ".writing-99").mkdir()  # left by a killed writer
    save(folder, 6)
    assert {w: folder.find(w).name for w in c.LINKS} == {
        "last": "step-00000006", "previous": "step-00000005", "best": "step-00000002",
    }  # fmt: skip
    assert sorted(p.name for p in folder.path.iterdir() if not p.is_symlink()) == [
        "step-00000002", "step-00000005", "step-00000006",
    ]  # fmt: skip


def test_a_folder_that_was_never_written_has_none(folder):
    assert [folder.find(which) for which in c.LINKS] == [None, None, None]


def test_falling_back_gives_up_the_last_one_for_good(folder):
    save(folder, 1, best=True)
    save(folder, 2, best=True)
    assert folder.fall_back()
    assert folder.find("last").name == "step-00000001"
    assert folder.find("best") is None
    save(folder, 2)  # the same step again, while the damaged one still has its name
    assert folder.find("previous").name == "step-00000001"
    assert folder.find("last").name == "step-00000002-1"
    assert not (folder.path / "step-00000002").exists()


@pytest.mark.parametrize("name", [c.MODEL_FILE, c.EMA_FILE, c.OPTIMIZER_FILE, c.STATE_FILE])
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_every_damage_to_every_file_is_found_and_named(folder, name, damage):
    path = save(folder, 3)
    file = path / name
    data = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(data[:-5])
    elif damage == "flip":
        at = data.index(b'"step": 3') + 8 if name == c.STATE_FILE else len(data) - 1
        data[at] ^= 1
        file.write_bytes(data)
    else:
        file.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}.*resume='previous'"):
        c.read_state(path)
    with pytest.raises(CheckpointError, match=name):
        c.load_model_weights(linear(0), path)


def test_a_newer_format_is_refused(folder):
    path = save(folder, 3)
    state = json.loads((path / c.STATE_FILE).read_text())
    del state["sha256"]
    state["format_version"] = 2
    (path / c.STATE_FILE).write_text(json.dumps({**state, "sha256": c._seal(state)}))
    with pytest.raises(CheckpointError, match="format_version must be 1, got 2"):
        c.read_state(path)


def test_weights_of_another_network_are_refused(folder):
    path = save(folder, 3)
    message = r"(?s)ema.safetensors holds the weights of another network than Linear: .*size mismatch"
    with pytest.raises(CheckpointError, match=message):
        c.load_model_weights(nn.Linear(3, 1), path)


def test_changed_configuration_names_key_old_and_new_and_fills_nothing(folder):
    path = save(folder, 3)
    model = linear(0)
    with pytest.raises(ConfigError, match=r"`lr` was 0.1 and is now 0.2; `model.n_obs` was 2 and is now '\(absent\)'"):
        c.load_checkpoint(path, model=model, ema=linear(0), expected_config={"lr": 0.2, "model": {}})
    assert model.bias.item() == 0.0


def test_tied_weights_survive(folder):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    folder.save(c.CheckpointTensors(model, model, {}), {"step": 1}, best=False)
    other = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    other[1].weight = other[0].weight
    c.load_model_weights(other, folder.path / "last")
    assert torch.equal(other[1].weight, model[0].weight)
