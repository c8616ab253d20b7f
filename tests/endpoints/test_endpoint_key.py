import logging
from pathlib import Path

import pytest

from llmops.endpoints import find_key, read_key
from llmops.errors import ConfigurationError


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_key_is_read_without_its_line_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_key(key_file(tmp_path, b"sk-canary\n")) == "sk-canary"
    assert caplog.records == []


def test_a_key_file_that_others_can_read_is_reported_without_its_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert read_key(key_file(tmp_path, b"sk-canary", 0o640)) == "sk-canary"
    assert "chmod 600" in caplog.text
    assert "sk-canary" not in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"sk-canary two", b"sk-canary\r\nX: y", b"sk-canary\xff", b"sk-canary" * 1000]
)
def test_what_is_not_one_key_is_refused_and_never_quoted(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_key(key_file(tmp_path, content))
    assert "canary" not in str(caught.value)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent.*No such file"):
        read_key(tmp_path / "absent")


def test_a_key_comes_from_a_file_or_a_variable_and_from_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_INCLUDE", str(tmp_path / "include"))
    monkeypatch.setenv("PROVIDER_KEY", "sk-canary-variable")
    key_file(tmp_path, b"sk-canary-file")
    assert find_key("key") == find_key(str(tmp_path / "key")) == "sk-canary-file"
    assert find_key(None, "PROVIDER_KEY") == "sk-canary-variable"
    assert find_key(None) is None


@pytest.mark.parametrize("value", ["", "sk-canary two", "sk-canary\nX: y", "sk-canary\udcff"])
def test_a_variable_that_holds_no_key_is_refused_and_never_quoted(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", value)
    with pytest.raises(ConfigurationError, match="PROVIDER_KEY") as caught:
        find_key(None, "PROVIDER_KEY")
    assert "canary" not in str(caught.value)
