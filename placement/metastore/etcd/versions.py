"""What is known of versions of etcd."""

from typing import Final

_FORGETFUL: Final = frozenset(("3.5.0", "3.5.1", "3.5.2"))


def forgets_when_killed(version: str) -> bool:
    """Whether a member that is killed under load may come back without something that it had
    applied and others have, and never notice: its database says that it is further than it is.

    Source: etcd's issue 13766, mended in its version 3.5.3.
    """
    return version in _FORGETFUL
