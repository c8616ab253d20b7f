"""``llmops model`` against a real MLflow server."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from llmops.cli.model import command
from llmops.errors import MissingInput


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
