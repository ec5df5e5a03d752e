"""The reference of the KL term: the policy as it was before it learnt, where and only while it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.policy.learning import has_adapter, without_adapter
from harness.policy.policy import Policy


class Reference:
    """A policy that never changes.

    With LoRA it is the policy itself with its adapter off, so it takes no memory. Otherwise it is a copy, beside the
    policy or, offloaded, in host memory while nothing is asked of it.

    Args:
        policy: As it is now.
        offload: Whether a copy waits in host memory.
    """

    def __init__(self, policy: Policy, *, offload: bool = False) -> None:
        self._policy = policy
        self._device = policy.device
        self._offload = offload and policy.device.type != "cpu"
        self._copy = None if has_adapter(policy) else policy.frozen_copy()
        if self._copy is not None and self._offload:
            self._copy.model.to("cpu")

    @contextmanager
    def active(self) -> Iterator[Policy]:
        """The reference as a policy, on the policy's device."""
        if self._copy is None:
            with without_adapter(self._policy) as policy:
                yield policy
            return
        if self._offload:
            self._copy.model.to(self._device)
        try:
            yield self._copy
        finally:
            if self._offload:
                self._copy.model.to("cpu")
