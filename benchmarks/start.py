"""How long does a worker take from its start to its first finished training step, and where does that time go?

``python -m benchmarks.start --out results/reference/cpu/start.json``, from the root of the repository. Workers of the
embedded policy are started as an executor starts them, plainly and from the fork server, by turns; a step is finished
when its row is in `metrics.jsonl`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.children import keep
from harness.launch.executors.forking import PRELOADED, SINGLE_THREADED, WORKER, ForkServer
from harness.launch.executors.local import worker_environment
from harness.record.atomic import write_json
from harness.record.folder import RunFolder
from harness.record.process import ProcessId
from harness.record.recorder import job_folder
from harness.spec import Evaluation, Execution, Job, RunSpec

PHASES = "benchmarks.start_phases"
IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)")
PATIENCE_S = 300.0


class Starts:
    """Starts workers of new runs.

    Args:
        place: A folder for them.
        num_threads: CPU threads of each.
        wandb: Whether W&B mirrors them, offline.
    """

    def __init__(self, place: Path, num_threads: int, wandb: bool) -> None:
        self.place = place
        self._num_threads = num_threads
        self._wandb = wandb
        self._count = 0
        self.changes = {key: str(num_threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        own = worker_environment(num_threads)
        self.environment = {**os.environ, **own, **SINGLE_THREADED, "CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "offline"}
        # With it, every plain worker would compile the package anew.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def new_run(self) -> RunFolder:
        """A run's folder with its job in it."""
        self._count += 1
        spec = RunSpec(method={"type": "grpo_d"}, source="counting")
        job = Job(
            spec=spec,
            targets=("counting",),
            evaluation=Evaluation(num_examples=10),
            results=str(self.place / str(self._count)),
            wandb=self._wandb,
            execution=Execution(device="cpu"),
            num_threads=self._num_threads,
        )
        folder = job_folder(job)
        folder.path.mkdir(parents=True)
        write_json(folder.job_json, job.model_dump(mode="json"))
        return folder

    def plain(self, folder: RunFolder, module: str = WORKER) -> int:
        """A process of its own; returns its pid."""
        with folder.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder.job_json)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        return process.pid

    def forked(self, server: ForkServer, folder: RunFolder) -> int:
        """One from the fork server; returns its pid."""
        return server.start(folder.job_json, self.changes, folder.log, 1.0).pid


def wait_for(path: Path, folder: RunFolder, pid: int) -> float:
    """The time by the monotonic clock when a worker's file first holds something.

    Raises:
        RuntimeError: Nothing came.
    """
    deadline = time.monotonic() + PATIENCE_S
    worker = ProcessId.of(pid)
    while not (path.exists() and path.stat().st_size):
        if time.monotonic() > deadline or not (worker.is_alive or path.exists()):
            raise RuntimeError(f"no first step:\n{folder.log.read_text()[-2000:]}")
        time.sleep(0.002)
    return time.monotonic()


def end(pid: int) -> None:
    """Kills a worker with all that it started."""
    with contextlib.suppress(ProcessLookupError):  # ended already
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # the fork server's
        os.waitpid(pid, 0)


def first_step(start: Callable[[RunFolder], int], folder: RunFolder) -> dict[str, float]:
    """Seconds from the order to the first step, of the worker's processors, and until whoever ordered could go on."""
    started = time.monotonic()
    pid = start(folder)
    ordered = time.monotonic()
    try:
        reached = wait_for(folder.metrics, folder, pid)
        return {"first_step_s": reached - started, "cpu_s": cpu_s(pid), "order_s": ordered - started}
    finally:
        end(pid)


