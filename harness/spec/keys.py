"""What the settings of a sweep are called, and which of them a cell has.

A setting is a leaf with a dotted name: `source`, `method.lr`, `method.schedule.beta`. The leaves `method` and
`method.schedule` hold the type. A name without its dots stands for the only setting that ends in it: `lr`, `schedule`,
`beta`. Names, types and the settings of each come from the pydantic models, so a new method needs no line here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from harness.errors import UserError, nearest, shortened
from harness.spec.data import task_name
from harness.spec.methods import METHOD_MODELS, Trained
from harness.spec.profiles import method_defaults
from harness.spec.run import TRAINED_FIELDS, RunSpec

Value = Any
"""A scalar of YAML."""


@cache
def _options(method: str) -> dict[str, dict[str, type[BaseModel]]]:
    """A method's nested settings: field -> type name -> its model."""
    options: dict[str, dict[str, type[BaseModel]]] = {}
    for name, field in METHOD_MODELS[method].model_fields.items():
        models = [kind for kind in get_args(field.annotation) or (field.annotation,) if _is_model(kind)]
        if models:
            options[name] = {model.model_fields["type"].default: model for model in models}
    return options


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


@cache
def _legal() -> dict[str, str]:
    """Every way to write a setting, and the setting's full name."""
    legal = {name: name for name in RunSpec.model_fields}
    for method, model in METHOD_MODELS.items():
        for name in model.model_fields.keys() - {"type"}:
            legal[f"method.{name}"] = f"method.{name}"
            legal.setdefault(name, f"method.{name}")
        for field, types in _options(method).items():
            for nested in types.values():
                for name in nested.model_fields.keys() - {"type"}:
                    full = f"method.{field}.{name}"
                    legal[full] = legal[f"{field}.{name}"] = full
                    legal.setdefault(name, full)
    return legal


def full_name(key: str) -> str:
    """A setting's full name.

    Raises:
        ValueError: No run and no method has such a setting; the message names the nearest that exists.
    """
    legal = _legal()
    name = key.removesuffix(".type")
    if name not in legal or (name != key and name not in legal_types()):
        short = {word for word in legal if "." not in word}
        raise ValueError(f"unknown setting '{shortened(key)}': {nearest(key, legal if '.' in key else short)}")
    return legal[name]


@cache
def legal_types() -> frozenset[str]:
    """The settings that hold a type and may be followed by a dot: `method` and `method.schedule`, as written."""
    nested = {field for method in METHOD_MODELS for field in _options(method)}
    return frozenset({"method"} | nested | {f"method.{field}" for field in nested})


def check(key: str, value: Value) -> None:
    """Refuses what can be refused without knowing the rest of the cell.

    Raises:
        ValueError: No value, a list, a truth value, or the name of a method, schedule or task that does not exist.
    """
    if value is None:
        raise ValueError(f"{key} has no value")
    if isinstance(value, list):
        raise ValueError(f"{key} takes one value here, not a list; a list makes an axis and belongs in axes")
    if isinstance(value, bool):
        raise ValueError(f"{key} must not be {shown(value)}: no setting is true or false")
    if key == "source":
        try:
            task_name(str(value))
        except UserError as error:
            raise ValueError(str(error)) from None
        return
    choices = _choices(key)
    if choices and value not in choices:
        kind = key.removeprefix("method.")
        raise ValueError(f"unknown {kind} {shown(value)}: {nearest(str(value), choices)}")


def _choices(key: str) -> list[str]:
    if key == "method":
        return list(METHOD_MODELS)
    field = key.removeprefix("method.")
    return list(dict.fromkeys(kind for method in METHOD_MODELS for kind in _options(method).get(field, ())))


def effective(values: Mapping[str, Value]) -> dict[str, Value]:
    """The settings that take effect in a cell.

    Left out is what the cell's method lacks: everything about training under `base`, `format_weight` under `sft`, a
    schedule's type that the method cannot have (`grpo` is always `constant`), and settings that belong to another
    type than the one in force, be it set or the method's default.

    Args:
        values: Settings by full name; without `method`, all of them count.
    """
    method = values.get("method")
    if method is None:
        return dict(values)
    fields, options = METHOD_MODELS[method].model_fields, _options(method)
    trains = issubclass(METHOD_MODELS[method], Trained)
    kept: dict[str, Value] = {}
    for key, value in values.items():
        head, *rest = key.split(".")
        if head != "method" or not rest:
            applies = (trains or key not in TRAINED_FIELDS) and (key != "lora_alpha" or bool(values.get("lora_rank")))
        elif rest[0] in options:
            name = rest[0]
            types = options[name]
            applies = value in types if len(rest) == 1 else rest[1] in types[_type(name, values)].model_fields
        else:
            applies = rest[0] in fields
        if applies:
            kept[key] = value
    return kept


def _type(field: str, values: Mapping[str, Value]) -> str:
    """The type in force of a method's nested setting."""
    method = values["method"]
    given = values.get(f"method.{field}")
    if given in _options(method)[field]:
        return str(given)
    defaults = method_defaults(str(values.get("model", "embedded")), method, values.get("source"))
    default = METHOD_MODELS[method].model_fields[field].default
    return str(defaults.get(field, {}).get("type", default.type))


def can_have(key: str, methods: tuple[str, ...], chosen: Mapping[str, tuple[Value, ...]], value: Value) -> bool:
    """Whether one of these methods can have a setting at all.

    Args:
        key: A full name.
        methods: The methods in question.
        chosen: The types in question of `method.schedule` and its like; what is not named may be any.
        value: The value it should have.
    """
    head, *rest = key.split(".")
    if head != "method" or not rest:
        return key not in TRAINED_FIELDS or any(issubclass(METHOD_MODELS[method], Trained) for method in methods)
    name = rest[0]
    for method in methods:
        types = _options(method).get(name, {})
        allowed = [model for kind, model in types.items() if kind in chosen.get(f"method.{name}", (kind,))]
        if not types and name in METHOD_MODELS[method].model_fields:
            return True
        if types and (value in types if len(rest) == 1 else any(rest[1] in model.model_fields for model in allowed)):
            return True
    return False


def key_of(loc: Sequence[str | int]) -> str:
    """The full name of the setting that pydantic complains about; empty for the run as a whole.

    Pydantic's path holds the type chosen in each union too: ``("method", "grpo_d", "schedule", "linear", "beta_max")``.
    """
    key = ""
    for word in map(str, loc):
        if word not in _choices(key):
            key = f"{key}.{word}" if key else word
    return key


def shown(value: Any) -> str:
    """A value as YAML would write it, a long one cut off."""
    return f"'{shortened(value)}'" if isinstance(value, str) else shortened(json.dumps(value, default=str))


def sentence(error: ErrorDetails, key: str) -> str:
    """One of pydantic's complaints as a sentence.

    Args:
        error: An entry of `ValidationError.errors()`.
        key: The setting it is about.
    """
    message = error["msg"]
    if error["type"] == "value_error":
        return message.removeprefix("Value error, ")
    message = re.split(r", (?:unable to parse|got a number)", message)[0]
    if not message.startswith("Input should be"):
        return f"{key}: {message}"
    text = f"{key} must be{message.removeprefix('Input should be')}, not {shown(error['input'])}"
    if error["type"] == "literal_error":
        hint = nearest(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
        return f"{text}: {hint}" if hint.startswith("did") else text
    return text
