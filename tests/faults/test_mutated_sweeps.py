"""Whatever a sweep file holds, it is planned or refused with one sentence: quickly, with little memory, and the same
way again.
"""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sweep_mutations import mutants, mutated_options
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import SpecError, UserError, printable
from harness.launch.plan import make_plan
from harness.spec.expand import MAX_CELLS
from harness.spec.sweep import load_sweep
from harness.spec.yaml_places import MAX_BYTES, MAX_DEPTH

SHIPPED = sorted(Path(__file__).parents[2].joinpath("sweeps").glob("*.yaml"))
LONGEST_SENTENCE = 400
"""Characters; paths of the file come on top."""
MOST_S = 5.0
"""CPU time for one file, of which the largest that is planned takes most."""
HANGS_S = 60
MOST_MIB = 400
"""That reading any number of files may add to the process."""

OWN: dict[str, str] = {
    "searched": """\
name: searched
base: {source: counting, num_steps: 5}
axes:
  method: [base, sft, grpo_d]
  seed: [7]
blocks:
  - where: {method: grpo_d}
    set: {group_size: 4}
  - where: {method: sft}
    ablate: {target: [answer_only, reasoning]}
study:
  per: [method]
  space:
    lr: {low: 1e-5, high: 1e-3, log: true}
    schedule: [constant, othink]
    explore_frac: {low: 0.1, high: 0.9, step: 0.2, where: {schedule: othink}}
  sampler: {type: tpe, seed: 3}
  pruner: median
  num_trials: 4
  timeout_s: 60.5
  objectives: [same_task]
  first: [{lr: 1e-4, schedule: othink}]
targets: [counting]
evaluation: {num_examples: 4, splits: [validation], num_validation: 4}
execution: {device: cpu, micro_batch_tokens: 512}
executor: {type: local, slots: 2}
""",
    "gridded": """\
name: gridded
axes: {method: [grpo], source: [counting, geometry]}
study:
  space: {beta: [0, 0.1], group_size: {low: 2, high: 8, step: 2}}
  sampler: grid
targets: [geometry, counting]
claims:
  - name: beta_matters
    says: Some beta is better than none
    better: {beta: 0.1, group_size: 4}
    than: {beta: 0, group_size: 4}
    on: cross_task
    where: {source: counting, target: geometry}
    metric: format
    published: 0.2
    reference: Table 9
""",
    "schedules": """\
name: schedules
description: Mappings on axes, short and long names, ablations.
base:
  model: embedded
  num_train: 20
  method: {num_steps: 3, prompts_per_step: 2}
axes:
  method: [grpo, grpo_d, {type: sft, lr: 1e-4}]
  source: [counting]
  schedule: [constant, {type: linear, beta_max: 0.1}, {type: adaptive, target_kl: 0.1}]
  seed: [0, 1]
blocks:
  - {where: {method: grpo_d, schedule: [linear]}, set: {beta_min: 0.01}, axes: {temperature: [0.7, 1.0]}}
  - {where: {method: grpo, seed: 0}, ablate: {clip_epsilon: [0.1, 0.3], lora_rank: [4]}}
targets: [counting, charts]
evaluation: {num_examples: 2, every: 1, num_validation: 2, max_new_tokens: 8}
execution: {devices: 1, sharding: none, gradient_checkpointing: true, reference: offload}
executor: {type: slurm, slots: 4, partition: gpu, memory_gib: 3.5, time_min: 60, grace_s: 60}
""",
    "own_data": """\
name: own_data
axes: {method: [base, sft], source: [rows.jsonl, task.yaml], seed: [0]}
targets: [rows.jsonl, task.yaml, counting]
""",
    "small": "{name: small, axes: {method: [base]}, targets: [counting]}\n",
}
TASK_FILE = "name: mine\nprotocol: r1v_counting\ntrain: rows.jsonl\ntest: {hub: owner/name, split: test}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with rows and a task file in it."""
    monkeypatch.chdir(tmp_path)
    row = '{"image": "a.png", "problem": "How many?", "solution": "<answer> 3 </answer>"}\n'
    (tmp_path / "rows.jsonl").write_text(row * 12)
    (tmp_path / "task.yaml").write_text(TASK_FILE)
    return tmp_path


@pytest.fixture
def texts() -> dict[str, str]:
    """What is mutated: every shipped sweep without its comments, and files with all that those lack."""
    return {file.stem: re.sub(r"(?m)^ *#.*\n", "", file.read_text()) for file in SHIPPED} | OWN


