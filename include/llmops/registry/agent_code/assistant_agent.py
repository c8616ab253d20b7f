"""One release as an MLflow agent: it answers with the installed ``llmops`` package and its own manifest.

MLflow and Databricks run this file by itself, outside the package and its layers. Nothing is read
before the first question, so that logging it needs neither index nor model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from mlflow.models import set_model
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse


class AssistantAgent(ResponsesAgent):  # type: ignore[misc]  # mlflow is not type-checked
    """Answers the last message of a request; ``custom_inputs={"dry_run": True}`` answers without a model."""

    _manifest: Path | None = None
    _loaded: Any = None

    def load_context(self, context: Any) -> None:
        """Remember where the manifest lies."""
        self._manifest = Path(context.artifacts["manifest.json"])

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        """Return the answer as text, with release and citations among the custom outputs."""
        if (request.custom_inputs or {}).get("dry_run"):
            return self._respond("This is a dry run.", {"dry_run": True})
        if self._loaded is None:
            self._loaded = self._load()
        answer = self._loaded.chain.answer(_question(request))
        citations = [f"{citation.source}:{citation.path}" for citation in answer.citations]
        return self._respond(answer.text, {"release": self._loaded.release_id, "citations": citations})

    def _load(self) -> Any:
        from llmops.manifest import Manifest
        from llmops.release import build_chain
        from llmops.settings import load_environment

        assert self._manifest is not None, "load_context was not called"
        manifest = Manifest.model_validate_json(self._manifest.read_text(encoding="utf-8"))
        return build_chain(load_environment(manifest.environment), manifest)

    def _respond(self, text: str, outputs: dict[str, Any]) -> ResponsesAgentResponse:
        item = self.create_text_output_item(text=text, id=str(uuid4()))
        return ResponsesAgentResponse(output=[item], custom_outputs=outputs)


def _question(request: ResponsesAgentRequest) -> str:
    """Return the text of the last message of the user."""
    asked = [message.model_dump() for message in request.input if getattr(message, "role", None) == "user"]
    if not asked:
        raise ValueError("the request has no message with the role 'user'")
    content = asked[-1]["content"]
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in content if part.get("type") == "input_text")


set_model(AssistantAgent())
