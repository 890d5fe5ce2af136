"""The names of S3's actions: a bucket policy that names others is refused when it is put.

A misspelt action would otherwise be kept, and a Deny that was meant would never deny.
Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3".
"""

from typing import Final

from gateway.domain.policy.document import Policy
from gateway.domain.policy.errors import MalformedPolicy

# By what comes first in the name, for instance Get: BucketAcl is s3:GetBucketAcl.
_NAMES: Final = {
    "": """AbortMultipartUpload AssociateAccessGrantsIdentityCenter BypassGovernanceRetention
        DescribeJob DescribeMultiRegionAccessPointOperation
        DissociateAccessGrantsIdentityCenter InitiateReplication
        ObjectOwnerOverrideToBucketOwner PauseReplication ReplicateDelete ReplicateObject
        ReplicateTags RestoreObject SubmitMultiRegionAccessPointRoutes TagResource
        UntagResource""",
    "Create": """AccessGrant AccessGrantsInstance AccessGrantsLocation AccessPoint
        AccessPointForObjectLambda Bucket BucketMetadataTableConfiguration Job
        MultiRegionAccessPoint StorageLensGroup""",
    "Delete": """AccessGrant AccessGrantsInstance AccessGrantsInstanceResourcePolicy
        AccessGrantsLocation AccessPoint AccessPointForObjectLambda AccessPointPolicy
        AccessPointPolicyForObjectLambda Bucket BucketMetadataTableConfiguration BucketPolicy
        BucketWebsite JobTagging MultiRegionAccessPoint Object ObjectAnnotation ObjectTagging
        ObjectVersion ObjectVersionAnnotation ObjectVersionTagging StorageLensConfiguration
        StorageLensConfigurationTagging StorageLensGroup""",
    "Get": """AccelerateConfiguration AccessGrant AccessGrantsInstance
        AccessGrantsInstanceForPrefix AccessGrantsInstanceResourcePolicy AccessGrantsLocation
        AccessPoint AccessPointConfigurationForObjectLambda AccessPointForObjectLambda
        AccessPointPolicy AccessPointPolicyForObjectLambda AccessPointPolicyStatus
        AccessPointPolicyStatusForObjectLambda AccountPublicAccessBlock AnalyticsConfiguration
        BucketAbac BucketAcl BucketCORS BucketLocation BucketLogging
        BucketMetadataTableConfiguration BucketNotification BucketObjectLockConfiguration
        BucketOwnershipControls BucketPolicy BucketPolicyStatus BucketPublicAccessBlock
        BucketRequestPayment BucketTagging BucketVersioning BucketWebsite DataAccess
        EncryptionConfiguration IntelligentTieringConfiguration InventoryConfiguration
        JobTagging LifecycleConfiguration MetricsConfiguration MultiRegionAccessPoint
        MultiRegionAccessPointPolicy MultiRegionAccessPointPolicyStatus
        MultiRegionAccessPointRoutes Object ObjectAcl ObjectAnnotation ObjectAttributes
        ObjectLegalHold ObjectRetention ObjectTagging ObjectTorrent ObjectVersion
        ObjectVersionAcl ObjectVersionAnnotation ObjectVersionAttributes
        ObjectVersionForReplication ObjectVersionTagging ObjectVersionTorrent
        ReplicationConfiguration StorageLensConfiguration StorageLensConfigurationTagging
        StorageLensDashboard StorageLensGroup""",
    "List": """AccessGrants AccessGrantsInstances AccessGrantsLocations AccessPoints
        AccessPointsForObjectLambda AllMyBuckets Bucket BucketMultipartUploads BucketVersions
        CallerAccessGrants Jobs MultiRegionAccessPoints MultipartUploadParts ObjectAnnotations
        ObjectVersionAnnotations StorageLensConfigurations StorageLensGroups TagsForResource""",
    "Put": """AccelerateConfiguration AccessGrantsInstanceResourcePolicy
        AccessPointConfigurationForObjectLambda AccessPointPolicy
        AccessPointPolicyForObjectLambda AccessPointPublicAccessBlock AccountPublicAccessBlock
        AnalyticsConfiguration BucketAbac BucketAcl BucketCORS BucketLogging BucketNotification
        BucketObjectLockConfiguration BucketOwnershipControls BucketPolicy
        BucketPublicAccessBlock BucketRequestPayment BucketTagging BucketVersioning
        BucketWebsite EncryptionConfiguration IntelligentTieringConfiguration
        InventoryConfiguration JobTagging LifecycleConfiguration MetricsConfiguration
        MultiRegionAccessPointPolicy Object ObjectAcl ObjectAnnotation ObjectLegalHold
        ObjectRetention ObjectTagging ObjectVersionAcl ObjectVersionAnnotation
        ObjectVersionTagging ReplicationConfiguration StorageLensConfiguration
        StorageLensConfigurationTagging""",
    "Update": """AccessGrantsLocation BucketMetadataAnnotationTableConfiguration
        BucketMetadataInventoryTableConfiguration BucketMetadataJournalTableConfiguration
        JobPriority JobStatus ObjectEncryption StorageLensGroup""",
}
S3_ACTIONS: Final = frozenset(
    f"s3:{verb}{rest}" for verb, names in _NAMES.items() for rest in names.split()
)


def refuse_unknown_actions(policy: Policy) -> None:
    """Raises MalformedPolicy for a pattern that fits no action of S3.

    Only for documents that come from a client: those stored already keep their meaning.
    """
    for statement in policy.statements:
        for pattern in statement.actions:
            if pattern.text in S3_ACTIONS:
                continue
            if not any(pattern.matches(action, _no_variables) for action in S3_ACTIONS):
                raise MalformedPolicy("Policy has invalid action")


def _no_variables(name: str) -> None:
    """Actions have no variables."""
