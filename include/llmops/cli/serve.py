"""``llmops serve``: the HTTP service that answers questions."""

from __future__ import annotations

import socket

import click

from llmops.release import LoadedRelease, alias_doubt, load_release, production_release, report_replica
from llmops.settings import Environment, assistant_names, load_environment

_DEFAULT = "library_guide"
_CONNECTIONS = 256
_GRACE_SECONDS = 15
_IDLE_SECONDS = 75
"""Longer than clients keep idle connections, so that they close them: else a request may meet a closing one."""


class _Production:
    """The releases in production of one environment, as the service asks for them."""

    def __init__(self, environment: Environment, replica_id: str, address: str) -> None:
        self._environment = environment
        self._replica_id = replica_id
        self._address = address

    def current(self, assistant: str) -> str | None:
        return production_release(self._environment, assistant)

    def load(self, assistant: str) -> LoadedRelease | None:
        return load_release(self._environment, assistant)

    def doubt(self, assistant: str) -> str | None:
        return alias_doubt(self._environment, assistant)

    def report(self, assistant: str, release_id: str) -> None:
        report_replica(self._environment, assistant, release_id, self._replica_id, self._address)


def _default_first(chosen: tuple[str, ...]) -> list[str]:
    return sorted(chosen or assistant_names(), key=lambda name: (name != _DEFAULT, name))


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="Port to listen on.")
@click.option("--assistant", "assistants", multiple=True, help="Serve only this one; may be repeated.")
@click.option(
    "--address", help="URL under which this replica alone can be reached; by default made of host and port."
)
@click.option("--env", "environment_name", help="Name of the environment, by default LLMOPS_ENV or dev.")
def command(
    host: str, port: int, assistants: tuple[str, ...], address: str | None, environment_name: str | None
) -> None:
    """Answer questions over HTTP from the production release of every assistant, until stopped."""
    import uvicorn

    from llmops.serving import create_app

    environment = load_environment(environment_name)
    name = socket.gethostname()
    reachable = address or f"http://{name if host in ('0.0.0.0', '::') else host}:{port}"
    source = _Production(environment, f"{name}:{port}", reachable)
    app = create_app(source, environment.database_url.get_secret_value(), lambda: _default_first(assistants))
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
