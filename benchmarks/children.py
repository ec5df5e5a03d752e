"""What the drivers share: measurements as processes of their own, so that memory peaks are apart, and the record."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.workload import WORKLOADS, Case, Workload
from harness.record.atomic import write_json
from harness.record.provenance import provenance

ROOT = Path(__file__).parents[1]
NO_GPU = "CUDA rows: not measured here (no GPU)"


def run(arguments: Sequence[str], device: str, num_threads: int, python: str = sys.executable) -> str:
    """A module of this package in a child process.

    Args:
        arguments: The module's name, then its arguments.
        device: `cpu` hides every GPU from it, `cuda` all but one.
        num_threads: CPU threads.
        python: The interpreter.

    Returns:
        The last line of its standard output.

    Raises:
        RuntimeError: It failed; its last lines are in the message.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": str(num_threads),
        "MKL_NUM_THREADS": str(num_threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    else:
        # One GPU: with several in sight TRL would spread over them.
        environment.setdefault("CUDA_VISIBLE_DEVICES", "0")
    command = [python, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))
    return done.stdout.splitlines()[-1] if done.stdout else ""


def measure(case: Case, python: str = sys.executable) -> dict[str, Any]:
    """One measurement of one side."""
    line = run(["benchmarks.one_side", json.dumps(asdict(case))], case.about.device, case.num_threads, python)
    result: dict[str, Any] = json.loads(line)
    return result


def phases(case: Case, limits: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """The harness's phases beside their limits."""
    told = json.dumps({"case": asdict(case), "limits": limits, "repeats": repeats})
    result: dict[str, Any] = json.loads(run(["benchmarks.phases", told], case.about.device, case.num_threads))
    return result


def ceilings(about: Workload, num_threads: int) -> dict[str, Any]:
    """What the workload's device reaches at most."""
    flags = ["--device", about.device, "--precision", about.precision, "--num-threads", str(num_threads)]
    result: dict[str, Any] = json.loads(run(["benchmarks.ceilings", *flags], about.device, num_threads))
    return result


def model_of(about: Workload, models: Path, num_threads: int) -> str:
    """The workload's model: the embedded policy, or a folder of random weights, made where it is missing."""
    if about.scale is None:
        return "embedded"
    folder = models / about.scale
    if not (folder / "config.json").is_file():
        flags = ["--scale", about.scale, "--out", str(folder), "--device", about.device]
        run(["benchmarks.random_weights", *flags], about.device, num_threads)
    return str(folder)


def is_measurable(about: Workload) -> bool:
    """Whether the workload's device is here."""
    import torch

    return about.device != "cuda" or torch.cuda.is_available()


def add_options(parser: argparse.ArgumentParser) -> None:
    """What :func:`measure_all` asks for."""
    parser.add_argument("--workloads", choices=tuple(WORKLOADS), nargs="+", default=["embedded", "qwen2_vl_2b"])
    parser.add_argument("--prompts", type=int, nargs="+", help="prompts per step, in place of the workload's")
    parser.add_argument("--num-threads", type=int, default=os.cpu_count())
    parser.add_argument("--models", type=Path, help="where to keep random weights; a temporary folder where not given")
    parser.add_argument("--out", type=Path, help="JSON file to write")


def measure_all(
    arguments: argparse.Namespace,
    benchmark: str,
    settings: Sequence[str],
    one: Callable[[Workload, int, str, Mapping[str, Any]], dict[str, Any]],
) -> None:
    """Measures every workload whose device is here, at each number of prompts, and writes a record where asked to.

    Args:
        arguments: As :func:`add_options` and the script have them.
        benchmark: What is measured.
        settings: Those of the arguments that belong on record.
        one: Makes a row of a workload, prompts per step, a model, and what the machine reaches.
    """
    rows: list[dict[str, Any]] = []
    limits: dict[str, Any] = {}
    unmeasured = []
    with tempfile.TemporaryDirectory() as temporary:
        for about in (WORKLOADS[name] for name in arguments.workloads):
            if not is_measurable(about):
                print(NO_GPU, flush=True)
                unmeasured.append(about.name)
                continue
            model = model_of(about, arguments.models or Path(temporary), arguments.num_threads)
            limits[about.name] = ceilings(about, arguments.num_threads)
            for num_prompts in arguments.prompts or about.num_prompts:
                found = one(about, num_prompts, model, limits[about.name])
                rows.append({"workload": about.name, "device": about.device, "num_prompts": num_prompts, **found})
    if arguments.out is None or not rows:
        return
    record = {
        "benchmark": benchmark,
        "date": datetime.now(UTC).date().isoformat(),
        "settings": {key: getattr(arguments, key) for key in settings},
        "ceilings": limits,
        "results": rows,
        "unmeasured": unmeasured,
        "provenance": provenance(),
    }
    write_json(arguments.out, record)
    print(f"written to {arguments.out}")
