"""A worker without a model: `worker.py JOB_JSON` does what `behaviour.txt` beside its job says.

`exit N`: ends with that code. `wait`: saves and ends with 143 once it is asked to. `alone`: does not listen.
`deaf`: does not listen, and has a child that does not either. `die`: likewise, and ends itself by SIGKILL.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
folder = Path(sys.argv[1]).parent
behaviour, *rest = (folder / "behaviour.txt").read_text().split()
sleeper = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"
child = subprocess.Popen([sys.executable, "-S", "-c", sleeper]) if behaviour in ("deaf", "die") else None
about = {"pid": os.getpid(), "child": child and child.pid, "cwd": os.getcwd(), "environment": dict(os.environ)}
about["blocked"] = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
(folder / "about.tmp").write_text(json.dumps(about))
os.replace(folder / "about.tmp", folder / "about.json")
print("here", flush=True)

if behaviour == "exit":
    sys.exit(int(rest[0]))
if behaviour == "die":
    os.kill(os.getpid(), signal.SIGKILL)
deadline = time.monotonic() + 100
while time.monotonic() < deadline:
    if asked and behaviour == "wait":
        print("saved", flush=True)
        sys.exit(143)
    time.sleep(0.02)
