"""Whose files a command makes when root runs it on a store that belongs to the service's user."""

import os
from pathlib import Path


def act_as_owner(folder: Path) -> None:
    """As root, become the user and group that own `folder`, for the rest of this process: what is
    made from here on can be opened by the service. Anybody else stays who they are, and so does root
    in a folder of its own or where there is none. Raises PermissionError where root may not change
    itself."""
    if os.geteuid() != 0 or not folder.is_dir():
        return
    owner = folder.stat()
    if owner.st_uid == 0:
        return
    groups = _groups_of(owner.st_uid, owner.st_gid)
    os.setgroups(groups)
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def _groups_of(user: int, group: int) -> list[int]:
    """All groups of a user: drives may be open to one of them. A number without a name has the one
    group."""
    import pwd

    try:
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:
        return [group]
