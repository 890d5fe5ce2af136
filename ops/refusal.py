"""How a process of the store says that it cannot do its work."""


class Refused(Exception):
    """The process cannot do its work; the message is one sentence for the operator."""
