"""How fast is one GRPO step, beside TRL's, on this machine?

``python benchmarks/grpo_step.py --out results/reference/cpu/grpo_step.json``. Each measurement is a process of its own;
both sides take turns, so that a busy moment of the machine meets both. See `README.md` for what is the same on both
sides and what is not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from harness.record.atomic import write_json
from harness.record.provenance import provenance

ONE_SIDE = Path(__file__).with_name("one_side.py")


def measure(side: str, num_prompts: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One measurement of one side, in a child process.

    Raises:
        RuntimeError: The child failed; its last lines are in the message.
    """
    python = arguments.peer_python if side != "ours" else sys.executable
    threads = str(arguments.num_threads)
    command = [python, str(ONE_SIDE), side, "--num-prompts", str(num_prompts), "--num-threads", threads]
    command += ["--num-steps", str(arguments.warmup + arguments.steps), "--model", arguments.model]
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{side} with {num_prompts} prompts failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summarise(measurements: Sequence[dict[str, Any]], warmup: int) -> dict[str, Any]:
    """Medians of one side over the steps of all rounds, warm-up steps left out.

    Returns:
        step_s, collect_s and update_s: medians in seconds. collect_us_per_token, update_us_per_token: medians of
        microseconds per completion token of a step. length: mean tokens of a completion. peak_gib: the highest memory
        of any round; loaded_gib: before the first step. step_s_rounds: each round's median.
    """

    def steps(key: str) -> list[float]:
        return [value for measurement in measurements for value in measurement[key][warmup:]]

    def per_token(key: str) -> float:
        return median(value / count for value, count in zip(steps(key), steps("num_tokens"), strict=True)) * 1e6

    num_tokens = steps("num_tokens")
    return {
        "step_s": median(steps("step_s")),
        "collect_s": median(steps("collect_s")),
        "update_s": median(steps("update_s")),
        "collect_us_per_token": per_token("collect_s"),
        "update_us_per_token": per_token("update_s"),
        "length": sum(num_tokens) / len(num_tokens) / measurements[0]["num_completions"],
        "peak_gib": max(measurement["peak_gib"] for measurement in measurements),
        "loaded_gib": max(measurement["loaded_gib"] for measurement in measurements),
        "num_steps": len(num_tokens),
        "step_s_rounds": [median(measurement["step_s"][warmup:]) for measurement in measurements],
        "versions": measurements[0]["versions"],
    }


def compare(num_prompts: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds at one number of prompts; the sides take turns in starting a round."""
    sides = ["ours"] if arguments.peer == "none" else ["ours", arguments.peer]
    measurements: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(arguments.rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            measurements[side].append(measure(side, num_prompts, arguments))
    row: dict[str, Any] = {"num_prompts": num_prompts}
    for side in sides:
        row[side] = summarise(measurements[side], arguments.warmup)
    if arguments.peer != "none":
        ours, peer = row["ours"], row[arguments.peer]
        row["speedup"] = peer["step_s"] / ours["step_s"]
        pairs = zip(peer["step_s_rounds"], ours["step_s_rounds"], strict=True)
        row["speedup_rounds"] = [theirs / own for theirs, own in pairs]
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per number of prompts and side."""
    lines = [f"{'prompts':>7}  {'side':<5} {'s/step':>7} {'collect us/tok':>15} {'update us/tok':>14} "
             f"{'length':>7} {'peak GiB':>9}  speed-up (rounds)"]  # fmt: skip
    for row in rows:
        for side in (key for key in row if isinstance(row[key], dict)):
            values = row[side]
            ratio = ""
            if side == "ours" and "speedup" in row:
                low, high = min(row["speedup_rounds"]), max(row["speedup_rounds"])
                ratio = f"{row['speedup']:.2f}x ({low:.2f} to {high:.2f})"
            lines.append(
                f"{row['num_prompts']:>7}  {side:<5} {values['step_s']:>7.3f} {values['collect_us_per_token']:>15.1f} "
                f"{values['update_us_per_token']:>14.1f} {values['length']:>7.1f} {values['peak_gib']:>9.2f}  {ratio}"
            )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints a table, and keeps the numbers where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=("trl", "none"), default="trl")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with the peer installed")
    parser.add_argument("--prompts", type=int, nargs="+", default=[4, 8, 16], help="prompts per step")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of a round")
    parser.add_argument("--warmup", type=int, default=3, help="steps of a round before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("--model", default="embedded", help="'embedded' or a folder")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()

    rows = []
    for num_prompts in arguments.prompts:
        rows.append(compare(num_prompts, arguments))
        print(table(rows[-1:]), flush=True)
    if arguments.out is not None:
        settings = {
            "peer": arguments.peer,
            "steps": arguments.steps,
            "warmup": arguments.warmup,
            "rounds": arguments.rounds,
            "num_threads": arguments.num_threads,
            "model": arguments.model,
        }
        record = {"benchmark": "grpo_step", "date": datetime.now(UTC).date().isoformat(), "settings": settings}
        write_json(arguments.out, {**record, "results": rows, "provenance": provenance()})
        print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
