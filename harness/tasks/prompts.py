"""R1-V's prompts, word for word: the text that follows the image in the user's turn.

Training and evaluation differ on purpose, as they do in R1-V (commit bbbbe3d): training puts two spaces after the
question, the GEOQA evaluation one, and the counting evaluation says "First output".
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import SpecError, nearest

_TAGS = "the thinking process in <think> </think> and final answer (number) in <answer> </answer> tags."

_EVALUATION: Mapping[str, str] = {
    "r1v_counting": f" First output {_TAGS}",
    "r1v_geoqa": f" Output {_TAGS}",
}


def training_prompt(question: str) -> str:
    """The text of a training prompt.

    Args:
        question: Without any instruction about tags.

    Returns:
        The question, two spaces and R1-V's training instruction.
    """
    return f"{question}  Output {_TAGS}"


def evaluation_prompt(question: str, protocol: str) -> str:
    """The text of an evaluation prompt.

    Args:
        question: Without any instruction about tags.
        protocol: A name of :data:`harness.spec.names.PROTOCOLS`.

    Raises:
        SpecError: No prompt belongs to that protocol.
    """
    if protocol not in _EVALUATION:
        raise SpecError(f"unknown protocol '{protocol}': {nearest(protocol, _EVALUATION)}")
    return question + _EVALUATION[protocol]
