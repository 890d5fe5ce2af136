"""What is wrong with a policy document."""


class MalformedPolicy(ValueError):
    """The document breaks a rule; the message is for the client, worded as AWS words it."""
