"""What users and roles here never have: devices, passwords, certificates and keys for other services.
Lists of it are empty, for whoever is there."""

from gateway.domain.iam import ROLE, USER, IamRefused, Refusal
from gateway.iam.action import Action, Call, Handle
from gateway.iam.answers import Answer
from gateway.iam.users import holder_name
from gateway.metadata import grants

_ASSIGNMENTS = ("Assigned", "Unassigned", "Any")


def _empty(member: str, call: Call) -> Answer:
    call.form.marker()
    call.form.limit()
    return {member: [], "IsTruncated": False}


def _of_user(member: str) -> Handle:
    async def handle(call: Call) -> Answer:
        await grants.holder(call.identities, call.account_id, holder_name(call))
        return _empty(member, call)

    return handle


async def _instance_profiles(call: Call) -> Answer:
    await call.find(ROLE)
    return _empty("InstanceProfiles", call)


async def _service_credentials(call: Call) -> Answer:
    if not call.form.flag("AllUsers"):
        await grants.holder(call.identities, call.account_id, holder_name(call))
    return _empty("ServiceSpecificCredentials", call)


async def _virtual_devices(call: Call) -> Answer:
    call.form.choice("AssignmentStatus", _ASSIGNMENTS)
    return _empty("VirtualMFADevices", call)


async def _no_login(call: Call) -> None:
    found = await grants.holder(call.identities, call.account_id, holder_name(call))
    raise IamRefused(
        Refusal.NO_SUCH_ENTITY, f"Login Profile for User {found.name} cannot be found."
    )


ACTIONS = (
    Action("ListInstanceProfilesForRole", _instance_profiles, ROLE),
    Action("ListMFADevices", _of_user("MFADevices"), USER, of_caller=True),
    Action("ListSSHPublicKeys", _of_user("SSHPublicKeys"), USER, of_caller=True),
    Action("ListSigningCertificates", _of_user("Certificates"), USER, of_caller=True),
    Action("ListServiceSpecificCredentials", _service_credentials, USER, of_caller=True),
    Action("ListVirtualMFADevices", _virtual_devices),
    Action("GetLoginProfile", _no_login, USER, of_caller=True),
    Action("DeleteLoginProfile", _no_login, USER, of_caller=True),
)