def peak_mib() -> float:
    """The most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Fails where the block takes longer than it may; one that never ends is ended."""

    def hangs(*_: Any) -> None:
        raise AssertionError(f"{what}: not done after {HANGS_S} s")

    before, started = signal.signal(signal.SIGALRM, hangs), time.process_time()
    signal.alarm(HANGS_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert time.process_time() - started < MOST_S, what


def planned(file: Path, options: Sequence[str] = ()) -> list[str] | None:
    """The run ids of a plan; None where the file is refused, which is done in one sentence."""
    try:
        sweep = load_sweep(file, options)
        plan = make_plan(sweep, "results")
    except UserError as error:
        sentence = str(error)
        assert sentence.isprintable()
        assert len(sentence) <= LONGEST_SENTENCE + len(str(file)), sentence
        assert sentence.startswith((f"{file}:", *(printable(f"--set {option[:10]}") for option in options))), sentence
        assert "object at 0x" not in sentence and "Traceback" not in sentence, sentence
        return None
    assert plan.num_runs == len(sweep.runs) <= MAX_CELLS
    return [run.run_id for run in plan.runs]


def planned_or_refused(file: Path, what: str, options: Sequence[str] = ()) -> bool:
    """Whether a file is planned, twice the same."""
    with bounded(what):
        try:
            first = planned(file, options)
            again = first if first is None else planned(file, options)
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert first == again, what
    return first is not None


def all_planned_or_refused(folder: Path, texts: dict[str, str], count: int, seed: int) -> float:
    """The share of mutated files that are planned."""
    file, before = folder / "mutant.yaml", peak_mib()
    plans = 0
    for what, content in mutants(texts, count, seed):
        file.write_bytes(content)
        plans += planned_or_refused(file, what)
    assert peak_mib() - before < MOST_MIB
    assert not (folder / "canary").exists()
    assert not (folder / "results").exists()
    return plans / count


def refused(folder: Path, text: str | bytes, *options: str) -> str:
    """What a file is refused with; within the bounds."""
    file = folder / "wrong.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with bounded(str(text[:50])), pytest.raises(SpecError) as caught:
        load_sweep(file, options)
    assert str(caught.value).isprintable()
    return str(caught.value).replace(f"{folder}/", "")


def test_unchanged_files_are_planned(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / "same.yaml").write_text(text)
        assert planned(folder / "same.yaml"), name


def test_some_mutated_sweeps_are_planned_or_refused(folder: Path, texts: dict[str, str]) -> None:
    share = all_planned_or_refused(folder, texts, 300, seed=0)
    assert 0.02 < share < 0.5  # the mutations are neither harmless nor all deadly


@pytest.mark.slow
def test_five_thousand_mutated_sweeps_are_planned_or_refused(folder: Path, texts: dict[str, str]) -> None:
    all_planned_or_refused(folder, texts, 5000, seed=1)


def test_mutated_options_are_planned_or_refused(folder: Path, texts: dict[str, str]) -> None:
    files = [folder / f"{name}.yaml" for name in ("quickstart", "searched", "small")]
    for file in files:
        file.write_text(texts[file.stem])
    for number, options in enumerate(mutated_options(400, seed=2)):
        planned_or_refused(files[number % len(files)], f"{number}: {options}", options)
    assert not (folder / "canary").exists()


def test_mutated_task_files_are_read_or_refused(folder: Path) -> None:
    sweep = folder / "sweep.yaml"
    sweep.write_text("{name: own, axes: {method: [sft], source: [task.yaml]}, targets: [task.yaml]}\n")
    for what, content in mutants({"task": TASK_FILE}, 300, seed=3):
        (folder / "task.yaml").write_bytes(content)
        planned_or_refused(sweep, what)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "name: x\naxes: !!python/object/apply:os.system ['touch canary']\n",
            "wrong.yaml:2: not YAML: the tag !!python",
        ),
        ("name: x\naxes: {seed: [!!timestamp 2024-01-01]}\n", "wrong.yaml:2: not YAML: the tag !!timestamp is not"),
        ("name: !!int x\n", "wrong.yaml:1: 'x' cannot be read as int"),
        ("name: !!bool maybe\n", "wrong.yaml:1: 'maybe' cannot be read as bool"),
        (f"name: {'9' * 5000}\n", "wrong.yaml:1: '99999"),
        ("base: &a {x: [*a]}\n", "wrong.yaml:1: a value contains itself"),
        ("name: x\n\nbase: " + "[" * 100_000, f"wrong.yaml:3: not YAML: more than {MAX_DEPTH} levels"),
        ("name: x\x00y\n", "wrong.yaml:1: not YAML: the character U+0000"),
        (b"name: x\n\xff\n", "wrong.yaml:2: not UTF-8 text: byte 8 cannot be read"),
        ("name: x\n" + "#" * MAX_BYTES, f"wrong.yaml: more than {MAX_BYTES:,} bytes"),
        ('name: "a\\nb"\n', "wrong.yaml:1: the sweep has no 'axes'"),
        ('{"na\\nme": x}\n', "wrong.yaml:1: unknown key 'na\\nme' in a sweep: did you mean 'name'?"),
    ],
)
def test_what_yaml_can_do_to_a_reader(folder: Path, text: str | bytes, sentence: str) -> None:
    assert refused(folder, text).startswith(sentence)
    assert not (folder / "canary").exists()


