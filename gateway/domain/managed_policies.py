"""The managed policies that come with the store, by the ARNs that AWS gives them.

They say what AWS's of that name say, as far as there is something here for them to speak of.
"""

import json
from dataclasses import dataclass
from typing import Final

from gateway.domain.policy.document import Policy, read_policy

PREFIX: Final = "arn:aws:iam::aws:policy/"


@dataclass(frozen=True, slots=True)
class ManagedPolicy:
    """One of them. `document` is its JSON."""

    name: str
    description: str
    document: str
    policy: Policy

    @property
    def arn(self) -> str:
        """As AWS's."""
        return PREFIX + self.name

    @property
    def policy_id(self) -> str:
        """A stable id of the form that AWS's have."""
        return "ANPA" + self.name.upper()[:17].ljust(17, "0")


def _policy(name: str, description: str, *actions: str) -> ManagedPolicy:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    read = read_policy(text.encode(), with_principals=False)
    return ManagedPolicy(name, description, text, read)


_READING_IAM: Final = (
    *("iam:GenerateCredentialReport", "iam:GenerateServiceLastAccessedDetails"),
    *("iam:Get*", "iam:List*", "iam:SimulateCustomPolicy", "iam:SimulatePrincipalPolicy"),
)
ALL: Final[tuple[ManagedPolicy, ...]] = (
    _policy("AdministratorAccess", "Full access to everything in the account.", "*"),
    _policy("AmazonS3FullAccess", "Full access to all buckets.", "s3:*", "s3-object-lambda:*"),
    _policy(
        "AmazonS3ReadOnlyAccess",
        "Reading all buckets.",
        *("s3:Get*", "s3:List*", "s3:Describe*", "s3-object-lambda:Get*", "s3-object-lambda:List*"),
    ),
    _policy("IAMFullAccess", "Full access to users, groups, roles and policies.", "iam:*"),
    _policy("IAMReadOnlyAccess", "Reading users, groups, roles and policies.", *_READING_IAM),
    _policy(
        "ReadOnlyAccess", "Reading everything.", "s3:Get*", "s3:List*", "iam:Get*", "iam:List*"
    ),
)
_BY_ARN: Final = {each.arn: each for each in ALL}


def managed_policy(arn: str) -> ManagedPolicy | None:
    """The one with that ARN; None for all others."""
    return _BY_ARN.get(arn)
