"""The class of an error, from errors as they really come."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from small_disk import fill, small_disk

from harness.errors import (
    DataError,
    FencedError,
    HarnessError,
    ModelError,
    NonFiniteError,
    OutOfMemoryError,
    ProcessLostError,
    RunError,
    SpecError,
)
from harness.record.failures import failure_of, is_disk_full


def raised_by(work):
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def chained(error, cause):
    try:
        raise error from cause
    except Exception as found:
        return found


def beside(error, other):
    """An error that came while another was handled."""
    try:
        try:
            raise other
        except Exception:
            raise error  # noqa: B904 - that is what is looked at
    except Exception as found:
        return found


def test_memory_that_is_really_not_there():
    host = raised_by(lambda: bytearray(1 << 62))
    assert isinstance(host, MemoryError)
    allocator = raised_by(lambda: torch.empty(1 << 60, dtype=torch.uint8))
    assert type(allocator) is RuntimeError
    assert [failure_of(error) for error in (host, allocator)] == ["out_of_memory"] * 2


@pytest.mark.parametrize(
    "error",
    [
        # The words of PyTorch's CUDA allocator, of cuBLAS, of C++ and of the C library.
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of ..."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("unable to mmap 1024 bytes from file <x>: Cannot allocate memory (12)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried ..."),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        OutOfMemoryError("update", 40, "no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_by_the_words_of_those_who_ran_out(error):
    assert failure_of(error) == "out_of_memory"
    assert not is_disk_full(error)


def test_a_disk_that_is_really_full(tmp_path):
    with small_disk(tmp_path / "disk", 16 * 4096) as disk:
        fill(disk)
        plain = raised_by(lambda: (disk / "a").write_bytes(bytes(9000)))
        native = raised_by(lambda: save_file({"a": torch.ones(9000)}, disk / "a.safetensors"))
    assert isinstance(plain, OSError) and plain.errno == errno.ENOSPC
    # An error of its own, which only tells of the system's in words.
    assert type(native).__name__ == "SafetensorError" and not isinstance(native, OSError)
    assert [failure_of(error) for error in (plain, native)] == ["disk_full"] * 2


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EDQUOT, "disk_full"),
        (errno.EROFS, "not_writable"),
        (errno.EACCES, "not_writable"),
        (errno.EPERM, "not_writable"),
        (errno.ENOMEM, "out_of_memory"),
        (errno.EIO, "bug"),
        (errno.ENOENT, "bug"),
    ],
)
def test_the_numbers_of_the_system(number, failure):
    error = OSError(number, os.strerror(number), "results/runs/x/state.json")
    assert failure_of(error) == failure
    assert is_disk_full(error) == (failure == "disk_full")


def test_a_folder_that_is_really_not_writable(tmp_path):
    with small_disk(tmp_path / "disk", 16 * 4096) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert failure_of(raised_by(lambda: (disk / "a").touch())) == "not_writable"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on files is Linux's")
def test_a_limit_on_files_is_no_full_disk(tmp_path):
    """Room on the disk would not help, so waiting for it would be for ever."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        error = raised_by(lambda: save_file({"a": torch.ones(9000)}, tmp_path / "a.safetensors"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (type(error).__name__, failure_of(error)) == ("SafetensorError", "bug")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (NonFiniteError("loss", 3, ["counting/train/7"]), "non_finite"),
        (DataError("rows.jsonl:3: no answer"), "bad_input"),
        (SpecError("beta_min is above beta_max"), "bad_input"),
        (ModelError("there is no model x"), "bad_input"),
        (FencedError("another process has taken over"), "worker_lost"),
        (ProcessLostError("process 1 of 0 to 1 was ended by SIGKILL"), "worker_lost"),
        (RuntimeError("shape mismatch"), "bug"),
        (RunError("something else"), "bug"),
        (HarnessError("something else"), "bug"),
        (KeyError("memory"), "bug"),
        (ValueError("not enough memory of what was said"), "bug"),
        (ZeroDivisionError(), "bug"),
        (AssertionError("CUDA out of memory"), "bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_the_class_of_an_error_by_itself(error, failure):
    assert failure_of(error) == failure


def test_the_first_of_a_chain_that_has_a_class_gives_it():
    full = OSError(errno.ENOSPC, "No space left on device")
    memory = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    assert failure_of(chained(RuntimeError("cannot save"), full)) == "disk_full"
    assert failure_of(beside(RuntimeError("cannot save"), full)) == "disk_full"
    assert failure_of(chained(RuntimeError("a"), chained(ValueError("b"), memory))) == "out_of_memory"
    # What a class of its own says goes before what was behind it.
    assert failure_of(chained(DataError("cannot be read"), full)) == "bad_input"
    assert failure_of(chained(full, memory)) == "disk_full"
    assert failure_of(chained(KeyError("a"), IndexError("b"))) == "bug"
    loop = RuntimeError("a")
    loop.__cause__ = RuntimeError("b")
    loop.__cause__.__cause__ = loop
    assert failure_of(loop) == "bug"
