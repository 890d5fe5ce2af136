"""What is wrong with a policy document."""

from typing import Final

SYNTAX: Final = "Syntax errors in policy."
LEGACY: Final = "The policy failed legacy parsing"


class MalformedPolicy(ValueError):
    """The document breaks a rule; the message is for the client, worded as S3 words it.

    `of_identity` is what IAM says of the same fault in the policy of a user, group or role; IAM has
    one sentence for most of them.
    """

    def __init__(self, message: str, of_identity: str = SYNTAX) -> None:
        super().__init__(message)
        self.of_identity = of_identity
