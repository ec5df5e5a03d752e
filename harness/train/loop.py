"""The training loop: collect a batch, take its gradient part by part, step, record. Every method runs through it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from harness.errors import Interrupted, NonFiniteError
from harness.policy import Policy
from harness.spec.methods import Trained
from harness.train.checkpoint import Replacing, load_checkpoint, replacing, save_checkpoint
from harness.train.memory import TokenBudget
from harness.train.method import Batch, Method, Part
from harness.train.optimizer import Optimizer
from harness.train.processes import Processes

if TYPE_CHECKING:
    from harness.train.sharding import Sharding


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
        policy: What learns: those of its weights that require a gradient.
        settings: The method's optimiser settings.
        processes: Those that share the run.
        checkpoints: The folder of checkpoints.
        checkpoint_every: Steps between two of them; 0 for none but on interruption.
        replacing: How a checkpoint comes into place.
        before_save: Called with the steps done before each checkpoint.
        micro_batch_tokens: Packed tokens of a forward and backward pass; None for all of a step's.
        halvings: How often that is halved before the first pass.
        sharded: Whether weights and optimiser state are divided up among the processes.
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
        replacing: Replacing = replacing,
        before_save: Callable[[int], None] = lambda step: None,
        micro_batch_tokens: int | None = None,
        halvings: int = 0,
        sharded: bool = False,
    ) -> None:
        self.method = method
        self.policy = policy
        self.settings = settings
        self.processes = processes
        self.checkpoints = checkpoints
        self.checkpoint_every = checkpoint_every
        self.replacing = replacing
        self.before_save = before_save
        self.sharding = _sharding(policy, processes) if sharded else None
        if self.sharding is None:
            learning = {name: weight for name, weight in policy.model.named_parameters() if weight.requires_grad}
            self.optimizer, self.budget = Optimizer(learning, settings), TokenBudget(micro_batch_tokens, halvings)
        else:
            self.optimizer = self.sharding.optimizer(settings)
            self.budget = self.sharding.budget(micro_batch_tokens, halvings)
        self.step = 0

    def resume(self) -> int:
        """Goes back to the last checkpoint, where there is one.

        Returns:
            The steps done.
        """
        with self._divided():
            found = load_checkpoint(self.checkpoints, self.optimizer)
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
            self.optimizer.set_lr(learning_rate(self.settings, self.step))
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
        self.before_save(self.step)
        save_checkpoint(
            self.checkpoints,
            self.optimizer,
            self.step,
            self.method.state(),
            write=self.processes.is_main,
            replacing=self.replacing,
        )
        self.processes.wait()

    def whole_weights(self) -> dict[str, Tensor] | None:
        """Of a sharded policy, its weights by name, for a file; None where the model's own state has them."""
        return None if self.sharding is None else self.sharding.whole_weights()

    def _update(self, batch: Batch) -> dict[str, float]:
        """The optimiser updates of one batch, and the step's metrics."""
        started = time.perf_counter()
        sums: dict[str, float] = {}
        for update in range(self.method.updates_per_batch):
            with self._divided():
                sums = self.budget.attempt(
                    "update", batch.largest_piece, sum(batch.sizes), partial(self._gradients, batch, update)
                )
                # Over all processes: one that raised alone would leave the others waiting for its gradients.
                self._check("loss", self.processes.add({"loss": sums["loss"]})["loss"], batch)
                grad_norm = self._apply(batch)
        sums = self.processes.add_ragged(sums)
        return {
            "train/loss": sums["loss"],
            "train/grad_norm": grad_norm,
            "train/lr": learning_rate(self.settings, self.step),
            **batch.metrics,
            **self.method.after_step(sums),
            "time/update_s": time.perf_counter() - started,
        }

    def _gradients(self, batch: Batch, update: int) -> dict[str, float]:
        """The gradient of the batch's loss, part by part, and what the parts' sums add up to."""
        self.optimizer.drop_gradients()
        batch.update = update
        if update or batch.images.is_used:
            batch.reencode(self.policy)
        sums = {"loss": 0.0}
        parts = batch.parts(self.policy, self.budget)
        num_idle = 0 if self.sharding is None else max(self.processes.gather([len(parts)])) - len(parts)
        for part in parts:
            loss, values = self.method.loss(part, self.step)
            loss.backward()
            for key, value in {"loss": loss.detach(), **values}.items():
                sums[key] = sums.get(key, 0.0) + float(value)
        for _ in range(num_idle):
            self._keep_company(batch)
        batch.images.backward()
        return sums

    def _keep_company(self, batch: Batch) -> None:
        """A pass of weight 0, while others make one more than this process: sharded layers take all of them to run."""
        shortest = min(range(len(batch.sizes)), key=lambda row: batch.sizes[row])
        loss, _ = self.method.loss(Part.of(self.policy, batch, [shortest], [0]), self.step)
        (loss * 0.0).backward()

    def _divided(self) -> AbstractContextManager[None]:
        return nullcontext() if self.sharding is None else self.sharding.divided()

    def _apply(self, batch: Batch) -> float:
        """One optimiser update; a step without any signal still moves by the optimiser's momentum."""
        self.optimizer.add_up(self.processes)
        grad_norm = self.optimizer.clip()
        self._check("gradient norm", grad_norm, batch)
        self.optimizer.step()
        return grad_norm

    def _check(self, what: str, value: float, batch: Batch) -> None:
        if not math.isfinite(value):
            raise NonFiniteError(what, self.step, batch.example_ids)


def _sharding(policy: Policy, processes: Processes) -> Sharding:
    from harness.train.sharding import Sharding  # FSDP takes its time to import

    return Sharding(policy, processes)


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
