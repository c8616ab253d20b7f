"""Settings: what people write in YAML files, and what a running stack published."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmops.errors import ConfigurationError
from llmops.settings import (
    Environment,
    assistant_files,
    assistant_names,
    environ,
    home,
    load_environment,
    masked,
    merge,
    read_yaml,
    validate,
)

DEV = """\
catalog: dev
storage_root: ${LLMOPS_STORAGE_ROOT}
database_url: ${LLMOPS_DATABASE_URL:-postgresql://llmops_worker@127.0.0.1:5432/llmops}
mlflow_url: ${LLMOPS_MLFLOW_URL:-http://127.0.0.1:5000}
airflow_url: http://127.0.0.1:8080
serving_url: http://127.0.0.1:8000
notary_url: http://127.0.0.1:8012
notary_keys: /none/keys
"""
PASSWORD = "geheim-7"
URL = f"postgresql://llmops_worker:{PASSWORD}@db.example:5432/llmops"


@pytest.fixture(autouse=True)
def include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the environment ``dev``, a home of its own, and no variable of the machine."""
    for name in [name for name in os.environ if name.startswith("LLMOPS_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "include"
    monkeypatch.setenv("LLMOPS_INCLUDE", str(folder))
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    _write(folder / "environments" / "dev.yaml", DEV)
    return folder


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _publish(text: str) -> Path:
    return _write(home() / "run" / "stack.json", text)


def test_an_unknown_key_is_named_with_its_file(include: Path) -> None:
    file = _write(include / "environments" / "dev.yaml", DEV + "catalogue: dev\n")
    with pytest.raises(ConfigurationError) as raised:
        load_environment()
    assert str(raised.value).startswith(f"{file}: catalogue: Extra inputs are not permitted")


def test_every_wrong_key_is_in_one_error(include: Path) -> None:
    _write(include / "environments" / "dev.yaml", "catalog: [a]\nstorage_root: 3\n")
    with pytest.raises(ConfigurationError) as raised:
        load_environment()
    text = str(raised.value)
    assert "catalog: Input should be a valid string (found ['a'])" in text
    assert "storage_root: Input should be a valid string (found 3)" in text
    assert "database_url: Field required;" in text


def test_a_misspelt_key_shows_no_password(include: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_DATABASE_URL", URL)
    _write(include / "environments" / "dev.yaml", DEV.replace("database_url:", "database_urll:"))
    with pytest.raises(
        ConfigurationError, match=r"database_urll: Extra inputs are not permitted\."
    ) as raised:
        load_environment()
    assert PASSWORD not in str(raised.value)
    assert PASSWORD not in str(raised.value.__cause__)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("catalog", [URL]),
        ("catalog", [f"host=db password={PASSWORD}"]),
        ("catalog", [f"host=db password='{PASSWORD} 8'"]),
        ("catalog", [f"postgresql://user:a {PASSWORD}@db"]),
        ("assistant_overrides", URL),
        ("misspelt", PASSWORD),
        ("some_token", [PASSWORD]),
    ],
)
def test_a_wrong_value_that_holds_credentials_is_not_shown(key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=key) as raised:
        validate(Environment, {key: value}, Path("dev.yaml"))
    assert PASSWORD not in str(raised.value)
    assert isinstance(raised.value.__cause__, ValidationError)
    assert PASSWORD not in str(raised.value.__cause__)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:pw@host/db", "postgresql://***@host/db"),
        ("to http://user:p@ss/w0rd@host:5000 and back", "to http://***@host:5000 and back"),
        ("https://token@github.com/a/b", "https://***@github.com/a/b"),
        ("host=h password=pw dbname=d", "host=h password=*** dbname=d"),
        ("password = 'it\\'s pw' host=h", "password = *** host=h"),
        ("http://host:5000/a, mail someone@example.org", "http://host:5000/a, mail someone@example.org"),
    ],
)
def test_credentials_are_masked_and_nothing_else(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_reference_is_replaced_by_its_variable_or_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_MLFLOW_URL", "http://mlflow.example")
    environment = load_environment()
    assert environment.name == "dev"
    assert environment.mlflow_url == "http://mlflow.example"
    assert environment.database_url.get_secret_value().startswith("postgresql://llmops_worker@127.0.0.1")
    assert environment.storage_root == str(home() / "lakehouse")
    assert environment.table_root("guide") == f"{home()}/lakehouse/dev/guide"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_MLFLOW_URL", "")
    assert load_environment().mlflow_url == "http://127.0.0.1:5000"


def test_a_reference_to_nothing_is_named_with_its_file(include: Path) -> None:
    file = _write(include / "environments" / "dev.yaml", DEV.replace("catalog: dev", "catalog: ${NOWHERE}"))
    with pytest.raises(ConfigurationError) as raised:
        load_environment()
    assert str(raised.value).startswith(f"{file} refers to NOWHERE, which is not set")


def test_the_environment_is_chosen_by_argument_then_by_variable(
    include: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(include / "environments" / "prod.yaml", DEV.replace("catalog: dev", "catalog: live"))
    monkeypatch.setenv("LLMOPS_ENV", "prod")
    assert load_environment().catalog == "live"
    assert load_environment("dev").catalog == "dev"
    with pytest.raises(
        ConfigurationError, match=r"no environment 'moon': .*moon\.yaml .*there is: dev, prod"
    ):
        load_environment("moon")


def test_the_environment_is_never_printed_with_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_DATABASE_URL", URL)
    environment = load_environment()
    assert environment.database_url.get_secret_value() == URL
    assert PASSWORD not in repr(environment)
    assert PASSWORD not in environment.model_dump_json()


def test_an_endpoint_is_named_by_its_host_and_has_one_key(include: Path) -> None:
    file = include / "environments" / "dev.yaml"
    _write(file, f"{DEV}endpoints: {{'api.example.com': {{key_variable: EXAMPLE_KEY, max_cost: 5}}}}")
    access = load_environment().endpoints["api.example.com"]
    assert (access.key_variable, access.max_cost, access.batch_tokens) == ("EXAMPLE_KEY", 5, 8000)
    for wrong, says in (
        ("'https://api.example.com': {}", "endpoints.https"),
        ("h: {key_variable: A, key_file: b}", "not both"),
        ("h: {max_cost: .inf}", "max_cost"),
        ("h: {key: abc}", "endpoints.h.key"),
    ):
        _write(file, f"{DEV}endpoints: {{{wrong}}}")
        with pytest.raises(ConfigurationError, match=says):
            load_environment()


def test_a_key_that_stands_where_its_variable_is_named_is_not_shown(include: Path) -> None:
    _write(include / "environments" / "dev.yaml", f"{DEV}endpoints: {{h: {{key_variable: sk-{PASSWORD}}}}}")
    with pytest.raises(ConfigurationError, match="key_variable") as caught:
        load_environment()
    assert PASSWORD not in str(caught.value)


def test_variables_of_a_running_stack_are_found_and_those_of_the_process_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _publish('{"environment": {"LLMOPS_MLFLOW_URL": "http://stack", "LLMOPS_AIRFLOW_URL": "http://stack"}}')
    monkeypatch.setenv("LLMOPS_AIRFLOW_URL", "http://mine")
    assert environ()["LLMOPS_MLFLOW_URL"] == "http://stack"
    assert environ()["LLMOPS_AIRFLOW_URL"] == "http://mine"
    assert load_environment().mlflow_url == "http://stack"


def test_without_a_stack_there_are_the_variables_of_the_process_alone() -> None:
    assert environ() == dict(os.environ)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"environment": null}',
        '{"environment": ["A"]}',
        '{"environment": {"A": 1}}',
    ],
)
def test_a_damaged_stack_file_is_named(text: str) -> None:
    file = _publish(text)
    with pytest.raises(ConfigurationError, match=r"is damaged.*`llmops stack down`") as raised:
        environ()
    assert str(raised.value).startswith(str(file))


