"""What the documentation says to type works, what it names exists, and the figures that it quotes are on record.

The info string of a fence is its language with marks: `run` (commands that are run as they stand), `file=PATH` (a file
that the page makes; with `diff`, a change to one), `in=PATH` (a part of a file, quoted).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.launch.plan import make_plan
from harness.record.atomic import read_jsonl
from harness.spec.sweep import load_sweep

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "results/*/README.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)

_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ROOM = r"(?:harness|tests|sweeps|docs|benchmarks|results/reference|results/published)"
_NAMED = re.compile(rf"(?<![\w/.+-])({_ROOM}/[\w./-]*\w\.(?:py|yaml|md|json|csv|png))(?:::(\w+))?")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    marks: tuple[str, ...]
    text: str

    def marked(self, name: str) -> str | None:
        """The value of `name=VALUE` among the marks."""
        return next((mark.split("=", 1)[1] for mark in self.marks if mark.startswith(f"{name}=")), None)

    @property
    def commands(self) -> list[str]:
        """The lines that call the harness."""
        return [line.strip() for line in self.text.splitlines() if line.strip().startswith("harness ")]


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str) -> list[Block]:
    return [Block(found[1], tuple(found[2].split()), found[3]) for found in _FENCE.finditer(text_of(page))]


def commands(page: str) -> list[str]:
    """Every line that calls the harness, in a fence of commands or indented as code."""
    fenced = [line for block in blocks(page) if block.language in ("sh", "console") for line in block.commands]
    return fenced + re.findall(r"^    (harness .*)$", _FENCE.sub("", text_of(page)), re.MULTILINE)


def links(page: str) -> Iterator[Path]:
    """Files that a page links to."""
    for target in _LINK.findall(_FENCE.sub("", text_of(page))):
        if not re.match(r"[a-z]+:|#", target):
            yield ROOT / Path(page).parent / target.split("#")[0]


def named_files(page: str) -> Iterator[tuple[str, str | None]]:
    """Paths from the root that a page names, each with the test behind `::`; not what its commands write."""
    made = {block.marked("file") for block in blocks(page)}
    written = set(re.findall(r"--out ([\w./-]+)", text_of(page)))
    for path, test in _NAMED.findall(text_of(page)):
        if path not in made | written:
            yield path, test or None


PLANNED = re.compile(r"^(\d+) runs?\b")
STEP_JSON = ROOT / "results" / "reference" / "cpu" / "grpo_step.json"


def split(command: str) -> tuple[list[str], str]:
    """The arguments behind `harness`, and the comment."""
    line, _, comment = command.partition("#")
    return shlex.split(line)[1:], comment.strip()


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page: str) -> None:
    assert [str(path) for path in links(page) if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page: str) -> None:
    for path, test in named_files(page):
        assert (ROOT / path).exists(), path
        assert test is None or f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_is_one(page: str) -> None:
    """The verb and its options exist; a sweep of the repository can be planned with the overrides given."""
    for command in commands(page):
        arguments, comment = split(command)
        verb, context = get_command(app), None
        rest = arguments
        while hasattr(verb, "resolve_command"):
            context = verb.make_context(verb.name, [], parent=context, resilient_parsing=True)
            _, verb, rest = verb.resolve_command(context, rest)
        parameters = verb.make_context(verb.name, list(rest), parent=context).params
        file = str(parameters.get("sweep") or "")
        if not (ROOT / file).is_file():
            assert not file.startswith("sweeps/"), f"{command}: no such sweep"
            continue
        sweep = load_sweep(ROOT / file, parameters.get("overrides") or ())
        expected = PLANNED.match(comment)
        assert expected is None or len(sweep.runs) == int(expected[1]), command


def run_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Makes a page's files and changes, then runs its commands in order; what each printed."""
    for name in ("sweeps", "results/reference", "results/published"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    changes = [block for block in blocks(page) if (block.marked("file") or "").startswith("harness/")]
    source = folder if changes else ROOT
    if changes:
        shutil.copytree(ROOT / "harness", folder / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(page):
        if (made := block.marked("file")) is None:
            continue
        file = folder / made
        file.write_text(changed(file.read_text(), block.text, made) if block.language == "diff" else block.text)
    monkeypatch.chdir(folder)
    printed = {}
    for block in blocks(page):
        for command in block.commands if "run" in block.marks else ():
            arguments, comment = split(command)
            if arguments[0] == "plan":
                arguments.append("--json")
            in_process = source == ROOT and arguments[0] != "run"
            printed[command] = invoke(arguments) if in_process else call(arguments, source)
            if arguments[0] == "plan" and (expected := PLANNED.match(comment)):
                assert json.loads(printed[command])["num_runs"] == int(expected[1]), command
    return printed


def changed(text: str, change: str, name: str) -> str:
    """A text with a change, whose lines begin with a blank, '+' or '-', made in the one place where it fits."""
    lines = change.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    assert text.count(before) == 1, f"{name} has {text.count(before)} places for\n{before}"
    return text.replace(before, after)


def invoke(arguments: list[str]) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, (arguments, result.output)
    return result.stdout


def call(arguments: list[str], source: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def test_commands_of_the_page_on_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run_page("docs/sweeps.md", tmp_path, monkeypatch)
    files = [name for block in blocks("docs/sweeps.md") if (name := block.marked("file")) is not None]
    for name in files:
        assert any(name in command for command in printed), f"{name} is planned by no command of the page"
        sweep = load_sweep(tmp_path / name)
        assert {run.status for run in make_plan(sweep, tmp_path / "none").runs} == {"pending"}


@pytest.mark.slow
def test_commands_of_the_page_on_reproducing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run_page("docs/reproduce.md", tmp_path, monkeypatch)
    [table] = [text for command, text in printed.items() if " tables " in command]
    assert re.search(r"^sft +\d+\.\d +1$", table, re.MULTILINE), table


@pytest.mark.slow
def test_what_the_page_on_extending_adds_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run_page("docs/extending.md", tmp_path, monkeypatch)
    scored = next(text for command, text in printed.items() if " score " in command)
    assert scored.startswith("whole_word: 1/2 correct")
    metrics = {folder.name.split("-")[0]: folder for folder in (tmp_path / "results" / "runs").iterdir()}
    assert metrics.keys() == {"focal_sft", "grpo_d"}
    held = [row["train/beta"] for row in read_jsonl(metrics["grpo_d"] / "metrics.jsonl") if "train/beta" in row]
    assert held == [0.01, 0.1]
    focal = [row for row in read_jsonl(metrics["focal_sft"] / "metrics.jsonl") if "train/focal_weight" in row]
    assert len(focal) == 2 and all(0 < row["train/focal_weight"] < 1 for row in focal)
    answers = read_jsonl(metrics["grpo_d"] / "eval" / "dots.jsonl")
    assert [answer["id"] for answer in answers] == ["dots/test/0", "dots/test/1"]
    assert {answer["protocol"] for answer in answers} == {"whole_word"}


@pytest.mark.parametrize("page", PAGES)
def test_quoted_code_is_the_codes(page: str) -> None:
    for block in blocks(page):
        if (name := block.marked("in")) is not None:
            assert block.text in (ROOT / name).read_text(), name


def test_a_change_without_its_place_is_found() -> None:
    assert changed("a\nb\nc\n", " a\n-b\n+d\n", "x") == "a\nd\nc\n"
    with pytest.raises(AssertionError, match="x has 0 places"):
        changed("a\n", " b\n+c\n", "x")


def test_a_wrong_option_and_a_wrong_override_would_be_found() -> None:
    verb = get_command(app).commands["plan"]  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="No such option"):
        verb.make_context("plan", ["sweeps/quickstart.yaml", "--overides", "x=1"])
    with pytest.raises(UserError, match="num_step"):
        load_sweep(ROOT / "sweeps" / "quickstart.yaml", ["num_step=3"])


def step_rows(measured: Mapping[str, Any]) -> list[str]:
    """The lines of a table of steps, as pages quote them."""
    lines = []
    for row in measured["results"]:
        ours, peer = row["ours"], row["trl"]
        ratio = row.get("step_speedup", row.get("speedup"))
        rounds = row.get("step_speedup_rounds", row.get("speedup_rounds"))
        lines.append(
            f"| {row['num_prompts']} | {ours['step_s']:.3f} | {peer['step_s']:.3f} "
            f"| {ratio:.1f} ({min(rounds):.1f} to {max(rounds):.1f}) "
            f"| {ours['peak_gib']:.2f} / {peer['peak_gib']:.2f} |"
        )
    return lines


@pytest.mark.parametrize("page", ["README.md", "docs/fast_step.md"])
def test_the_quoted_steps_are_those_measured(page: str) -> None:
    measured = json.loads(STEP_JSON.read_text())
    expected = step_rows(measured)
    quoted = [line for line in text_of(page).splitlines() if re.match(r"\| \d+ \| \d+\.\d{3} \|", line)]
    assert quoted == expected, "the lines should be\n" + "\n".join(expected)


@pytest.mark.parametrize(
    "name", ["tune_paper_mini", "paper_mini", "ablation_alpha", "ablation_beta", "ablation_schedule"]
)
def test_the_quoted_times_are_those_on_record(name: str) -> None:
    about = json.loads((ROOT / "results" / "reference" / "cpu" / name / "about.json").read_text())
    quoted = re.search(rf"^\| {name}\b[^|]*\| (\d+) \| (\d+) \|$", text_of("docs/reproduce.md"), re.MULTILINE)
    assert quoted is not None
    assert (int(quoted[1]), float(quoted[2])) == (about["num_completed"], about["worker_s"])


@pytest.mark.slow
def test_no_two_prompts_of_the_embedded_policy_share_a_row(single_thread: None) -> None:
    """What the log says of packing: nothing is gained where groups are alike in length."""
    from harness.policy import load_policy
    from harness.policy.packing import pack
    from harness.spec import RunSpec
    from harness.tasks.base import load_task
    from harness.train.grpo import Grpo
    from harness.train.processes import Processes

    spec = RunSpec(method={"type": "grpo", "prompts_per_step": 16}, source="counting", seed=0)
    method = Grpo(spec, load_policy("embedded"), load_task("counting"), Processes("cpu"))
    for step in range(6):
        batch = method.collect(step)
        packing = pack(batch.prompts, batch.ids, batch.lengths)
        assert len(packing.ids) == 16
        assert 0.86 < float((packing.segments[0] >= 0).float().mean()) < 0.94
