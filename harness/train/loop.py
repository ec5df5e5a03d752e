"""The training loop: collect a batch, take its gradient part by part, step, record. Every method runs through it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.errors import Interrupted, NonFiniteError
from harness.policy import Policy
from harness.spec.methods import Trained
from harness.train.checkpoint import load_checkpoint, save_checkpoint
from harness.train.method import Batch, Method
from harness.train.processes import Processes


@dataclass(frozen=True)
class StepRecord:
    """What a finished step hands to the record.

    Attributes:
        step: From 0.
        metrics: By metric key.
        batch: What it learnt from.
    """

    step: int
    metrics: dict[str, float]
    batch: Batch


class Loop:
    """Trains a policy by a method.

    Args:
        method: What to learn from and by which loss.
        policy: What learns; all its weights are trained.
        settings: The method's optimiser settings.
        processes: Those that share the run.
        checkpoints: The folder of checkpoints.
        checkpoint_every: Steps between two of them; 0 for none but on interruption.
        micro_batch_size: Prompts per forward pass; None for all of a step's.
    """

    def __init__(
        self,
        method: Method,
        policy: Policy,
        settings: Trained,
        processes: Processes,
        *,
        checkpoints: Path,
        checkpoint_every: int = 0,
        micro_batch_size: int | None = None,
    ) -> None:
        self.method = method
        self.policy = policy
        self.settings = settings
        self.processes = processes
        self.checkpoints = checkpoints
        self.checkpoint_every = checkpoint_every
        self.micro_batch_size = micro_batch_size
        self.parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings.lr,
            betas=(0.9, settings.adam_beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.step = 0

    def resume(self) -> int:
        """Goes back to the last checkpoint, where there is one.

        Returns:
            The steps done.
        """
        found = load_checkpoint(self.checkpoints, self.policy.model, self.optimizer)
        if found is not None:
            self.step, state = found
            self.method.load_state(state)
        return self.step

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[StepRecord]:
        """Trains to the end, yielding after each step.

        Args:
            should_stop: Asked after each step; on True a checkpoint is saved.

        Raises:
            Interrupted: It was asked to stop.
            NonFiniteError: A loss or a gradient is not finite; the weights are those before the step.
        """
        while self.step < self.settings.num_steps:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.settings, self.step)
            batch = self.method.collect(self.step)
            metrics = self._update(batch)
            record = StepRecord(self.step, metrics, batch)
            self.step += 1
            yield record
            stop = self.processes.add({"stop": float(should_stop())})["stop"] > 0 and not self.done
            due = self.checkpoint_every and self.step % self.checkpoint_every == 0 and not self.done
            if stop or due:
                self.save()
            if stop:
                raise Interrupted(f"stopped after {self.step} of {self.settings.num_steps} steps")

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.settings.num_steps

    def save(self) -> None:
        """Saves a checkpoint."""
        if self.processes.is_main:
            save_checkpoint(self.checkpoints, self.policy.model, self.optimizer, self.step, self.method.state())
        self.processes.wait()

    def _update(self, batch: Batch) -> dict[str, float]:
        """The optimiser updates of one batch, and the step's metrics."""
        started = time.perf_counter()
        sums: dict[str, float] = {}
        parts = batch.parts(self.policy, self.micro_batch_size)
        for update in range(self.method.updates_per_batch):
            if update:
                with self.processes.autocast():
                    batch.reencode(self.policy)
            sums = {"loss": 0.0}
            for part in parts:
                with self.processes.autocast():
                    loss, values = self.method.loss(part, self.step)
                loss.backward()
                for key, value in {"loss": loss.detach(), **values}.items():
                    sums[key] = sums.get(key, 0.0) + float(value)
            batch.images.backward()
            # Over all processes: one that raised alone would leave the others waiting for its gradients.
            self._check("loss", self.processes.add({"loss": sums["loss"]})["loss"], batch)
            grad_norm = self._apply(batch)
        sums = self.processes.add_ragged(sums)
        return {
            "train/loss": sums["loss"],
            "train/grad_norm": grad_norm,
            "train/lr": self.optimizer.param_groups[0]["lr"],
            **batch.metrics,
            **self.method.after_step(sums),
            "time/update_s": time.perf_counter() - started,
        }

    def _apply(self, batch: Batch) -> float:
        """One optimiser update; a step without any signal still moves by the optimiser's momentum."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.processes.add_gradients(self.parameters)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm))
        self._check("gradient norm", grad_norm, batch)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return grad_norm

    def _check(self, what: str, value: float, batch: Batch) -> None:
        if not math.isfinite(value):
            raise NonFiniteError(what, self.step, batch.example_ids)


def learning_rate(settings: Trained, step: int) -> float:
    """The learning rate of a step: a linear warm-up from 0, then constant, or down to 0 behind the last step.

    Args:
        settings: Peak, shape, share of warm-up and number of steps.
        step: From 0.
    """
    warmup = round(settings.warmup_frac * settings.num_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, settings.num_steps - warmup)
    if settings.lr_schedule == "linear":
        return settings.lr * (1 - progress)
    if settings.lr_schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * progress)) / 2
    return settings.lr
