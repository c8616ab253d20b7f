"""Dockerfile and compose file, as far as they can be judged without Docker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmops.signing import AllowedSigners, SigningKey

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"database", "notary-key", "airflow-init", "airflow-settings"}
RESIDENT = {
    "postgres",
    "redis",
    "mlflow",
    "airflow-apiserver",
    "airflow-scheduler",
    "airflow-worker",
    "airflow-dag-processor",
    "airflow-triggerer",
    "serving",
    "index-follower",
    "notary",
}
AIRFLOW_SERVICES = {name for name in RESIDENT if name.startswith("airflow")}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    return found


def test_the_compose_file_is_valid() -> None:
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yaml"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_process_of_the_design_is_a_service(services: dict[str, Any]) -> None:
    assert set(services) == RESIDENT | STEPS


def test_images_are_pinned(services: dict[str, Any]) -> None:
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert re.match(r"\d+\.\d+\.\d+", tag), f"{name}: {service['image']}"
    default = re.search(r"(?m)^ARG BASE_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text())
    assert default is not None
    lock = (ROOT / "requirements.txt").read_text()
    airflow = re.search(r"(?m)^apache-airflow==(\S+)", lock)
    assert airflow is not None
    assert default[1] == f"apache/airflow:slim-{airflow[1]}-python3.11"
    assert services["mlflow"]["build"]["args"]["BASE_IMAGE"] == f"${{BASE_IMAGE:-{default[1]}}}"


def test_what_dies_comes_back_and_says_how_it_is(services: dict[str, Any]) -> None:
    for name in RESIDENT:
        assert services[name]["restart"] == "unless-stopped", name
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
    for name in STEPS:
        assert services[name]["restart"] == "on-failure", name
        assert "healthcheck" not in services[name], name


def test_commands_are_plain_argument_lists(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert isinstance(service["command"], list), name
        assert "entrypoint" not in service, name
        assert not [word for word in service["command"] if "$" in word], (
            f"{name}: secrets do not go on command lines"
        )


def test_only_loopback_is_published_and_every_port_is_its_own(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)
    text = json.dumps([[s["command"], s.get("healthcheck", {}).get("test")] for s in services.values()])
    listening = re.findall(r'"--(?:health-)?port", "(\d+)"', text)
    own = set(listening) - {"5432", "6379"}
    assert own == {"5000", "8080", "8000", "8011", "8012"}
    assert sum(listening.count(port) for port in own) == len(own)


def test_each_service_has_only_the_secrets_that_it_needs(services: dict[str, Any]) -> None:
    """The list is the claim of SECURITY.md: change both or neither."""
    airflow = {"LLMOPS_PASSWORD_AIRFLOW", "AIRFLOW_FERNET_KEY"}
    worker = {"LLMOPS_PASSWORD_WORKER"}
    users = {f"AIRFLOW_PASSWORD_{user}" for user in ("ADMIN", "AUTHOR", "REVIEWER", "SERVICE")}
    roles = {f"LLMOPS_PASSWORD_{r}" for r in ("AIRFLOW", "MLFLOW", "OWNER", "WORKER", "SERVING", "NOTARY")}
    expected = {
        "postgres": {"LLMOPS_PASSWORD_ADMIN"},
        "redis": set(),
        "database": {"LLMOPS_PASSWORD_ADMIN", *roles},
        "mlflow": {"LLMOPS_PASSWORD_MLFLOW", "MLFLOW_GATEWAY_SECRET"},
        "airflow-init": airflow | users,
        "airflow-apiserver": airflow | worker | {"AIRFLOW_API_SECRET", "AIRFLOW_JWT_SECRET"},
        "airflow-settings": {"LLMOPS_PASSWORD_WORKER", "AIRFLOW_PASSWORD_ADMIN"},
        "airflow-scheduler": airflow | {"AIRFLOW_JWT_SECRET"},
        "airflow-worker": worker,
        "airflow-dag-processor": airflow,
        "airflow-triggerer": airflow | worker,
        "serving": {"LLMOPS_PASSWORD_SERVING"},
        "index-follower": {"LLMOPS_PASSWORD_WORKER"},
        "notary-key": set(),
        "notary": {"LLMOPS_PASSWORD_NOTARY", "AIRFLOW_PASSWORD_SERVICE"},
    }
    for name, service in services.items():
        assert set(re.findall(r"\$\{([A-Z_]+)", json.dumps(service["environment"]))) == expected[name], name


def test_the_notarys_key_and_database_role_are_its_own(services: dict[str, Any]) -> None:
    mounts = {
        name: {volume.split(":")[0]: volume.endswith(":ro") for volume in service.get("volumes", ())}
        for name, service in services.items()
    }
    assert {name for name, volumes in mounts.items() if "notary" in volumes} == {"notary-key", "notary"}
    assert mounts["notary"] == {"notary": True, "notary-keys": True}
    readers = {name for name, volumes in mounts.items() if volumes.get("notary-keys")}
    assert readers == {"airflow-apiserver", "airflow-worker", "serving", "notary"}
    assert set(mounts["airflow-worker"]) == {"lake", "airflow-logs", "notary-keys", "data-docs"}
    assert mounts["airflow-scheduler"] == {"airflow-logs": False}
    reviewers = {name for name, service in services.items() if "configs" in service}
    assert reviewers == readers, "who verifies approvals needs both lists of public keys"
    others = [services[name]["environment"] for name in services if name != "notary"]
    assert not [e for e in others if "llmops_notary" in str(e.get("LLMOPS_DATABASE_URL"))]
    assert not [e for e in others if "LLMOPS_NOTARY_KEY" in e]


def test_only_scheduler_and_workers_reach_the_broker(services: dict[str, Any]) -> None:
    networks = {name: service.get("networks", ["default"]) for name, service in services.items()}
    assert networks.pop("redis") == ["tasks"]
    assert {name for name, joined in networks.items() if "tasks" in joined} == {
        "airflow-scheduler",
        "airflow-worker",
    }
    assert yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["networks"]["tasks"]["internal"] is True


def test_a_workers_health_check_fails_without_worker_or_broker() -> None:
    environment = {**os.environ, "AIRFLOW__CELERY__BROKER_URL": "redis://127.0.0.1:9/0"}
    command = [sys.executable, str(ROOT / "docker" / "worker_health.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("the broker cannot be reached")
    environment["AIRFLOW__CELERY__BROKER_URL"] = "memory://"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "did not answer" in done.stderr


def test_the_reviewers_keys_that_compose_gives_out_can_be_read() -> None:
    configs = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["configs"]
    text = (ROOT / configs["reviewer-keys"]["file"]).read_text()
    assert not AllowedSigners.parse(text, "reviewer_keys").signers, (
        "nobody may sign before somebody was entered"
    )
    example = next(line for line in text.splitlines() if "ssh-ed25519" in line).removeprefix("#")
    key = SigningKey.generate().public_line
    (signer,) = AllowedSigners.parse(example.replace("ssh-ed25519 AAAA...", key), "example").signers
    assert signer.namespaces == ("llmops-release",)


def test_every_missing_secret_stops_compose_with_what_to_do() -> None:
    text = (ROOT / "docker-compose.yaml").read_text()
    for name, rest in re.findall(r"\$\{([A-Z_]+)([^}]*)\}", text):
        assert rest in {":?run make .env"} or rest.startswith(":-"), name


def test_the_generated_env_file_has_what_compose_asks_for() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yaml").read_text()))
    command = [sys.executable, str(ROOT / "tools" / "compose_env.py")]
    printed = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    values = [dict(line.split("=", 1) for line in text.splitlines()) for text in printed]
    assert set(values[0]) == asked
    assert set(re.findall(r"(?m)^([A-Z_]+)=$", (ROOT / ".env.example").read_text())) == asked
    assert all(len(value) >= 40 for value in values[0].values())
    assert not set(values[0].values()) & set(values[1].values())
    assert all(re.fullmatch(r"[A-Za-z0-9_=-]+", value) for value in values[0].values())


def test_the_image_is_built_without_cuda_and_runs_as_an_ordinary_user() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"(?m)^ARG TORCH_BACKEND=cpu$", text)
    assert 'LLMOPS_TORCH="${TORCH_BACKEND}"' in text
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert not re.search(r"nvidia|cuda|cu1\d\d", code, re.IGNORECASE)
    assert not re.search(r"pip install", code), "only the bootstrap installs: it refuses CUDA"
    assert re.findall(r"(?m)^USER (\S+)", text)[-1] == "${BASE_USER}"


def test_everything_the_image_copies_is_there_and_reaches_the_builder() -> None:
    allowed = set(re.findall(r"(?m)^!(\S+)$", (ROOT / ".dockerignore").read_text()))
    copied = [
        source
        for line in re.findall(r"(?m)^COPY (.+)$", (ROOT / "Dockerfile").read_text())
        for source in line.split()[:-1]
    ]
    assert len(copied) > 5
    for source in copied:
        assert (ROOT / source).exists(), source
        assert {source, source.split("/")[0]} & allowed, f"{source} is not in .dockerignore"
    for folder in ("config", "dags", "include", "plugins"):
        assert not (ROOT / folder).exists() or folder in copied, f"{folder} is not copied into the image"


def test_airflows_users_get_their_passwords_in_a_file_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "users" / "passwords.json"
    (tmp_path / "airflow").write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/called\nexit 7\n')
    (tmp_path / "airflow").chmod(0o755)
    passwords = {
        f"AIRFLOW_PASSWORD_{user}": user.lower() * 2 for user in ("ADMIN", "AUTHOR", "REVIEWER", "SERVICE")
    }
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(file),
        **passwords,
    }
    command = [sys.executable, str(ROOT / "docker" / "airflow_init.py")]
    assert subprocess.run(command, env=environment, check=False).returncode == 7
    assert json.loads(file.read_text())["reviewer"] == "reviewerreviewer"
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "called").read_text() == "db migrate\n"

    environment.pop("AIRFLOW_PASSWORD_AUTHOR")
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "author" in refused.stderr


def test_airflow_gets_pools_and_connections_with_the_workers_password() -> None:
    received: dict[str, Any] = {}

    class Airflow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._reply({"access_token": "token"}, 201)

        def do_PATCH(self) -> None:
            self._reply({"create": {"success": [], "errors": []}}, 200)

        def _reply(self, answer: dict[str, Any], status: int) -> None:
            received[self.path] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Airflow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "include"),
            "LLMOPS_AIRFLOW_URL": f"http://127.0.0.1:{server.server_address[1]}",
            "LLMOPS_PASSWORD_WORKER": "of-the-workers",
            "AIRFLOW_PASSWORD_ADMIN": "of-the-admin",
        }
        command = [sys.executable, str(ROOT / "docker" / "airflow_settings.py")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert received["/auth/token"] == {"username": "admin", "password": "of-the-admin"}
    (pools,) = received["/api/v2/pools"]["actions"]
    assert [pool["slots"] for pool in pools["entities"]] == [1]
    (connections,) = received["/api/v2/connections"]["actions"]
    passwords = {entity["connection_id"]: entity["password"] for entity in connections["entities"]}
    assert passwords["llmops_postgres"] == "of-the-workers"
    assert "of-the" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "component", "status"),
    [
        ("/fine", [], 0),
        ("/broken", [], 1),
        ("/monitor", ["scheduler"], 0),
        ("/monitor", ["triggerer"], 1),
        ("/monitor", ["unheard-of"], 1),
        ("/fine", ["scheduler"], 1),
    ],
)
def test_a_health_check_tells_sound_from_sick(
    monitored: str, path: str, component: list[str], status: int
) -> None:
    command = [sys.executable, str(ROOT / "docker" / "health.py"), monitored + path, *component]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


def test_a_health_check_of_nothing_fails() -> None:
    command = [sys.executable, str(ROOT / "docker" / "health.py"), "http://127.0.0.1:9/healthz"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


@pytest.fixture(scope="module")
def monitored() -> Iterator[str]:
    answers = {
        "/fine": (200, b"ok"),
        "/broken": (503, b"no"),
        "/monitor": (200, b'{"scheduler": {"status": "healthy"}, "triggerer": {"status": "unhealthy"}}'),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
