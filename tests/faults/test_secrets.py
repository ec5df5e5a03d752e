"""No key, token or password that the environment or a command holds is ever written or told.

A real sweep with a run that fails, a real search, and every verb that writes, with secrets planted wherever they are
usually kept; then every byte of every file, also of those that are compressed, is searched for them.
"""

from __future__ import annotations

import base64
import gzip
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import recorded_run
from wandb_server import Server

import harness
from harness.record import RunFolder
from harness.record.mirror.publication import Destination, publications
from harness.record.state import read_state
from harness.record.studies import storage_error
from harness.spec import Job, RunSpec
from harness.spec.sweep import load_sweep

SECRETS = {
    "WANDB_API_KEY": "5ecre7000000000000000000000000000000a91c",
    "HF_TOKEN": "hf_SecretOfTheHubAAAAAAAAAAAAAAAAAA",
    "HUGGING_FACE_HUB_TOKEN": "hf_OlderSecretOfTheHubBBBBBBBBBBBBB",
    "OPENAI_API_KEY": "sk-SecretOfAnybodyElseCCCCCCCCCCCC",
    "AWS_SECRET_ACCESS_KEY": "SecretOfTheCloudDDDDDDDDDDDDDDDDDDD",
}
NETRC_KEY = "5ecre7111111111111111111111111111111b82d"
PASSWORD = "SecretOfTheDatabase/with@marks"
STORAGE = f"postgresql://harness:{PASSWORD}@127.0.0.1:1/studies?password=SecretInTheQuery"
ALL = (*SECRETS.values(), NETRC_KEY, PASSWORD, "SecretOfTheDatabase", "with@marks", "SecretInTheQuery")

SWEEP = """\
name: small
base: {num_steps: 2, prompts_per_step: 2, num_train: 2}
axes:
  method: [base, sft]
  source: [counting, broken.jsonl]
  seed: [0]
targets: [counting]
evaluation: {num_examples: 2, every: 1, num_validation: 2}
execution: {device: cpu}
"""
SEARCH = """\
name: search
base: {num_steps: 1, prompts_per_step: 2, num_train: 2}
axes: {method: [sft], source: [counting], seed: [0]}
study: {space: {lr: [1.0e-4]}, sampler: grid}
targets: [counting]
evaluation: {num_validation: 2}
execution: {device: cpu}
"""


def spellings(secret: str) -> Iterator[bytes]:
    """A secret as it stands in files: plain, quoted for an address, backwards, and in base64 at any offset."""
    plain = secret.encode()
    yield from (plain, quote(secret, safe="").encode(), plain[::-1], plain.hex().encode())
    for before in range(3):
        text = base64.b64encode(b"\0" * before + plain)
        yield text[4 if before else 0 : len(text) // 4 * 4 - 4]


def views(content: bytes) -> Iterator[bytes]:
    """Bytes as they stand, and what in them is compressed: gzip, zlib, and gzip in base64 as in a report."""
    yield content
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    for packed in re.findall(rb"H4sI[A-Za-z0-9+/=]+", content):
        yield gzip.decompress(base64.b64decode(packed))
    for start in re.finditer(rb"x\x9c|x\xda", content):
        try:
            yield zlib.decompressobj().decompress(content[start.start() :])
        except zlib.error:
            continue


def leaks(content: bytes) -> list[str]:
    """The secrets in some bytes."""
    return sorted({secret for view in views(content) for secret in ALL for one in spellings(secret) if one in view})


@dataclass(frozen=True)
class Told:
    """A command's exit code and everything that it printed."""

    code: int
    text: str


@dataclass(frozen=True)
class World:
    """A home and a results folder, with secrets all around."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def harness(self, *words: str | Path) -> Told:
        """A command, as somebody with all these secrets gives it; what it prints holds none of them."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        places = {"HOME": str(self.folder / "home"), "PYTHONPATH": str(Path(harness.__file__).parents[1])}
        fixed = {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "harness", *map(str, words)]
        environment = kept | places | fixed | SECRETS
        environment.pop("NETRC", None)
        done = subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=500
        )
        text = done.stdout + done.stderr
        assert leaks(text.encode()) == [], (words, text)
        return Told(done.returncode, text)

    def files(self) -> Iterator[Path]:
        """Every file but the one with the key."""
        yield from (path for path in self.folder.rglob("*") if path.is_file() and path.name != ".netrc")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    (folder / "home").mkdir()
    (folder / "home" / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {NETRC_KEY}\n")
    (folder / "home" / ".netrc").chmod(0o600)
    (folder / "small.yaml").write_text(SWEEP)
    (folder / "search.yaml").write_text(SEARCH)
    (folder / "broken.jsonl").write_text('{"image": "broken.png", "problem": "How many?", "solution": "1"}\n' * 20)
    (folder / "broken.png").write_text("no picture")
    return World(folder)


def test_the_search_finds_what_it_looks_for() -> None:
    secret = SECRETS["HF_TOKEN"]
    packed = base64.b64encode(gzip.compress(f"<p>{secret}</p>".encode()))
    hidden = [
        secret.encode(), b"\0\1" + secret.encode() + b"\2", gzip.compress(secret.encode()), packed,
        zlib.compress(secret.encode()),
        base64.b64encode(b"a" + secret.encode() + b"bc"), base64.b64encode(b"ab" + secret.encode()),
        secret.encode().hex().encode(),
    ]  # fmt: skip
    assert [leaks(b"before" * (n % 2) + content) for n, content in enumerate(hidden) if n != 2] == [[secret]] * 7
    assert leaks(hidden[2]) == [secret]
    assert leaks(b"hf_Secre") == []


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        (STORAGE, "postgresql://127.0.0.1:1/studies"),
        ("postgresql://user:pass@host/db", "postgresql://host/db"),
        ("postgresql://host/db?user=me&password=pass", "postgresql://host/db"),
        ("mysql+pymysql://user:p@a:s/s@host:3306/db", "mysql+pymysql://host:3306/db"),
        ("sqlite:////results/studies/x.db", "sqlite:////results/studies/x.db"),
        ("nonsense:pass", "nonsense"),
    ],
)
def test_a_storage_is_told_without_its_password(storage: str, told: str) -> None:
    sentence = str(storage_error(storage, ValueError(f"cannot connect to {storage}: no pass\nmore")))
    assert sentence.startswith(f"cannot open the study's storage {told}: cannot connect to {told}: no ")
    assert "@" not in sentence and "more" not in sentence