def test_a_billion_laughs_are_not_laughed(folder: Path) -> None:
    lines = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12)]
    assert "values, with all that aliases stand for" in refused(folder, "l0: &l0 [ha, ha]\n" + "".join(lines))


SEEDS, STEPS = f"seed: {list(range(400))}", f"num_steps: {list(range(1, 401))}"
HEAD = "name: large\ntargets: [counting, geometry]\n"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (f"axes: {{method: [sft], source: [counting], {SEEDS}, {STEPS}}}\n", "160,000"),
        (
            "axes: {method: [sft], source: [counting]}\n"
            f"blocks: [{{where: {{method: sft}}, axes: {{{SEEDS}, {STEPS}}}}}]\n",
            "160,000",
        ),
        (
            f"axes: {{method: [sft], source: [counting], {SEEDS}}}\n"
            f"blocks: [{{where: {{method: sft}}, ablate: {{{STEPS}}}}}]\n",
            "160,400",
        ),
        (
            "axes: {method: [grpo], source: [counting]}\n"
            "study: {sampler: grid, space: {beta: {low: 0, high: 1, step: 1.0e-6}}}\n",
            "1,000,001",
        ),
        (
            "axes: {method: [grpo], source: [counting]}\n"
            "study: {sampler: grid, space: {num_train: {low: 1, high: 1000000000000000000}}}\n",
            "about 10^18",
        ),
    ],
)  # fmt: skip
def test_a_grid_that_nobody_could_run_is_refused_before_it_is_made(folder: Path, text: str, number: str) -> None:
    before = peak_mib()
    sentence = refused(folder, HEAD + text)
    assert f"the axes make {number} cells, and {MAX_CELLS:,} is the most" in sentence
    assert peak_mib() - before < 100


def test_a_large_axis_and_range_without_many_cells_are_fine(folder: Path) -> None:
    file = folder / "wide.yaml"
    file.write_text(
        f"{HEAD}base: {{source: counting, seed: 0}}\naxes: {{method: [sft], num_steps: {list(range(1, 1001))}}}\n"
        "study: {num_trials: 2, space: {num_train: {low: 1, high: 1000000000}}}\n"
    )
    with bounded("wide"):
        assert len(load_sweep(file).searches) == 1


def test_the_command_says_the_same_in_one_line(folder: Path) -> None:
    files: dict[str, str | bytes] = {
        "bomb": "a: &a [x, x]\nb: &b [*a, *a]\nname: [*b]\n",
        "tag": "name: !!python/object/apply:os.system ['touch canary']\n",
        "bytes": b"name: \xff\xfe\n",
        "control": '{"\\x1b[2J": 1}\n',
        "large": f"{HEAD}axes: {{method: [sft], source: [counting], {SEEDS}, {STEPS}}}\n",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).with_suffix(".yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    arguments = [[f"{name}.yaml"] for name in files]
    arguments += [
        ["a\nb.yaml"],
        ["x" * 300 + ".yaml"],
        ["."],
        ["bomb.yaml", "--set", "a\nb=1"],
        ["bomb.yaml", "--set", "="],
    ]
    for words in arguments:
        done = CliRunner().invoke(app, ["plan", *words], catch_exceptions=False)
        lines = done.stderr.splitlines()
        assert (done.exit_code, done.stdout, len(lines)) == (2, "", 1), (words, done.stderr)
        assert lines[0].isprintable() and len(lines[0]) < LONGEST_SENTENCE + 300
    for words in (["tag.yaml"], ["large.yaml", "--set", "lr=!!binary x"]):
        command = [sys.executable, "-m", "harness", "plan", *words]
        real = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (real.returncode, real.stdout, len(real.stderr.splitlines())) == (2, "", 1), real.stderr
    assert not (folder / "canary").exists() and not (folder / "results").exists()
