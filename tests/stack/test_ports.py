from __future__ import annotations

import socket

import pytest

from llmops.errors import ConfigurationError, StackError
from llmops.stack import Stack
from llmops.stack._ports import PortHolder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_free_port_is_given_as_wished() -> None:
    port = _free_port()
    assert PortHolder().claim(port) == port


def test_a_port_that_a_server_listens_on_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert PortHolder().claim(server.getsockname()[1]) == server.getsockname()[1] + 1


def test_a_port_on_all_addresses_counts_as_taken() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert PortHolder().claim(server.getsockname()[1]) != server.getsockname()[1]


def test_two_stacks_do_not_choose_the_same_port_before_either_listens() -> None:
    one, two, wish = PortHolder(), PortHolder(), _free_port()
    assert one.claim(wish) != two.claim(wish)


def test_a_port_can_be_had_again_right_after_connections_to_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()
    assert PortHolder().claim(port) == port


def test_impossible_ports_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    with pytest.raises(StackError, match="70000"):
        PortHolder().claim(70000)
    monkeypatch.setenv("LLMOPS_AIRFLOW_PORT", "eighty")
    with pytest.raises(ConfigurationError, match="LLMOPS_AIRFLOW_PORT is 'eighty'"):
        Stack(tmp_path)
    monkeypatch.setenv("LLMOPS_AIRFLOW_PORT", "8085")
    assert Stack(tmp_path).wished_ports == {"airflow": 8085}
