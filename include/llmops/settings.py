"""Configuration: the only module that reads the process's environment and the files people edit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from llmops.errors import ConfigurationError

__all__ = [
    "EndpointAccess",
    "Environment",
    "Section",
    "assistant_files",
    "assistant_names",
    "environ",
    "home",
    "include_root",
    "inherited",
    "load_environment",
    "masked",
    "merge",
    "read_yaml",
    "validate",
]

ModelT = TypeVar("ModelT", bound=BaseModel)

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Z][A-Z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_HOST = r"^[a-z0-9.-]+(:[0-9]+)?$"
_USER_IN_URL = re.compile(r"://(?:[^\s/:@]*:\S*|[^\s/?#@]*)@")
_PASSWORD = re.compile(r"(?i)(password\s*=\s*)('(?:\\.|[^'\\])*'|[^\s&]+)")
_SECRET_KEY = re.compile(r"(?i)pass|secret|token|api_?key|key_variable")


class Section(BaseModel):
    """Base of everything a person writes in a configuration file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class EndpointAccess(Section):
    """How this environment reaches one endpoint of embeddings; nothing here changes a vector.

    The key is in ``key_file``, relative to the checkout or absolute, or in the variable ``key_variable``. A request
    holds at most ``batch_texts`` texts and about ``batch_tokens`` tokens; ``concurrency`` requests run side by side,
    each with ``attempts`` attempts in all within ``timeout_seconds``. One run, such as bringing an index up to date,
    ends before it uses more than ``max_tokens`` tokens or costs more than ``max_cost``, in the price table's
    currency; ``max_cost`` needs a price there.
    """

    key_file: str | None = None
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    batch_tokens: Annotated[int, Field(ge=64, le=1_000_000)] = 8_000
    batch_texts: Annotated[int, Field(ge=1, le=2048)] = 128
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 60
    attempts: Annotated[int, Field(ge=1, le=10)] = 5
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_key(self) -> EndpointAccess:
        if self.key_file is not None and self.key_variable is not None:
            raise ValueError("name a key_file or a key_variable, not both")
        return self


class Environment(Section):
    """Where this process runs and what it talks to: ``include/environments/<name>.yaml``.

    ``database_url`` is the ``llmops`` database as this process's own role. ``notary_keys`` is the file of the
    notary's public keys, ``reviewer_keys`` that of the reviewers, both in the format of allowed signers
    (ssh-keygen(1)); who may change these files decides who may sign. ``people`` maps a user of Airflow to other names
    of the same person, such as the e-mail address of their commits. ``workers`` is how many tasks can run side by
    side: a run that can be divided has at most two mapped tasks for each. ``rollback_days`` is how long a release
    that left production, and what it answered from, can still be rolled back to. ``endpoints`` says for each host
    (``api.example.com``, ``127.0.0.1:8000``) of an endpoint of embeddings how to reach it: a host's key is sent to
    that host alone.
    """

    name: str
    catalog: str
    storage_root: str
    database_url: SecretStr
    mlflow_url: str
    airflow_url: str
    serving_url: str
    notary_url: str
    notary_keys: Path
    reviewer_keys: Path | None = None
    people: dict[str, tuple[str, ...]] = {}
    workers: Annotated[int, Field(ge=1, le=1000)] = 2
    rollback_days: Annotated[int, Field(ge=1, le=3650)] = 30
    endpoints: dict[Annotated[str, Field(pattern=_HOST)], EndpointAccess] = {}
    assistant_overrides: dict[str, Any] = {}

    def table_root(self, assistant: str) -> str:
        """Return the folder that holds the Delta tables of one assistant."""
        return f"{self.storage_root.rstrip('/')}/{self.catalog}/{assistant}"


def include_root() -> Path:
    """Return the folder that holds ``assistants/`` and ``environments/``.

    ``LLMOPS_INCLUDE`` names it; by default it is the folder this package was installed from.
    """
    named = os.environ.get("LLMOPS_INCLUDE")
    return Path(named) if named else Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the folder for local state: ``LLMOPS_HOME``, by default ``.llmops`` in the checkout."""
    named = os.environ.get("LLMOPS_HOME")
    return Path(named).resolve() if named else include_root().parent / ".llmops"


def environ() -> dict[str, str]:
    """Return this process's environment over what a running local stack published.

    ``llmops stack up`` writes ``<home>/run/stack.json`` (mode 600) with the addresses that its
    processes really have, so that commands find them without any variable being set.
    """
    return {**_published(home() / "run" / "stack.json"), **os.environ}


def _published(file: Path) -> dict[str, str]:
    """Return the variables in ``file``, none when no stack is running."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be read ({error.strerror}): use the account that started the stack, "
            "or set LLMOPS_HOME to a folder of your own"
        ) from error
    except ValueError:
        content = None
    variables = content.get("environment") if isinstance(content, dict) else None
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise ConfigurationError(
            f"{file} is damaged: it holds no variables. Run `llmops stack down`, then `llmops stack up`"
        )
    return variables


