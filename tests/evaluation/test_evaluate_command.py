import json

import pyarrow as pa
import pytest
from click.testing import CliRunner

from llmops.cli.evaluate import command, table
from llmops.corpus import CHUNKS
from llmops.errors import ConfigurationError, MissingInput
from llmops.evaluation import BeirRow, load_cases
from llmops.lakehouse import LakeTable

_CORPUS = [
    ("kiln", "Firing a kiln", "Open the lower damper before you light the burner of the kiln."),
    ("wheel", "", "The potter's wheel turns while both hands press on the wet clay."),
    ("glaze", "Celadon", "A celadon is a transparent glaze with little iron oxide."),
    ("shop", "", "Pots are sold on Saturdays from nine to noon."),
]
_QUESTIONS = [("q1", "How do I light the burner?", "kiln"), ("q2", "When can I buy a pot?", "shop")]


@pytest.fixture
def beir(tmp_path):
    folder = tmp_path / "pots"
    (folder / "qrels").mkdir(parents=True)
    corpus = [json.dumps({"_id": i, "title": t, "text": x}) for i, t, x in _CORPUS]
    (folder / "corpus.jsonl").write_text("\n".join(corpus))
    (folder / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": i, "text": q}) for i, q, _ in _QUESTIONS)
    )
    rows = [f"{i}\t{document}\t1" for i, _, document in _QUESTIONS]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return folder


def _run(*arguments):
    return CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)


def test_three_ways_to_search_are_measured_on_a_beir_folder(beir, base_embedder):
    result = _run("--beir", beir, "--embedder", base_embedder, "--json")
    rows = json.loads(result.stdout)["rows"]
    assert [row["name"] for row in rows] == [
        "exact dense, unchunked",
        "product path dense",
        "product path hybrid",
    ]
    for row in rows:
        assert row["mrr_at_10"] == row["ndcg_at_10"] == row["recall_at_10"] == 1
        assert row["documents_per_second"] > 0
        assert (row["documents"], row["questions"]) == (4, 2)


def test_the_table_shows_the_same_figures():
    row = BeirRow("product path dense", 0.51234, 0.7, 0.45, 16.04, 4, 2)
    header, line = table([row]).splitlines()
    assert header.split() == ["nDCG@10", "recall@10", "MRR@10", "documents/s"]
    assert line.split()[-4:] == ["0.5123", "0.7000", "0.4500", "16.0"]


def test_a_missing_folder_or_split_is_a_clear_error(beir, tmp_path):
    with pytest.raises(MissingInput, match="absent does not exist"):
        _run("--beir", tmp_path / "absent")
    with pytest.raises(MissingInput, match=r"no split 'dev'.*there is test"):
        _run("--beir", beir, "--split", "dev")


@pytest.fixture
def library(tmp_path, monkeypatch, database):
    """An environment whose assistant has a chunks table."""
    for name, value in {
        "LLMOPS_HOME": tmp_path / "home",
        "LLMOPS_STORAGE_ROOT": tmp_path / "lake",
        "LLMOPS_DATABASE_URL": database.url("llmops_worker"),
        "LLMOPS_MLFLOW_URL": "http://127.0.0.1:1",
        "LLMOPS_AIRFLOW_URL": "http://127.0.0.1:1",
        "LLMOPS_SERVING_URL": "http://127.0.0.1:1",
        "LLMOPS_NOTARY_URL": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, str(value))
    chunks = LakeTable(str(tmp_path / "lake" / "dev" / "library_guide"), CHUNKS)

    def fill():
        columns = ("chunk_id", "source", "path", "title", "heading_path", "text", "position")
        rows = [
            dict(zip(columns, (i, "pots", f"{i}.md", t, json.dumps([t or i]), x, 0), strict=True))
            for i, t, x in _CORPUS
        ]
        chunks.merge(pa.Table.from_pylist(rows), key="chunk_id", database_url=database.url("llmops_worker"))

    return fill


def test_derived_cases_are_exported_as_a_file_to_edit(library, tmp_path):
    library()
    out = tmp_path / "cases.jsonl"
    result = _run("cases", "export", "--out", out)
    cases = load_cases(out)
    assert f"{len(cases)} synthetic cases" in result.stdout
    assert all(case.synthetic for case in cases)
    assert {d for case in cases for d in case.expected_documents} == {f"pots:{i}.md" for i, _, _ in _CORPUS}
    with pytest.raises(ConfigurationError, match="--force"):
        _run("cases", "export", "--out", out)
    _run("cases", "export", "--out", out, "--force", "--limit", 2)
    assert len(load_cases(out)) == 2


def test_without_documents_nothing_is_exported(library, tmp_path):
    with pytest.raises(MissingInput, match="run the DAG ingest_documents"):
        _run("cases", "export", "--out", tmp_path / "cases.jsonl")
    assert not (tmp_path / "cases.jsonl").exists()
