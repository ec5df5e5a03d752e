"""The other side of the comparison: TRL's GRPOTrainer with `generate`, and its SFTTrainer, on the same work."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import torchvision_stub
from benchmarks.operations import Shapes, Sizes
from benchmarks.ours import counts
from benchmarks.stopwatch import Stopwatch, loaded_gib
from benchmarks.workload import BETA, LR, Case, drawn_examples, rendered_task, run_spec

if TYPE_CHECKING:
    from harness.tasks.base import Example


def measure(case: Case) -> dict[str, Any]:
    """Trains a few steps; what is returned is what :func:`benchmarks.ours.measure` returns.

    Raises:
        RuntimeError: TRL reads other tokens than the harness, or leaves weights untrained that the harness trains.
    """
    declared = torchvision_stub.declare_operators()
    from transformers import TrainerCallback

    from harness.policy import load_policy

    spec = run_spec(case)
    policy = load_policy(spec.model)
    examples, first = drawn_examples(case, spec, policy, rendered_task(case, spec, policy))
    source, tokenizer = policy.model.config.name_or_path, policy.tokenizer
    sizes = Sizes.of(policy.model.config.to_dict())
    banned = list(policy.family.vision_token_ids)
    expected = first.ids.tolist()
    if case.method == "sft":
        from harness.train.sft import target_text

        expected += policy.completion_ids(target_text(examples[0], "reasoning"))
    del policy, first

    stopwatch = Stopwatch(case.about.device)
    shapes: list[Shapes] = []

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            stopwatch.start()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            stopwatch.step_done(self.counted)

        def counted(self) -> dict[str, float]:
            # A rollout is seen whole, batches of examples pass by pass; one that was fetched ahead is the next step's.
            parts = 1 if case.method == "grpo" else case.num_passes
            taken, shapes[:] = shapes[:parts], shapes[parts:]
            return counts(case, sizes, _joined(taken), is_shared=False)

    with tempfile.TemporaryDirectory() as folder:
        build = _grpo_trainer if case.method == "grpo" else _sft_trainer
        trainer = build(case, source, tokenizer, examples, folder, banned, stopwatch, shapes)
        trainer.add_callback(Steps())
        check_same_start(case, trainer, expected)
        held = loaded_gib(case.about.device)
        shapes.clear()
        trainer.train()
    del declared
    return {"steps": stopwatch.steps, "loaded_gib": held}


def _joined(parts: Sequence[Shapes]) -> Shapes:
    return Shapes(
        prompts=[length for part in parts for length in part.prompts],
        completions=[group for part in parts for group in part.completions],
        patches=[count for part in parts for count in part.patches],
    )


def _grpo_trainer(
    case: Case,
    source: str,
    tokenizer: Any,
    examples: Sequence[Example],
    folder: str,
    banned: list[int],
    stopwatch: Stopwatch,
    shapes: list[Shapes],
) -> Any:
    from harness.tasks.rewards import accuracy_rewards, format_rewards

    def accuracy(completions: list[Any], solution: list[str], **columns: Any) -> list[float]:
        return accuracy_rewards([turn[0]["content"] for turn in completions], solution)

    def form(completions: list[Any], **columns: Any) -> list[float]:
        return format_rewards([turn[0]["content"] for turn in completions])

    trl: Any = importlib.import_module("trl")
    trainer = trl.GRPOTrainer(
        model=source,
        reward_funcs=[accuracy, form],
        args=grpo_settings(trl.GRPOConfig, case, folder, banned),
        train_dataset=grpo_dataset(examples),
        processing_class=trl_processor(source, tokenizer),
    )
    collect = trainer._generate_and_score_completions

    def collected(inputs: Any) -> Any:
        batch = collect(inputs)
        shapes.append(_rollout_shapes(case, batch))
        return batch

    trainer._generate_single_turn = stopwatch.timed("sampling_s", trainer._generate_single_turn)
    trainer._generate_and_score_completions = stopwatch.timed("collect_s", collected)
    return trainer


def _rollout_shapes(case: Case, batch: Any) -> Shapes:
    """The lengths of a rollout, whose rows are a prompt's completions, then the next one's."""
    size = case.group_size
    lengths = batch["completion_mask"].sum(dim=1).view(-1, size).tolist()
    prompts = batch["prompt_mask"].sum(dim=1)[::size].tolist()
    return Shapes(prompts, lengths, batch["image_grid_thw"].prod(dim=1)[::size].tolist())


def _sft_trainer(
    case: Case,
    source: str,
    tokenizer: Any,
    examples: Sequence[Example],
    folder: str,
    banned: list[int],
    stopwatch: Stopwatch,
    shapes: list[Shapes],
) -> Any:
    trl: Any = importlib.import_module("trl")
    trainer = trl.SFTTrainer(
        model=source,
        args=sft_settings(trl.SFTConfig, case, folder),
        train_dataset=sft_dataset(examples, tokenizer),
        processing_class=trl_processor(source, tokenizer),
    )
    collate = trainer.data_collator

    def collated(rows: Any) -> Any:
        batch = collate(rows)
        completions = (batch["labels"] != -100).sum(dim=1)
        prompts = batch["attention_mask"].sum(dim=1) - completions
        patches = batch["image_grid_thw"].prod(dim=1).tolist()
        shapes.append(Shapes(prompts.tolist(), completions[:, None].tolist(), patches))
        return batch

    trainer.data_collator = stopwatch.timed("collect_s", collated)
    return trainer


def shared_settings(case: Case, folder: str) -> dict[str, Any]:
    """What both of TRL's trainers are told; the folder is for what they write."""
    about = case.about
    on_cpu = about.device == "cpu"
    return {
        "output_dir": folder,
        "max_steps": case.num_steps,
        "per_device_train_batch_size": case.prompts_per_pass * case.group_size,
        "gradient_accumulation_steps": case.num_passes,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        # Its default recomputes activations to save memory, which costs time and which ours does not do.
        "gradient_checkpointing": False,
        "bf16": about.precision == "bf16",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "model_init_kwargs": {
            "dtype": "bfloat16" if about.precision == "bf16" else "float32",
            "attn_implementation": "sdpa",
        },
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def grpo_settings(config: Any, case: Case, folder: str, banned: list[int]) -> Any:
    """TRL's arguments for the same step: one generation and one update per step, no clipping of probabilities."""
    about = case.about
    forced = {"min_new_tokens": about.max_new_tokens, "suppress_tokens": banned} if about.is_forced else None
    return config(
        **shared_settings(case, folder),
        num_generations=case.group_size,
        num_iterations=1,
        max_completion_length=about.max_new_tokens,
        generation_kwargs=forced,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=BETA,
        epsilon=0.2,
        loss_type="grpo",
        scale_rewards="group",
        use_bias_correction_kl=False,
        shuffle_dataset=False,
        log_multimodal=False,
    )


def sft_settings(config: Any, case: Case, folder: str) -> Any:
    """TRL's arguments for the same step: cross-entropy of the completions' tokens alone."""
    return config(
        **shared_settings(case, folder),
        completion_only_loss=True,
        max_length=None,
        train_sampling_strategy="sequential",
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


def grpo_dataset(examples: Sequence[Example]) -> Any:
    """Examples as TRL's users store them."""
    from harness.tasks.prompts import training_prompt

    return _with_images(
        examples,
        prompt=[[{"role": "user", "content": training_prompt(example.question)}] for example in examples],
        solution=[example.solution for example in examples],
    )


def sft_dataset(examples: Sequence[Example], tokenizer: Any) -> Any:
    """Prompts and completions as text, the turn's end written out: so both sides train on exactly the same tokens."""
    from harness.tasks.prompts import training_prompt
    from harness.train.sft import target_text

    def prompt(example: Example) -> str:
        content = [{"type": "image"}, {"type": "text", "text": training_prompt(example.question)}]
        turn = [{"role": "user", "content": content}]
        text: str = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        return text

    return _with_images(
        examples,
        prompt=[prompt(example) for example in examples],
        completion=[target_text(example, "reasoning") + tokenizer.eos_token for example in examples],
    )


def _with_images(examples: Sequence[Example], **columns: list[Any]) -> Any:
    from datasets import Dataset, Image

    columns["image"] = [example.image for example in examples]
    return Dataset.from_dict(columns).cast_column("image", Image())


def check_same_start(case: Case, trainer: Any, expected: list[int]) -> None:
    """Both sides read the first example as the same tokens, and all weights are trained.

    Raises:
        RuntimeError: They do not.
    """
    from trl.data_utils import prepare_multimodal_messages

    row = trainer.train_dataset[0]
    if case.method == "sft":
        ids = trainer.data_collator([dict(row)])["input_ids"].tolist()
    else:
        ids, _, _ = trainer._tokenize_prompts([prepare_multimodal_messages(row["prompt"], images=[row["image"]])])
    if list(ids[0]) != expected:
        raise RuntimeError("TRL reads other tokens than the harness does, so their steps cannot be compared")
    frozen = [name for name, parameter in trainer.model.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise RuntimeError(f"TRL does not train {frozen[0]}, which the harness does")
