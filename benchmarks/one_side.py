"""Measures one side of the GRPO step in a process of its own: ``python benchmarks/one_side.py ours --num-prompts 8``.

The last line of standard output is one JSON object. `grpo_step.py` starts this file; it is of use alone for profiling.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import resource
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

GROUP_SIZE = 8
MAX_COMPLETION_LENGTH = 48
BETA = 0.04
LR = 1e-6
"""R1-V's. So small that both sides sample from the same policy throughout, and their completions stay equally long."""


def run_spec(num_prompts: int, num_steps: int, model: str) -> Any:
    """The run that both sides make, as ours describes it; every step has prompts of its own."""
    from harness.spec import RunSpec

    method = {
        "type": "grpo",
        "num_steps": num_steps,
        "prompts_per_step": num_prompts,
        "group_size": GROUP_SIZE,
        "max_completion_length": MAX_COMPLETION_LENGTH,
        "lr": LR,
        "lr_schedule": "constant",
        "schedule": {"type": "constant", "beta": BETA},
    }
    return RunSpec(model=model, method=method, source="counting", num_train=num_prompts * num_steps)


def rendered_task(spec: Any, policy: Any) -> Any:
    """The run's task with its pictures drawn beforehand, so that drawing them is in neither side's time."""
    from harness.tasks.base import load_task
    from harness.train.data import TrainingSet

    task = load_task(spec.source)
    task.example = functools.cache(task.example)  # type: ignore[method-assign]
    for index in TrainingSet(task, policy, spec.num_train, spec.seed).indices:
        task.example("train", index)
    return task


def measure_ours(num_prompts: int, num_steps: int, model: str) -> dict[str, Any]:
    """The harness's own loop: time between one finished step and the next."""
    from harness.policy import load_policy
    from harness.train.grpo import Grpo
    from harness.train.loop import Loop
    from harness.train.processes import Processes

    spec = run_spec(num_prompts, num_steps, model)
    policy = load_policy(spec.model)
    task = rendered_task(spec, policy)
    processes = Processes("cpu")
    measured: dict[str, list[float]] = {key: [] for key in ("step_s", "collect_s", "update_s", "num_tokens")}
    with tempfile.TemporaryDirectory() as folder:
        method = Grpo(spec, policy, task, processes)
        loop = Loop(method, policy, spec.method, processes, checkpoints=Path(folder))
        loaded_gib = resident_gib("VmRSS")
        before = time.perf_counter()
        for record in loop.run():
            now = time.perf_counter()
            measured["step_s"].append(now - before)
            measured["collect_s"].append(record.metrics["time/rollout_s"])
            measured["update_s"].append(record.metrics["time/update_s"])
            measured["num_tokens"].append(record.batch.num_tokens)
            before = time.perf_counter()
    return {**measured, "num_completions": num_prompts * GROUP_SIZE, "loaded_gib": loaded_gib}


