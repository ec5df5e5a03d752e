"""How fast is a training step, and are sampling and update within it, beside TRL's, on this machine?

``python -m benchmarks.step --method grpo --out results/reference/cpu/grpo_step.json``, from the root of the repository.
Each measurement is a process of its own; both sides take turns, so that a busy moment of the machine meets both. See
`README.md` for what is the same on both sides and what is not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks import children
from benchmarks.summary import ratios, summarise, table
from benchmarks.workload import Case, Side, Workload


def compare(
    about: Workload, num_prompts: int, model: str, limits: Mapping[str, Any], arguments: argparse.Namespace
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
    row = {side: summarise(measurements[side], arguments.warmup, limits) for side in sides}
    return row if arguments.peer == "none" else {**row, **ratios(row["ours"], row["trl"])}


def main() -> None:
    """Measures, prints a table, and keeps the numbers where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=("grpo", "sft"), default="grpo")
    children.add_options(parser)
    parser.add_argument("--peer", choices=("trl", "none"), default="trl")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with the peer installed")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of a round")
    parser.add_argument("--warmup", type=int, default=3, help="steps of a round before them")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    def beside(about: Workload, num_prompts: int, model: str, limits: Mapping[str, Any]) -> dict[str, Any]:
        row = compare(about, num_prompts, model, limits, arguments)
        print(f"{about.name}, {arguments.method}\n{table([{'num_prompts': num_prompts, **row}])}", flush=True)
        return row

    settings = ("method", "peer", "steps", "warmup", "rounds", "num_threads")
    children.measure_all(arguments, f"{arguments.method}_step", settings, beside)


if __name__ == "__main__":
    main()
