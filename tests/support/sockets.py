"""Where the processes of a test listen."""

import psutil

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def listening(root: int) -> dict[str, set[str]]:
    """Addresses on which a process and its descendants listen, by the name of the process ("itself" for the root)."""
    family = {process.pid: process.name() for process in psutil.Process(root).children(recursive=True)}
    family[root] = "itself"
    found: dict[str, set[str]] = {}
    for connection in psutil.net_connections(kind="inet"):
        if connection.status == psutil.CONN_LISTEN and connection.pid in family:
            found.setdefault(family[connection.pid], set()).add(connection.laddr.ip)
    return found
