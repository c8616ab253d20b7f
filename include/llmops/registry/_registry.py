"""One assistant's part of the MLflow registry."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from llmops.errors import ConfigurationError, IntegrityError, MissingInput
from llmops.manifest import ArtifactPin, PromptPin, content_hash
from llmops.registry._agent import write_agent
from llmops.registry._client import answering, client_of, model_version, place
from llmops.registry._pins import check_files, file_digests, fingerprint

__all__ = ["RegisteredModel", "Registry"]

log = logging.getLogger(__name__)

Kind = Literal["embedder", "generator"]

_PIN = "pin.json"
_MLFLOW_FILES = ("MLmodel", "conda.yaml", "python_env.yaml", "registered_model_meta", "requirements.txt")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_TAG_VALUE = re.compile(r"[^'\"`\\\\]{1,200}")


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a model, and the tags it was registered with."""

    uri: str
    tags: Mapping[str, str]


class Registry:
    """Registers and fetches what one assistant in one catalog is made of.

    Names follow ``<catalog>.<assistant>.<kind>``. What is fetched lies in ``cache``, by content, so that
    MLflow is neither imported nor asked for what is already there.
    """

    def __init__(self, url: str, catalog: str, assistant: str, cache: Path) -> None:
        for name in (catalog, assistant):
            if not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{name!r} cannot be part of a model's name: use letters, digits, _ and -"
                )
        self._url = url
        self._prefix = f"{catalog}.{assistant}"
        self.cache = cache

    def register_model(
        self,
        kind: Kind,
        folder: Path,
        *,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> ArtifactPin:
        """Register every file of ``folder`` as a new version of a model and return its pin.

        A folder with exactly the files of an earlier version gives that version's pin: a task that is
        tried again registers nothing twice. Raises ServiceUnavailable when MLflow does not answer.
        """
        files = file_digests(folder)
        clash = sorted({_PIN, *_MLFLOW_FILES} & files.keys())
        if clash:
            raise ConfigurationError(
                f"{clash!r} in {str(folder)!r} are names that the registry uses: rename them"
            )
        content = content_hash(files)
        known = self.latest(kind, content=content)
        if known is not None:
            return known
        computes = fingerprint(files)
        with self._run(f"register {kind}", params, metrics) as run_id:
            self._client.log_artifacts(run_id, str(folder), kind)
            self._client.log_dict(run_id, {"files": files, "fingerprint": computes}, f"{kind}/{_PIN}")
        everything = {**tags, "content": content, "fingerprint": computes}
        version = self._create_version(self._name(kind), f"runs:/{run_id}/{kind}", run_id, everything)
        pin = ArtifactPin(uri=f"models:/{self._name(kind)}/{version}", files=files, fingerprint=computes)
        log.info("Registered %s with %d files (%s)", pin.uri, len(files), pin.fingerprint[:12])
        return pin

    def fetch(self, pin: ArtifactPin) -> Path:
        """Return a local folder with exactly the files of ``pin``, each checked against its sha-256.

        Raises IntegrityError, before anything is read from them, when a file is changed, missing or extra.
        """
        folder = self.cache / content_hash(pin.files)
        if not folder.is_dir():
            self._download(pin, folder)
        check_files(
            folder, pin.files, (), f"the local copy of {pin.uri} (delete that folder to fetch it again)"
        )
        return folder

    def verify(self, pin: ArtifactPin) -> None:
        """Raise IntegrityError unless the registry itself still holds exactly the files of ``pin``.

        Fetches them anew, whatever is cached, and reads nothing from them.
        """
        name, version = model_version(pin.uri)
        self.cache.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=self.cache, prefix=".partial-") as scratch,
            answering(self._url, pin.uri),
        ):
            found = self._client.get_model_version(name, version)
            fetched = Path(_download(self._url, found.source, scratch))
            check_files(fetched, pin.files, (_PIN, *_MLFLOW_FILES), f"the registry's copy of {pin.uri}")

    def latest(self, kind: Kind, **tags: str) -> ArtifactPin | None:
        """Return the pin of the newest version, or of the newest with all these tags; None without one."""
        found = self._search(self._name(kind), tags)
        return self.pin(f"models:/{self._name(kind)}/{found.version}") if found else None

    def models(self, kind: Kind) -> list[RegisteredModel]:
        """Return every version of a model, the newest first."""
        name = self._name(kind)
        found: list[Any] = []
        token = None
        with answering(self._url, name):
            while True:
                page = self._client.search_model_versions(
                    f"name='{name}'", max_results=200, order_by=["version_number DESC"], page_token=token
                )
                found += page
                token = page.token
                if not token:
                    break
        return [RegisteredModel(f"models:/{name}/{each.version}", dict(each.tags)) for each in found]

    def pin(self, uri: str) -> ArtifactPin:
        """Return the pin of ``models:/<name>/<number>``; raise MissingInput when there is none."""
        name, version = model_version(uri)
        if not name.startswith(f"{self._prefix}."):
            raise MissingInput(f"{uri!r} does not belong to {self._prefix!r}: use one of its own models")
        with answering(self._url, uri), tempfile.TemporaryDirectory() as scratch:
            found = self._client.get_model_version(name, version)
            file = Path(_download(self._url, f"{found.source}/{_PIN}", scratch))
            try:
                return ArtifactPin.model_validate({"uri": uri, **json.loads(file.read_text("utf-8"))})
            except (ValidationError, ValueError, TypeError) as error:
                raise IntegrityError(f"{_PIN} of {uri} is no pin: register the model again") from error

    def register_prompt(self, text: str) -> PromptPin:
        """Return the pin of the prompt version with this text, registered now if there is none."""
        name, text_hash = self._name("answer"), _text_hash(text)
        with answering(self._url, f"prompt {name}"):
            versions = self._prompt_versions(name)
            same = sorted(int(v.version) for v in versions if v.template == text)
            version = same[0] if same else int(self._client.register_prompt(name, text).version)
        pin = PromptPin(uri=f"prompts:/{name}/{version}", text_hash=text_hash)
        self.prompt_text(pin)
        return pin

    def prompt_text(self, pin: PromptPin) -> str:
        """Return the text of a prompt, from the local copy where there is one.

        Raises IntegrityError unless its sha-256 is the pinned one.
        """
        cached = self.cache / "prompts" / f"{pin.text_hash}.txt"
        if cached.is_file():
            return _require_text(pin, cached.read_bytes().decode(), f"in {str(cached)!r}")
        text = self.verify_prompt(pin)
        _write_atomically(cached, text.encode())
        return text

    def verify_prompt(self, pin: PromptPin) -> str:
        """Return the text of a prompt as MLflow has it now; raise IntegrityError unless it is the pinned one."""
        name, _, version = pin.uri.removeprefix("prompts:/").rpartition("/")
        with answering(self._url, f"prompt {pin.uri}"):
            found = self._client.get_prompt_version(name, version)
        if found is None:
            raise MissingInput(f"MLflow at {place(self._url)} has no prompt {pin.uri}: register it again")
        return _require_text(pin, str(found.template), "in MLflow")

    def log_release(self, release_id: str, files: Mapping[str, str], tags: Mapping[str, str]) -> int:
        """Register a release and return its model version; one that is registered already keeps its own.

        ``files`` (names to texts, ``manifest.json`` among them) go along with an agent that MLflow and
        Databricks can load; the agent runs this package's code and nothing of the artifact's but that shim.
        """
        known = self.release_version(release_id)
        if known is not None:
            return known
        with tempfile.TemporaryDirectory() as scratch:
            model = write_agent(Path(scratch), files)
            with self._run(f"release {release_id[:12]}", {"release_id": release_id}, {}) as run_id:
                self._client.log_artifacts(run_id, str(model), "assistant")
        everything = {**tags, "release_id": release_id}
        version = self._create_version(
            self._name("assistant"), f"runs:/{run_id}/assistant", run_id, everything
        )
        log.info("Registered release %s as %s version %d", release_id[:12], self._name("assistant"), version)
        return version

    def release_version(self, release_id: str) -> int | None:
        """Return the model version of a release, or None when it is not registered."""
        found = self._search(self._name("assistant"), {"release_id": release_id})
        return int(found.version) if found else None

    def alias(self, name: str) -> tuple[str, int] | None:
        """Return release id and model version that an alias points at, or None when it points nowhere."""
        from mlflow.exceptions import MlflowException

        with answering(self._url, f"alias {name!r}"):
            try:
                found = self._client.get_model_version_by_alias(self._name("assistant"), name)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise
        return found.tags.get("release_id", ""), int(found.version)

    def set_alias(self, name: str, version: int) -> None:
        """Point an alias of the assistant at a model version; raise MissingInput when there is none."""
        with answering(self._url, f"version {version} of {self._name('assistant')}"):
            self._client.set_registered_model_alias(self._name("assistant"), name, str(version))

    def remove_alias(self, name: str) -> None:
        """Let an alias of the assistant point nowhere; one that is not there stays away."""
        with answering(self._url, f"alias {name!r}"):
            self._client.delete_registered_model_alias(self._name("assistant"), name)

    def tag_release(self, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a release's model version."""
        with answering(self._url, f"version {version} of {self._name('assistant')}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(self._name("assistant"), str(version), key, value)

    def log_run(
        self, name: str, params: Mapping[str, Any], metrics: Mapping[str, float], artifacts: Sequence[Path]
    ) -> str:
        """Log one run with some files and return its id; a metric ``recall@10`` becomes recall_at_10."""
        with self._run(name, params, metrics) as run_id:
            for file in artifacts:
                self._client.log_artifact(run_id, str(file))
        return run_id

    @cached_property
    def _client(self) -> Any:
        return client_of(self._url)

    def _name(self, kind: str) -> str:
        return f"{self._prefix}.{kind}"

    def _search(self, name: str, tags: Mapping[str, str]) -> Any | None:
        """Return the newest version of a model that has all the tags, or None."""
        for value in tags.values():
            if not _TAG_VALUE.fullmatch(value):
                raise ConfigurationError(f"the tag {value!r} has a quote or is too long")
        query = [f"name='{name}'", *(f"tags.`{key}`='{value}'" for key, value in tags.items())]
        with answering(self._url, name):
            found = self._client.search_model_versions(
                " AND ".join(query), max_results=1, order_by=["version_number DESC"]
            )
        return found[0] if found else None

    def _prompt_versions(self, name: str) -> list[Any]:
        """Return all versions of a prompt; none when it was never registered."""
        from mlflow.exceptions import MlflowException

        versions: list[Any] = []
        token = None
        while True:
            try:
                page = self._client.search_prompt_versions(name, max_results=100, page_token=token)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return []
                raise
            versions += page
            token = page.token
            if not token:
                return versions

    @contextmanager
    def _run(self, name: str, params: Mapping[str, Any], metrics: Mapping[str, float]) -> Iterator[str]:
        """Open a run of this assistant's experiment; it ends as finished, or failed when the block raises."""
        from mlflow.entities import Metric, Param

        with answering(self._url, f"experiment {self._prefix}"):
            run_id = str(self._client.create_run(self._experiment(), run_name=name).info.run_id)
            status = "FAILED"
            try:
                self._client.log_batch(
                    run_id,
                    metrics=[Metric(_metric_name(key), float(value), 0, 0) for key, value in metrics.items()],
                    params=[Param(key, str(value)[:6000]) for key, value in params.items()],
                )
                yield run_id
                status = "FINISHED"
            finally:
                self._client.set_terminated(run_id, status)

    def _experiment(self) -> str:
        """Return the id of this assistant's experiment, created if it is not there."""
        found = self._client.get_experiment_by_name(self._prefix)
        if found is None:
            with _already_there():
                return str(self._client.create_experiment(self._prefix))
            found = self._client.get_experiment_by_name(self._prefix)
        return str(found.experiment_id)

    def _create_version(self, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> int:
        """Create a version of a registered model, and the model itself if it is not there."""
        with answering(self._url, name):
            with _already_there():
                self._client.create_registered_model(name)
            return int(
                self._client.create_model_version(name, source, run_id=run_id, tags=dict(tags)).version
            )

    def _download(self, pin: ArtifactPin, folder: Path) -> None:
        """Fetch a model into the cache: checked first, then moved there in one step."""
        name, version = model_version(pin.uri)
        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=".partial-") as scratch:
            with answering(self._url, pin.uri):
                found = self._client.get_model_version(name, version)
                fetched = Path(_download(self._url, found.source, scratch))
            check_files(fetched, pin.files, (_PIN, *_MLFLOW_FILES), f"the download of {pin.uri}")
            for extra in {_PIN, *_MLFLOW_FILES} - pin.files.keys():
                (fetched / extra).unlink(missing_ok=True)
            try:
                fetched.rename(folder)
            except OSError:
                # Another process was faster; its copy is checked like any other.
                if not folder.is_dir():
                    raise
        log.info("Fetched %s to %s", pin.uri, folder)


@contextmanager
def _already_there() -> Iterator[None]:
    """Pass over MLflow's complaint that something exists, which several processes may create at once."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _download(url: str, source: str, target: str) -> str:
    """Return the local path of what lies at ``source`` in the artifact store."""
    from mlflow.artifacts import download_artifacts

    return str(download_artifacts(artifact_uri=source, dst_path=target, tracking_uri=url, registry_uri=url))


def _metric_name(name: str) -> str:
    """Return a metric's name in the characters that MLflow allows."""
    return re.sub(r"[^\w./: -]", "_", name.replace("@", "_at_"))


def _require_text(pin: PromptPin, text: str, where: str) -> str:
    if _text_hash(text) != pin.text_hash:
        raise IntegrityError(
            f"the text of {pin.uri} has sha-256 {_text_hash(text)}, pinned is {pin.text_hash}: "
            f"it was changed {where} after it was registered"
        )
    return text


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write_atomically(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".partial-", delete=False) as scratch:
        scratch.write(content)
    Path(scratch.name).replace(file)
