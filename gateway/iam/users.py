"""Users and their access keys; what an account has."""

from gateway.domain import iam
from gateway.domain.iam import USER, IamRefused, Refusal
from gateway.domain.policy_versions import VERSIONS_MAX
from gateway.iam.action import Action, Call
from gateway.iam.answers import Answer, Entries
from gateway.iam.elements import cut, entity_element
from gateway.iam.form import absent
from gateway.iam.named import deleting, listing, renaming
from gateway.metadata import grants
from gateway.metadata.credentials import ACCESS_KEY, SECRET
from gateway.metadata.identity_records import IamRecord
from gateway.s3.headers import format_iso8601

_ACCESS_KEY_LENGTH_MAX = 128
_STATES = {"Active": True, "Inactive": False}


def refuse_boundary(call: Call) -> None:
    """Permissions boundaries are not offered, and must not be taken for set."""
    if call.form.get("PermissionsBoundary") is not None:
        raise IamRefused(
            Refusal.INVALID_INPUT, "Permissions boundaries are not implemented by this server."
        )


async def _create(call: Call) -> Answer:
    form = call.form
    refuse_boundary(call)
    name = form.new_name(USER)
    record = IamRecord(
        kind="", unique_id="", name="", path=form.path() or "/", created_ms=0, tags=form.tags(USER)
    )
    made = await call.identities.create(call.account_id, USER, name, record)
    return {"User": entity_element(made, whole=True)}


async def _get(call: Call) -> Answer:
    name = call.form.optional_name(USER) or call.principal.user
    if name:
        found = await call.identities.find(call.account_id, USER, name)
        return {"User": entity_element(found, whole=True)}
    principal = call.principal
    if principal.role_arn:
        raise IamRefused(
            Refusal.VALIDATION, "Must specify userName when calling with non-User credentials"
        )
    account = await call.metadata.accounts.account(call.account_id)
    created_ms = 0 if account is None else account.created_ms
    return {
        "User": {
            "UserId": call.account_id,
            "Arn": iam_root(call.account_id),
            "CreateDate": format_iso8601(created_ms),
            "UserName": principal.name,
        }
    }


def iam_root(account_id: str) -> str:
    """The ARN of an account's root."""
    return f"arn:aws:iam::{account_id}:root"


async def _summary(call: Call) -> Answer:
    counts = await call.identities.counts(call.account_id)
    return {
        "SummaryMap": Entries(
            {
                "Users": counts[iam.USER.letter],
                "UsersQuota": iam.USER.quota,
                "Groups": counts[iam.GROUP.letter],
                "GroupsQuota": iam.GROUP.quota,
                "Roles": counts[iam.ROLE.letter],
                "RolesQuota": iam.ROLE.quota,
                "Policies": counts[iam.POLICY.letter],
                "PoliciesQuota": iam.POLICY.quota,
                "AccessKeysPerUserQuota": iam.ACCESS_KEYS_MAX,
                "GroupsPerUserQuota": iam.GROUPS_OF_USER_MAX,
                "AttachedPoliciesPerUserQuota": iam.ATTACHED_MAX,
                "AttachedPoliciesPerGroupQuota": iam.ATTACHED_MAX,
                "AttachedPoliciesPerRoleQuota": iam.ATTACHED_MAX,
                "UserPolicySizeQuota": iam.USER.inline_size_max,
                "GroupPolicySizeQuota": iam.GROUP.inline_size_max,
                "PolicySizeQuota": iam.MANAGED_POLICY_SIZE_MAX,
                "VersionsPerPolicyQuota": VERSIONS_MAX,
            }
        )
    }


# Access keys


def holder_name(call: Call) -> str | None:
    """The user that is meant: the one named, or the caller; None is the account's root."""
    name = call.form.optional_name(USER)
    if name is None and call.principal.role_arn:
        raise IamRefused(
            Refusal.VALIDATION, "Must specify userName when calling with non-User credentials"
        )
    return name or call.principal.user or None


def _access_key(call: Call) -> str:
    return call.form.required(
        "AccessKeyId", length_max=_ACCESS_KEY_LENGTH_MAX, length_min=3, pattern=iam.NAME
    )


def _given_key(call: Call) -> grants.GivenKey | None:
    """Operators may bring a key; over the wire these parameters mean nothing, as at AWS."""
    if call.wire is not None:
        return None
    access_key, secret = call.form.get("AccessKeyId"), call.form.get("SecretAccessKey")
    if access_key is None and secret is None:
        return None
    if access_key is None or secret is None:
        raise IamRefused(
            Refusal.VALIDATION, "AccessKeyId and SecretAccessKey are given together or not at all."
        )
    if not ACCESS_KEY.fullmatch(access_key):
        raise IamRefused(Refusal.VALIDATION, "An access key has 3 to 128 of A-Z a-z 0-9 _.")
    if not SECRET.fullmatch(secret):
        raise IamRefused(
            Refusal.VALIDATION, "A secret has 8 to 128 printable ASCII characters, no spaces."
        )
    return grants.GivenKey(access_key, secret)


async def _create_key(call: Call) -> Answer:
    made = await grants.create_access_key(
        call.identities, call.account_id, holder_name(call), _given_key(call)
    )
    return {
        "AccessKey": {
            "UserName": made.name,
            "AccessKeyId": made.record.access_key,
            "Status": "Active" if made.record.active else "Inactive",
            "SecretAccessKey": made.secret,
            "CreateDate": format_iso8601(made.record.created_ms),
        }
    }


async def _list_keys(call: Call) -> Answer:
    of = await grants.holder(call.identities, call.account_id, holder_name(call))
    found = await grants.access_keys(call.identities, of)
    shown = [
        (
            each.access_key,
            {
                "UserName": of.name,
                "AccessKeyId": each.access_key,
                "Status": "Active" if each.active else "Inactive",
                "CreateDate": format_iso8601(each.created_ms),
            },
        )
        for each in sorted(found, key=lambda record: record.access_key)
    ]
    return {
        "UserName": of.name,
        **cut("AccessKeyMetadata", shown, call.form.marker(), call.form.limit()),
    }


async def _update_key(call: Call) -> None:
    status = call.form.get("Status")
    if status is None:
        raise absent("Status")
    active = _STATES.get(status)
    if active is None:
        raise IamRefused(Refusal.VALIDATION, "Status must be Active or Inactive.")
    await grants.set_access_key_active(
        call.identities, call.account_id, holder_name(call), _access_key(call), active
    )


async def _delete_key(call: Call) -> None:
    await grants.delete_access_key(
        call.identities, call.account_id, holder_name(call), _access_key(call)
    )


ACTIONS = (
    Action("CreateUser", _create, USER, tagging=True),
    Action("GetUser", _get, USER, of_caller=True),
    Action("UpdateUser", renaming(USER), USER),
    Action("ListUsers", listing(USER), USER, listing=True),
    Action("DeleteUser", deleting(USER), USER),
    Action("GetAccountSummary", _summary),
    Action("CreateAccessKey", _create_key, USER, of_caller=True),
    Action("ListAccessKeys", _list_keys, USER, of_caller=True),
    Action("UpdateAccessKey", _update_key, USER, of_caller=True),
    Action("DeleteAccessKey", _delete_key, USER, of_caller=True),
)
