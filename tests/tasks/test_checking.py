from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from harness.errors import RunError
from harness.tasks import checking
from harness.tasks.checking import Checker, default_checker
from harness.tasks.rewards import accuracy_rewards

ENDLESS = r"\boxed{9^{99999999}}"


@pytest.fixture
def checker() -> Iterator[Checker]:
    with Checker(timeout_s=0.5) as one:
        yield one


@pytest.fixture(scope="module")
def shared() -> Iterator[Checker]:
    with Checker(timeout_s=2.0) as one:
        yield one


@pytest.fixture(scope="module")
def impatient() -> Iterator[Checker]:
    with Checker(timeout_s=0.3) as one:
        yield one


def _is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended but that nobody waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z" if Path("/proc/self").exists() else True
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_for_end(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("completion", "solution", "verdict"),
    [
        ("<think>2 + 2</think><answer> 4 </answer>", "<answer> 4 </answer>", True),
        ("<answer> 5 </answer>", "<answer> 4 </answer>", False),
        ("the answer is 0.5", "1/2", True),
        (r"so $x = \frac{6}{4}$", r"$\frac{3}{2}$", True),
        ("it is 140°", "140", True),
        ("I do not know", "4", False),
        ("", "4", False),
        ("4", "", False),
    ],
)
def test_verdicts_of_plain_answers(shared: Checker, completion: str, solution: str, verdict: bool) -> None:
    assert shared.verdicts([(completion, solution)]) == [verdict]


def test_batch_keeps_its_order_and_repeats(shared: Checker) -> None:
    pairs = [(f"<answer> {i} </answer>", f"{i + i % 2}") for i in range(40)]
    assert shared.verdicts(pairs + pairs) == [i % 2 == 0 for i in range(40)] * 2


def test_empty_batch_starts_no_child(checker: Checker) -> None:
    assert checker.verdicts([]) == []
    assert checker.pid is None


def test_a_child_that_was_started_early_gives_the_first_verdict(checker: Checker) -> None:
    checker.start()
    pid = checker.pid
    assert pid is not None and _is_running(pid)
    checker.start()
    assert checker.verdicts([("<answer> 0.5 </answer>", "1/2"), ("<answer> 4 </answer>", "5")]) == [True, False]
    assert checker.pid == pid


def test_extracted_is_the_text_that_was_compared(shared: Checker) -> None:
    assert shared.checks([("it is 135.0 degrees", "15°")]) == [(False, "135.0")]
    assert shared.checks([("nothing", "15°")]) == [(False, None)]