def test_a_reason_that_quotes_the_password_does_not_tell_it() -> None:
    error = ValueError(f"bad credentials harness/{PASSWORD} or SecretInTheQuery")
    assert leaks(str(storage_error(STORAGE, error)).encode()) == []


def test_where_a_run_is_published_is_noted_without_a_password() -> None:
    where = Destination("online", "https://user:secret@wandb.example.org", "team", "harness")
    assert where.name == "https://wandb.example.org/team/harness"


@pytest.mark.slow
def test_no_secret_is_written_or_told(world: World) -> None:
    assert world.harness("run", "small.yaml", "--slots", "1", "--tensorboard").code == 3
    sweep = load_sweep_in(world, "small.yaml")
    states = {run_id: read_state(RunFolder(world.results, run_id)) for run_id in sweep}
    failed = [run_id for run_id, state in states.items() if state.status == "failed"]
    assert [run_id.startswith("sft-broken") for run_id in failed] == [True], states
    assert states[failed[0]].traceback is not None
    assert world.harness("run", "search.yaml", "--slots", "1").code == 0
    verbs: list[tuple[list[str], int | None]] = [
        (["status", "--json"], 0),
        (["tables", "small"], 3),
        (["show", failed[0]], 0),
        (["figures", "small"], 3),
        (["report", "small.yaml"], 3),
        (["export", "small.yaml", "--out", "export"], 0),
        (["wandb", "sync", "small"], None),
        (["doctor"], None),
    ]
    for words, code in verbs:
        told = world.harness(*words)
        assert told.code == code or (code is None and "Traceback" not in told.text), (words, told)
    found = {str(path.relative_to(world.folder)): leaks(path.read_bytes()) for path in world.files()}
    assert {name: secrets for name, secrets in found.items() if secrets} == {}
    # What was searched is what there is to search.
    kinds = {
        "run.json",
        "state.json",
        "log.txt",
        "metrics.jsonl",
        "summary.json",
        "small.html",
        "verdicts.csv",
        "search.db",
    }
    assert kinds <= {Path(name).name for name in found}
    assert {".wandb", ".csv", ".png"} <= {Path(name).suffix for name in found}
    assert any(name.startswith("events.out") for name in (Path(one).name for one in found))


@pytest.mark.slow
def test_a_key_that_is_used_is_not_kept(tmp_path: Path) -> None:
    """The same with a server that asks for the key: W&B's own logs lie in the run folder too."""
    spec = RunSpec(model="Qwen/Qwen2-VL-2B-Instruct", method={"type": "grpo"}, source="counting", seed=3)
    job = Job(spec=spec, targets=("counting", "geometry"), results=str(tmp_path / "results"))
    folder = RunFolder(job.results, job.spec.run_id)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    with Server() as server:
        places = {"HOME": str(tmp_path), "WANDB_BASE_URL": server.url, "WANDB_ERROR_REPORTING": "false"}
        command = [sys.executable, recorded_run.__file__, job.model_dump_json(), "0", "4", "completed"]
        done = subprocess.run(command, env=kept | places | SECRETS, capture_output=True, check=False, timeout=200)
    assert leaks(done.stdout + done.stderr) == []
    assert len(publications(folder)) == 1, done.stdout  # it was published, so the key was used
    assert [path for path in tmp_path.rglob("*") if path.is_file() and leaks(path.read_bytes())] == []


@pytest.mark.slow
def test_a_storage_that_cannot_be_opened_keeps_its_password(world: World) -> None:
    for words in (
        ["run", "search.yaml"],
        ["figures", "search.yaml"],
        ["report", "search.yaml"],
        ["tune", "search.yaml"],
    ):
        told = world.harness(*words, "--storage", STORAGE)
        assert told.code == 2 and "postgresql://127.0.0.1:1/studies" in told.text, told
    assert [path for path in world.files() if leaks(path.read_bytes())] == []


def load_sweep_in(world: World, file: str) -> list[str]:
    """The run ids of a sweep of the world, whose paths start there."""
    before = Path.cwd()
    os.chdir(world.folder)
    try:
        return list(load_sweep(file).runs)
    finally:
        os.chdir(before)
