"""A DAG for tests of the stack: two quick tasks in a row, the second says who it is in the database."""

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False)
def probe_stack():
    @task(retries=3, retry_delay=1)
    def begin() -> int:
        return 1

    @task(retries=3, retry_delay=1)
    def finish(number: int) -> dict[str, str]:
        from airflow.sdk import Connection

        from llmops.database import connect
        from llmops.settings import environ

        with connect(environ()["LLMOPS_DATABASE_URL"]) as connection:
            role = connection.execute("SELECT current_user").fetchone()
        return {"role": str(role[0]), "login": str(Connection.get("llmops_postgres").login)}

    finish(begin())


probe_stack()
