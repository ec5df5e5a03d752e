"""Makes `import torchvision` work beside a build of torch that it was not compiled for.

TRL needs torchvision for Qwen2-VL: transformers' processor holds a video processor that imports it. Where only the CUDA
build of torchvision is at hand and torch is a CPU build, the compiled operators cannot be loaded and torchvision, which
attaches Python code to them as it is imported, fails. Declaring the names is enough, because nothing here calls them.
Only the peer needs this: the project itself does not import torchvision.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "roi_pool",
    "ps_roi_align",
    "ps_roi_pool",
    "deform_conv2d",
    "_roi_align_backward",
    "_roi_pool_backward",
    "_ps_roi_align_backward",
    "_ps_roi_pool_backward",
    "_deform_conv2d_backward",
)


def declare_operators() -> torch.library.Library | None:
    """Declares torchvision's operators where its own library cannot be loaded; call it before importing torchvision.

    Returns:
        The declarations, which last as long as this object; None where torchvision is missing or works by itself.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    for library in Path(found.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return None
    declared = torch.library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        declared.define(f"{name}(Tensor input) -> Tensor")
    return declared
