"""A W&B server in this process, just enough of one for a sweep, its agent and the runs of its trials.

What it does not know it answers with an error, as a real server would: an empty answer makes the W&B core panic.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY, PROJECT, SWEEP = "tester", "saturation-sweep", "sweep1"


class SweepServer:
    """Hands out ``trials`` one after another; ``stop(run)`` says when a running trial gets the stop command.

    ``runs`` holds what arrived by run id: ``config``, ``history`` (list of rows), ``summary``, ``exitcode``.
    """

    def __init__(self, trials: Sequence[dict[str, Any]], *, stop: Callable[[str], bool]) -> None:
        self.waiting = [(f"trial{i}", trial) for i, trial in enumerate(trials)]
        self.stop = stop
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self.sweep: dict[str, Any] = {}
        self.commands: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # a client that was killed in the middle of a request
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> SweepServer:
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def stream(self, run: str, body: dict[str, Any]) -> None:
        with self.lock:
            record = self.runs.setdefault(run, {})
            for name, part in (body.get("files") or {}).items():
                if name == "wandb-history.jsonl":
                    record.setdefault("history", []).extend(json.loads(line) for line in part["content"])
                elif name == "wandb-summary.json":
                    record["summary"] = json.loads(part["content"][-1])
            if body.get("complete"):
                record["exitcode"] = body.get("exitcode")

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        operation = (re.search(r"\b(?:query|mutation)\s+(\w+)", query) or ["", "?"])[1]
        with self.lock:
            known = getattr(self, f"_{operation}", None)
            if known is None:
                self.unknown.append(operation)
                return {"errors": [{"message": f"unknown operation {operation}"}], "data": None}
            return {"data": known(variables)}

    # GraphQL operations, by their names -----------------------------------------------------------------------------

    def _Viewer(self, _: dict) -> dict:
        nobody = {"edges": []}
        return {
            "viewer": {
                "id": "user", "entity": ENTITY, "username": ENTITY, "email": "a@b", "flags": "{}", "admin": False,
                "teams": nobody, "apiKeys": nobody,
            }
        }  # fmt: skip

    def _ServerFeaturesQuery(self, _: dict) -> dict:
        return {"serverInfo": {"features": []}}

    def _UpsertSweep(self, variables: dict) -> dict:
        self.sweep = yaml.safe_load(variables["config"])
        return {"upsertSweep": {"sweep": {"name": SWEEP, "project": _project()}, "configValidationWarnings": []}}

    def _SweepWithRuns(self, _: dict) -> dict:
        state = {"id": "s", "name": SWEEP, "bestLoss": None, "controller": None, "scheduler": None, "state": "RUNNING"}
        runs = {"edges": []}
        return {"project": {"sweep": {**state, "config": yaml.safe_dump(self.sweep), "createdAt": "", "runs": runs}}}

    def _CreateAgent(self, _: dict) -> dict:
        return {"createAgent": {"agent": {"id": "agent1"}}}

    def _Heartbeat(self, variables: dict) -> dict:
        running = list(json.loads(variables["runState"] or "{}"))
        commands = [{"type": "stop", "run_id": run} for run in running if self.stop(run)]
        if not running and self.waiting:
            run, trial = self.waiting.pop(0)
            args = {name: {"value": value} for name, value in trial.items()}
            commands = [{"type": "run", "run_id": run, "args": args, "program": self.sweep["program"]}]
        elif not running:
            commands = [{"type": "exit"}]
        self.commands += commands
        return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(commands)}}

    def _UpsertBucket(self, variables: dict) -> dict:
        run = variables.get("name") or variables.get("id")
        new, record = run not in self.runs, self.runs.setdefault(run, {})
        record["sweep"] = variables.get("sweep") or record.get("sweep")
        if variables.get("config"):
            record["config"] = json.loads(variables["config"])
        bucket = {
            "id": base64.b64encode(f"Run:v1:{run}:{PROJECT}:{ENTITY}".encode()).decode(),
            "name": run, "displayName": run, "description": None, "config": json.dumps(record.get("config", {})),
            "sweepName": record["sweep"], "historyLineCount": 0, "project": _project(),
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def _RunResumeStatus(self, _: dict) -> dict:
        return {"model": {**_project(), "bucket": None}}

    def _RunStoppedStatus(self, _: dict) -> dict:
        return {"project": {"run": {"stopped": False}}}

    def _CreateRunFiles(self, variables: dict) -> dict:
        where = f"{self.url}/storage/{variables['run']}"
        files = [{"name": name, "uploadUrl": f"{where}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, variables: dict) -> dict:
        self.artifacts.append(variables["input"])
        artifact = {"id": "QXJ0", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def _UpsertView2(self, variables: dict) -> dict:
        self.views.append(variables)
        return {"upsertView": {"view": {"id": "view1", "name": variables["name"]}, "inserted": True}}

    def _UseArtifact(self, _: dict) -> dict:
        return {"useArtifact": {"artifact": {"id": "QXJ0"}}}


def _project() -> dict[str, Any]:
    return {"id": "project", "name": PROJECT, "entity": {"id": "entity", "name": ENTITY}}


def _handler(server: SweepServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def reply(self, answer: dict[str, Any]) -> None:
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.reply({})

        def do_PUT(self) -> None:
            server.uploads[self.path] = self.body()
            self.reply({})

        def do_POST(self) -> None:
            body = self.body()
            if stream := re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                server.stream(stream[1], json.loads(body))
                self.reply({"exitcode": None, "limits": {}})
            elif self.path == "/graphql":
                request = json.loads(body)
                self.reply(server.answer(request.get("query", ""), request.get("variables") or {}))
            else:
                self.reply({})

    return Handler
