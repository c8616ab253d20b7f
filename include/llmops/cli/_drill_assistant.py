"""The assistant that a drill releases and attacks: a few documents about a pottery, and questions about them."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

__all__ = ["ASSISTANT", "QUESTIONS", "write_assistant"]

ASSISTANT = "drill"

_DOCUMENTS = {
    "kiln": ("The kiln", "The kiln dries wood and clay. It is lit at six in the morning and is hot at nine."),
    "glaze": (
        "The glaze",
        "The blue glaze is made of cobalt and ash. It is kept in the cellar, in jars of stone.",
    ),
    "wheel": (
        "The wheel",
        "The potter's wheel turns to the left. Its belt is changed every spring by the smith.",
    ),
    "clay": (
        "The clay",
        "The clay comes from the river bank. It rests for two winters before anybody works it.",
    ),
    "market": (
        "The market",
        "The market is held on Thursday. Bowls are sold by weight, cups by the dozen.",
    ),
    "cart": (
        "The cart",
        "The cart is drawn by two oxen. It carries sixty bowls packed in straw to the harbour.",
    ),
    "well": (
        "The well",
        "The well is forty feet deep. Its water is drawn at dawn, before the wheel is started.",
    ),
    "guild": (
        "The guild",
        "The guild has nineteen masters. A new master is elected at midsummer by all of them.",
    ),
}
QUESTIONS = (
    "When is the kiln lit?",
    "What is the blue glaze made of?",
    "Which way does the potter's wheel turn?",
    "Where does the clay come from?",
    "On which day is the market held?",
    "How many bowls does the cart carry?",
    "How deep is the well?",
    "How many masters does the guild have?",
)


def write_assistant(home: Path, number: int) -> None:
    """Write documents, questions and configuration below ``home``; another number is another prompt and release."""
    folder, assistants = home / "drill" / "documents", home / "assistants"
    folder.mkdir(parents=True, exist_ok=True)
    assistants.mkdir(parents=True, exist_ok=True)
    for name, (title, text) in _DOCUMENTS.items():
        (folder / f"{name}.md").write_text(f"# {title}\n\n{text}\n", encoding="utf-8")
    cases = [
        {"id": name, "question": question, "expected_documents": [f"pottery:{name}.md"], "slice": "concept"}
        for name, question in zip(_DOCUMENTS, QUESTIONS, strict=True)
    ]
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    (assistants / f"{ASSISTANT}.cases.jsonl").write_text(lines, encoding="utf-8")
    values = {
        "description": "Answers questions about a pottery; released and attacked by drills.",
        "sources": [{"kind": "directory", "name": "pottery", "path": str(folder)}],
        "prompt": f"Drill {number}. Answer from these passages, or say: {{refusal}}\n\n{{context}}\n\n{{question}}",
        "evaluation_cases": f"{ASSISTANT}.cases.jsonl",
        "gate": {
            "rules": [
                {"metric": "recall_at_10", "minimum": 0.5},
                {"metric": "latency_p95_seconds", "maximum": 30},
            ]
        },
        "approval": {"approvers": ["reviewer"], "deadline_hours": 1},
    }
    (assistants / f"{ASSISTANT}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
