"""The embedder against sentence-transformers, and against itself."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from llmops.embedding import Embedder
from llmops.errors import ConfigurationError, IntegrityError, MissingInput

TEXTS = [
    "",
    " \n\t ",
    ".",
    "pool",
    "How do I open a psycopg connection pool?",
    "Größenänderung für Straßenbäume – naïve café",
    "日本語の文章と한국어 문장과 русский текст",
    "👩‍👩‍👧‍👦 family emoji, e\u0301 combining, \u200bzero width, \x00 nul",
    "def connect(conninfo: str = '', *, autocommit: bool = False) -> Connection[TupleRow]: ...",
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' -- " + "x" * 300,
    "A table keeps each version of its rows until it is vacuumed. " * 100,
    "\n".join(f"| {i} | row {i} of a table |" for i in range(60)),
]


@pytest.fixture(scope="module")
def embedder(base_embedder: Path) -> Embedder:
    return Embedder.load(base_embedder)


def test_vectors_equal_those_of_sentence_transformers(embedder: Embedder, base_embedder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(base_embedder), device="cpu", local_files_only=True)
    expected = model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), model.get_embedding_dimension())
    assert vectors.dtype == np.float32
    assert (vectors * expected).sum(axis=1).min() >= 0.9999


def test_a_vector_does_not_depend_on_its_neighbours_or_on_the_number_of_threads(
    embedder: Embedder, base_embedder: Path
) -> None:
    together = embedder.embed(TEXTS)
    alone = np.concatenate([embedder.embed([text]) for text in reversed(TEXTS)])[::-1]
    on_one_thread = Embedder.load(base_embedder, threads=1).embed(TEXTS)
    assert together.tobytes() == alone.tobytes() == on_one_thread.tobytes()


def test_vectors_have_unit_length_and_keep_the_order_of_the_texts(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert embedder.embed(TEXTS[::-1])[::-1].tobytes() == vectors.tobytes()
    assert len({vector.tobytes() for vector in vectors}) == len(TEXTS) - 1, (
        "only the two empty texts are alike"
    )


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)
    assert embedder.count_tokens([]) == []


def test_a_lone_surrogate_is_embedded_as_a_question_mark(embedder: Embedder) -> None:
    assert embedder.embed(["a \ud800 b"]).tobytes() == embedder.embed(["a ? b"]).tobytes()


def test_tokens_are_counted_over_the_whole_text(embedder: Embedder) -> None:
    assert embedder.count_tokens(["", "pool", "pool " * 1000]) == [2, 3, 1002]


def test_the_tokenizer_file_neither_cuts_nor_pads(embedder: Embedder) -> None:
    tokenizer = json.loads(embedder.tokenizer_file.read_text())
    assert tokenizer["truncation"] is None
    assert tokenizer["padding"] is None


def test_it_is_ready_within_three_seconds_without_torch(base_embedder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from llmops.embedding import Embedder;"
        f"assert Embedder.load(Path({str(base_embedder)!r})).embed(['ready']).shape == (1, 384);"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'mlflow', 'pandas'} & set(sys.modules);"
        "print(sorted(heavy))"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "include")},
    )
    print(f"ready after {time.monotonic() - started:.1f} s")
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("part", ["model.onnx", "tokenizer.json", "embedder.json"])
def test_the_fingerprint_changes_with_every_file_that_makes_the_vector(
    embedder: Embedder, base_embedder: Path, tmp_path: Path, part: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(base_embedder, other)
    content = (other / part).read_bytes()
    if part == "model.onnx":
        from onnx import load_model, save_model

        graph = load_model(other / part)
        graph.doc_string = "changed"
        save_model(graph, other / part)
    else:
        (other / part).write_bytes(content + b"\n")
    assert Embedder.load(other).fingerprint != embedder.fingerprint


def test_the_fingerprint_does_not_change_with_the_place(
    embedder: Embedder, base_embedder: Path, tmp_path: Path
) -> None:
    shutil.copytree(base_embedder, tmp_path / "copy")
    (tmp_path / "copy" / "modules.json").unlink()
    assert Embedder.load(tmp_path / "copy").fingerprint == embedder.fingerprint
    assert len(embedder.fingerprint) == 64


@pytest.mark.parametrize("part", ["model.onnx", "tokenizer.json", "embedder.json"])
def test_a_damaged_file_is_named(base_embedder: Path, tmp_path: Path, part: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base_embedder, broken)
    (broken / part).write_bytes(b"not this")
    with pytest.raises(IntegrityError, match=part):
        Embedder.load(broken)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"nowhere.*embedder\.json"):
        Embedder.load(tmp_path / "nowhere")


def test_no_threads_are_refused(base_embedder: Path) -> None:
    with pytest.raises(ConfigurationError, match="0 threads"):
        Embedder.load(base_embedder, threads=0)
