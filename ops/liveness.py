"""`python -m ops.liveness PORT`: exit status 0 when the admin port on loopback says that it is live.

For the image's health check, which does not know whether the store was told to serve TLS.
"""

import http.client
import ssl
import sys
from contextlib import closing
from typing import Final

HOST: Final = "127.0.0.1"
TIMEOUT_SECONDS: Final = 4.0
_PATH: Final = "/health/live"


def live(port: int) -> bool:
    """Whether what listens there lives: asked plainly, and over TLS where that is not understood.
    One that does not answer in time is not asked a second time."""
    # No name is checked: certificates are for the names that clients use, and nothing is told here.
    context = ssl._create_unverified_context()  # noqa: S323, SLF001
    for connection in (
        http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS),
        http.client.HTTPSConnection(HOST, port, timeout=TIMEOUT_SECONDS, context=context),
    ):
        with closing(connection):
            try:
                connection.request("GET", _PATH)
                status = connection.getresponse().status
            except (TimeoutError, ConnectionRefusedError):
                return False
            except (OSError, http.client.HTTPException):
                continue
            if status == http.HTTPStatus.OK:
                return True
    return False


if __name__ == "__main__":
    sys.exit(not live(int(sys.argv[1])))
