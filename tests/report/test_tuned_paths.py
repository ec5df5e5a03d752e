"""A search over stored rows ends in a sweep that finds them again: paths are written, not names."""

from __future__ import annotations

import json
from pathlib import Path

from harness.report.stats import Estimate
from harness.report.winners import Winner, tuned_sweep
from harness.spec.sweep import load_sweep


def test_the_tuned_sweep_of_stored_rows_names_their_paths(tmp_path: Path) -> None:
    rows = tmp_path / "counts.jsonl"
    rows.write_text(json.dumps({"image": "a.png", "problem": "How many?", "solution": "3"}) + "\n")
    file = tmp_path / "search.yaml"
    file.write_text(
        f"name: search\naxes: {{method: [grpo], source: [{rows}, counting]}}\ntargets: [{rows}, counting]\n"
        "study: {per: [source], space: {lr: [1e-4, 1e-5]}, sampler: grid}\nevaluation: {every: 1}\n"
    )
    search = load_sweep(file)
    winners = [
        Winner(found, "s", {"COMPLETE": 2}, 0, {"method.lr": lr}, (0.5,), Estimate(0.5, None, None), 9, ("r",), ())
        for found, lr in zip(search.searches, (1e-4, 1e-5), strict=True)
    ]
    tuned_file = tmp_path / "tuned.yaml"
    tuned_file.write_text(tuned_sweep(search, winners, 1, {"commit": "c"}))
    tuned = load_sweep(tuned_file)
    assert (tuned.targets, tuned.data) == (search.targets, search.data)
    lrs = {run.spec.source: getattr(run.spec.method, "lr", None) for run in tuned.runs.values()}
    assert lrs == {search.targets[0]: 1e-4, "counting": 1e-5}
