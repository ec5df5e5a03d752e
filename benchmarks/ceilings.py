"""What does this machine reach at most? A large matrix product for operations, a large copy for bytes.

``python -m benchmarks.ceilings --device cpu --precision float32``; the last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

SIDE = {"cpu": 1024, "cuda": 8192}
"""Of the square matrices: large enough that starting the product costs nothing."""
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
"""Far more than any cache holds."""
LEAST_REPEATS = 5
LEAST_S = 1.0
"""An attempt is repeated until both are reached; the best counts."""


def ceilings(device: str, precision: str) -> dict[str, Any]:
    """The highest rates of one device, measured now.

    Args:
        device: `cpu` or `cuda`.
        precision: Of the product.

    Returns:
        flops_per_s; bytes_per_s, read and written ones added; device, its name; num_threads.
    """
    import torch
    import torch.nn.functional as F

    from harness.record.provenance import provenance

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    # The harness leaves float32 products exact.
    torch.backends.cuda.matmul.allow_tf32 = False
    side = SIDE[device]
    states, weight = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    source = torch.ones(COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else provenance()["cpu"],
        "precision": precision,
        "num_threads": torch.get_num_threads(),
        "flops_per_s": 2 * side**3 / _best(device, lambda: F.linear(states, weight)),
        "bytes_per_s": 2 * COPY_BYTES[device] / _best(device, lambda: target.copy_(source)),
    }


def _best(device: str, work: Callable[[], Any]) -> float:
    """The shortest time of some work, in seconds."""
    import torch

    taken: list[float] = []
    while len(taken) < LEAST_REPEATS or sum(taken) < LEAST_S:
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--num-threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.num_threads)
    print(json.dumps(ceilings(arguments.device, arguments.precision)))


if __name__ == "__main__":
    main()
