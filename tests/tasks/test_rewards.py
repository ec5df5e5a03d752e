from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.tasks import rewards
from harness.tasks.checking import Checker
from harness.tasks.rewards import accuracy_rewards, extract_answer, format_rewards


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    with Checker() as one:
        yield one


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer> 3 </answer>", "3"),
        ("<answer>3</answer> and <answer>4</answer>", "3"),
        ("<answer></answer>", ""),
        ("<answer>\n3\n</answer>", None),
        ("<answer>\n3\n</answer><answer>4</answer>", "4"),
        ("<answer> <answer>3</answer>", "<answer>3"),
        ("</answer><answer>3", None),
        ("3", None),
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


def _random_texts(pieces: list[str]) -> Iterator[str]:
    rng = random.Random(0)
    for _ in range(3000):
        yield "".join(rng.choices(pieces, k=rng.randrange(12)))


def test_extract_answer_finds_what_r1vs_expression_finds() -> None:
    for text in _random_texts(["<answer>", "</answer>", "<answer", "\n", "\r", " ", "3", ">"]):
        match = re.search(r"<answer>(.*?)</answer>", text)
        assert extract_answer(text) == (match.group(1).strip() if match else None)


def test_format_is_r1vs_expression() -> None:
    for text in _random_texts(["<think>", "</think>", "<answer>", "</answer>", "\n", " ", "3"]):
        match = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.DOTALL)
        assert format_rewards([text]) == [1.0 if match else 0.0]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>two and one</think><answer>3</answer>", 1.0),
        ("<think>\ntwo\nand one\n</think>\n\n<answer>\n3\n</answer>", 1.0),
        ("<think></think><answer></answer>", 1.0),
        ("<think>a</think><answer>3</answer><answer>4</answer>", 1.0),
        ("<think>a</think><answer>3</answer>\n", 0.0),
        (" <think>a</think><answer>3</answer>", 0.0),
        ("<think>a</think> so <answer>3</answer>", 0.0),
        ("<answer>3</answer>", 0.0),
        ("<answer>3</answer><think>a</think>", 0.0),
        ("<THINK>a</THINK><answer>3</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_format_rewards(text: str, reward: float) -> None:
    assert format_rewards([text]) == [reward]


@pytest.mark.parametrize(
    ("completion", "solution", "reward"),
    [
        ("<think>a</think><answer> 3 </answer>", "<answer> 3 </answer>", 1.0),
        ("<answer> 3.0 </answer>", "<answer> 3 </answer>", 1.0),
        ("it is 3", "<answer> 3 </answer>", 1.0),
        ("<answer>4</answer>", "<answer> 3 </answer>", 0.0),
        # Both halves of the "or": not a value, the same text; the same value, not the same text.
        ("<think>a</think><answer> left of </answer>", "<answer>left of</answer>", 1.0),
        ("<think>a</think><answer> right of </answer>", "<answer>left of</answer>", 0.0),
        (" left of ", "left of", 1.0),
        ("<answer> 1/2 </answer>", "<answer> 0.5 </answer>", 1.0),
        # No tag on one line: the whole stripped texts are compared.
        ("<answer>\nleft of\n</answer>", "<answer>left of</answer>", 0.0),
        ("", "<answer> 3 </answer>", 0.0),
        # What math-verify 0.9.0 makes of a number that touches the opening tag: unseen, and the reasoning's is read.
        ("<answer>3.0</answer>", "<answer> 3 </answer>", 0.0),
        ("<think>12 apples and 3 pears</think><answer>5</answer>", "<answer> 3 </answer>", 1.0),
        ("<think>12 apples and 3 pears</think><answer> 5 </answer>", "<answer> 3 </answer>", 0.0),
    ],
)
def test_accuracy_rewards(checker: Checker, completion: str, solution: str, reward: float) -> None:
    assert accuracy_rewards([completion], [solution], checker) == [reward]


def test_accuracy_rewards_keep_their_order(checker: Checker) -> None:
    completions = ["<answer>3</answer>", "4", "3.0", "<answer>3</answer>", "none"]
    assert accuracy_rewards(completions, ["<answer> 3 </answer>"] * 5, checker) == [1.0, 0.0, 1.0, 1.0, 0.0]


def test_equal_texts_need_no_child() -> None:
    checker = Checker()
    assert accuracy_rewards(["<answer>3</answer>"], ["<answer> 3 </answer>"], checker) == [1.0]
    assert checker.pid is None


def test_lengths_must_agree(checker: Checker) -> None:
    with pytest.raises(ValueError, match="shorter"):
        accuracy_rewards(["3", "3"], ["3"], checker)


def test_repeated_tags_take_linear_time() -> None:
    start = time.monotonic()
    assert extract_answer("<answer>" * 200_000) is None
    assert format_rewards(["<think>" + "</think><answer>" * 100_000]) == [0.0]
    assert time.monotonic() - start < 1


def test_import_loads_neither_torch_nor_math_verify() -> None:
    script = (
        "import sys\nimport harness.tasks.rewards, harness.tasks.prompts\n"
        "import harness.tasks.protocols, harness.tasks.score\n"
        "print(sorted({'torch', 'math_verify', 'sympy', 'transformers'} & set(sys.modules)))\n"
    )
    root = Path(rewards.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "[]\n"
