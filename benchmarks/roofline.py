"""How far is the harness from what the machine allows, in prefill, decoding and update?

``python -m benchmarks.roofline --out results/reference/cpu/roofline.json``, from the root of the repository. A phase's
limit is the longer of two times: its operations at the machine's highest rate, its bytes at the machine's highest rate
(`operations.py` counts, `ceilings.py` measures). What is reported is the limit over the time measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from benchmarks import children
from benchmarks.workload import Case, Workload

WARMUP = 3
"""Steps before those whose update is measured."""


def table(phases: Mapping[str, Any]) -> str:
    """A line per phase."""
    return "\n".join(
        f"  {name:<8} {values['operations'] / 1e9:>10.2f} GFLOP {values['bytes'] / 1e9:>8.3f} GB"
        f"   limit {values['limit_s']:.4f} s ({values['bound']})   measured {values['measured_s']:.4f} s"
        f"   {values['limit_frac']:>6.1%} of the limit"
        for name, values in phases.items()
    )


def main() -> None:
    """Measures, prints a table, and keeps the numbers where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    children.add_options(parser)
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement")
    arguments = parser.parse_args()

    def phases(about: Workload, num_prompts: int, model: str, limits: Mapping[str, Any]) -> dict[str, Any]:
        case = Case(
            side="ours",
            method="grpo",
            workload=about.name,
            model=model,
            num_prompts=num_prompts,
            num_steps=WARMUP + arguments.repeats,
            num_threads=arguments.num_threads,
        )
        found = children.phases(case, limits, arguments.repeats)
        print(f"{about.name}, {num_prompts} prompts\n{table(found)}", flush=True)
        return {"phases": found}

    children.measure_all(arguments, "roofline", ("repeats", "num_threads"), phases)


if __name__ == "__main__":
    main()
