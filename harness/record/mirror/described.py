"""How a run introduces itself in W&B: configuration, tags, the meaning of its metrics and its scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from harness.record.folder import RunFolder
from harness.record.state import read_state, read_summary

MAX_TAG = 64
"""Characters that W&B allows in a tag."""


class Meaning(NamedTuple):
    """What W&B is told of a metric: its key or `prefix/*`, and which of its values is the best one, if any is."""

    key: str
    best: Literal["max", "min"] | None = None


def config(run: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a run, nested as its spec is, with what is needed to make it again.

    Args:
        run: The content of `run.json`.
    """
    job, provenance = run.get("job") or {}, run.get("provenance") or {}
    return {
        **run["spec"],
        "label": label(run["spec"]),
        "run_id": run["run_id"],
        "sweep": job.get("sweep"),
        "targets": list(job.get("targets") or ()),
        "evaluation": job.get("evaluation"),
        "execution": job.get("execution"),
        "resolved": run.get("resolved"),
        "commit": provenance.get("commit"),
        "dirty": provenance.get("dirty"),
    }


def label(spec: Mapping[str, Any]) -> str:
    """What panels group runs by: the method, and the source where it has one."""
    method = str(spec["method"]["type"])
    return method if spec["source"] is None else f"{method} on {spec['source']}"


def tags(run: Mapping[str, Any]) -> list[str]:
    """Method, schedule, source, model, sweep and seed, each as a tag."""
    spec = run["spec"]
    method = spec["method"]
    schedule = (method.get("schedule") or {}).get("type")
    trained = [f"source:{spec['source']}", f"seed:{spec['seed']}"] if spec["source"] is not None else []
    model = str(spec["model"]).rstrip("/").rpartition("/")[2]
    named = [method["type"], *([f"schedule:{schedule}"] if schedule else []), *trained, f"model:{model}"]
    sweep = (run.get("job") or {}).get("sweep")
    return [tag[:MAX_TAG] for tag in (*named, *([f"sweep:{sweep}"] if sweep else []))]


def meanings(method: str, targets: Sequence[str]) -> Iterator[Meaning]:
    """The metrics of a run. A loss is a goal under `sft` alone: a policy-gradient loss says nothing about progress."""
    yield from map(Meaning, ("train/*", "rollout/*", "time/*", "memory/*", "eval/*"))
    if method == "sft":
        yield Meaning("train/loss", "min")
    for key in ("reward", "accuracy", "format"):
        yield Meaning(f"rollout/{key}", "max")
    yield Meaning("rollout/zero_signal_frac", "min")
    for target in targets:
        for key in ("accuracy", "format"):
            yield Meaning(f"eval/{target}/{key}", "max")


def scores(folder: RunFolder, source: str | None) -> dict[str, Any]:
    """The summary of a run: its status, and of a completed one what it scored.

    Returns:
        `status`; `test/<target>/accuracy`, `format`, `mean_length` and `num_examples`; `score/same_task`, the accuracy
        on the task trained on; `score/cross_task`, the mean accuracy over the other targets. What there is not is left
        out: the untouched model has no source, and so neither of the two.
    """
    found: dict[str, Any] = {"status": read_state(folder).status}
    evaluations = (read_summary(folder) or {}).get("evaluations", {})
    for target, made in evaluations.items():
        keys = [key for key in ("accuracy", "format", "mean_length", "num_examples") if made.get(key) is not None]
        found |= {f"test/{target}/{key}": made[key] for key in keys}
    if source is not None:
        same = [made["accuracy"] for target, made in evaluations.items() if target == source]
        cross = [made["accuracy"] for target, made in evaluations.items() if target != source]
        found |= {
            f"score/{key}": sum(all_) / len(all_) for key, all_ in (("same_task", same), ("cross_task", cross)) if all_
        }
    return found
