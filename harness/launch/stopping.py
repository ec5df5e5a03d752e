"""Stops a sweep from outside, wherever its driver and workers run: by requests that they look for in the folders."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.launch.executor import make_executor
from harness.launch.presence import Driver, drivers, read_driver
from harness.record.folder import RunFolder
from harness.record.launches import read_launches
from harness.record.lease import read_owner, request_stop
from harness.spec import Execution
from harness.spec.executor import ExecutorSettings

POLL_S = 0.5


@dataclass(frozen=True)
class Stopped:
    """Who was asked to stop.

    Attributes:
        drivers: Live drivers of the sweep; they stop their workers.
        orphans: Runs whose driver is gone, with a worker that lives or waits in a queue.
    """

    drivers: tuple[Driver, ...]
    orphans: tuple[str, ...]

    @property
    def nobody(self) -> bool:
        """Whether nothing of the sweep was running."""
        return not self.drivers and not self.orphans


def stop_sweep(results: Path, sweep: str, run_ids: Iterable[str]) -> Stopped:
    """Asks everything that works on a sweep to save and end; what another sweep's driver works on is left to it.

    Args:
        results: The results folder.
        sweep: The sweep's name.
        run_ids: Its runs.
    """
    live = tuple(driver for driver in drivers(results) if driver.sweep == sweep and driver.seems_alive)
    for driver in live:
        driver.request_stop()
    return Stopped(live, tuple(run_id for run_id in run_ids if _stop_orphan(RunFolder(results, run_id))))


def wait_for_end(results: Path, stopped: Stopped, tell: Callable[[int], None]) -> None:
    """Returns when nothing that was asked to stop lives any more.

    Args:
        results: The results folder.
        stopped: What was asked.
        tell: Takes the number of drivers and workers that still live, whenever it changes.
    """
    before = -1
    while True:
        count = sum(driver.seems_alive for driver in stopped.drivers)
        owners = [read_owner(RunFolder(results, run_id).path) for run_id in stopped.orphans]
        count += sum(owner is not None and owner.role == "worker" and owner.seems_alive for owner in owners)
        if count != before:
            tell(count)
        if count == 0:
            return
        before = count
        time.sleep(POLL_S)


def _stop_orphan(folder: RunFolder) -> bool:
    """Stops the worker of a driver that is gone; a job that still waits in a queue is taken out of it."""
    owner = read_owner(folder.path)
    launches = read_launches(folder)
    if owner is None or owner.released:
        return False
    last = launches[-1] if launches and launches[-1].token == owner.reserved else None
    driver = read_driver(folder.results / "drivers" / last.driver) if last else None
    if driver is not None and driver.seems_alive:
        return False
    if owner.role == "worker":
        if not owner.seems_alive:
            return False
        request_stop(owner)
        return True
    if last is None or not last.handle:
        return False
    executor = make_executor(ExecutorSettings(type=last.handle["executor"]), Execution())
    try:
        worker = executor.adopt(last.handle)
        if worker is None or worker.poll() is not None:
            return False
        worker.stop()
        worker.stop()
        return True
    finally:
        executor.close()