def inherited() -> dict[str, str]:
    """Return this process's own environment alone, for the processes that it starts."""
    return dict(os.environ)


def assistant_names() -> list[str]:
    """Return the names of all assistants that have a file."""
    return sorted({path.stem for folder in _assistant_folders() for path in folder.glob("*.yaml")})


def assistant_files(name: str) -> list[Path]:
    """Return the files of one assistant, lowest first; raise ConfigurationError when there is none.

    The file in the repository comes first; one of the same name under ``<home>/assistants`` is laid over
    it, which is where the demo puts what it was asked to try.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"assistant name {name!r} is not valid: use lower-case letters, digits and _, at most 40"
        )
    files = [
        folder / f"{name}.yaml" for folder in _assistant_folders() if (folder / f"{name}.yaml").is_file()
    ]
    if not files:
        known = ", ".join(assistant_names()) or "none"
        raise ConfigurationError(
            f"no assistant {name!r}: {_assistant_folders()[0] / name}.yaml does not exist (there is: {known})"
        )
    return files


def _assistant_folders() -> list[Path]:
    return [include_root() / "assistants", home() / "assistants"]


def load_environment(name: str | None = None) -> Environment:
    """Return the environment called ``name``, by default ``LLMOPS_ENV``, by default ``dev``."""
    variables = environ()
    chosen = name or variables.get("LLMOPS_ENV") or "dev"
    path = include_root() / "environments" / f"{chosen}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigurationError(f"no environment {chosen!r}: {path} does not exist (there is: {known})")
    local = {
        "LLMOPS_HOME": str(home()),
        "LLMOPS_STORAGE_ROOT": str(home() / "lakehouse"),
        "LLMOPS_NOTARY_KEYS": str(home() / "notary" / "keys"),
        "LLMOPS_REVIEWER_KEYS": str(home() / "reviewers"),
    }
    values = _resolve(read_yaml(path), {**local, **variables}, path)
    return validate(Environment, {"name": chosen, **values}, path)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raise ConfigurationError with line and column if it is none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} does not exist") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        # Not the whole message: it quotes the line, which may hold a password.
        raise ConfigurationError(f"{path} is not valid YAML: {error.problem}{place}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(
            f"{path} must hold a mapping of keys to values, found {type(values).__name__}"
        )
    return values


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``overlay`` laid over it: mappings merge, everything else is replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if nested else value  # type: ignore[arg-type]
    return merged


def validate(model: type[ModelT], values: Mapping[str, Any], path: Path) -> ModelT:
    """Return ``values`` as ``model``; raise one ConfigurationError that names every wrong key.

    The message shows wrong values, but none that may be, or hold, a password.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {masked(e['msg'])}{_found(e)}"
            for e in error.errors(include_url=False)
        )
        raise ConfigurationError(f"{path}: {problems}. See docs/configuration.md") from error


def masked(text: str) -> str:
    """Return ``text`` with ``***`` in place of users and passwords in URLs, and of ``password=`` values."""
    return _PASSWORD.sub(r"\1***", _USER_IN_URL.sub("://***@", text))


def _found(problem: ErrorDetails) -> str:
    """Return the wrong value for an error message; nothing where it may be a secret."""
    value = repr(problem["input"])
    secret = (
        problem["type"] == "extra_forbidden"  # a misspelt key of any meaning, perhaps `database_urll`
        or _SECRET_KEY.search(".".join(map(str, problem["loc"])))
        or masked(value) != value
        or ("://" in value and ("@" in value or "?" in value))
    )
    return "" if secret or isinstance(problem["input"], Mapping) else f" (found {value})"


def _resolve(value: Any, variables: Mapping[str, str], path: Path) -> Any:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in all strings."""
    if isinstance(value, Mapping):
        return {key: _resolve(item, variables, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, variables, path) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = variables.get(match["name"]) or match["default"]
        if found is None:
            raise ConfigurationError(
                f"{path} refers to {match['name']}, which is not set: "
                "start the stack with `llmops stack up`, or set it"
            )
        return found

    return _REFERENCE.sub(replace, value)
