"""How far is the harness from what the machine allows, in prefill, decoding and update?

``python -m benchmarks.roofline --out results/reference/cpu/roofline.json``, from the root of the repository. A phase's
limit is the longer of two times: its operations at the machine's highest rate, its bytes at the machine's highest rate
(`operations.py` counts, `ceilings.py` measures). What is reported is the limit over the time measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import children
from benchmarks.workload import WORKLOADS, Case

WARMUP = 3
"""Steps before those whose update is measured."""


def table(row: Mapping[str, Any]) -> str:
    """A line per phase."""
    lines = [f"{row['workload']}, {row['num_prompts']} prompts"]
    for name, values in row["phases"].items():
        lines.append(
            f"  {name:<8} {values['operations'] / 1e9:>10.2f} GFLOP {values['bytes'] / 1e9:>8.3f} GB"
            f"   limit {values['limit_s']:.4f} s ({values['bound']})   measured {values['measured_s']:.4f} s"
            f"   {values['limit_frac']:>6.1%} of the limit"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints a table, and keeps the numbers where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", choices=tuple(WORKLOADS), nargs="+", default=["embedded", "qwen2_vl_2b"])
    parser.add_argument("--prompts", type=int, nargs="+", help="prompts per step, in place of the workload's")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement")
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
                case = Case(
                    side="ours",
                    method="grpo",
                    workload=about.name,
                    model=model,
                    num_prompts=num_prompts,
                    num_steps=WARMUP + arguments.repeats,
                    num_threads=arguments.num_threads,
                )
                phases = children.phases(case, limits[about.name], arguments.repeats)
                row = {"workload": about.name, "device": about.device, "num_prompts": num_prompts, "phases": phases}
                rows.append(row)
                print(table(row), flush=True)
    settings = {key: getattr(arguments, key) for key in ("repeats", "num_threads")}
    children.keep(arguments.out, "roofline", settings, limits, rows)


if __name__ == "__main__":
    main()
