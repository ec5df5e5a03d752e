"""The form of a sweep's record: whatever is read from it into a path or a table has been checked against this."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from harness.record.folder import NAME
from harness.spec.methods import Evaluation

_Name = Annotated[str, Field(pattern=NAME)]
_RunId = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}(-[A-Za-z0-9][\w.-]{0,120}-s\d{1,10})?-[0-9a-f]{10}-v\d{1,4}$")]
_Setting = Annotated[str, Field(pattern=r"^[a-z0-9_.]{1,100}$")]


class CellForm(BaseModel):
    """One cell."""

    settings: dict[_Setting, Any]
    run_id: _RunId
    targets: list[_Name]
    ablation: Annotated[str, Field(pattern=r"^[a-z0-9_ ]{1,200}$")] | None = None


class TrialForm(BaseModel):
    """One trial of a study."""

    model_config = ConfigDict(extra="allow")

    combination: dict[_Setting, Any]
    point: dict[_Setting, Any]


class SweepForm(BaseModel):
    """The whole record."""

    name: _Name
    description: str = ""
    path: str = ""
    targets: list[_Name]
    evaluation: Evaluation
    cells: list[CellForm]
    trials: list[TrialForm] = []