def cpu_s(pid: int) -> float:
    """Seconds of a processor that a process has used, which a busy machine makes little longer."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def phases(start: Callable[[RunFolder], int], folder: RunFolder) -> dict[str, float]:
    """Seconds of each part of a start."""
    marks = folder.path / "marks.json"
    before = time.monotonic()
    pid = start(folder)
    try:
        wait_for(marks, folder, pid)
        times: dict[str, float] = json.loads(marks.read_text())
    finally:
        end(pid)
    return dict(zip(times, (after - before for before, after in pairwise([before, *times.values()])), strict=True))


def imports(starts: Starts) -> dict[str, float]:
    """Seconds that the imports of a worker take, by package; measuring makes them a quarter longer."""
    command = [sys.executable, "-X", "importtime", "-c", "import " + ", ".join(PRELOADED)]
    told = subprocess.run(command, env=starts.environment, capture_output=True, text=True, check=True).stderr
    by_package: Counter[str] = Counter()
    for own_us, module in IMPORT.findall(told):
        parts = module.split(".")
        by_package[".".join(parts[:2]) if parts[0] in ("torch", "transformers") else parts[0]] += int(own_us)
    return {package: own_us / 1e6 for package, own_us in by_package.most_common(12)}


def memory(start: Callable[[RunFolder], int], starts: Starts, server: ForkServer | None, num: int) -> dict[str, float]:
    """MiB of several workers that stand still after their first step, each page divided among those who share it."""
    pids = []
    try:
        for folder in [starts.new_run() for _ in range(num)]:
            pids.append(start(folder))
            wait_for(folder.metrics, folder, pids[-1])
            os.kill(pids[-1], signal.SIGSTOP)
        kept = {"workers": sum(proportional_mib(pid) for pid in pids) / num}
        return kept | ({"server": proportional_mib(server.pid)} if server else {})
    finally:
        for pid in pids:
            end(pid)


def proportional_mib(pid: int) -> float:
    """A process's share of the memory that it uses."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@contextmanager
def served(starts: Starts, module: str) -> Iterator[tuple[ForkServer, float]]:
    """A fork server and the seconds until it was ready."""
    started = time.monotonic()
    server = ForkServer(starts.environment, module, PRELOADED)
    try:
        server.wait(PATIENCE_S)
        yield server, time.monotonic() - started
    finally:
        server.close()


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each number."""
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def measure(starts: Starts, rounds: int, num_workers: int) -> dict[str, Any]:
    """Everything, in rounds of all kinds of start, so that a busy moment of the machine meets all of them."""
    rows: dict[str, list[dict[str, float]]] = {"plain": [], "forked": [], "plain_phases": [], "forked_phases": []}
    with served(starts, WORKER) as (server, ready_s), served(starts, PHASES) as (phased, _):
        kinds: dict[str, tuple[Callable[..., dict[str, float]], Callable[[RunFolder], int]]] = {
            "plain": (first_step, starts.plain),
            "forked": (first_step, lambda folder: starts.forked(server, folder)),
            "plain_phases": (phases, lambda folder: starts.plain(folder, PHASES)),
            "forked_phases": (phases, lambda folder: starts.forked(phased, folder)),
        }
        load = [os.getloadavg()[0]]
        for _ in range(rounds):
            for kind, (look, start) in kinds.items():
                rows[kind].append(look(start, starts.new_run()))
            load.append(os.getloadavg()[0])
        held = {
            "plain": memory(starts.plain, starts, None, num_workers),
            "forked": memory(kinds["forked"][1], starts, server, num_workers),
        }
    result: dict[str, Any] = {kind: medians(measured) for kind, measured in rows.items()}
    for kind in ("plain", "forked"):
        result[kind]["first_step_s_rounds"] = [row["first_step_s"] for row in rows[kind]]
    return result | {"server_ready_s": ready_s, "imports": imports(starts), "memory_mib": held, "load": load}


def table(result: Mapping[str, Any]) -> str:
    """What was measured, for people."""
    plain, forked = result["plain_phases"], result["forked_phases"]
    lines = [f"{'seconds':<24}{'plain':>8}{'forked':>8}"]
    lines += [f"{part:<24}{plain[part]:>8.2f}{forked[part]:>8.2f}" for part in plain]
    for key, what in (("first_step_s", "start to first step"), ("cpu_s", "of a processor"), ("order_s", "order")):
        lines.append(f"{what:<24}{result['plain'][key]:>8.2f}{result['forked'][key]:>8.2f}")
    held = result["memory_mib"]
    lines.append(f"{'MiB per worker':<24}{held['plain']['workers']:>8.0f}{held['forked']['workers']:>8.0f}")
    lines.append(
        f"the fork server is ready after {result['server_ready_s']:.1f} s and holds {held['forked']['server']:.0f} MiB"
    )
    lines.append("imports: " + ", ".join(f"{package} {seconds:.2f}" for package, seconds in result["imports"].items()))
    return "\n".join(lines)


def main() -> None:
    """Measures, prints a table, and keeps the numbers where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=4, help="whose memory is looked at")
    parser.add_argument("--no-wandb", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        starts = Starts(Path(place), arguments.num_threads, not arguments.no_wandb)
        result = measure(starts, arguments.rounds, arguments.workers)
    print(table(result))
    settings = {key: getattr(arguments, key) for key in ("rounds", "num_threads", "workers", "no_wandb")}
    keep(arguments.out, "start", settings, {}, [result])


if __name__ == "__main__":
    main()
