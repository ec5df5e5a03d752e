"""A driver as a process of its own: `drive.py ADDRESS JOB_JSON` starts one worker, tells of it and closes at the end of
its input. Without an address it has a cluster of its own."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from harness.launch.executor import Demand, Launch
from harness.launch.executors.ray import RayExecutor
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.spec import Execution, Job
from harness.spec.executor import ExecutorSettings

if __name__ == "__main__":
    address, path = sys.argv[1:]
    job = Job.model_validate_json(Path(path).read_text())
    folder = RunFolder(job.results, job.spec.run_id)
    worker_command = ["", str(Path(__file__).with_name("worker.py"))]
    before = signal.getsignal(signal.SIGTERM), set(os.environ)
    executor = RayExecutor(
        ExecutorSettings(type="ray", address=address or None, cpus=1), Execution(device="cpu"), worker_command
    )
    kept = signal.getsignal(signal.SIGTERM) == before[0]
    (worker,) = executor.start([Launch(job, folder, Demand(), Files(folder.path))])
    while not worker.place:
        time.sleep(0.02)
    told = {"handle": worker.handle, "keeps_signals": kept, "new": sorted(set(os.environ) - before[1])}
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    executor.close()
