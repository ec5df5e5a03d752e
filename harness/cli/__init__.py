"""The command line: verbs only. Each parses, calls one function and chooses the exit code.

Exit codes: 0 done; 1 our own fault, with a traceback; 2 the user's mistake, told in one sentence on stderr; 3 finished,
but runs failed or are missing. What a verb needs is imported inside it, so `--help` and `plan` stay quick.
"""

from harness.cli.app import app

# isort: split
from harness.cli import runs  # verbs are listed in the order of these imports

# isort: split
from harness.cli import keeping

# isort: split
from harness.cli import answers, dashboard, installation, looking, stored

__all__ = ["answers", "app", "dashboard", "installation", "keeping", "looking", "runs", "stored"]
