"""From what the layers below refuse to what S3 says: the one translation."""

from collections.abc import Callable

from gateway.domain.encryption import EncryptionRefused, Refusal
from gateway.domain.policy.errors import MalformedPolicy
from gateway.domain.tags import TagRefused
from gateway.kms import port as kms
from gateway.metadata import errors as metadata
from gateway.metadata.keys import unescape
from gateway.metadata.records import RecordError
from gateway.objects import errors as objects
from gateway.s3.errors import ErrorCode, S3Error
from placement import errors as placement

Row = ErrorCode | Callable[..., S3Error]


def _bucket(code: ErrorCode) -> Callable[..., S3Error]:
    def answer(error: Exception) -> S3Error:
        return S3Error(code, details={"BucketName": str(getattr(error, "bucket", ""))})

    return answer


def _no_such_key(error: metadata.NoSuchKey) -> S3Error:
    return S3Error(ErrorCode.NO_SUCH_KEY, details={"Key": unescape(error.key).decode()})


def _precondition_failed(error: metadata.PreconditionFailed) -> S3Error:
    return S3Error(ErrorCode.PRECONDITION_FAILED, details={"Condition": error.condition})


def _locked(_: metadata.ObjectLocked) -> S3Error:
    return S3Error(
        ErrorCode.ACCESS_DENIED, "Access Denied because object protected by object lock."
    )


def _quota_exceeded(error: metadata.QuotaExceeded) -> S3Error:
    return S3Error(ErrorCode.QUOTA_EXCEEDED, str(error))


def _invalid_tag(error: TagRefused) -> S3Error:
    details = {"TagKey": error.key} if error.key else {}
    return S3Error(ErrorCode.INVALID_TAG, error.reason, details=details)


_REFUSALS = {
    Refusal.INVALID_ARGUMENT: ErrorCode.INVALID_ARGUMENT,
    Refusal.INVALID_REQUEST: ErrorCode.INVALID_REQUEST,
    Refusal.INVALID_ALGORITHM: ErrorCode.INVALID_ENCRYPTION_ALGORITHM,
    Refusal.ACCESS_DENIED: ErrorCode.ACCESS_DENIED,
    Refusal.NOT_OFFERED: ErrorCode.NOT_IMPLEMENTED,
    Refusal.MALFORMED_XML: ErrorCode.MALFORMED_XML,
}


def _encryption(error: EncryptionRefused) -> S3Error:
    details = {}
    if error.argument:
        details = {"ArgumentName": error.argument, "ArgumentValue": error.value}
    return S3Error(_REFUSALS[error.refusal], error.message, details=details)


def _no_such_master_key(error: kms.KeyNotFound) -> S3Error:
    return S3Error(ErrorCode.KMS_KEY_NOT_FOUND, str(error))


def _malformed_policy(error: MalformedPolicy) -> S3Error:
    return S3Error(ErrorCode.MALFORMED_POLICY, str(error))


