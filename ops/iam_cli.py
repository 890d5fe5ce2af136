"""`ostraka admin user|access-key|group|role|policy`: IAM for operators, in whichever account.

Whoever has an account's own key uses `aws iam`; these are for who has the store's root key.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import unquote

import typer
from rich.console import Console
from rich.table import Table

from ops.admin_options import URL_DEFAULT, Ask, Dir, Json, Url
from ops.cluster_cli import refuse

Account = Annotated[str, typer.Option(help="Name or id of the account.")]
User = Annotated[str, typer.Option(help="Name of a user.")]
ROOT: Final = "root"
_PAGE: Final = "1000"


class Iam:
    """Speaks IAM to the admin port."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def call(
        self, url: str, directory: Path | None, account: str, action: str, **parameters: str
    ) -> dict[str, Any]:
        """One action; the members of its result."""
        given = {name: value for name, value in parameters.items() if value}
        document = {"account": account, "action": action, "parameters": given}
        answer: dict[str, Any] = self._ask(url, directory, "POST", "/api/v1/iam", document)
        return answer

    def all(
        self, url: str, directory: Path | None, account: str, action: str, member: str, **given: str
    ) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        marker = ""
        while True:
            page = self.call(
                url, directory, account, action, MaxItems=_PAGE, Marker=marker, **given
            )
            found += page[member]
            if not page["IsTruncated"]:
                return found
            marker = page["Marker"]


def register(admin: typer.Typer, ask: Ask) -> None:
    """Add these commands to `ostraka admin`."""
    iam = Iam(ask)
    for name, about, commands in (
        ("user", "Users of an account.", _users),
        ("access-key", "Access keys of users.", _access_keys),
        ("group", "Groups of users.", _groups),
        ("role", "Roles that others may play for a time.", _roles),
        ("policy", "Managed policies, and to whom they are attached.", _policies),
    ):
        app = typer.Typer(help=about, no_args_is_help=True)
        commands(app, iam)
        admin.add_typer(app, name=name)


def _show(items: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(items))
        return
    table = Table(*columns)
    for item in items:
        table.add_row(*(str(item.get(column) or "") for column in columns))
    Console(width=160).print(table)


def _done(what: str, as_json: bool) -> None:
    typer.echo(json.dumps({"done": what}) if as_json else what)


_USER: Final = ("UserName", "Path", "UserId", "Arn")
_GROUP: Final = ("GroupName", "Path", "GroupId", "Arn")
_ROLE: Final = ("RoleName", "Path", "RoleId", "Arn")
_POLICY: Final = ("PolicyName", "Arn", "AttachmentCount")
_KEY: Final = ("UserName", "AccessKeyId", "Status", "SecretAccessKey")


