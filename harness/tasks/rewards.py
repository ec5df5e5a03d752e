"""R1-V's two reward components: accuracy and format, each 0 or 1 per completion.

The reward of the paper (Eq. 1) is accuracy + format_weight * format; the weighting belongs to the method.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.tasks.checking import Checker, default_checker

_FORMAT = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)


def extract_answer(completion: str) -> str | None:
    """The stripped contents of the first answer tag; None where there is none.

    What R1-V's ``re.search("<answer>(.*?)</answer>", completion)`` finds: since ``.`` matches no newline, both tags
    stand on one line. Read line by line, because the expression takes the square of the length where a text repeats the
    opening tag.
    """
    for line in completion.split("\n"):
        _, opening, rest = line.partition("<answer>")
        answer, closing, _ = rest.partition("</answer>")
        if opening and closing:
            return answer.strip()
    return None


def accuracy_rewards(
    completions: Sequence[str], solutions: Sequence[str], checker: Checker | None = None
) -> list[float]:
    """Accuracy as R1-V rewards it.

    1 where math_verify holds ``verify(parse(completion), parse(solution))``, else 1 where the contents of the first
    answer tags are the same text (the whole text where there is no tag), else 0. The two are joined by "or", so the
    cheap comparison comes first here.

    math_verify reads the whole completion, not the tag. With math-verify 0.9.0 a bare number that touches the opening
    tag (``<answer>5</answer>``) is not seen, and a number of the reasoning is taken in its place: such a completion can
    earn the reward with a wrong answer. That is R1-V's reward, kept as it is.

    Args:
        completions: ``[N]`` texts.
        solutions: ``[N]`` texts such as ``"<answer> 3 </answer>"`` or ``"3"``.
        checker: What runs math_verify; the process's own by default.

    Returns:
        ``[N]`` rewards, each 0.0 or 1.0.

    Raises:
        ValueError: The lengths differ.
        RunError: math_verify cannot be started.
    """
    pairs = list(zip(completions, solutions, strict=True))
    same = [_comparable(completion) == _comparable(solution) for completion, solution in pairs]
    rest = [pair for pair, equal in zip(pairs, same, strict=True) if not equal]
    verdicts = iter((checker or default_checker()).verdicts(rest) if rest else [])
    return [1.0 if equal or next(verdicts) else 0.0 for equal in same]


def format_rewards(completions: Sequence[str]) -> list[float]:
    r"""Format as R1-V rewards it.

    1 where the whole completion matches ``<think>.*?</think>\s*<answer>.*?</answer>``, dots matching newlines too; else
    0. Nothing may stand before or after, and, as in R1-V, further tags may stand inside.

    Args:
        completions: ``[N]`` texts.

    Returns:
        ``[N]`` rewards, each 0.0 or 1.0.
    """
    # endswith changes no reward: it spares the square of the length on texts that repeat the inner tags.
    return [1.0 if text.endswith("</answer>") and _FORMAT.fullmatch(text) else 0.0 for text in completions]


def _comparable(text: str) -> str:
    answer = extract_answer(text)
    return text.strip() if answer is None else answer
