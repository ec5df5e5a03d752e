"""How long do plan, status, results and an idle run take with ten thousand runs?

``python -m benchmarks.scale --out results/reference/cpu/scale.json``, from the root of the repository. One real run is
the template of every other: its files are hard links, but for the records that name a run, which are written anew, and
the evaluations, of which there are a few with verdicts of their own. Times are those of whole commands on a terminal,
start of the process included. `cold` is without an index, with the files in the system's cache; `warm` with one. Beside
the seconds on the clock stand those of the processor, which a busy machine stretches less.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pty
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from harness.record.atomic import encode_jsonl, read_json, read_jsonl, write_json
from harness.record.folder import RunFolder, run_folders
from harness.record.provenance import provenance
from harness.record.remembered import INDEX, MARGIN_NS
from harness.spec.sweep import Sweep, load_sweep

ROOT = Path(__file__).parents[1]
TARGETS = ("counting", "geometry")
NUM_EXAMPLES = 200
NUM_VARIANTS = 32
CELLS = 100
"""Methods, sources and learning rates; the seeds make the number of runs."""
SWEEP = """\
name: {name}
base: {{num_train: {num_train}}}
axes:
  method:
    - sft
    - grpo
    - {{type: grpo_d, schedule: othink}}
    - {{type: grpo_d, schedule: linear}}
    - {{type: grpo_d, schedule: cosine}}
  source: [counting, geometry]
  lr: [1.0e-5, 2.0e-5, 3.0e-5, 5.0e-5, 1.0e-4, 2.0e-4, 3.0e-4, 5.0e-4, 1.0e-3, 2.0e-3]
  seed: {seeds}
targets: [counting, geometry]
evaluation: {{num_examples: 200}}
"""
TEMPLATE = """\
name: template
base: {num_steps: 20}
axes: {method: [grpo_d], source: [counting], seed: [0]}
targets: [counting, geometry]
evaluation: {num_examples: 200}
"""

FRAME = """
import sys, harness

number, *arguments = sys.argv[1:]
assert len(harness.load_results(*arguments)) == 2 * int(number)
"""


class Variant(NamedTuple):
    """One set of verdicts on a target: its file, and what a summary says of it."""

    file: Path
    counted: dict[str, Any]
    noted: dict[str, Any]


def write_sweep(path: Path, num_runs: int, num_train: int = 400) -> Sweep:
    """A sweep file of so many runs, in hundreds."""
    seeds = list(range(num_runs // CELLS))
    path.write_text(SWEEP.format(name=path.stem, seeds=seeds, num_train=num_train))
    return load_sweep(path)


def real_run(folder: Path) -> Path:
    """Trains and evaluates one run; its folder."""
    sweep = folder / "template.yaml"
    sweep.write_text(TEMPLATE)
    command = [sys.executable, "-m", "harness", "run", str(sweep), "--results", str(folder / "template"), "--no-wandb"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return run_folders(folder / "template")[0].path


def variants(template: Path, place: Path) -> dict[str, list[Variant]]:
    """By target, evaluations like the template's with other verdicts."""
    summary, rng = read_json(template / "summary.json"), random.Random(0)
    place.mkdir(parents=True)
    made: dict[str, list[Variant]] = {}
    for target in TARGETS:
        rows, counted = read_jsonl(template / "eval" / f"{target}.jsonl"), summary["evaluations"][target]
        for number in range(NUM_VARIANTS):
            mine = [row | {"correct": rng.random() < 0.3 + number / 100} for row in rows]
            content = encode_jsonl(mine)
            file = place / f"{target}-{number}.jsonl"
            file.write_bytes(content)
            num_correct = sum(row["correct"] for row in mine)
            made.setdefault(target, []).append(
                Variant(
                    file,
                    counted | {"num_correct": num_correct, "accuracy": num_correct / len(mine)},
                    {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
                )
            )
    return made


def link(source: Path, place: Path) -> None:
    """The same file under another name; a copy where the file system has no second names."""
    try:
        os.link(source, place)
    except OSError:
        shutil.copy2(source, place)


def finish(sweep: Sweep, results: Path, template: Path, made: Mapping[str, Sequence[Variant]]) -> None:
    """Makes the folder of each run of a sweep as if it had been trained."""
    records = {name: read_json(template / name) for name in ("run.json", "job.json", "state.json", "summary.json")}
    written = {*records, *(f"eval/{target}.jsonl" for target in TARGETS)}
    files = [path.relative_to(template) for path in template.rglob("*") if path.is_file()]
    shared = [path for path in files if path.as_posix() not in written and path.parts[0] != "checkpoint"]
    for number, run in enumerate(sweep.runs.values()):
        folder = RunFolder(results, run.run_id)
        for parent in {path.parent for path in (*files, Path("eval/any"))}:
            (folder.path / parent).mkdir(parents=True, exist_ok=True)
        for path in shared:
            link(template / path, folder.path / path)
        spec = run.spec.model_dump(mode="json")
        mine = {target: of[(number * 7 + n) % len(of)] for n, (target, of) in enumerate(made.items())}
        job = records["run.json"]["job"] | {"sweep": sweep.name, "results": str(results)}
        told = {
            folder.run_json: records["run.json"] | {"run_id": run.run_id, "spec": spec, "job": job},
            folder.job_json: records["job.json"] | {"spec": spec, "sweep": sweep.name, "results": str(results)},
            folder.state_json: records["state.json"],
            folder.summary: records["summary.json"]
            | {
                "run_id": run.run_id,
                "method": run.spec.method.type,
                "source": run.spec.source,
                "seed": run.spec.seed,
                "evaluations": {target: variant.counted for target, variant in mine.items()},
                "files": {f"eval/{target}.jsonl": variant.noted for target, variant in mine.items()},
            },
        }
        for path, record in told.items():
            path.write_text(json.dumps(record) + "\n")
        for target, variant in mine.items():
            link(variant.file, folder.evaluation(target))


def commands(sweep: Path, results: Path, empty: Path) -> dict[str, list[str]]:
    """What is timed."""
    harness = [sys.executable, "-m", "harness"]
    number = str(sum(1 for _ in (results / "runs").iterdir()))
    of_python = [sys.executable, "-c", FRAME, number, str(results)]
    return {
        "plan, nothing done": [*harness, "plan", str(sweep), "--results", str(empty)],
        "plan, all done": [*harness, "plan", str(sweep), "--results", str(results)],
        "status SWEEP --once": [*harness, "status", str(sweep), "--once", "--results", str(results)],
        "load_results of a sweep": [*of_python, str(sweep)],
        "load_results of all runs": of_python,
        "run, nothing to do": [*harness, "run", str(sweep), "--results", str(results), "--no-wandb"],
    }


@contextmanager
def terminal() -> Iterator[int]:
    """A pseudo-terminal that somebody reads: what is printed for people may take longer than what goes to a file."""
    parent, child = pty.openpty()

    def read() -> None:
        with suppress(OSError):  # which is how a terminal says that nobody writes to it any more
            while os.read(parent, 1 << 16):
                pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield child
    finally:
        os.close(child)
        reader.join()
        os.close(parent)


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Seconds of a command on a terminal, which has to succeed: on the clock, and of the processor."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, every command would compile the package anew
    started, before = time.perf_counter(), os.times()
    with terminal() as out:
        done = subprocess.run(
            command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, env=environment, check=False
        )
    elapsed, after = time.perf_counter() - started, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))
    return elapsed, used


