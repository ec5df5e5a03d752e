"""What one run is, and the name that follows from it.

A `RunSpec` holds what trains and nothing else. Where it is evaluated, on which device it runs and who watches it stand
in the `Job` that a worker is handed, so they never make a second run of the same training.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.errors import ModelError, UserError
from harness.spec.data import is_data_name, task_name
from harness.spec.execution import Execution
from harness.spec.methods import Base, Evaluation, Method
from harness.spec.profiles import method_defaults, num_train_default
from harness.spec.schedules import SCHEDULE_MODELS

IDENTITY_VERSION = 1
"""Raised whenever the same spec trains something else: a changed task, loss, prompt or order of random numbers."""

NUM_SEEDS = 2**31
"""Seeds are whole numbers below this."""

TRAINED_FIELDS = frozenset({"source", "num_train", "seed", "vision", "lora_rank", "lora_alpha"})
"""Fields of a run that a method without training does not have."""


class RunSpec(BaseModel):
    """Everything that can change what a run trains.

    A method may be given as its bare type; settings that are not given come from the model's profile, then from the
    method's class. `base` has no source, no data and no seed, whatever it is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "embedded"
    """`embedded`, a local folder, or a hub name such as `Qwen/Qwen2-VL-2B-Instruct`."""
    method: Method
    """The method with its settings."""
    source: str | None = None
    """The task trained on; None for `base`. A path to data becomes the data's name (:mod:`harness.spec.data`)."""
    num_train: Annotated[int, Field(ge=0)] = 0
    """Distinct training examples, drawn from the source's training split by the seed; 0 for `base`."""
    seed: Annotated[int, Field(ge=0, lt=NUM_SEEDS)] = 0
    """Of everything random in the run."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of the weights that compute; those that the optimiser moves, and its state, are float32 in both cases."""
    max_pixels: Annotated[int, Field(ge=1)] | None = None
    """Images are scaled down to this many pixels before they are encoded; None for the model's own bound."""
    vision: Literal["trained", "frozen"] = "trained"
    """Whether the image tower learns too. Frozen, its features are computed once per image."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Rank of adapters on every linear layer that learns (LoRA, arXiv 2106.09685); 0 trains the weights themselves."""
    lora_alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 32.0
    """Their scale is lora_alpha / lora_rank; no setting where the rank is 0."""

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        method = data.get("method")
        method = {"type": method} if isinstance(method, str) else method
        if not isinstance(method, Mapping):
            return data
        model = str(data.get("model", "embedded"))
        if method.get("type") == "base":
            untrained = {"method": method, "source": None, "num_train": 0, "seed": 0}
            return {key: value for key, value in data.items() if key not in TRAINED_FIELDS} | untrained
        defaults = method_defaults(model, str(method.get("type")), data.get("source"))
        data["method"] = _merged(defaults, method)
        data.setdefault("num_train", num_train_default(model))
        if not data.get("lora_rank"):
            data.pop("lora_alpha", None)
        return data

    @field_validator("model")
    @classmethod
    def _on_one_line(cls, model: str) -> str:
        if not model.strip() or not model.isprintable():
            raise ValueError("model must be the name of a model or the path of a folder, on one line")
        return model

    @field_validator("source")
    @classmethod
    def _known(cls, source: str | None) -> str | None:
        return None if source is None else _named(source)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not isinstance(self.method, Base):
            if self.source is None:
                raise ValueError(f"method '{self.method.type}' trains, so it needs a source")
            if self.num_train < 1:
                raise ValueError("num_train must be at least 1")
        return self

    @property
    def run_id(self) -> str:
        """``<method>[-<source>-s<seed>]-<10 hex digits>-v<version>``; the same for equal specs, on every machine."""
        return AnySeed(self).run_id(self.seed)


