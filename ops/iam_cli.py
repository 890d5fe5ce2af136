"""`ostraka admin user|access-key|group|policy`: IAM for operators, in whichever account.

Whoever has an account's own key uses `aws iam`; these are for who has the store's root key.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

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
    Console().print(table)


def _done(what: str, as_json: bool) -> None:
    typer.echo(json.dumps({"done": what}) if as_json else what)


_USER: Final = ("UserName", "Path", "UserId", "Arn")
_GROUP: Final = ("GroupName", "Path", "GroupId", "Arn")
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


def _groups(app: typer.Typer, iam: Iam) -> None:
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


def _policies(app: typer.Typer, iam: Iam) -> None:
    @app.command("create")
    def create(
        name: str, file: Annotated[Path, typer.Argument(help="The JSON document.")],
        account: Account = ROOT, url: Url = URL_DEFAULT, directory: Dir = None,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """Make a managed policy."""
        try:
            document = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise refuse(f"{file} cannot be read: {error}") from None
        made = iam.call(
            url, directory, account, "CreatePolicy", PolicyName=name, PolicyDocument=document
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