def _users(app: typer.Typer, iam: Iam) -> None:
    @app.command("create")
    def create(
        name: str, path: str = "/", account: Account = ROOT, url: Url = URL_DEFAULT,
        directory: Dir = None, as_json: Json = False,
    ) -> None:  # fmt: skip
        """Make a user, who may do nothing until a policy says so."""
        made = iam.call(url, directory, account, "CreateUser", UserName=name, Path=path)
        _show([made["User"]], _USER, as_json)

    @app.command("list")
    def show(
        account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """All users of an account."""
        _show(iam.all(url, directory, account, "ListUsers", "Users"), _USER, as_json)

    @app.command("delete")
    def delete(
        name: str, account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """Remove a user without keys, policies and groups."""
        iam.call(url, directory, account, "DeleteUser", UserName=name)
        _done(f"deleted {name}", as_json)

    @app.command("show")
    def show_one(
        name: str, account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """A user with its keys, groups and policies."""
        found = iam.call(url, directory, account, "GetUser", UserName=name)["User"]
        of = {"UserName": name}
        keys = iam.all(url, directory, account, "ListAccessKeys", "AccessKeyMetadata", **of)
        groups = iam.all(url, directory, account, "ListGroupsForUser", "Groups", **of)
        found["AccessKeys"] = {key["AccessKeyId"]: key["Status"] for key in keys}
        found["Groups"] = [group["GroupName"] for group in groups]
        _tell(found | _policies_of(iam, url, directory, account, "User", name), as_json)


def _policies_of(
    iam: Iam, url: str, directory: Path | None, account: str, kind: str, name: str
) -> dict[str, Any]:
    """The policies of a user, group or role: the managed ones by ARN, its own by name."""
    of = {f"{kind}Name": name}
    attached = iam.all(
        url, directory, account, f"ListAttached{kind}Policies", "AttachedPolicies", **of
    )
    own = iam.all(url, directory, account, f"List{kind}Policies", "PolicyNames", **of)
    return {"AttachedPolicies": [each["PolicyArn"] for each in attached], "OwnPolicies": own}


def _tell(found: dict[str, Any], as_json: bool) -> None:
    """One thing with all that is known of it."""
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        words = json.dumps(value) if isinstance(value, dict | list) else str(value)
        typer.echo(f"{name:<24}  {words}")


def _access_keys(app: typer.Typer, iam: Iam) -> None:
    @app.command("create")
    def create(
        user: User, account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """A further key of a user. The secret is shown once."""
        made = iam.call(url, directory, account, "CreateAccessKey", UserName=user)
        _show([made["AccessKey"]], _KEY, as_json)

    @app.command("list")
    def show(
        user: User, account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """The keys of a user."""
        found = iam.all(
            url, directory, account, "ListAccessKeys", "AccessKeyMetadata", UserName=user
        )
        _show(found, _KEY[:3], as_json)

    @app.command("delete")
    def delete(
        access_key: str, user: User, account: Account = ROOT, url: Url = URL_DEFAULT,
        directory: Dir = None, as_json: Json = False,
    ) -> None:  # fmt: skip
        """Remove a key; what it signs is refused from now on."""
        iam.call(url, directory, account, "DeleteAccessKey", UserName=user, AccessKeyId=access_key)
        _done(f"deleted {access_key}", as_json)

    for name, status, about in (
        ("enable", "Active", "Let a key sign again."),
        ("disable", "Inactive", "Refuse what a key signs from now on, and keep it."),
    ):
        app.command(name, help=about)(_with_status(iam, name, status))


def _with_status(iam: Iam, verb: str, status: str) -> Callable[..., None]:
    def change(
        access_key: str, user: User, account: Account = ROOT, url: Url = URL_DEFAULT,
        directory: Dir = None, as_json: Json = False,
    ) -> None:  # fmt: skip
        iam.call(
            url, directory, account, "UpdateAccessKey",
            UserName=user, AccessKeyId=access_key, Status=status,
        )  # fmt: skip
        _done(f"{verb}d {access_key}", as_json)

    return change


def _groups(app: typer.Typer, iam: Iam) -> None:
    @app.command("show")
    def show_one(
        group: str, account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """A group with its members and policies."""
        found = iam.call(url, directory, account, "GetGroup", GroupName=group)["Group"]
        members = iam.all(url, directory, account, "GetGroup", "Users", GroupName=group)
        found["Users"] = [user["UserName"] for user in members]
        _tell(found | _policies_of(iam, url, directory, account, "Group", group), as_json)

    @app.command("list")
    def show(
        account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """All groups of an account."""
        _show(iam.all(url, directory, account, "ListGroups", "Groups"), _GROUP, as_json)

    for name, action, about in (
        ("create", "CreateGroup", "Make a group."),
        ("delete", "DeleteGroup", "Remove a group without members and policies."),
    ):
        app.command(name, help=about)(_of_group(iam, action))
    for name, action, about in (
        ("add", "AddUserToGroup", "Add a user to a group."),
        ("remove", "RemoveUserFromGroup", "Take a user out of a group."),
    ):
        app.command(name, help=about)(_of_member(iam, action))


def _of_group(iam: Iam, action: str) -> Callable[..., None]:
    def change(
        group: str, account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        iam.call(url, directory, account, action, GroupName=group)
        _done(f"{action} {group}", as_json)

    return change


def _of_member(iam: Iam, action: str) -> Callable[..., None]:
    def change(
        group: str, user: User, account: Account = ROOT, url: Url = URL_DEFAULT,
        directory: Dir = None, as_json: Json = False,
    ) -> None:  # fmt: skip
        iam.call(url, directory, account, action, GroupName=group, UserName=user)
        _done(f"{action} {group} {user}", as_json)

    return change


def _roles(app: typer.Typer, iam: Iam) -> None:
    @app.command("create")
    def create(
        name: str, trust: Annotated[Path, typer.Argument(help="The JSON of who may play it.")],
        account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """Make a role, which may do nothing until a policy says so."""
        made = iam.call(
            url, directory, account, "CreateRole",
            RoleName=name, AssumeRolePolicyDocument=_read(trust),
        )  # fmt: skip
        _show([made["Role"]], _ROLE, as_json)

    @app.command("list")
    def show(
        account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """All roles of an account."""
        _show(iam.all(url, directory, account, "ListRoles", "Roles"), _ROLE, as_json)

    @app.command("show")
    def show_one(
        name: str, account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """A role with who may play it, and its policies."""
        found = iam.call(url, directory, account, "GetRole", RoleName=name)["Role"]
        found["AssumeRolePolicyDocument"] = _document(found["AssumeRolePolicyDocument"])
        _tell(found | _policies_of(iam, url, directory, account, "Role", name), as_json)

    @app.command("delete")
    def delete(
        name: str, account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """Remove a role without policies; what its sessions sign is refused from now on."""
        iam.call(url, directory, account, "DeleteRole", RoleName=name)
        _done(f"deleted {name}", as_json)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(f"{file} cannot be read: {error}") from None


def _document(encoded: str) -> Any:
    """A policy as IAM answers it: JSON, percent-encoded."""
    return json.loads(unquote(encoded))


def _policies(app: typer.Typer, iam: Iam) -> None:
    @app.command("show")
    def show_one(
        arn: str, account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """A managed policy with its document."""
        found = iam.call(url, directory, account, "GetPolicy", PolicyArn=arn)["Policy"]
        version = found["DefaultVersionId"]
        told = iam.call(
            url, directory, account, "GetPolicyVersion", PolicyArn=arn, VersionId=version
        )
        found["Document"] = _document(told["PolicyVersion"]["Document"])
        _tell(found, as_json)

    @app.command("create")
    def create(
        name: str, file: Annotated[Path, typer.Argument(help="The JSON document.")],
        account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """Make a managed policy."""
        made = iam.call(
            url, directory, account, "CreatePolicy", PolicyName=name, PolicyDocument=_read(file)
        )
        _show([made["Policy"]], _POLICY, as_json)

    @app.command("list")
    def show(
        account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """Managed policies: the account's own, and those that come with the store."""
        _show(iam.all(url, directory, account, "ListPolicies", "Policies"), _POLICY, as_json)

    @app.command("delete")
    def delete(
        arn: str, account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """Remove a managed policy that is attached to nobody."""
        iam.call(url, directory, account, "DeletePolicy", PolicyArn=arn)
        _done(f"deleted {arn}", as_json)

    for name, about in (
        ("attach", "Attach a managed policy to a user, group or role."),
        ("detach", "Detach it."),
    ):
        app.command(name, help=about)(_attachment(iam, name.capitalize()))


def _attachment(iam: Iam, verb: str) -> Callable[..., None]:
    def attach(
        arn: str, user: str = "", group: str = "", role: str = "", account: Account = ROOT,
        url: Url = URL_DEFAULT, directory: Dir = None, as_json: Json = False,
    ) -> None:  # fmt: skip
        given = {"User": user, "Group": group, "Role": role}
        named = {kind: name for kind, name in given.items() if name}
        if len(named) != 1:
            raise refuse("give one of --user, --group and --role")
        ((kind, name),) = named.items()
        iam.call(
            url, directory, account, f"{verb}{kind}Policy",
            **{f"{kind}Name": name, "PolicyArn": arn},
        )  # fmt: skip
        _done(f"{verb.lower()}ed {arn}", as_json)

    return attach
