"""What an operator does to etcd: users, certificates, making room."""

import datetime
import ipaddress
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from placement.metastore.etcd.stubs import rpc_pb2 as pb

_ANSWERS = {
    "Auth/UserAdd": pb.AuthUserAddResponse,
    "Auth/RoleAdd": pb.AuthRoleAddResponse,
    "Auth/RoleGrantPermission": pb.AuthRoleGrantPermissionResponse,
    "Auth/UserGrantRole": pb.AuthUserGrantRoleResponse,
    "Auth/AuthEnable": pb.AuthEnableResponse,
    "KV/Compact": pb.CompactionResponse,
    "Maintenance/Alarm": pb.AlarmResponse,
    "Maintenance/Defragment": pb.DefragmentResponse,
}


def ask(address: str, call: str, request: Any) -> Any:
    """One call without TLS or user."""
    with grpc.insecure_channel(address) as channel:
        stub = channel.unary_unary(
            f"/etcdserverpb.{call}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=_ANSWERS[call].FromString,
        )
        return stub(request, timeout=10)


def enable_users(address: str, user: str, password: str) -> None:
    """Root, and a user who may do everything with keys and nothing else."""
    ask(address, "Auth/UserAdd", pb.AuthUserAddRequest(name="root", password="root"))
    ask(address, "Auth/RoleAdd", pb.AuthRoleAddRequest(name="root"))
    ask(address, "Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root"))
    ask(address, "Auth/UserAdd", pb.AuthUserAddRequest(name=user, password=password))
    ask(address, "Auth/RoleAdd", pb.AuthRoleAddRequest(name="store"))
    ask(
        address,
        "Auth/RoleGrantPermission",
        pb.AuthRoleGrantPermissionRequest(
            name="store", perm={"permType": 2, "key": b"\x00", "range_end": b"\x00"}
        ),
    )
    ask(address, "Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role="store"))
    ask(address, "Auth/AuthEnable", pb.AuthEnableRequest())


def make_room(address: str, revision: int) -> None:
    """Forget what was before that revision, wait for it, defragment, disarm the alarm."""
    ask(address, "KV/Compact", pb.CompactionRequest(revision=revision, physical=True))
    ask(address, "Maintenance/Defragment", pb.DefragmentRequest())
    on = ask(address, "Maintenance/Alarm", pb.AlarmRequest(action=pb.AlarmRequest.GET))
    for alarm in on.alarms:
        disarm = pb.AlarmRequest(
            action=pb.AlarmRequest.DEACTIVATE, memberID=alarm.memberID, alarm=alarm.alarm
        )
        ask(address, "Maintenance/Alarm", disarm)


def write_certificates(folder: Path) -> None:
    """An authority, a server's and a client's certificate: NAME.pem and NAME.key."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("test authority")
    ca = (
        _certificate("test authority", ca_key.public_key(), ca_name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    _write(folder, "ca", ca, ca_key)
    for name, usage in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [usage, ExtendedKeyUsageOID.CLIENT_AUTH]  # etcd calls its own port, too
        certificate = (
            _certificate(name, key.public_key(), ca_name)
            .add_extension(x509.ExtendedKeyUsage(list(dict.fromkeys(usages))), critical=False)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.DNSName("localhost"),
                        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                    ]
                ),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        _write(folder, name, certificate, key)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    name: str, public_key: ec.EllipticCurvePublicKey, issuer: x509.Name
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _write(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
