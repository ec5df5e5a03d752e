"""`harness base build`: makes the embedded policy again by its recipe, and measures how near it comes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jinja2 import Template

from harness.evaluate import evaluate, summarise
from harness.policy import Policy, load_policy, sample
from harness.policy.base import recipe as recipe_module
from harness.policy.base.build import train
from harness.policy.base.corpus import PLAIN_FRAC, TAG_FRAC
from harness.policy.base.recipe import Recipe
from harness.record.atomic import write_json, write_text
from harness.spec.names import DRAWN_TASKS
from harness.spec.profiles import evaluation_tokens
from harness.spec.run import embedded_folder, weights_digest
from harness.tasks.base import load_task
from harness.tasks.prompts import evaluation_prompt
from harness.tasks.protocols import load_protocol
from harness.train.processes import Processes
from harness.train.randomness import stream

NUM_TEST = 400
"""Test examples per task of the card's greedy accuracies."""

NUM_PASS = 200
"""Test examples per task of the card's pass@8."""

GROUP_SIZE = 8


def build(out: Path | None = None, num_steps: int | None = None, report: Callable[[str], None] = print) -> Path:
    """Trains the embedded policy from nothing, measures it, and writes folder and card.

    Args:
        out: The folder to write; `embedded-rebuilt` where None. The package's own is replaced only by naming it.
        num_steps: Another number of steps than the recipe's, for a trial.
        report: Takes a line of progress.

    Returns:
        The folder.
    """
    folder = out or Path("embedded-rebuilt")
    recipe = Recipe() if num_steps is None else replace(Recipe(), num_steps=num_steps)
    shipped_card = embedded_folder() / "card.json"
    shipped = json.loads(shipped_card.read_text()) if shipped_card.is_file() else None
    started = time.monotonic()
    policy, loss = train(recipe, report)
    policy.save(folder)
    card = write_card(folder, recipe, loss, time.monotonic() - started)
    for line in _table(card):
        report(line)
    if shipped is not None and "zero_shot" in shipped:
        for task, numbers in card["zero_shot"].items():
            before = shipped["zero_shot"][task]["accuracy"]
            report(f"{task}: {numbers['accuracy']:.1%} zero-shot, {before:.1%} in the package")
    report(f"written to {folder}")
    return folder


def write_card(folder: Path, recipe: Recipe, loss: float, train_s: float) -> dict[str, Any]:
    """Measures a saved policy and writes `card.json` and `README.md` beside it.

    Args:
        folder: A saved policy.
        recipe: What made it.
        loss: Its last training loss, per completion token, in nats.
        train_s: Seconds of training, rendering included.
    """
    policy = load_policy(str(folder))
    card = {
        "sha256": weights_digest(folder),
        "recipe": asdict(recipe),
        "tag_frac_by_phrasing": list(TAG_FRAC),
        "plain_prompt_frac": PLAIN_FRAC,
        "num_parameters": sum(parameter.numel() for parameter in policy.model.parameters()),
        "loss": loss,
        "train_s": round(train_s),
        "num_threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "pillow", "tokenizers")},
        "zero_shot": {name: measure(policy, name) for name in DRAWN_TASKS},
    }
    write_json(folder / "card.json", card)
    write_text(folder / "README.md", _readme(card))
    return card


def measure(policy: Policy, name: str) -> dict[str, Any]:
    """Greedy accuracy and pass@8 of an untouched policy on a task's test split, under the task's protocol.

    Returns:
        `accuracy`, `format` and `free_form_accuracy` (math_verify on the whole text) of greedy answers; `pass_at_8`
        (any of 8 samples at temperature 1 correct) and `sampled_accuracy` (their mean). All in [0, 1].
    """
    task = load_task(name)
    processes = Processes("cpu")
    limit = evaluation_tokens("embedded") or 64
    rows = evaluate(policy, task, "test", NUM_TEST, processes, max_new_tokens=limit)
    summary = summarise(rows, task.protocol)
    any_correct, num_correct = 0, 0
    protocol = load_protocol(task.protocol)
    for start in range(0, NUM_PASS, 20):
        examples = [task.example("test", index) for index in range(start, start + 20)]
        batch = policy.batch([policy.prompt(e.image, evaluation_prompt(e.question, task.protocol)) for e in examples])
        uniforms = torch.from_numpy(stream(0, f"pass@8 {name}", start).random((20, GROUP_SIZE, limit), dtype="float32"))
        with torch.no_grad():
            answers = sample(
                policy, batch, policy.encode_images(batch), max_new_tokens=limit, uniforms=uniforms, temperature=1.0
            )
        for place, example in enumerate(examples):
            texts = [
                policy.completion_text(ids[:length])
                for ids, length in zip(answers.ids[place].tolist(), answers.lengths[place].tolist(), strict=True)
            ]
            verdicts = [verdict.correct for verdict in protocol.verdicts(texts, [example.solution] * GROUP_SIZE)]
            any_correct += any(verdicts)
            num_correct += sum(verdicts)
    return {
        "protocol": task.protocol,
        "num_examples": NUM_TEST,
        "accuracy": summary["accuracy"],
        "format": summary["format"],
        "free_form_accuracy": sum(row["accuracy_reward"] for row in rows) / len(rows),
        "num_pass_examples": NUM_PASS,
        "pass_at_8": any_correct / NUM_PASS,
        "sampled_accuracy": num_correct / (NUM_PASS * GROUP_SIZE),
    }


def _table(card: dict[str, Any]) -> list[str]:
    lines = [
        "| task | protocol | greedy | in the tag format | correct in any form | pass@8 | mean of 8 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in card["zero_shot"].items():
        keys = ("accuracy", "format", "free_form_accuracy", "pass_at_8", "sampled_accuracy")
        lines.append(f"| {name} | {row['protocol']} | " + " | ".join(f"{row[key]:.1%}" for key in keys) + " |")
    return lines


def _readme(card: dict[str, Any]) -> str:
    template = Template((Path(recipe_module.__file__).parent / "card.md.j2").read_text(), keep_trailing_newline=True)
    return template.render(
        card=card, recipe=card["recipe"], table="\n".join(_table(card)), num_test=NUM_TEST, num_pass=NUM_PASS
    )
