"""How published evaluations decide what counts as correct: R1-V's two test scripts (commit bbbbe3d).

Checked against R1-V's own logs, row by row: 96 of 200 for counting, 231 of 754 for GEOQA with math-verify 0.9.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.errors import DataError
from harness.spec.names import PROTOCOLS, resolve
from harness.tasks.checking import Checker, default_checker
from harness.tasks.rewards import extract_answer

_COUNT = re.compile(r"<answer>\s*(\d+)\s*</answer>")
_INTEGER = re.compile(r"[+-]?\d{1,18}")


@dataclass(frozen=True)
class Verdict:
    """What a protocol says of one completion.

    Attributes:
        correct: Whether it counts.
        extracted: The answer that was read from it; None where there was none.
    """

    correct: bool
    extracted: str | None


@dataclass(frozen=True)
class Protocol:
    """An evaluation rule.

    Attributes:
        name: Its name in :data:`harness.spec.names.PROTOCOLS`.
        max_new_tokens: How long a completion may be under this rule, in tokens; decoding is greedy.
        description: One sentence.
        gold: Reads the bare answer out of a solution, with or without answer tags; raises :class:`DataError`.
        judge: Gives one verdict per pair of a completion and a bare answer.
    """

    name: str
    max_new_tokens: int
    description: str
    gold: Callable[[str], str] = field(repr=False)
    judge: Callable[[Sequence[tuple[str, str]], Checker | None], list[Verdict]] = field(repr=False)

    def verdicts(
        self, completions: Sequence[str], solutions: Sequence[str], checker: Checker | None = None
    ) -> list[Verdict]:
        """Judges completions.

        Args:
            completions: ``[N]`` texts.
            solutions: ``[N]`` answers, with or without answer tags.
            checker: What runs math_verify, where the rule needs it; the process's own by default.

        Returns:
            ``[N]`` verdicts.

        Raises:
            ValueError: The lengths differ.
            DataError: A solution is not one that this rule can compare with.
            RunError: math_verify cannot be started.
        """
        pairs = [(text, self.gold(solution)) for text, solution in zip(completions, solutions, strict=True)]
        return self.judge(pairs, checker)


def load_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        SpecError: There is none.
    """
    protocol: Protocol = resolve(PROTOCOLS, "protocol", name)
    return protocol


def _bare(solution: str) -> str:
    answer = extract_answer(solution)
    bare = solution.strip() if answer is None else answer
    if not bare:
        raise DataError("the solution is empty")
    return bare


def _bare_integer(solution: str) -> str:
    bare = _bare(solution)
    if not _INTEGER.fullmatch(bare):
        raise DataError(f"r1v_counting needs a whole number as solution, not '{bare[:40]}'")
    return bare


def _judge_counts(pairs: Sequence[tuple[str, str]], checker: Checker | None) -> list[Verdict]:
    verdicts = []
    for completion, gold in pairs:
        match = _COUNT.search(completion)
        if match is None:
            verdicts.append(Verdict(False, None))
            continue
        digits = match.group(1).lstrip("0") or "0"
        # More digits than a solution may have are wrong, and Python refuses to read very many.
        correct = _INTEGER.fullmatch(digits) is not None and int(digits) == int(gold)
        verdicts.append(Verdict(correct, match.group(1)))
    return verdicts


def _judge_values(pairs: Sequence[tuple[str, str]], checker: Checker | None) -> list[Verdict]:
    checks = (checker or default_checker()).checks(pairs)
    return [Verdict(check.verified, check.extracted) for check in checks]


r1v_counting = Protocol(
    name="r1v_counting",
    max_new_tokens=256,
    description="the first whole number that stands alone in answer tags equals the solution; no such tag is wrong",
    gold=_bare_integer,
    judge=_judge_counts,
)

r1v_geoqa = Protocol(
    name="r1v_geoqa",
    max_new_tokens=1024,
    description="math_verify finds the solution's value in the whole completion; no tag is needed",
    gold=_bare,
    judge=_judge_values,
)
