"""Print the secrets that ``docker-compose.yaml`` needs, freshly generated: ``make .env`` keeps them."""

from __future__ import annotations

import base64
import secrets

PASSWORDS = (
    *(
        f"LLMOPS_PASSWORD_{role}"
        for role in ("ADMIN", "AIRFLOW", "MLFLOW", "OWNER", "WORKER", "SERVING", "NOTARY")
    ),
    *(f"AIRFLOW_PASSWORD_{user}" for user in ("ADMIN", "AUTHOR", "REVIEWER", "SERVICE")),
    "AIRFLOW_API_SECRET",
    "AIRFLOW_JWT_SECRET",
    "MLFLOW_GATEWAY_SECRET",
)


def generate() -> dict[str, str]:
    """Return a fresh value for every variable."""
    # 48 bytes are 64 characters, as many as the signatures of Airflow's tokens (HS512) want.
    values = {name: secrets.token_urlsafe(48) for name in PASSWORDS}
    values["AIRFLOW_FERNET_KEY"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return values


if __name__ == "__main__":
    for name, value in generate().items():
        print(f"{name}={value}")
