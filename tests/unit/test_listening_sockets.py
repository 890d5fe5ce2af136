"""The sockets of the workers share a port among themselves, and with nobody else."""

import select
import socket

import pytest

from ops.supervisor import listening_socket, listening_sockets


def close(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()


def test_connections_reach_all_sockets_of_a_port() -> None:
    listeners = listening_sockets("127.0.0.1", 0, 3)
    address = listeners[0].getsockname()
    assert {listener.getsockname() for listener in listeners} == {address}
    reached: set[int] = set()
    for _ in range(200):
        client = socket.create_connection(address, timeout=5)
        (ready, *_), _, _ = select.select(listeners, [], [], 5)
        accepted, _ = ready.accept()
        reached.add(ready.fileno())
        close(client, accepted)
        if len(reached) == 3:
            break
    assert reached == {listener.fileno() for listener in listeners}
    close(*listeners)


@pytest.mark.parametrize("count", [1, 2])
def test_a_second_store_cannot_join_the_port(count: int) -> None:
    listeners = listening_sockets("127.0.0.1", 0, 2)
    port = listeners[0].getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        listening_sockets("127.0.0.1", port, count)
    with pytest.raises(OSError, match="in use"):
        listening_socket("127.0.0.1", port)
    close(*listeners)
    again = listening_sockets("127.0.0.1", port, count)
    close(*again)
