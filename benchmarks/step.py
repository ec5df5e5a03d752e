"""How fast is a training step, and are sampling and update within it, beside TRL's, on this machine?

``python -m benchmarks.step --method grpo --out results/reference/cpu/grpo_step.json``, from the root of the repository.
Each measurement is a process of its own; both sides take turns, so that a busy moment of the machine meets both. See
`README.md` for what is the same on both sides and what is not.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import children
from benchmarks.summary import ratios, summarise, table
from benchmarks.workload import WORKLOADS, Case, Side, Workload


def compare(
    about: Workload, num_prompts: int, model: str, limits: Any, arguments: argparse.Namespace
) -> dict[str, Any]:
    """All rounds at one number of prompts; the sides take turns in starting a round."""
    sides: list[Side] = ["ours"] if arguments.peer == "none" else ["ours", "trl"]
    measurements: dict[Side, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(arguments.rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            case = Case(
                side=side,
                method=arguments.method,
                workload=about.name,
                model=model,
                num_prompts=num_prompts,
                num_steps=arguments.warmup + arguments.steps,
                num_threads=arguments.num_threads,
            )
            python = sys.executable if side == "ours" else arguments.peer_python
            measurements[side].append(children.measure(case, python))
    row: dict[str, Any] = {"workload": about.name, "device": about.device, "num_prompts": num_prompts}
    for side in sides:
        row[side] = summarise(measurements[side], arguments.warmup, limits)
    return row if arguments.peer == "none" else {**row, **ratios(row["ours"], row["trl"])}


def main() -> None:
    """Measures, prints a table, and keeps the numbers where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=("grpo", "sft"), default="grpo")
    parser.add_argument("--workloads", choices=tuple(WORKLOADS), nargs="+", default=["embedded", "qwen2_vl_2b"])
    parser.add_argument("--peer", choices=("trl", "none"), default="trl")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with the peer installed")
    parser.add_argument("--prompts", type=int, nargs="+", help="prompts per step, in place of the workload's")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of a round")
    parser.add_argument("--warmup", type=int, default=3, help="steps of a round before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-threads", type=int, default=os.cpu_count())
    parser.add_argument("--models", type=Path, help="where to keep random weights; a temporary folder where not given")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()

    rows: list[dict[str, Any]] = []
    limits: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for about in (WORKLOADS[name] for name in arguments.workloads):
            if not children.is_measurable(about):
                continue
            model = children.model_of(about, arguments.models or Path(temporary), arguments.num_threads)
            limits[about.name] = children.ceilings(about, arguments.num_threads)
            for num_prompts in arguments.prompts or about.num_prompts:
                rows.append(compare(about, num_prompts, model, limits[about.name], arguments))
                print(f"{about.name}, {arguments.method}\n{table(rows[-1:])}", flush=True)
    settings = {key: getattr(arguments, key) for key in ("method", "peer", "steps", "warmup", "rounds", "num_threads")}
    children.keep(arguments.out, f"{arguments.method}_step", settings, limits, rows)


if __name__ == "__main__":
    main()
