"""A stand-in for a W&B server: what the real SDK asks over HTTP, kept in memory and answered as the real server does.

It knows runs, their history, summary and files; artifacts are taken and their files stored. Like the real server it
continues a run after the last step it has, and refuses an id that was deleted. An operation that it does not know is
answered with an error and kept in `unknown`.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "someone"


@dataclass
class ServerRun:
    """One run as the server has it."""

    id: str
    project: str
    display_name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def node(self) -> dict[str, Any]:
        """The run as GraphQL has it."""
        tail = [json.dumps(self.history[-1])] if self.history else []
        return {
            "id": base64.b64encode(self.id.encode()).decode(),
            "name": self.id,
            "displayName": self.display_name,
            "description": "",
            "notes": "",
            "state": "finished" if self.exit_code == 0 else "running" if self.exit_code is None else "failed",
            "config": json.dumps(self.config),
            "summaryMetrics": json.dumps(self.summary),
            "sweepName": None,
            "group": self.group,
            "groupName": self.group,
            "jobType": self.job_type,
            "tags": self.tags,
            "createdAt": "2025-01-01T00:00:00Z",
            "historyLineCount": len(self.history),
            "eventsLineCount": len(self.events),
            "logLineCount": 0,
            "historyTail": json.dumps(tail),
            "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": 1}),
            "project": {"id": "UA==", "name": self.project, "entity": {"id": "RQ==", "name": ENTITY}},
        }


class Server:
    """The server, on a free port of this machine until the `with` block ends.

    Attributes:
        runs: By id.
        deleted: Ids that it gives to nobody again.
        views: What was saved as workspaces and reports: the variables of each call.
        refuses: Operations that it answers with an error.
        operations: Every GraphQL operation, in order.
        unknown: Those that it cannot answer.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServerRun] = {}
        self.deleted: set[str] = set()
        self.views: list[dict[str, Any]] = []
        self.refuses: set[str] = set()
        self.stored: dict[str, bytes] = {}
        self.operations: list[str] = []
        self.unknown: list[str] = []
        self._lock = threading.Lock()
        self._artifacts = 0
        self._view_numbers = itertools.count(100)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(200, {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with server._lock:
                    if self.path == "/graphql":
                        self._reply(*server._graphql(json.loads(body)))
                    elif self.path.endswith("/file_stream"):
                        self._reply(200, server._stream(self.path.split("/")[-2], json.loads(body)))
                    else:
                        server.unknown.append(self.path)
                        self._reply(404, {})

            def do_PUT(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with server._lock:
                    server.stored[self.path] = content
                self._reply(200, {})

            def _reply(self, status: int, answer: Any) -> None:
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def delete(self, run_id: str) -> None:
        """Deletes a run, as a user does on its page."""
        del self.runs[run_id]
        self.deleted.add(run_id)

    def _stream(self, run_id: str, body: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[run_id]
        for name, chunk in body.get("files", {}).items():
            lines, offset = chunk["content"], chunk.get("offset", 0)
            if name == "wandb-history.jsonl":
                run.history[offset:] = [json.loads(line) for line in lines]
            elif name == "wandb-summary.json":
                run.summary = json.loads(lines[-1])
            elif name == "wandb-events.jsonl":
                run.events[offset:] = lines
        if body.get("complete"):
            run.exit_code = body.get("exitcode")
        return {}

    def _graphql(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        query, given = body["query"], body.get("variables") or {}
        found = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        name = found.group(1) if found else query.strip()[:60]
        self.operations.append(name)
        if name in self.refuses:
            return 200, {"errors": [{"message": "not allowed"}]}
        answer = getattr(self, f"_{name}", None)
        if answer is None:
            self.unknown.append(query)
            return 200, {"errors": [{"message": f"unknown operation {name}"}]}
        result = answer(given)
        return (409, {"errors": [{"message": result}]}) if isinstance(result, str) else (200, {"data": result})

    def _UpsertBucket(self, given: dict[str, Any]) -> Any:
        run_id = given["name"]
        if run_id in self.deleted:
            return f"run {run_id} was previously created and deleted; try a new run name"
        is_new = run_id not in self.runs
        run = self.runs.setdefault(run_id, ServerRun(run_id, given["project"]))
        run.display_name = given.get("displayName") or run.display_name
        run.group = given.get("groupName") or run.group
        run.job_type = given.get("jobType") or run.job_type
        run.tags = given.get("tags") or run.tags
        if given.get("config"):
            run.config = json.loads(given["config"])
        return {"upsertBucket": {"bucket": run.node, "inserted": is_new}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> Any:
        run = self.runs.get(given["name"])
        model = {"id": "UA==", "name": given["project"], "entity": {"id": "RQ==", "name": ENTITY}}
        return {"model": model | {"bucket": None if run is None else run.node}}

    def _OrganizationCoreWeaveOrganizationID(self, given: dict[str, Any]) -> Any:
        return {"entity": {"organization": None}}

    def _Viewer(self, given: dict[str, Any]) -> Any:
        viewer = {"id": "VQ==", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "admin": False}
        return {"viewer": viewer | {"teams": {"edges": [{"node": {"name": ENTITY}}]}, "apiKeys": {"edges": []}}}

    def _ArtifactType(self, given: dict[str, Any]) -> Any:
        return {"project": {"artifact": None}}

    def _ServerFeaturesQuery(self, given: dict[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def _CreateArtifact(self, given: dict[str, Any]) -> Any:
        self._artifacts += 1
        artifact = {
            "id": f"artifact{self._artifacts}",
            "state": "PENDING",
            "artifactSequence": {"latestArtifact": None},
        }
        return {"createArtifact": {"artifact": artifact}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> Any:
        files = [{"name": name, "uploadUrl": f"{self.url}/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> Any:
        name = f"{given['artifactID']}-{given['name']}"
        file = {"id": "Rg==", "uploadUrl": f"{self.url}/{name}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def _UpdateArtifactManifest(self, given: dict[str, Any]) -> Any:
        name = given["artifactManifestID"]
        file = {"id": "Rg==", "uploadUrl": f"{self.url}/{name}", "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> Any:
        edges = [
            {
                "node": {
                    "id": "Rg==",
                    "name": spec["name"],
                    "displayName": spec["name"],
                    "uploadUrl": f"{self.url}/{spec['artifactID']}/{spec['name']}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "storagePath": f"{spec['artifactID']}/{spec['name']}",
                    "artifact": {"id": spec["artifactID"]},
                }
            }
            for spec in given["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, given: dict[str, Any]) -> Any:
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}

    def _GetDefaultEntity(self, given: dict[str, Any]) -> Any:
        return self._Viewer(given)

    def _Runs(self, given: dict[str, Any]) -> Any:
        wanted = json.loads(given["filters"])["name"]["$in"]
        found = [run for run in self.runs.values() if run.id in wanted and run.project == given["project"]]
        extra = {"projectId": 1, "commit": None, "readOnly": False, "heartbeatAt": None, "user": {"name": ENTITY}}
        edges = [{"node": run.node | extra, "cursor": run.id} for run in found]
        runs = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": runs}}

    def _UpsertView2(self, given: dict[str, Any]) -> Any:
        is_new = "id" not in given
        self.views.append({**given, "id": given.get("id", self._view_id())})
        return {"upsertView": {"view": {key: self.views[-1][key] for key in ("id", "name")}, "inserted": is_new}}

    def _upsertView(self, given: dict[str, Any]) -> Any:
        self.views.append({**given, "id": given.get("id") or self._view_id()})
        return {"upsertView": {"view": self._saved(self.views[-1]), "inserted": True}}

    def _view_id(self) -> str:
        return base64.b64encode(f"View:{next(self._view_numbers)}".encode()).decode()

    def _saved(self, view: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "UA==", "name": view["projectName"], "entityName": view["entityName"]}
        kept = {key: view[key] for key in ("id", "type", "name", "displayName", "description", "spec")}
        return kept | {"project": project, "createdAt": None, "updatedAt": None}

    def _View(self, given: dict[str, Any]) -> Any:
        found = [{"node": self._saved(view)} for view in self.views if view["name"] == given["viewName"]]
        return {"project": {"allViews": {"edges": found[-1:]}}}

    def _SpecificReport(self, given: dict[str, Any]) -> Any:
        found = [self._saved(view) for view in self.views if view["id"] == given["reportId"]]
        return {"view": found[-1] if found else None}

    def _GetProjects(self, given: dict[str, Any]) -> Any:
        named = {"__typename": "Project", "id": "UA==", "name": "harness", "entityName": ENTITY, "user": None}
        node = {**named, "createdAt": "2025-01-01T00:00:00Z", "isBenchmark": False}
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [{"node": node}], "pageInfo": page}}