def measure(command: Sequence[str], index: Path, num_cold: int, num_warm: int) -> dict[str, list[float]]:
    """Seconds of a command without an index and with one, on the clock and of the processor."""
    cold = []
    for _ in range(num_cold):
        shutil.rmtree(index, ignore_errors=True)
        cold.append(timed(command))
    if not cold:
        timed(command)
    warm = [timed(command) for _ in range(num_warm)]
    seconds = {"cold": cold, "warm": warm}
    return {
        f"{name}_{kind}s": [round(pair[n], 3) for pair in pairs]
        for name, pairs in seconds.items()
        for n, kind in enumerate(("", "cpu_"))
    }


def line(name: str, seconds: Mapping[str, Sequence[float]]) -> str:
    """Medians, those of the processor in brackets."""
    median = {key: f"{statistics.median(values):.2f}" if values else "-" for key, values in seconds.items()}
    parts = (f"{kind} {median[f'{kind}_s']:>7} s ({median[f'{kind}_cpu_s']})" for kind in ("cold", "warm"))
    return f"{name:<26} " + "   ".join(parts)


def main() -> None:
    """Makes the runs, measures, prints a table, and keeps the numbers where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="a multiple of 100")
    parser.add_argument("--cold", type=int, default=3, help="repeats without an index")
    parser.add_argument("--warm", type=int, default=5, help="repeats with one")
    parser.add_argument("--template", type=Path, help="a completed run's folder; without it, one is trained")
    parser.add_argument("--folder", type=Path, help="where to make the runs; a temporary folder where not given")
    parser.add_argument("--only", nargs="+", default=[], help="beginnings of the commands to measure")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        place = Path(temporary)
        template = arguments.template or real_run(place)
        results, path = place / "results", place / "scale.yaml"
        sweep = write_sweep(path, arguments.runs)
        started = time.perf_counter()
        finish(sweep, results, template, variants(template, place / "variants"))
        print(f"{len(sweep.runs)} runs made in {time.perf_counter() - started:.1f} s", flush=True)
        os.sync()  # what is written back later would be measured too
        time.sleep(2 * MARGIN_NS / 1e9)  # what is younger than the margin is not indexed
        rows = []
        for name, command in commands(path, results, place / "empty").items():
            if arguments.only and not name.startswith(tuple(arguments.only)):
                continue
            seconds = measure(command, results / INDEX, arguments.cold, arguments.warm)
            print(line(name, seconds), flush=True)
            rows.append({"command": name, **seconds})
        size = sum(file.stat().st_size for file in (results / INDEX).glob("*.json"))
        print(f"index: {size / 1e6:.1f} MB", flush=True)
    if arguments.out is not None:
        record = {
            "benchmark": "scale",
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "num_runs": len(sweep.runs),
            "num_targets": len(TARGETS),
            "num_examples": NUM_EXAMPLES,
            "index_bytes": size,
            "provenance": provenance(),
            "results": rows,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, record)


if __name__ == "__main__":
    main()
