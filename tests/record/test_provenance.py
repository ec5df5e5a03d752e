from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

module = importlib.import_module("harness.record.provenance")


def _git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    _git(tmp_path, "init", "-q")
    monkeypatch.setattr(module, "PACKAGE", package)
    return package


def test_provenance_is_json():
    record = module.provenance()
    assert json.loads(json.dumps(record)) == record
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["versions"]["torch"] == importlib.import_module("importlib.metadata").version("torch")
    assert record["host"]
    assert record["cpu"]
    assert record["num_cpus"] >= 1


def test_commit_and_dirty_flag(package, tmp_path):
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "one")
    record = module.provenance()
    assert (record["commit"], record["dirty"]) == (_git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "beside.txt").touch()
    assert module.provenance()["dirty"] is False
    (package / "__init__.py").write_text("x = 1\n")
    assert module.provenance()["dirty"] is True


def test_a_package_inside_a_repository_of_others_has_no_commit(package, tmp_path):
    (tmp_path / "theirs.txt").touch()
    _git(tmp_path, "add", "theirs.txt")
    _git(tmp_path, "commit", "-q", "-m", "one")
    record = module.provenance()
    assert (record["commit"], record["dirty"]) == (None, None)


def test_without_git_the_commit_is_unknown(package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    record = module.provenance()
    assert (record["commit"], record["dirty"]) == (None, None)


def test_record_imports_nothing_heavy():
    code = (
        "import sys, harness.record; print(sorted({'torch', 'pandas', 'wandb', 'numpy', 'PIL'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