def _named(task: str) -> str:
    """A task's name, from that or from the path of its data."""
    try:
        return task if is_data_name(task) else task_name(task)
    except UserError as error:
        raise ValueError(str(error)) from None


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `defaults`, leaf by leaf.

    A schedule of another type keeps those defaults that it has too, so that `linear` runs over the same range of beta
    as the `othink` that it takes the place of.
    """
    merged = dict(defaults)
    for key, value in given.items():
        default = defaults.get(key)
        if isinstance(value, str) and isinstance(default, Mapping):
            value = {"type": value}
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            chosen = value.get("type", default.get("type"))
            known = SCHEDULE_MODELS[chosen].model_fields if chosen in SCHEDULE_MODELS else {}
            merged[key] = {k: v for k, v in default.items() if k in known} | {"type": chosen} | dict(value)
        else:
            merged[key] = value
    return merged


_LATER: Mapping[str, Any] = {
    name: RunSpec.model_fields[name].default for name in ("max_pixels", "vision", "lora_rank", "lora_alpha")
}
"""Fields that came after the first run ids: at their defaults they are left out, so that the ids stay."""


def model_identity(model: str) -> str:
    """What a model's name stands for: a change of weights under the same name is another model.

    The embedded policy by its weights' SHA-256 (from its card), a folder by the SHA-256 of its configuration and of
    the size, head and tail of each weights file, a hub name by itself.

    Raises:
        ModelError: A folder without a `config.json` or without safetensors.
    """
    if model == "embedded":
        files = [embedded_folder() / "card.json"]
        if not files[0].is_file():
            raise ModelError("the embedded policy is missing from this installation: run `harness base build`")
    elif os.path.isdir(model):  # unlike Path's, false for what can be no name at all
        files = [Path(model) / "config.json", *sorted(Path(model).glob("*.safetensors"))]
        if len(files) < 2 or not files[0].is_file():
            raise ModelError(f"{model}: a model folder needs a config.json and *.safetensors files")
    else:
        return model
    # Thousands of cells ask for the same few models; a file that changed has another size or time.
    return _identity_of(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


class AnySeed:
    """Runs that differ in their seed alone: checked once, and named from a text that is made once.

    Args:
        spec: Of one of them.
        identify: Tells a model's identity, such as :func:`model_identity`.
    """

    def __init__(self, spec: RunSpec, identify: Callable[[str], str] = model_identity) -> None:
        record = spec.model_dump(mode="json")
        content = {key: value for key, value in record.items() if value != _LATER.get(key, ...)}
        content["model"] = identify(spec.model)
        self._spec = spec
        self._before = _ENCODE({key: value for key, value in content.items() if key < "seed"})[:-1]
        self._after = _ENCODE({key: value for key, value in content.items() if key > "seed"})[1:]

    def run_id(self, seed: int) -> str:
        """The name of the run with this seed."""
        text = f'{self._before},"seed":{seed},{self._after}'
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        method, source = self._spec.method.type, self._spec.source
        prefix = method if source is None else f"{method}-{source}-s{seed}"
        return f"{prefix}-{digest}-v{IDENTITY_VERSION}"

    def spec(self, seed: int) -> RunSpec:
        """The spec with this seed, a whole number from 0 to below :data:`NUM_SEEDS`."""
        return self._spec.model_copy(update={"seed": seed})


_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def embedded_folder() -> Path:
    """Where the package keeps the embedded policy."""
    return Path(__file__).parents[1] / "policy" / "embedded"


def weights_digest(folder: Path) -> str:
    """SHA-256 over the bytes of a folder's safetensors files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _identity_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of a model's files, each with its size and time of change: a card alone, or a configuration and weights."""
    first, *weights = files
    if not weights:
        return f"embedded@{json.loads(first[0].read_text())['sha256'][:16]}"
    digest = hashlib.sha256(first[0].read_bytes())
    for file, size, _ in weights:
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 16))
            stream.seek(max(size - (1 << 16), 0))
            digest.update(stream.read())
    return f"folder@{digest.hexdigest()[:16]}"


class Job(BaseModel):
    """What a worker is handed: the run, where to look at it, and how to execute it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: RunSpec
    """What trains."""
    targets: tuple[str, ...]
    """The tasks to evaluate on; paths become names, and are kept in `data`."""
    data: Mapping[str, str] = {}
    """Where the rows lie of a source and targets that are no tasks of the package: name -> path."""
    evaluation: Evaluation = Evaluation()
    """How much to evaluate."""
    results: str = "results"
    """The results folder."""
    sweep: str = "adhoc"
    """The sweep that asked first; W&B's group."""
    wandb: bool = True
    """Whether W&B mirrors the run."""
    tensorboard: bool = False
    """Whether event files for TensorBoard are written too."""
    execution: Execution = Execution()
    """On what to run it."""
    reserved: Annotated[int, Field(ge=0)] = 0
    """The token of the reservation that the worker claims the run folder under; 0 for a worker started by hand."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of the worker; 0 leaves torch's own choice."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 25
    """Steps between two checkpoints; 0 for none but on interruption."""

    @model_validator(mode="before")
    @classmethod
    def _with_names(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or not isinstance(content.get("targets"), (tuple, list)):
            return content
        named = {reference: _named(reference) for reference in map(str, content["targets"])}
        paths = {name: reference for reference, name in named.items() if name != reference}
        return {**content, "targets": tuple(named.values()), "data": {**paths, **content.get("data", {})}}