def measure_trl(num_prompts: int, num_steps: int, model: str) -> dict[str, Any]:
    """TRL's GRPOTrainer with `generate`, set to what `run_spec` says; same prompts in the same order."""
    import torchvision_stub

    declared = torchvision_stub.declare_operators()
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from harness.policy import load_policy
    from harness.tasks.rewards import accuracy_rewards, format_rewards
    from harness.train.data import TrainingSet

    spec = run_spec(num_prompts, num_steps, model)
    policy = load_policy(spec.model)
    steps = TrainingSet(rendered_task(spec, policy), policy, spec.num_train, spec.seed)
    drawn = [row for step in range(num_steps) for row in steps.step(step, num_prompts)]
    first_prompt = drawn[0][2].ids.tolist()
    source = policy.model.config.name_or_path
    processor = trl_processor(source, policy.tokenizer)
    dataset = trl_dataset([example for _, example, _ in drawn])
    del policy, steps, drawn

    measured: dict[str, list[float]] = {key: [] for key in ("step_s", "collect_s", "update_s", "num_tokens")}

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            started = time.perf_counter()
            batch = super()._generate_and_score_completions(inputs)
            measured["collect_s"].append(time.perf_counter() - started)
            measured["num_tokens"].append(int(batch["completion_mask"].sum()))
            return batch

    class Stopwatch(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.before = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            now = time.perf_counter()
            measured["step_s"].append(now - self.before)
            self.before = now

    def accuracy(completions: list[Any], solution: list[str], **columns: Any) -> list[float]:
        return accuracy_rewards([turn[0]["content"] for turn in completions], solution)

    def form(completions: list[Any], **columns: Any) -> list[float]:
        return format_rewards([turn[0]["content"] for turn in completions])

    with tempfile.TemporaryDirectory() as folder:
        settings = trl_settings(GRPOConfig, folder, num_prompts, num_steps)
        trainer = Timed(
            model=source,
            reward_funcs=[accuracy, form],
            args=settings,
            train_dataset=dataset,
            processing_class=processor,
            callbacks=[Stopwatch()],
        )
        check_same_start(trainer, dataset, first_prompt)
        loaded_gib = resident_gib("VmRSS")
        trainer.train()
    del declared
    pairs = zip(measured["step_s"], measured["collect_s"], strict=True)
    measured["update_s"] = [step_s - collect_s for step_s, collect_s in pairs]
    return {**measured, "num_completions": num_prompts * GROUP_SIZE, "loaded_gib": loaded_gib}


def trl_settings(config: Any, folder: str, num_prompts: int, num_steps: int) -> Any:
    """TRL's arguments for the same step: one generation and one update per step, no clipping of probabilities."""
    return config(
        output_dir=folder,
        max_steps=num_steps,
        per_device_train_batch_size=num_prompts * GROUP_SIZE,
        gradient_accumulation_steps=1,
        num_generations=GROUP_SIZE,
        num_iterations=1,
        max_completion_length=MAX_COMPLETION_LENGTH,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=BETA,
        epsilon=0.2,
        loss_type="grpo",
        scale_rewards="group",
        use_bias_correction_kl=False,
        learning_rate=LR,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        weight_decay=0.0,
        max_grad_norm=1.0,
        shuffle_dataset=False,
        # Its default recomputes activations to save memory, which costs time and which ours does not do.
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
        log_multimodal=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def trl_processor(source: str, tokenizer: Any) -> Any:
    """The processor that TRL asks for, around the tokenizer and the image processor that ours uses."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    tokenizer.padding_side = "left"
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessorPil.from_pretrained(source),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=tokenizer.chat_template,
    )


def trl_dataset(examples: Sequence[Any]) -> Any:
    """Examples as TRL's users store them."""
    from datasets import Dataset, Image

    from harness.tasks.prompts import training_prompt

    columns = {
        "prompt": [[{"role": "user", "content": training_prompt(example.question)}] for example in examples],
        "image": [example.image for example in examples],
        "solution": [example.solution for example in examples],
    }
    return Dataset.from_dict(columns).cast_column("image", Image())


def check_same_start(trainer: Any, dataset: Any, first_prompt: list[int]) -> None:
    """Both sides read the first prompt as the same tokens, and all weights are trained.

    Raises:
        RuntimeError: They do not.
    """
    from trl.data_utils import prepare_multimodal_messages

    row = dataset[0]
    ids, _, _ = trainer._tokenize_prompts([prepare_multimodal_messages(row["prompt"], images=[row["image"]])])
    if list(ids[0]) != first_prompt:
        raise RuntimeError("TRL reads another prompt than the harness does, so their steps cannot be compared")
    frozen = [name for name, parameter in trainer.model.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise RuntimeError(f"TRL does not train {frozen[0]}, which the harness does")


def resident_gib(field: str) -> float:
    """Memory of this process in GiB: `VmRSS` now, `VmHWM` at its highest."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        # Elsewhere only the highest is known, in bytes on macOS.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**30 if platform.system() == "Darwin" else 2**20)
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 2**20


def versions() -> dict[str, str]:
    """The distributions that matter to either side, where installed."""
    found = {}
    for name in ("torch", "transformers", "accelerate", "trl", "datasets", "torchvision"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("ours", "trl"))
    parser.add_argument("--num-prompts", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=13)
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("--model", default="embedded")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.num_threads)
    measure = measure_ours if arguments.side == "ours" else measure_trl
    result = measure(arguments.num_prompts, arguments.num_steps, arguments.model)
    print(json.dumps({**result, "peak_gib": resident_gib("VmHWM"), "versions": versions()}))


if __name__ == "__main__":
    main()
