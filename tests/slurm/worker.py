"""A worker without a model: `worker.py JOB_JSON` does what `behaviour.txt` beside its job says.

`exit N`: ends with that code. `wait`: saves and ends with 143 once it is asked to. `once`: likewise the first time,
later it completes. `hold [N]`: goes on until a file `go` is there, then ends with that code.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

DEADLINE_S = 150.0
asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))


def until(condition) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("waited too long")
        time.sleep(0.02)


folder = Path(sys.argv[1]).parent
file = folder / "behaviour.txt"
behaviour, *rest = file.read_text().split() if file.exists() else ["exit", "0"]
attempts = folder / "attempts.jsonl"
number = len(attempts.read_text().splitlines()) if attempts.exists() else 0
names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "PYTHONUNBUFFERED", "PYTHONFAULTHANDLER")
about = {name: os.environ.get(name) for name in (*names, "SLURMD_NODENAME", "SLURM_CPUS_PER_TASK")}
about |= {
    "pid": os.getpid(),
    "cwd": os.getcwd(),
    "num_threads": json.loads(Path(sys.argv[1]).read_text())["num_threads"],
}
with attempts.open("a") as stream:
    stream.write(json.dumps(about) + "\n")
print(f"attempt {number}", flush=True)

if behaviour == "exit":
    sys.exit(int(rest[0]))
if behaviour == "hold":
    until((folder / "go").exists)
    sys.exit(int(rest[0]) if rest else 0)
elif behaviour == "wait" or (behaviour == "once" and number == 0):
    until(lambda: asked)
    (folder / "checkpoint").mkdir(exist_ok=True)
    print("saved", flush=True)
    sys.exit(143)
