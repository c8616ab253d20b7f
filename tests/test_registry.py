"""The registry against a real MLflow server."""

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from llmops.errors import ConfigurationError, IntegrityError, MissingInput, ServiceUnavailable
from llmops.manifest import ArtifactPin
from llmops.registry import Registry, file_digests, fingerprint

INCLUDE = Path(__file__).parents[1] / "include"


@pytest.fixture
def registry(mlflow_url: str, tmp_path: Path) -> Registry:
    """A registry whose assistant no other test knows."""
    return Registry(mlflow_url, "dev", f"guide_{uuid4().hex[:8]}", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model of a few files."""
    model = tmp_path / "model"
    (model / "1_Pooling").mkdir(parents=True)
    for name in ("model.onnx", "tokenizer.json", "embedder.json", "1_Pooling/config.json"):
        (model / name).write_bytes(f"content of {name}".encode())
    return model


def register(registry: Registry, folder: Path, **tags: str) -> ArtifactPin:
    return registry.register_model("embedder", folder, params={"steps": 3}, metrics={"loss": 0.5}, tags=tags)


def test_a_model_comes_back_as_it_was_registered(registry: Registry, folder: Path) -> None:
    pin = register(registry, folder)
    assert pin.uri.endswith(".embedder/1")
    assert pin.files == file_digests(folder)
    fetched = registry.fetch(pin)
    assert file_digests(fetched) == pin.files
    assert registry.pin(pin.uri) == pin == registry.latest("embedder")
    assert registry.latest("generator") is None


def test_the_same_files_are_registered_once_and_changed_ones_again(registry: Registry, folder: Path) -> None:
    first = register(registry, folder, base="a")
    assert register(registry, folder, base="b") == first
    (folder / "model.onnx").write_bytes(b"trained further")
    second = register(registry, folder, base="c")
    assert second.uri.endswith("/2")
    assert second.fingerprint != first.fingerprint
    assert registry.latest("embedder") == second
    assert registry.latest("embedder", base="a") == first
    assert registry.latest("embedder", base="nobody") is None
    assert [(model.uri, model.tags["base"]) for model in registry.models("embedder")] == [
        (second.uri, "c"),
        (first.uri, "a"),
    ]
    assert registry.models("generator") == []


@pytest.mark.parametrize("damage", ["changed", "missing", "extra"])
def test_a_download_that_differs_from_its_pin_is_refused_and_not_kept(
    registry: Registry, folder: Path, tmp_path: Path, damage: str
) -> None:
    pin = register(registry, folder)
    files = dict(pin.files)
    if damage == "changed":
        files["model.onnx"] = "0" * 64
    elif damage == "missing":
        files["weights.safetensors"] = "0" * 64
    else:
        del files["1_Pooling/config.json"]
    with pytest.raises(IntegrityError, match=rf"{damage} \['\w"):
        registry.fetch(pin.model_copy(update={"files": files}))
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_flipped_byte_in_the_local_copy_is_refused(registry: Registry, folder: Path) -> None:
    pin = register(registry, folder)
    file = registry.fetch(pin) / "model.onnx"
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"changed \['model.onnx'\]"):
        registry.fetch(pin)


@pytest.mark.parametrize("name", ["loader.py", "MLmodel", "pin.json", "1_Pooling/extra.bin"])
def test_an_extra_file_in_the_local_copy_is_refused(registry: Registry, folder: Path, name: str) -> None:
    pin = register(registry, folder)
    (registry.fetch(pin) / name).write_text("x")
    with pytest.raises(IntegrityError, match=r"extra \['"):
        registry.fetch(pin)


def test_a_link_is_neither_registered_nor_fetched(registry: Registry, folder: Path) -> None:
    pin = register(registry, folder)
    local = registry.fetch(pin)
    (local / "model.onnx").unlink()
    (local / "model.onnx").symlink_to(folder / "model.onnx")
    with pytest.raises(IntegrityError, match="is a link"):
        registry.fetch(pin)
    (folder / "secret").symlink_to("/etc/passwd")
    with pytest.raises(IntegrityError, match="is a link"):
        register(registry, folder)


def test_mlflows_own_file_names_are_kept_for_mlflow(registry: Registry, folder: Path) -> None:
    (folder / "MLmodel").write_text("loader_module: evil")
    with pytest.raises(ConfigurationError, match="MLmodel"):
        register(registry, folder)


def test_a_copy_that_is_there_needs_no_mlflow(registry: Registry, folder: Path, tmp_path: Path) -> None:
    pin = register(registry, folder)
    prompt = registry.register_prompt("Answer from the context.")
    local = registry.fetch(pin)
    code = (
        "import sys; from pathlib import Path; from llmops.manifest import ArtifactPin, PromptPin;"
        "from llmops.registry import Registry;"
        f"offline = Registry('http://127.0.0.1:9', 'dev', 'guide', Path({str(tmp_path / 'cache')!r}));"
        f"print(offline.fetch(ArtifactPin.model_validate({pin.model_dump()!r})));"
        f"print(offline.prompt_text(PromptPin.model_validate({prompt.model_dump()!r})));"
        "assert 'mlflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(INCLUDE)},
        check=True,
    )
    assert done.stdout.splitlines() == [str(local), "Answer from the context."]


def test_processes_that_fetch_at_once_share_one_copy(
    registry: Registry, folder: Path, tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pin = register(registry, folder)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(registry.fetch, [pin] * 4))) == 1
    assert [path.name[0] for path in (tmp_path / "cache").iterdir()] != ["."]


def test_a_pin_of_another_assistant_is_refused(
    registry: Registry, folder: Path, mlflow_url: str, tmp_path: Path
) -> None:
    pin = register(registry, folder)
    other = Registry(mlflow_url, "dev", "other", tmp_path)
    with pytest.raises(MissingInput, match="does not belong"):
        other.pin(pin.uri)
    for uri in ("models:/x", "runs:/abc/embedder", pin.uri.rpartition("/")[0] + "/99"):
        with pytest.raises(MissingInput):
            registry.pin(uri)


def test_the_same_prompt_keeps_its_version(registry: Registry) -> None:
    first = registry.register_prompt("Answer {{question}} from\n\n  the context — only.")
    second = registry.register_prompt("Answer briefly.")
    assert (first.uri[-2:], second.uri[-2:]) == ("/1", "/2")
    assert registry.register_prompt("Answer {{question}} from\n\n  the context — only.") == first
    assert registry.prompt_text(first).endswith("— only.")


def test_a_changed_prompt_is_refused(registry: Registry, tmp_path: Path) -> None:
    pin = registry.register_prompt("Answer from the context.")
    with pytest.raises(IntegrityError, match="sha-256"):
        registry.prompt_text(pin.model_copy(update={"text_hash": "0" * 64}))
    (tmp_path / "cache" / "prompts" / f"{pin.text_hash}.txt").write_text("Say yes to everything.")
    with pytest.raises(IntegrityError, match="changed"):
        registry.prompt_text(pin)


def test_a_release_is_registered_once_and_its_aliases_move(registry: Registry) -> None:
    files = {"manifest.json": "{}", "report.json": '{"verdict": "PASS"}', "report.md": "# Report"}
    assert registry.alias("production") is None
    version = registry.log_release("a" * 64, files, {"gate_verdict": "PASS"})
    assert registry.log_release("a" * 64, files, {}) == version == registry.release_version("a" * 64) == 1
    assert registry.alias("production") is None
    other = registry.log_release("b" * 64, files, {})
    registry.set_alias("production", version)
    assert registry.alias("production") == ("a" * 64, version)
    registry.set_alias("production", other)
    assert registry.alias("production") == ("b" * 64, other)
    with pytest.raises(MissingInput):
        registry.set_alias("production", 99)


def test_mlflow_loads_a_release_as_an_agent(registry: Registry, mlflow_url: str, tmp_path: Path) -> None:
    version = registry.log_release("c" * 64, {"manifest.json": json.dumps({"made": "up"})}, {})
    name = registry._name("assistant")
    code = (
        f"import mlflow; mlflow.set_tracking_uri({mlflow_url!r});"
        f"agent = mlflow.pyfunc.load_model('models:/{name}/{version}');"
        "answer = agent.predict({'input': [{'role': 'user', 'content': 'hello'}],"
        "                        'custom_inputs': {'dry_run': True}});"
        "print(answer['output'][0]['content'][0]['text'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(INCLUDE)},
        check=False,
    )
    assert done.stdout.strip() == "This is a dry run.", done.stderr


def test_a_run_keeps_what_was_logged(registry: Registry, tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    report.write_text("# Report")
    run_id = registry.log_run("evaluation", {"cases": 3}, {"recall@10": 0.75}, [report])
    run = registry._client.get_run(run_id)
    assert (run.data.params, run.data.metrics, run.info.status) == (
        {"cases": "3"},
        {"recall_at_10": 0.75},
        "FINISHED",
    )
    file = registry._client.download_artifacts(run_id, "report.md", str(tmp_path.parent))
    assert Path(file).read_text() == "# Report"


def test_a_silent_mlflow_is_a_transient_error_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry("http://someone:secret@127.0.0.1:9", "dev", "guide", tmp_path)
    with pytest.raises(ServiceUnavailable, match=r"http://127\.0\.0\.1:9") as caught:
        registry.latest("embedder")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a.b", "x'y", "../up"])
def test_a_name_that_would_reach_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError):
        Registry("http://127.0.0.1:9", "dev", name, tmp_path)


def test_the_fingerprint_of_an_embedder_ignores_what_only_training_reads() -> None:
    files = {"model.onnx": "a", "tokenizer.json": "b", "embedder.json": "c"}
    assert fingerprint({**files, "config.json": "d"}) == fingerprint(files)
    assert fingerprint({**files, "model.onnx": "e"}) != fingerprint(files)
    assert fingerprint({"weights": "a"}) != fingerprint({"weights": "b"})
