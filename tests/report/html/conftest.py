"""A small sweep with run folders, and a real browser: Chromium without a window, spoken to through two pipes.

The pipes carry the Chrome DevTools Protocol, https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.record.atomic import write_json, write_jsonl
from harness.record.folder import RunFolder
from harness.report.html.pdf import browser_options, find_browser
from harness.spec.sweep import Sweep, load_sweep
from harness.tasks.base import load_task

TIMEOUT_S = 60.0

HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
"""What a model must not be able to do to its reader."""

SWEEP = """\
name: small
description: Is <b>grpo</b> better than sft?
base: {num_train: 8, method.num_steps: 4}
axes: {method: [base, sft, grpo], source: [counting], seed: [0, 1, 2]}
targets: [counting]
evaluation: {num_examples: 4, every: 2, num_validation: 2}
claims:
  - {name: over, says: GRPO beats <i>SFT</i>, better: {method: grpo}, than: {method: sft}, on: same_task}
  - {name: under, says: SFT beats GRPO, better: {method: sft}, than: {method: grpo}, on: same_task}
"""

RIGHT = {"base": (1, 0, 0, 0), "sft": (0, 0, 0, 0), "grpo": (1, 1, 1, 0)}
"""Verdicts on four examples, the same for every seed."""


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    file = tmp_path_factory.mktemp("sweep") / "small.yaml"
    file.write_text(SWEEP)
    return load_sweep(file)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, sweep: Sweep) -> Path:
    """The folders of all seven runs, completed."""
    folder = tmp_path_factory.mktemp("results")
    for run in sweep.runs.values():
        _write_run(RunFolder(folder, run.run_id), run.spec)
    return folder


def _write_run(folder: RunFolder, spec: Any) -> None:
    method = spec.method.type
    right = RIGHT[method]
    write_jsonl(folder.evaluation("counting"), [_answer("test", at, right[at], method) for at in range(4)])
    if method != "base":
        steps = [{"step": step, "target": "counting"} for step in (1, 3)]
        rows = [of_step | _answer("validation", at, of_step["step"] > 1, method) for of_step in steps for at in (0, 1)]
        write_jsonl(folder.validations, rows)
        # Whole numbers, so that the running mean over steps can be done in the head: 0, 1, 2, 3 -> 0, 0.5, 1, 1.5.
        write_jsonl(folder.metrics, [{"step": step, "rollout/length": step, "train/beta": 0.04} for step in range(4)])
    if method == "grpo":
        write_jsonl(folder.completions, [_sample(step, at) for step in (0, 3) for at in (5, 6) for _ in range(2)])
    attempt = {"started": "2026-01-02T03:04:05+0000", "ended": "2026-01-02T03:04:12+0000", "start_step": 0}
    attempt |= {"outcome": "completed", "device": "cpu", "commit": "c0ffee", "dirty": False, "host": "secrethost"}
    source = {"commit": "c0ffee", "dirty": True, "versions": {"torch": "2.13.0"}, "cpu": "a cpu", "host": "secrethost"}
    resolved = {"device": "cpu", "num_threads": 1}
    record = {"spec": spec.model_dump(mode="json"), "job": {"sweep": "small"}, "resolved": resolved}
    write_json(folder.run_json, {**record, "provenance": source, "attempts": [attempt]})
    counted = {"num_examples": 4, "num_correct": sum(right), "accuracy": sum(right) / 4, "format": 0.5}
    write_json(folder.summary, {"evaluations": {"counting": {**counted, "protocol": "r1v_counting"}}})


def _answer(split: Any, index: int, right: int | bool, method: str) -> dict[str, Any]:
    example = load_task("counting").example(split, index)
    text = f"<think> {method} looked </think> <answer> {index} </answer>" if index < 2 else f"{method}: {HOSTILE}"
    return {
        "index": index,
        "id": example.id,
        "question": example.question,
        "completion": text,
        "extracted": str(index) if index < 2 else HOSTILE,
        "correct": bool(right),
        "format": float(index < 2),
        "accuracy_reward": float(right),
        "solution": example.answer,
        "num_tokens": 5,
    }


def _sample(step: int, index: int) -> dict[str, Any]:
    example = load_task("counting").example("train", index)
    about = {"step": step, "id": example.id, "question": example.question, "solution": example.answer}
    return {
        **about,
        "completion": "<answer> 1 </answer>",
        "reward": 1.5,
        "accuracy": 1.0,
        "format": 0.5,
        "advantage": -1,
    }


@pytest.fixture(scope="session")
def browser() -> str:
    """The program; tests that need it are skipped where there is none."""
    try:
        return find_browser()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def page(browser: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A tab of a browser."""
    with opened(browser, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


class Page:
    """One tab.

    Attributes:
        requests: Addresses that were asked for, in order; what the page holds itself (`data:`, `blob:`) is left out.
        complaints: Uncaught errors, and what was logged as an error or a warning.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._write, self._read = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, file: Path) -> None:
        """Loads a file and waits until it is parsed and its pictures are there."""
        self.loaded = False
        self.call("Page.navigate", url=file.as_uri())
        end = time.monotonic() + TIMEOUT_S
        while not self.loaded:
            self._event(end)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited where it is a promise.

        Raises:
            AssertionError: It threw.
        """
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Waits until an expression is true, looking at every frame that is drawn."""
        ticks = "new Promise(resolve => requestAnimationFrame(resolve))"
        end = time.monotonic() + TIMEOUT_S
        while not self.run(f"{ticks}.then(() => Boolean({condition}))"):
            assert time.monotonic() < end, f"never: {condition}"

    def press(self, key: str) -> None:
        """Presses a key, as a keyboard does."""
        text = {"Enter": "\r", "Space": " "}.get(key)
        name = {"Space": " "}.get(key, key)
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}
        about = {"key": name, "code": key, "windowsVirtualKeyCode": codes[key]} | ({"text": text} if text else {})
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Sets the size of the window, in CSS pixels, and the colours that the reader prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        value = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def screenshot(self, out: Path) -> None:
        """Writes what the window shows as PNG."""
        out.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        left = json.dumps(message).encode() + b"\0"
        while left:
            left = left[os.write(self._write, left) :]
        end = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._event(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _event(self, end: float) -> dict[str, Any]:
        """The next message, noted where it is of interest."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            read = os.read(self._read, 1 << 20)
            assert read, "the browser has ended"
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        about = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self.loaded = True
            case "Network.requestWillBeSent" if not about["request"]["url"].startswith(("data:", "blob:")):
                self.requests.append(about["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(about["exceptionDetails"].get("exception", {}).get("description", str(about)))
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(about["args"]))
            case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                self.complaints.append(about["entry"]["text"])
        return message


@contextmanager
def opened(browser: str, profile: Path) -> Iterator[Page]:
    """A tab of a browser of its own, which ends with the block.

    Args:
        browser: Its program.
        profile: An empty folder.
    """
    ours_read, theirs_write = os.pipe()
    theirs_read, ours_write = os.pipe()
    # The protocol's pipes are file descriptors 3 and 4 of the browser.
    script = f'exec "$0" "$@" 3<&{theirs_read} 4>&{theirs_write}'
    command = [browser, *browser_options(profile), "--remote-debugging-pipe", "about:blank"]
    process = subprocess.Popen(
        ["bash", "-c", script, *command],
        pass_fds=(theirs_read, theirs_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs_read)
    os.close(theirs_write)
    try:
        yield Page(ours_write, ours_read)
    finally:
        os.close(ours_write)
        os.close(ours_read)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
