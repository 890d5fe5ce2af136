"""How the admin port says that it cannot do what an operator asked."""


class AdminError(Exception):
    """An operator's request that cannot be carried out: HTTP status, code and one sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
