"""Stored records of users, groups, roles and managed policies, and what a session token holds."""

from gateway.metadata.records import Record


class PolicyVersionRecord(Record, frozen=True, kw_only=True):
    """A version of a managed policy that does not count."""

    number: int
    created_ms: int
    document: bytes


class IamRecord(Record, frozen=True, kw_only=True):
    """One of an account's users, groups, roles, managed policies or identity providers, as `kind`
    says (`gateway.domain.iam`). Policies are compressed, as in a bucket's record.

    `attached` are managed policies: ids of the account's own, ARNs of those that come with the
    store. `groups` are ids. `document` is a role's trust policy, or what a managed policy says: its
    version of the number `version`, made at `version_created_ms` (0: with the policy). `versions` are
    its others, `versions_made` the highest number that any had.
    """

    kind: str
    unique_id: str
    name: str
    path: str
    created_ms: int
    inline: tuple[tuple[str, bytes], ...] = ()  # by name, in order
    attached: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    access_keys: tuple[str, ...] = ()
    document: bytes = b""
    description: str = ""
    session_seconds_max: int = 3600
    tags: tuple[tuple[str, str], ...] = ()
    clients: tuple[str, ...] = ()  # of an OpenID Connect provider; its URL is the description
    thumbprints: tuple[str, ...] = ()
    version: int = 1
    version_created_ms: int = 0
    versions: tuple[PolicyVersionRecord, ...] = ()  # in order of number
    versions_made: int = 1


class SessionRecord(Record, frozen=True, kw_only=True):
    """What a session token holds, sealed: nothing of it is stored. `entity_id` is that of the user or
    role whose policies count, empty for an account's root; `name` names a role's session. `policy`
    narrows it."""

    account_id: str
    entity_id: str
    secret: str
    expires_ms: int
    name: str = ""
    policy: bytes = b""
