"""Worker processes on a Ray cluster: one that is there, or one on this machine for the time of the sweep.

Each worker has an actor on its node (:mod:`harness.launch.executors.ray_actor`), which holds what the run needs as
Ray's resources: CPU cores, memory, and GPUs or, once memory has been measured, a part of one. The actor has a name and
depends on no driver, so the next driver finds the workers of one that died; a worker never outlives its actor. Ray
starts nothing anew: what follows the end of a worker is the driver's to decide. Nodes that an autoscaler could add are
not counted on.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import UserError
from harness.launch.executor import Demand, End, Handle, Launch
from harness.launch.executors.local import worker_environment
from harness.launch.executors.ray_actor import Order, Spot, WorkerActor
from harness.launch.executors.ray_request import Request, Resources, request_for, shortage
from harness.launch.executors.ray_session import NAMESPACE, import_ray, open_session
from harness.spec import Execution
from harness.spec.executor import ExecutorSettings

KEEP_S = 60.0
"""For so long an actor whose worker has ended waits for a driver that asks."""

_PASSED_ON = ("HARNESS_", "HF_", "TRANSFORMERS_", "WANDB_", "PYTHONPATH")
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD")


class RayWorker:
    """A worker on a Ray cluster.

    Args:
        actor: Ray's handle of its actor.
        name: The actor's.
        is_new: Whether this driver has started it, and knows that nothing is lost while it waits for its turn.
    """

    def __init__(self, actor: Any, name: str, *, is_new: bool) -> None:
        self._actor = actor
        self._name = name
        self._is_new = is_new
        self._where = actor.where.remote()
        self._ending = actor.end.remote()
        self._answers: list[Any] = []
        self._spot: Spot | None = None
        self._stops = 0
        self._end: End | None = None

    @property
    def handle(self) -> Handle:
        """The actor's name."""
        return {"executor": "ray", "actor": self._name, "namespace": NAMESPACE}

    @property
    def spot(self) -> Spot | None:
        """Where its actor is; None while that waits for its turn."""
        ray = import_ray()
        if self._spot is None and _is_ready(self._where):
            try:
                self._spot = ray.get(self._where)
            except ray.exceptions.ActorUnavailableError:
                self._where = self._actor.where.remote()
            except ray.exceptions.RayError:
                pass  # it is lost, which its end tells
        return self._spot

    @property
    def place(self) -> str:
        """Its node, and its GPUs."""
        if self.spot is None:
            return ""
        node = f"ray node {self.spot.ip} ({self.spot.node[:8]})"
        return f"{node}, gpu {','.join(self.spot.gpus)}" if self.spot.gpus else node

    @property
    def waits(self) -> bool:
        """Whether its actor has no node yet."""
        return self._end is None and self.spot is None

    def poll(self) -> End | None:
        """How it ended; its actor is removed then."""
        if self._end is None and _is_ready(self._ending):
            self._end = self._told_end()
            if self._end is not None:
                import_ray().kill(self._actor)
        return self._end

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; one that has not got its turn yet loses it."""
        if self._end is not None:
            return
        self._stops += 1
        if self.spot is None and (self._is_new or self._stops > 1):
            import_ray().kill(self._actor)
        else:
            self._answers.append(self._actor.stop.remote(self._stops > 1))

    def _told_end(self) -> End | None:
        ray = import_ray()
        try:
            return End(*ray.get(self._ending))
        except ray.exceptions.ActorUnavailableError:  # the connection broke, which says nothing about the actor
            self._ending = self._actor.end.remote()
            return None
        except ray.exceptions.RayError as error:
            if self._stops and self.spot is None:
                return End(None, "it was stopped before it had begun")
            return End(None, self._loss(str(error)))

    def _loss(self, reason: str) -> str:
        """What Ray says in pages, in a few words."""
        where = self.place or "a ray node"
        if "creation task" in reason:
            return f"it could not be started on {where}: {reason.strip().splitlines()[-1]}"
        found = re.search(r"The actor (?:is dead|died) because (.*?)(?:\. |\.?$)", reason, re.MULTILINE)
        words = found[1] if found else reason.strip().partition("\n")[0]
        if "node" in words:
            return f"{where} was lost"
        return f"the process of Ray's that kept it on {where} was lost: {words}"


class RayExecutor:
    """The nodes of a Ray cluster.

    Args:
        settings: The cluster's address, and what runs ask for where it is not to be measured.
        execution: Of the runs to come: their devices.
        command: What is started, with the path of a `job.json` added; by default the worker, by the node's own Python.

    Raises:
        UserError: Ray is missing, no cluster can be reached, or none of its nodes has what a run needs.
    """

    queues = False

    def __init__(
        self, settings: ExecutorSettings, execution: Execution, command: Sequence[str] = ("", "-m", "harness.worker")
    ) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._workers: list[tuple[RayWorker, Request]] = []
        self._gpu_gib: float | None = None
        self._seen: dict[str, Resources] = {}
        self._is_ours = open_session(settings.address, with_gpus=execution.device != "cpu")
        try:
            nodes = self._nodes()
            self._on_gpus = execution.device != "cpu" and any(node.get("GPU") for node in nodes)
            if execution.device.startswith("cuda") and not self._on_gpus:
                raise UserError(f"execution.device is '{execution.device}', but no node of the Ray cluster has a GPU")
            self._first = self._request(Demand(execution.devices))
        except UserError:
            self.close()
            raise

    @property
    def num_slots(self) -> int:
        """Workers that fit at the same time, as far as can be foreseen."""
        fitting = sum(self._first.times(node) for node in self._nodes())
        return max(1, fitting) if self._settings.slots is None else self._settings.slots

    def has_room(self, demand: Demand) -> bool:
        """Whether as much is free, by what Ray knows and by what was asked for and is not yet given.

        Raises:
            UserError: No node that has been seen has as much.
        """
        self._workers = [(worker, request) for worker, request in self._workers if worker.poll() is None]
        if self._settings.slots is not None and len(self._workers) >= self._settings.slots:
            return False
        request = self._request(demand)
        if not any(request.fits(node) for node in self._nodes()):
            return False  # until the node that was lost is back
        free = dict(import_ray().available_resources())
        for worker, waiting in self._workers:
            if worker.spot is None:
                for name, amount in waiting.resources.items():
                    free[name] = free.get(name, 0.0) - amount
        return request.fits(free)

    def start(self, launches: Sequence[Launch]) -> list[RayWorker]:
        """Writes each `job.json` and hands its worker to Ray.

        Raises:
            UserError: No node that has been seen has what one needs.
        """
        workers = []
        for launch in launches:
            request = self._request(launch.demand)
            num_threads = launch.job.num_threads or max(1, request.cpus // launch.demand.devices)
            job = launch.job.model_copy(update={"num_threads": num_threads})
            launch.files.write_json(launch.folder.job_json, job.model_dump(mode="json"))
            order = Order(
                command=(*self._command, str(launch.folder.job_json.absolute())),
                log=str(launch.folder.log.absolute()),
                folder=os.getcwd(),
                environment=_passed_on(os.environ) | worker_environment(num_threads),
                grace_s=self._settings.grace_s,
                keep_s=KEEP_S,
            )
            workers.append(self._submit(order, f"{launch.folder.run_id}-{uuid.uuid4().hex[:12]}", request))
        return workers

    def adopt(self, handle: Handle) -> RayWorker | None:
        """The worker of another driver on the same cluster; its actor tells its end for some time after it."""
        if handle.get("executor") != "ray":
            return None
        try:
            actor = import_ray().get_actor(handle["actor"], namespace=handle["namespace"])
        except ValueError:
            return None
        worker = RayWorker(actor, handle["actor"], is_new=False)
        self._workers.append((worker, self._first))
        return worker

    def close(self) -> None:
        """Leaves the cluster; one that was started for the sweep ends, with all that still runs on it."""
        if self._is_ours:
            import_ray().shutdown()
            self._is_ours = False

    def _submit(self, order: Order, name: str, request: Request) -> RayWorker:
        actor_class = (
            import_ray()
            .remote(WorkerActor)
            .options(
                name=name,
                namespace=NAMESPACE,
                lifetime="detached",
                max_restarts=0,
                max_task_retries=0,
                num_cpus=request.cpus,
                num_gpus=request.gpus,
                memory=request.memory or None,
            )
        )
        worker = RayWorker(actor_class.remote(order), name, is_new=True)
        self._workers.append((worker, request))
        return worker

    def _request(self, demand: Demand) -> Request:
        """What to ask for a run.

        Raises:
            UserError: No node that has been seen has as much.
        """
        for worker, _ in self._workers:
            if worker.spot is not None and worker.spot.gpu_gib is not None:
                self._gpu_gib = min(worker.spot.gpu_gib, self._gpu_gib or worker.spot.gpu_gib)
        nodes = list(self._seen.values())
        request = request_for(demand, self._settings, nodes, self._gpu_gib, on_gpus=self._on_gpus)
        if not any(request.fits(node) for node in nodes):
            raise UserError(shortage(request, nodes))
        return request

    def _nodes(self) -> list[Resources]:
        """What each node has in all that lives; those that died are remembered."""
        alive = {node["NodeID"]: node["Resources"] for node in import_ray().nodes() if node["Alive"]}
        self._seen |= alive
        return list(alive.values())


def _is_ready(answer: Any) -> bool:
    return bool(import_ray().wait([answer], timeout=0)[0])


def _passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What a node learns of this driver's environment: settings of what workers use, and no credentials.

    Ray's own processes could show them; a node has its own.
    """
    return {
        name: value for name, value in environment.items() if name.startswith(_PASSED_ON) and not _SECRET.search(name)
    }
