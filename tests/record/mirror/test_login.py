"""Whether a login to W&B is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.record.mirror.login import is_logged_in, wandb_mode


@pytest.fixture
def netrc(environment: None, tmp_path: Path) -> Path:
    return tmp_path / "netrc"


def test_a_login_is_seen_in_the_environment(netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_logged_in() and wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert is_logged_in() and wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not is_logged_in() and wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


def test_a_login_is_seen_in_netrc(netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc.write_text("machine example.org login x password y\n")
    assert not is_logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://example.org")
    assert is_logged_in()
    netrc.write_text("machine api.wandb.ai login user password y\n")
    assert not is_logged_in()
    monkeypatch.delenv("WANDB_BASE_URL")
    assert is_logged_in()
    netrc.write_text("not a netrc file")
    assert not is_logged_in()