def test_a_stack_file_that_is_not_text_is_damaged() -> None:
    _publish("").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigurationError, match="is damaged"):
        environ()


def test_a_stack_file_that_cannot_be_read_is_named() -> None:
    file = home() / "run" / "stack.json"
    file.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"cannot be read \(Is a directory\)") as raised:
        environ()
    assert str(raised.value).startswith(str(file))


def test_assistants_are_those_of_the_checkout_and_of_home(include: Path) -> None:
    assert assistant_names() == []
    below = _write(include / "assistants" / "guide.yaml", "a: 1")
    over = _write(home() / "assistants" / "guide.yaml", "a: 2")
    mine = _write(home() / "assistants" / "mine.yaml", "a: 3")
    _write(include / "assistants" / "guide.cases.jsonl", "{}")
    assert assistant_names() == ["guide", "mine"]
    assert assistant_files("guide") == [below, over]
    assert assistant_files("mine") == [mine]


def test_an_assistant_that_is_not_there_is_named_with_those_that_are(include: Path) -> None:
    _write(include / "assistants" / "guide.yaml", "a: 1")
    with pytest.raises(ConfigurationError, match=r"no assistant 'gide': .*gide\.yaml .*there is: guide"):
        assistant_files("gide")


@pytest.mark.parametrize("name", ["", "Guide", "../guide", "a-b", "1a", "a" * 41])
def test_a_name_that_is_no_assistants_name_never_becomes_a_path(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not valid"):
        assistant_files(name)


def test_merging_goes_into_mappings_and_replaces_everything_else() -> None:
    base = {"a": {"x": 1, "y": {"z": 1}}, "b": [1, 2], "c": 1, "d": {"x": 1}}
    overlay = {"a": {"y": {"w": 2}}, "b": [3], "d": None, "e": {"n": 1}}
    assert merge(base, overlay) == {
        "a": {"x": 1, "y": {"z": 1, "w": 2}}, "b": [3], "c": 1, "d": None, "e": {"n": 1},
    }  # fmt: skip
    assert base == {"a": {"x": 1, "y": {"z": 1}}, "b": [1, 2], "c": 1, "d": {"x": 1}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", r"is not valid YAML: .*line 1"),
        (b"a: \xff", "is not valid YAML"),
        (b"- a", "must hold a mapping of keys to values, found list"),
        (b"", "must hold a mapping of keys to values, found NoneType"),
    ],
)
def test_a_file_that_holds_no_mapping_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"(?s)a.yaml {message}"):
        read_yaml(file)


def test_a_yaml_error_shows_no_password(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.yaml", f"database_url: {URL} : [x]\n")
    with pytest.raises(ConfigurationError, match="is not valid YAML") as raised:
        read_yaml(file)
    assert PASSWORD not in str(raised.value)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml does not exist"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(ConfigurationError, match=r"s cannot be read: "):
            read_yaml(tmp_path / "s")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.yaml", "a: 1")
    file.chmod(0)
    with pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
        read_yaml(file)
