"""Where HashiCorp Vault is, as a value that processes hand to each other."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Where Vault is. The token is read from its file for each request, so that an agent may renew
    it. `ca_file` "" means the system's authorities."""

    url: str
    token_file: str
    mount: str = "transit"
    namespace: str = ""
    ca_file: str = ""
