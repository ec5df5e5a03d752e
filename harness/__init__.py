"""An experiment harness for RL post-training of vision-language models: SFT, GRPO and GRPO-D.

Importing the package imports nothing heavy; :func:`load_results` brings pandas in when it is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from harness.spec.sweep import Sweep

    __version__: str

__all__ = ["__version__", "load_results"]


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: finding it takes longer than everything else here."""
    if name != "__version__":
        raise AttributeError(f"module 'harness' has no attribute '{name}'")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("grpo-d-harness")
    except PackageNotFoundError:
        return "0.0.0+source"


def load_results(results_dir: str | Path = "results", sweep: str | Path | Sweep | None = None) -> pd.DataFrame:
    """One tidy row per completed run and target; see :func:`harness.report.frame.load_results`.

    Args:
        results_dir: The results folder.
        sweep: A sweep on record by its name, a sweep file by its path, a loaded sweep, or None for every run.

    Raises:
        UserError: There is no such sweep.
    """
    from harness.report.frame import load_results as collected

    return collected(results_dir, sweep)
