"""What MLflow's errors become."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from llmops.errors import LlmopsError, MissingInput, ServiceUnavailable, TerminalError
from llmops.registry._client import answering

PASSWORD = "geheim-7"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (codes.RESOURCE_DOES_NOT_EXIST, MissingInput),
        (codes.INTERNAL_ERROR, ServiceUnavailable),
        (codes.REQUEST_LIMIT_EXCEEDED, ServiceUnavailable),
        (codes.DEADLINE_EXCEEDED, ServiceUnavailable),
        (codes.INVALID_PARAMETER_VALUE, TerminalError),
        (codes.PERMISSION_DENIED, TerminalError),
        (codes.RESOURCE_ALREADY_EXISTS, TerminalError),
    ],
)
def test_every_error_of_mlflow_becomes_one_of_ours_without_credentials(
    code: int, expected: type[LlmopsError]
) -> None:
    url = f"http://user:{PASSWORD}@mlflow.example:5000"
    with (
        pytest.raises(expected, match=r"http://mlflow\.example:5000 .*the model") as raised,
        answering(url, "the model"),
    ):
        raise MlflowException(f"it said no at {url}/api", error_code=code)
    assert type(raised.value) is expected
    assert PASSWORD not in str(raised.value)


def test_other_errors_come_out_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), answering("http://127.0.0.1:9", "the model"):
        raise ZeroDivisionError
