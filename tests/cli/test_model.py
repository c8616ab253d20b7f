"""``llmops model`` against a real MLflow server."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from llmops.cli.model import command
from llmops.errors import MissingInput
from support.fake_embeddings import FakeEmbeddings


@pytest.fixture
def runner(mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMOPS_MLFLOW_URL", mlflow_url)
    for name in ("DATABASE", "AIRFLOW", "SERVING", "NOTARY"):
        monkeypatch.setenv(f"LLMOPS_{name}_URL", "http://127.0.0.1:9")
    return CliRunner()


def test_a_model_from_a_folder_is_imported_listed_and_shown(
    runner: CliRunner, base_embedder: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(base_embedder, tmp_path / "my-model")
    imported = runner.invoke(command, ["import", "--folder", str(model)], catch_exceptions=False)
    uri, _, fingerprint = imported.output.split()[:3]
    assert uri == "models:/dev.library_guide.embedder/1"
    listed = runner.invoke(command, ["list"], catch_exceptions=False)
    assert listed.output == f"{uri}  {fingerprint}  my-model\n"
    shown = runner.invoke(command, ["show", uri], catch_exceptions=False).output.splitlines()
    assert shown[1].startswith(f"fingerprint {fingerprint}")
    assert {line.split()[1] for line in shown[2:]} > {"model.onnx", "tokenizer.json", "model.safetensors"}
    nothing = runner.invoke(command, ["list", "--kind", "generator"], catch_exceptions=False)
    assert nothing.output == "no generator of library_guide is registered\n"


def test_a_folder_without_a_model_is_named(runner: CliRunner, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="no sentence-transformers model"):
        runner.invoke(command, ["import", "--folder", str(tmp_path)], catch_exceptions=False)


def test_a_model_behind_an_endpoint_is_registered_without_any_file_of_weights(runner: CliRunner) -> None:
    with FakeEmbeddings() as fake:
        options = ["--kind", "openai", "--url", fake.url, "--model", "hash", "--dimension", "32"]
        imported = runner.invoke(command, ["import", *options], catch_exceptions=False)
    uri, _, fingerprint = imported.output.splitlines()[-1].split()
    assert "is configured with another embedder" in imported.output
    shown = runner.invoke(command, ["show", uri], catch_exceptions=False).output.splitlines()
    assert shown[1].startswith(f"fingerprint {fingerprint}")
    assert {line.split()[1] for line in shown[2:]} == {"embedder.json", "tokenizer.json"}
    listed = runner.invoke(command, ["list"], catch_exceptions=False).output
    assert f"{uri}  {fingerprint}  hash at 127.0.0.1" in listed


def test_a_serving_endpoint_is_registered_by_its_workspace_and_name(runner: CliRunner) -> None:
    with FakeEmbeddings() as fake:
        host = f"http://{fake.host}"  # type: ignore[attr-defined]
        options = ["--kind", "databricks", "--url", host, "--endpoint", "hash", "--dimension", "32"]
        assert runner.invoke(command, ["import", *options], catch_exceptions=False).exit_code == 0
    assert fake.history[0].path == "/serving-endpoints/hash/invocations"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--kind", "openai", "--url", "http://h/v1"], "--model: Field required; --dimension|--dimension"),
        (["--model", "hash"], "say with --kind"),
        (["--kind", "openai", "--endpoint", "hash"], "--endpoint: Extra inputs"),
        (["--folder", "somewhere", "--kind", "openai"], "give it alone"),
        (["--kind", "openai", "--url", "http://me:secret@h", "--model", "m", "--dimension", "8"], "--url: "),
    ],
)
def test_options_that_describe_no_endpoint_are_named(
    runner: CliRunner, options: list[str], says: str
) -> None:
    result = runner.invoke(command, ["import", *options])
    assert result.exit_code == 2
    assert any(part in result.output for part in says.split("|"))
    assert "secret" not in result.output