ERROR_MAP: dict[type[Exception], Row] = {
    # Asked for something that is not so
    TagRefused: _invalid_tag,
    EncryptionRefused: _encryption,
    kms.KeyNotFound: _no_such_master_key,
    kms.KeyServiceDenied: ErrorCode.ACCESS_DENIED,
    kms.KeyServiceUnavailable: ErrorCode.SERVICE_UNAVAILABLE,
    kms.KeyServiceError: ErrorCode.INTERNAL_ERROR,
    MalformedPolicy: _malformed_policy,
    metadata.NoSuchBucket: _bucket(ErrorCode.NO_SUCH_BUCKET),
    metadata.NotBucketOwner: ErrorCode.ACCESS_DENIED,
    metadata.BucketTaken: _bucket(ErrorCode.BUCKET_ALREADY_EXISTS),
    metadata.BucketOwned: _bucket(ErrorCode.BUCKET_ALREADY_OWNED_BY_YOU),
    metadata.BucketNotEmpty: _bucket(ErrorCode.BUCKET_NOT_EMPTY),
    metadata.TooManyBuckets: ErrorCode.TOO_MANY_BUCKETS,
    metadata.NoSuchKey: _no_such_key,
    metadata.PreconditionFailed: _precondition_failed,
    metadata.ObjectLocked: _locked,
    metadata.QuotaExceeded: _quota_exceeded,
    metadata.SessionExpired: ErrorCode.EXPIRED_TOKEN,
    # Lost a race; SDKs try again
    metadata.ConditionalConflict: ErrorCode.CONDITIONAL_REQUEST_CONFLICT,
    metadata.BucketBusy: ErrorCode.OPERATION_ABORTED,
    metadata.Contended: ErrorCode.SLOW_DOWN,
    metadata.GarbageBacklogged: ErrorCode.SLOW_DOWN,
    metadata.RelianceBroken: ErrorCode.OPERATION_ABORTED,
    metadata.PresumptionBroken: ErrorCode.OPERATION_ABORTED,
    metadata.GroupReclaimed: ErrorCode.SERVICE_UNAVAILABLE,
    # Accounts are made and deleted on the admin port; a signer's may vanish meanwhile
    metadata.NoSuchAccount: ErrorCode.ACCESS_DENIED,
    metadata.AccountExists: ErrorCode.OPERATION_ABORTED,
    metadata.AccountInUse: ErrorCode.OPERATION_ABORTED,
    metadata.QuotaInvalid: ErrorCode.INVALID_REQUEST,
    metadata.AccountInvalid: ErrorCode.INVALID_REQUEST,
    metadata.SealBroken: ErrorCode.INTERNAL_ERROR,
    metadata.MetadataError: ErrorCode.INTERNAL_ERROR,
    RecordError: ErrorCode.INTERNAL_ERROR,
    # The store below
    placement.MetastoreUnavailable: ErrorCode.SERVICE_UNAVAILABLE,
    placement.MetastoreFull: ErrorCode.SERVICE_UNAVAILABLE,
    placement.MetastoreDenied: ErrorCode.SERVICE_UNAVAILABLE,
    placement.OutcomeUnknown: ErrorCode.SERVICE_UNAVAILABLE,
    placement.PeerUnavailable: ErrorCode.SERVICE_UNAVAILABLE,
    placement.Compacted: ErrorCode.SERVICE_UNAVAILABLE,
    placement.LeaseNotFound: ErrorCode.SERVICE_UNAVAILABLE,
    placement.CodingError: ErrorCode.INTERNAL_ERROR,
    placement.RequestTooLarge: ErrorCode.INTERNAL_ERROR,
    placement.DuplicateKey: ErrorCode.INTERNAL_ERROR,
    placement.ProtocolError: ErrorCode.INTERNAL_ERROR,
    placement.PlacementError: ErrorCode.INTERNAL_ERROR,
    objects.NotEnoughDrives: ErrorCode.SERVICE_UNAVAILABLE,
    objects.WriteFellShort: ErrorCode.SERVICE_UNAVAILABLE,
    objects.ShardsLeftBehind: ErrorCode.SERVICE_UNAVAILABLE,
    objects.PlacementChanged: ErrorCode.SERVICE_UNAVAILABLE,
    objects.ShardsLeftBehind: ErrorCode.SERVICE_UNAVAILABLE,
    objects.BlobOutOfReach: ErrorCode.SERVICE_UNAVAILABLE,
    objects.BlobDamaged: ErrorCode.INTERNAL_ERROR,
    objects.ObjectsError: ErrorCode.INTERNAL_ERROR,
}


def to_s3_error(error: Exception) -> S3Error | None:
    """The answer to an error of the layers below; None for one that is our bug."""
    if isinstance(error, S3Error):
        return error
    for kind in type(error).__mro__:
        row = ERROR_MAP.get(kind)
        if row is None:
            continue
        return S3Error(row) if isinstance(row, ErrorCode) else row(error)
    return None
