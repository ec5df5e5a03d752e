from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from harness.errors import FencedError
from harness.record.lease import claim, read_owner, reserve
from harness.spec import Sft
from harness.train.checkpoint import FILE, load_checkpoint, save_checkpoint
from harness.train.optimizer import Optimizer


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.unused = nn.Parameter(torch.ones(2))

    def take_steps(self, optimizer: Optimizer, num_steps: int) -> None:
        for step in range(num_steps):
            self.head(self.embed(torch.tensor([step, step + 1]))).square().sum().backward()
            optimizer.step()


def optimizer_of(model: nn.Module) -> Optimizer:
    return Optimizer(dict(model.named_parameters()), Sft(lr=0.1))


def test_training_goes_on_where_it_was(tmp_path: Path) -> None:
    model = Tied()
    optimizer = optimizer_of(model)
    model.take_steps(optimizer, 2)
    save_checkpoint(tmp_path / "new", optimizer, 2, {"adaptive_beta": 0.1 + 0.2})
    other = Tied()
    with torch.no_grad():
        other.embed.weight.fill_(9)
    resumed = optimizer_of(other)
    assert load_checkpoint(tmp_path / "new", resumed) == (2, {"adaptive_beta": 0.1 + 0.2})
    for each, its_optimizer in ((model, optimizer), (other, resumed)):
        each.take_steps(its_optimizer, 2)
    assert torch.equal(model.embed.weight, other.embed.weight)
    assert other.head.weight is other.embed.weight
    state = resumed.adamw.state[other.embed.weight]
    for key, value in optimizer.adamw.state[model.embed.weight].items():
        assert torch.equal(state[key], value) and state[key].device == value.device
    assert other.unused not in resumed.adamw.state


def test_a_tied_weight_is_kept_once_and_no_pickle_is(tmp_path: Path) -> None:
    model = Tied()
    optimizer = optimizer_of(model)
    model.take_steps(optimizer, 1)
    save_checkpoint(tmp_path, optimizer, 1, {})
    with safe_open(tmp_path / FILE, framework="pt") as file:
        names = set(file.keys())
    assert names == {
        "weight/embed.weight",
        "weight/unused",
        "step/embed.weight",
        "exp_avg/embed.weight",
        "exp_avg_sq/embed.weight",
    }
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_without_a_checkpoint_nothing_changes(tmp_path: Path) -> None:
    model = Tied()
    before = model.embed.weight.clone()
    assert load_checkpoint(tmp_path / "none", optimizer_of(model)) is None
    assert torch.equal(model.embed.weight, before)


def test_a_save_that_is_cut_short_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Tied()
    optimizer = optimizer_of(model)
    save_checkpoint(tmp_path, optimizer, 1, {})
    kept = model.embed.weight.detach().clone()
    model.take_steps(optimizer, 1)

    def die(source: object, target: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", die)
        save_checkpoint(tmp_path, optimizer, 2, {})
    other = Tied()
    assert load_checkpoint(tmp_path, optimizer_of(other)) == (1, {})
    assert torch.equal(other.embed.weight, kept)
    save_checkpoint(tmp_path, optimizer, 2, {})
    assert load_checkpoint(tmp_path, optimizer_of(other)) == (2, {})


def test_one_who_has_lost_the_run_replaces_no_checkpoint(tmp_path: Path) -> None:
    model, folder = Tied(), tmp_path / "checkpoint"
    optimizer = optimizer_of(model)
    files = claim(tmp_path, 0).files
    save_checkpoint(folder, optimizer, 1, {}, replacing=files.replacing)
    assert load_checkpoint(folder, optimizer_of(Tied())) == (1, {})
    reserve(tmp_path, read_owner(tmp_path), pulse=tmp_path)
    with pytest.raises(FencedError, match="another process has taken over"):
        save_checkpoint(folder, optimizer, 2, {}, replacing=files.replacing)
    assert load_checkpoint(folder, optimizer_of(Tied())) == (1, {})
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_one_process_writes_for_all(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint", optimizer_of(Tied()), 1, {}, write=False)
    assert not (tmp_path / "checkpoint").exists()
