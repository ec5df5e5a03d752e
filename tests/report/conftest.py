"""A small sweep and run folders with verdicts that can be counted on one hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from harness.record.atomic import write_json, write_jsonl
from harness.record.folder import RunFolder
from harness.spec.run import RunSpec
from harness.spec.sweep import Sweep, load_sweep

PROTOCOLS = {"counting": "r1v_counting", "geometry": "r1v_geoqa", "clevr": "r1v_counting", "geoqa": "r1v_geoqa"}

WriteRun = Callable[[RunSpec, Mapping[str, Sequence[int]]], str]
MakeSweep = Callable[..., Sweep]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def write_run(results: Path) -> WriteRun:
    """Writes the folder of a completed run with these verdicts per target, and returns its id."""

    def write(spec: RunSpec, verdicts: Mapping[str, Sequence[int]]) -> str:
        folder = RunFolder(results, spec.run_id)
        evaluations = {}
        for target, correct in verdicts.items():
            rows = [
                {
                    "index": index,
                    "id": f"{target}/test/{index}",
                    "completion": "",
                    "correct": bool(value),
                    "format": index < 2,
                }
                for index, value in enumerate(correct)
            ]
            write_jsonl(folder.evaluation(target), rows)
            evaluations[target] = {
                "num_examples": len(rows),
                "num_correct": sum(correct),
                "accuracy": sum(correct) / len(rows),
                "format": 2 / len(rows),
                "protocol": PROTOCOLS[target],
            }
        record = {
            "spec": spec.model_dump(mode="json"),
            "job": {"sweep": "first"},
            "provenance": {"commit": "c0ffee", "dirty": False},
        }
        write_json(folder.run_json, record)
        write_json(folder.summary, {"evaluations": evaluations})
        return spec.run_id

    return write


@pytest.fixture
def make_sweep(tmp_path: Path) -> MakeSweep:
    """Loads a sweep named `small` with these axes, as YAML flow values, on both tasks and four test examples."""

    def make(blocks: str = "[]", targets: Sequence[str] = ("counting", "geometry"), **axes: str) -> Sweep:
        lines = ["name: small", "description: Four examples.", "axes:"]
        lines += [f"  {key}: {value}" for key, value in axes.items()]
        if blocks != "[]":
            lines.append(f"blocks: {blocks}")
        lines += [f"targets: [{', '.join(targets)}]", "evaluation: {num_examples: 4}"]
        path = tmp_path / "small.yaml"
        path.write_text("\n".join(lines) + "\n")
        return load_sweep(path)

    return make
