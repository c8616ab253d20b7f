"""From a sentence-transformers model to an embedder's folder: PyTorch to ONNX, checked."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llmops.embedding import Embedder, OnnxDescription
from llmops.errors import ConfigurationError, IntegrityError, MissingInput
from llmops.training._quiet import quiet_libraries

__all__ = ["export_embedder", "write_tokenizer"]

log = logging.getLogger(__name__)

Pooling = Literal["mean", "cls"]

_WEIGHTS = "model.safetensors"
_OPSET = 17
_LOWEST_COSINE = 0.9999

_CARRIED = (
    _WEIGHTS,
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
    "2_Normalize/config.json",
)
"""What travels with an embedder so that training can go on from it; everything else stays behind."""

_POOLING: dict[str, Pooling] = {
    "mean": "mean",
    "cls": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}

_PROBES = (
    "",
    "pool",
    "How do I open a connection pool?",
    "Ein Übergrößenträger; 日本語のテキスト; emoji 🙂; control \x00 characters.",
    "class ConnectionPool(conninfo: str = '', *, min_size: int = 4, max_size: int | None = None)",
    "A table keeps every version of its rows until it is vacuumed. " * 60,
)


def export_embedder(model: Path, folder: Path, *, name: str) -> Path:
    """Write the embedder made from a sentence-transformers model folder to ``folder`` and return it.

    The graph takes token ids and gives the pooled unit vector. Before anything is kept, its vectors are
    compared with PyTorch's on texts of every kind. Raises MissingInput when ``model`` has no safetensors
    weights, ConfigurationError when it is of a kind that cannot be exported, and IntegrityError when the
    vectors differ.
    """
    quiet_libraries()
    pooling, max_tokens = _read_layout(model)
    network = _load_network(model, pooling)
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        for part in _CARRIED:
            if (model / part).is_file():
                (scratch / part).parent.mkdir(exist_ok=True)
                shutil.copyfile(model / part, scratch / part)
        write_tokenizer(model / "tokenizer.json", scratch / "tokenizer.json")
        _write_graph(network, scratch / "model.onnx")
        description = OnnxDescription(
            name=name,
            dimension=network.dimension,
            max_tokens=max_tokens,
            pooling=pooling,
            source_digest=hashlib.sha256((model / _WEIGHTS).read_bytes()).hexdigest(),
        )
        (scratch / "embedder.json").write_text(
            description.model_dump_json(indent=2, exclude_unset=True) + "\n"
        )
        cosine = _check(model, network, Embedder.load(scratch))
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    log.info("Exported embedder %s to %s (lowest cosine %.6f)", name, folder, cosine)
    return folder


def _read_layout(model: Path) -> tuple[Pooling, int]:
    """Return pooling and longest input of a sentence-transformers folder, or say why it has none."""
    for part in (_WEIGHTS, "config.json", "modules.json", "tokenizer.json", "1_Pooling/config.json"):
        if not (model / part).is_file():
            raise MissingInput(
                f"{str(model)!r} is no sentence-transformers model with safetensors weights: "
                f"{part} is not there"
            )
    types = [module["type"] for module in _read_json(model / "modules.json")]
    kinds = [kind.rsplit(".", 1)[-1] for kind in types if kind.startswith("sentence_transformers.")]
    pooling = _read_json(model / "1_Pooling/config.json")
    modes = {key for key, value in pooling.items() if key.startswith("pooling_mode_") and value}
    mode = _POOLING.get(pooling.get("pooling_mode") or "+".join(sorted(modes)))
    if len(kinds) != len(types) or kinds[2:] not in ([], ["Normalize"]) or mode is None:
        raise ConfigurationError(
            f"the model in {str(model)!r} is made of {types!r} and pools by {pooling!r}: only a Transformer "
            "with mean or cls pooling, and perhaps a Normalize, can be exported"
        )
    limits = (
        _read_json(model / "sentence_bert_config.json").get("max_seq_length"),
        _read_json(model / "tokenizer_config.json").get("model_max_length"),
        _read_json(model / "config.json").get("max_position_embeddings"),
    )
    return mode, next(int(limit) for limit in limits if limit)


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer without its truncation and padding, which would make every count wrong."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(target), pretty=False)


def _load_network(model: Path, pooling: Pooling) -> Any:
    """Return a PyTorch module from token ids and attention mask to pooled unit vectors."""
    import torch
    from transformers import AutoModel

    class Network(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
        def __init__(self) -> None:
            super().__init__()
            # Eager attention is the one that the ONNX exporter can follow.
            self.encoder = AutoModel.from_pretrained(
                str(model),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="eager",
                dtype=torch.float32,
            )
            self.dimension = int(self.encoder.config.hidden_size)
            self.eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            if pooling == "cls":
                pooled = hidden[:, 0]
            else:
                # A product and no sum: the runtime sums one text and several in different orders.
                weights = attention_mask.unsqueeze(1).to(hidden.dtype)
                pooled = torch.matmul(weights / weights.sum(2, keepdim=True), hidden).squeeze(1)
            return torch.nn.functional.normalize(pooled, dim=1)

    return Network()


def _write_graph(network: Any, file: Path) -> None:
    """Export the network with free batch and length axes."""
    import torch

    tokens = torch.full((2, 12), 5)
    mask = torch.ones_like(tokens)
    mask[1, 9:] = 0
    axes = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter that follows it needs a package more and gains nothing for these networks.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (tokens, mask),
            str(file),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=["vector"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "vector": {0: "batch"}},
        )


def _check(model: Path, network: Any, embedder: Embedder) -> float:
    """Return the lowest cosine between the graph's vectors and PyTorch's; raise if it is too low."""
    expected = _embed_with_torch(model, network, embedder.max_tokens)
    cosine = float((embedder.embed(_PROBES) * expected).sum(axis=1).min())
    if not cosine >= _LOWEST_COSINE:
        raise IntegrityError(
            f"the graph exported from {str(model)!r} differs from the model: cosine {cosine:.6f}, "
            f"at least {_LOWEST_COSINE} is asked for. The model cannot be used"
        )
    return cosine


def _embed_with_torch(model: Path, network: Any, max_tokens: int) -> NDArray[np.float32]:
    """Return the vectors of the probes as PyTorch makes them, with the model's own tokenizer."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True, trust_remote_code=False)
    batch = tokenizer(
        list(_PROBES), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
    )
    with torch.no_grad():
        vectors: NDArray[np.float32] = network(batch["input_ids"], batch["attention_mask"]).numpy()
    return vectors
