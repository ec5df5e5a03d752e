"""Measures one side in a process of its own: ``python -m benchmarks.one_side CASE``, a :class:`Case` as JSON.

The last line of standard output is one JSON object. `step.py` starts this file; it is of use alone for profiling.
"""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.stopwatch import peak_gib, versions
from benchmarks.workload import Case


def main(case: Case) -> None:
    """Measures and prints."""
    torch.set_num_threads(case.num_threads)
    # Each side is imported where it is measured alone, so that neither's libraries are in the other's memory.
    if case.side == "ours":
        from benchmarks.ours import measure
    else:
        from benchmarks.trl_side import measure
    result = measure(case)
    print(json.dumps({**result, "peak_gib": peak_gib(case.about.device), "versions": versions()}))


if __name__ == "__main__":
    main(Case(**json.loads(sys.argv[1])))