HOSTILE = {
    "nested fractions": "$" + r"\frac{" * 1500 + "1" + "}{2}" * 1500 + "$",
    "unfinished fractions": r"\frac{" * 1700,
    "power tower": "9**9**9**9",
    "LaTeX power tower": r"$9^{9^{9^{9}}}$",
    "factorial": "$100000000!$",
    "unbalanced braces": r"$\left(\frac{1{2" + "{" * 3000 + "$",
    "NUL": "<answer>\x00 7\x00</answer>",
    "lone surrogates": "\ud800 <answer>\udc00</answer>",
    "digits": "9" * 100_000,
    "LaTeX digits": "$" + "9" * 100_000 + "$",
    "tags": "<think></think><answer>" * 4000,
    "newlines": "\n" * 10_000 + "\r\u2028",
    "parentheses": "$" + "(" * 800 + "1" + ")" * 800 + "$",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_completion_costs_bounded_time_and_no_later_check(name: str, impatient: Checker) -> None:
    num_timeouts = impatient.num_timeouts
    start = time.monotonic()
    # A number of its own for each, so that no verdict comes from the cache.
    number = list(HOSTILE).index(name)
    right, wrong = (f"it is {number}", f"{number}"), (f"it is {number}", "-1")
    assert impatient.verdicts([(HOSTILE[name], "<answer> 3 </answer>"), right, wrong]) == [False, True, False]
    assert time.monotonic() - start < 10
    assert impatient.num_timeouts <= num_timeouts + 1


def test_code_in_a_completion_is_not_run(checker: Checker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "__import__('os').system('touch x')"
    forms = [
        code,
        f"<answer> {code} </answer>",
        rf"$\operatorname{{{code}}}$",
        f"${code}$",
        rf"\boxed{{{code}}}",
        f"{code} + 1",
    ]
    assert checker.verdicts([(form, "3") for form in forms]) == [False] * len(forms)
    assert list(tmp_path.iterdir()) == []


def test_hostile_solution_is_bounded_too(checker: Checker) -> None:
    assert checker.verdicts([("3", ENDLESS), ("3", "3")]) == [False, True]


def test_a_pair_over_the_bound_is_counted_and_not_tried_again(checker: Checker) -> None:
    pairs = [("1", "1"), (ENDLESS, "3"), ("2", "2")]
    assert checker.verdicts(pairs) == [True, False, True]
    assert checker.num_timeouts == 1
    assert checker.verdicts(pairs) == [True, False, True]
    assert checker.num_timeouts == 1


def test_child_that_stands_still_is_given_up(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checker.verdicts([("1", "1")]) == [True]
    monkeypatch.setattr(checking, "_WALL_FACTOR", 1.0)
    assert checker.pid is not None
    os.kill(checker.pid, signal.SIGSTOP)
    assert checker.verdicts([("2", "2"), ("3", "3")]) == [False, True]
    assert checker.num_timeouts == 1


def test_stray_kill_changes_no_verdict(checker: Checker) -> None:
    for i in range(2):
        assert checker.verdicts([(f"{i}", f"{i}")]) == [True]
        assert checker.pid is not None
        os.kill(checker.pid, signal.SIGKILL)
    assert checker.verdicts([("5", "5"), ("6", "5")]) == [True, False]
    assert checker.num_timeouts == 0


def test_signals_meant_for_the_parent_do_not_end_the_child(checker: Checker) -> None:
    checker.verdicts([("1", "1")])
    pid = checker.pid
    assert pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid, number)
    assert checker.verdicts([("2", "2")]) == [True]
    assert checker.pid == pid


def test_interrupted_batch_leaves_no_answer_behind(checker: Checker) -> None:
    class StopError(Exception):
        pass

    def stop(number: int, frame: object) -> None:
        raise StopError

    checker.verdicts([("1", "1")])
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(StopError):
            checker.verdicts([("2", "2"), (ENDLESS, "3"), ("4", "5")])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert checker.pid is None
    assert checker.verdicts([("6", "7"), ("8", "8")]) == [False, True]


def test_threads_share_a_checker(shared: Checker) -> None:
    found: dict[int, list[bool]] = {}

    def work(thread: int) -> None:
        found[thread] = shared.verdicts([(f"{i + thread}", f"{i}") for i in range(20)])

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {thread: [thread == 0] * 20 for thread in range(4)}


def test_spawned_worker_checks() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(accuracy_rewards, ["it is 0.5", "0.4"], ["1/2", "1/2"]).result() == [1.0, 0.0]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_process_gets_a_child_of_its_own(checker: Checker) -> None:
    checker.verdicts([("1", "1")])
    parents = checker.pid
    forked = os.fork()
    if forked == 0:
        good = checker.pid is None and checker.verdicts([("2", "2"), ("2", "3")]) == [True, False]
        good = good and checker.pid != parents
        checker.close()
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert checker.verdicts([("4", "4")]) == [True]
    assert checker.pid == parents


def test_close_ends_the_child_and_a_later_check_starts_another(checker: Checker) -> None:
    checker.verdicts([("1", "1")])
    pid = checker.pid
    assert pid is not None
    checker.close()
    assert checker.pid is None
    assert not _is_running(pid)
    assert checker.verdicts([("2", "2")]) == [True]
    assert checker.pid != pid


def test_child_ends_with_its_checker() -> None:
    checker = Checker()
    checker.verdicts([("1", "1")])
    pid = checker.pid
    assert pid is not None
    del checker
    assert _wait_for_end(pid, 5)


@pytest.mark.parametrize("ending", ["pass", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_child_ends_with_its_parent(ending: str) -> None:
    script = (
        "import os, signal\nfrom harness.tasks.checking import default_checker\n"
        f"default_checker().verdicts([('1', '1')])\nprint(default_checker().pid, flush=True)\n{ending}\n"
    )
    root = Path(checking.__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, cwd=root, check=False
    )
    assert found.stderr == ""
    assert _wait_for_end(int(found.stdout), 5)


def test_busy_child_ends_with_its_parent() -> None:
    script = (
        "import os, signal\nfrom harness.tasks.checking import Checker\n"
        "checker = Checker(timeout_s=0.6)\nchecker.verdicts([('1', '1')])\nprint(checker.pid, flush=True)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.2)\n"  # Its default action ends the process, as a kill would.
        f"checker.verdicts([({ENDLESS!r}, '3')])\n"
    )
    root = Path(checking.__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=False)
    assert found.returncode == -signal.SIGALRM
    assert _wait_for_end(int(found.stdout), 10)


def test_child_that_cannot_start_fails_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checking, "_SCRIPT", tmp_path / "absent.py")
    with Checker() as checker, pytest.raises(RunError, match="died twice"):
        checker.verdicts([("1", "1")])


def test_missing_math_verify_fails_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('it is absent')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Checker() as checker, pytest.raises(RunError, match="cannot start: ImportError: it is absent"):
        checker.verdicts([("1", "1")])


def test_cache_keeps_the_most_recent() -> None:
    with Checker(max_cached=2) as checker:
        checker.verdicts([("1", "1"), ("2", "2"), ("3", "3")])
        checker.close()
        assert checker.verdicts([("2", "2"), ("3", "3")]) == [True, True]
        assert checker.pid is None
        assert checker.verdicts([("1", "1")]) == [True]
        assert checker.pid is not None


def test_bound_must_be_positive() -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        Checker(timeout_s=0)


def test_process_has_one_default_checker() -> None:
    assert default_checker() is default_checker()
