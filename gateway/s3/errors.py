"""S3 errors: one table, one exception type, and the XML they are answered with."""

from collections.abc import Mapping
from enum import Enum

from gateway.s3.xml import DECLARATION, escape


class ClientDisconnected(Exception):
    """The client went away or stalled past its deadline; there is nobody to answer."""


class ErrorCode(Enum):
    """Every error this gateway can answer with: code, HTTP status, default message.

    Source: Amazon S3 API Reference, "Error responses". Several rows share an S3 code where AWS
    uses one code with different statuses or messages.
    """

    # Who is asking
    ACCESS_DENIED = ("AccessDenied", 403, "Access Denied")
    REQUEST_EXPIRED = ("AccessDenied", 403, "Request has expired")
    REQUEST_NOT_YET_VALID = ("AccessDenied", 403, "Request is not valid yet")
    HEADERS_NOT_SIGNED = (
        "AccessDenied",
        403,
        "There were headers present in the request which were not signed",
    )
    DATE_MISSING = (
        "AccessDenied",
        403,
        "AWS authentication requires a valid Date or x-amz-date header",
    )
    INVALID_ACCESS_KEY_ID = (
        "InvalidAccessKeyId",
        403,
        "The AWS Access Key Id you provided does not exist in our records.",
    )
    SIGNATURE_DOES_NOT_MATCH = (
        "SignatureDoesNotMatch",
        403,
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method.",
    )
    REQUEST_TIME_TOO_SKEWED = (
        "RequestTimeTooSkewed",
        403,
        "The difference between the request time and the current time is too large.",
    )
    INVALID_TOKEN = (
        "InvalidToken",
        400,
        "The provided token is malformed or otherwise invalid.",
    )
    EXPIRED_TOKEN = ("ExpiredToken", 400, "The provided token has expired.")
    AUTHORIZATION_HEADER_MALFORMED = (
        "AuthorizationHeaderMalformed",
        400,
        "The authorization header is malformed.",
    )
    AUTHORIZATION_QUERY_PARAMETERS_ERROR = (
        "AuthorizationQueryParametersError",
        400,
        "Error parsing the X-Amz-Credential parameter.",
    )
    MISSING_SECURITY_HEADER = (
        "MissingSecurityHeader",
        400,
        "Your request was missing a required header.",
    )
    X_AMZ_CONTENT_SHA256_MISMATCH = (
        "XAmzContentSHA256Mismatch",
        400,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    )
    # The request as such
    INVALID_ARGUMENT = ("InvalidArgument", 400, "Invalid Argument")
    INVALID_REQUEST = ("InvalidRequest", 400, "Invalid Request")
    INVALID_URI = ("InvalidURI", 400, "Couldn't parse the specified URI.")
    INVALID_ENCRYPTION_ALGORITHM = (
        "InvalidEncryptionAlgorithmError",
        400,
        "The Encryption request you specified is not valid. Supported value: AES256.",
    )
    KMS_KEY_NOT_FOUND = ("KMS.NotFoundException", 400, "The KMS key does not exist.")
    INVALID_RANGE = ("InvalidRange", 416, "The requested range is not satisfiable")
    METHOD_NOT_ALLOWED = (
        "MethodNotAllowed",
        405,
        "The specified method is not allowed against this resource.",
    )
    NOT_IMPLEMENTED = (
        "NotImplemented",
        501,
        "A header you provided implies functionality that is not implemented.",
    )
    NOT_MODIFIED = ("NotModified", 304, "Not Modified")
    PRECONDITION_FAILED = (
        "PreconditionFailed",
        412,
        "At least one of the pre-conditions you specified did not hold",
    )
    CONDITIONAL_REQUEST_CONFLICT = (
        "ConditionalRequestConflict",
        409,
        "The conditional request cannot succeed due to a conflicting operation against this "
        "resource.",
    )
    OPERATION_ABORTED = (
        "OperationAborted",
        409,
        "A conflicting conditional operation is currently in progress against this resource. "
        "Please try again.",
    )
    ACCESS_FORBIDDEN = (
        "AccessForbidden",
        403,
        "CORSResponse: CORS is not enabled for this bucket.",
    )
    REQUEST_HEADER_SECTION_TOO_LARGE = (
        "RequestHeaderSectionTooLarge",
        400,
        "Your request header section exceeds the maximum allowed header section size.",
    )
    BAD_REQUEST = ("BadRequest", 400, "An error occurred when parsing the HTTP request.")
    EXPECTATION_FAILED = (
        "ExpectationFailed",
        417,
        "The expectation given in the Expect header cannot be met.",
    )
    # Bodies and checksums
    BAD_DIGEST = (
        "BadDigest",
        400,
        "The Content-MD5 you specified did not match what we received.",
    )
    INVALID_DIGEST = ("InvalidDigest", 400, "The Content-MD5 you specified was invalid.")
    ENTITY_TOO_LARGE = (
        "EntityTooLarge",
        400,
        "Your proposed upload exceeds the maximum allowed size",
    )
    ENTITY_TOO_SMALL = (
        "EntityTooSmall",
        400,
        "Your proposed upload is smaller than the minimum allowed size",
    )
    INCOMPLETE_BODY = (
        "IncompleteBody",
        400,
        "You did not provide the number of bytes specified by the Content-Length HTTP header",
    )
    INVALID_CHUNK_SIZE = (
        "InvalidChunkSizeError",
        403,
        "Only the last chunk is allowed to have a size less than 8192 bytes",
    )
    MALFORMED_TRAILER = (
        "MalformedTrailerError",
        400,
        "The request contained trailing data that was not well-formed or did not conform to "
        "our published schema.",
    )
    MISSING_CONTENT_LENGTH = (
        "MissingContentLength",
        411,
        "You must provide the Content-Length HTTP header.",
    )
    MISSING_REQUEST_BODY = ("MissingRequestBodyError", 400, "Request Body is empty")
    INVALID_BUCKET_STATE = (
        "InvalidBucketState",
        409,
        "The request is not valid with the current state of the bucket.",
    )
    INVALID_RETENTION_PERIOD = (
        "InvalidRetentionPeriod",
        400,
        "The retention period must be a positive integer value.",
    )
    NO_SUCH_VERSION_LOCK = (
        "NoSuchObjectLockConfiguration",
        404,
        "The specified object does not have a ObjectLock configuration",
    )
    ILLEGAL_VERSIONING = (
        "IllegalVersioningConfigurationException",
        400,
        "The versioning configuration specified in the request is invalid.",
    )
    MALFORMED_XML = (
        "MalformedXML",
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
    MAX_MESSAGE_LENGTH_EXCEEDED = (
        "MaxMessageLengthExceeded",
        400,
        "Your request was too big.",
    )
    MAX_POST_PRE_DATA_LENGTH_EXCEEDED = (
        "MaxPostPreDataLengthExceededError",
        400,
        "Your POST request fields preceding the upload file were too large.",
    )
    MALFORMED_POST_REQUEST = (
        "MalformedPOSTRequest",
        400,
        "The body of your POST request is not well-formed multipart/form-data.",
    )
    INCORRECT_NUMBER_OF_FILES = (
        "IncorrectNumberOfFilesInPostRequest",
        400,
        "POST requires exactly one file upload per request.",
    )
    INVALID_POLICY_DOCUMENT = (
        "InvalidPolicyDocument",
        400,
        "The content of the form does not meet the conditions specified in the policy document.",
    )
    MALFORMED_POLICY = ("MalformedPolicy", 400, "Invalid policy syntax.")
    MALFORMED_ACL = (
        "MalformedACLError",
        400,
        "The ACL that you provided was not well formed or did not validate against our published "
        "schema.",
    )
    ACL_NOT_SUPPORTED = (
        "AccessControlListNotSupported",
        400,
        "The bucket does not allow ACLs",
    )
    INVALID_BUCKET_ACL_WITH_OWNERSHIP = (
        "InvalidBucketAclWithObjectOwnership",
        400,
        "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
    )
    UNRESOLVABLE_GRANT_BY_EMAIL = (
        "UnresolvableGrantByEmailAddress",
        400,
        "The email address you provided does not match any account on record.",
    )
    METADATA_TOO_LARGE = (
        "MetadataTooLarge",
        400,
        "Your metadata headers exceed the maximum allowed metadata size",
    )
    REQUEST_TIMEOUT = (
        "RequestTimeout",
        400,
        "Your socket connection to the server was not read from or written to within the "
        "timeout period. Idle connections will be closed.",
    )
    # Buckets
    BUCKET_ALREADY_EXISTS = (
        "BucketAlreadyExists",
        409,
        "The requested bucket name is not available. The bucket namespace is shared by all users "
        "of the system. Please select a different name and try again.",
    )
    BUCKET_ALREADY_OWNED_BY_YOU = (
        "BucketAlreadyOwnedByYou",
        409,
        "Your previous request to create the named bucket succeeded and you already own it.",
    )
    BUCKET_NOT_EMPTY = (
        "BucketNotEmpty",
        409,
        "The bucket you tried to delete is not empty",
    )
    ILLEGAL_LOCATION_CONSTRAINT = (
        "IllegalLocationConstraintException",
        400,
        "The unspecified location constraint is incompatible for the region specific endpoint "
        "this request was sent to.",
    )
    # Not Amazon's: what Ceph's gateway answers, which clients know. 403 is not tried again by SDKs.
    QUOTA_EXCEEDED = ("QuotaExceeded", 403, "The quota of the bucket or its account is exceeded.")
    INVALID_BUCKET_OWNER = (
        "InvalidBucketOwnerAWSAccountID",
        400,
        "The value of the expected bucket owner parameter must be an AWS account ID.",
    )
    INVALID_BUCKET_NAME = ("InvalidBucketName", 400, "The specified bucket is not valid.")
    INVALID_LOCATION_CONSTRAINT = (
        "InvalidLocationConstraint",
        400,
        "The specified location-constraint is not valid",
    )
    NO_SUCH_BUCKET = ("NoSuchBucket", 404, "The specified bucket does not exist")
    NO_SUCH_BUCKET_POLICY = ("NoSuchBucketPolicy", 404, "The bucket policy does not exist")
    NO_SUCH_OWNERSHIP_CONTROLS = (
        "OwnershipControlsNotFoundError",
        404,
        "The bucket ownership controls were not found",
    )
    NO_SUCH_CORS = (
        "NoSuchCORSConfiguration",
        404,
        "The CORS configuration does not exist",
    )
    NO_SUCH_ENCRYPTION = (
        "ServerSideEncryptionConfigurationNotFoundError",
        404,
        "The server side encryption configuration was not found",
    )
    NO_SUCH_LIFECYCLE = (
        "NoSuchLifecycleConfiguration",
        404,
        "The lifecycle configuration does not exist",
    )
    NO_SUCH_OBJECT_LOCK = (
        "ObjectLockConfigurationNotFoundError",
        404,
        "Object Lock configuration does not exist for this bucket",
    )
    NO_SUCH_PUBLIC_ACCESS_BLOCK = (
        "NoSuchPublicAccessBlockConfiguration",
        404,
        "The public access block configuration was not found",
    )
    NO_SUCH_REPLICATION = (
        "ReplicationConfigurationNotFoundError",
        404,
        "The replication configuration was not found",
    )
    NO_SUCH_TAG_SET = (
        "NoSuchTagSet",
        404,
        "The TagSet does not exist",
    )
    NO_SUCH_WEBSITE = (
        "NoSuchWebsiteConfiguration",
        404,
        "The specified bucket does not have a website configuration",
    )
    INVALID_REDIRECT_LOCATION = (
        "InvalidRedirectLocation",
        400,
        "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.",
    )
    INVALID_TAG = ("InvalidTag", 400, "The tag provided was not a valid tag.")
    TOO_MANY_BUCKETS = (
        "TooManyBuckets",
        400,
        "You have attempted to create more buckets than allowed",
    )
    # Objects and uploads
    INVALID_OBJECT_STATE = (
        "InvalidObjectState",
        403,
        "The operation is not valid for the object's storage class",
    )
    INVALID_STORAGE_CLASS = (
        "InvalidStorageClass",
        400,
        "The storage class you specified is not valid",
    )
    INVALID_PART = (
        "InvalidPart",
        400,
        "One or more of the specified parts could not be found.  The part may not have been "
        "uploaded, or the specified entity tag may not match the part's entity tag.",
    )
    INVALID_PART_NUMBER = (
        "InvalidPartNumber",
        416,
        "The requested partnumber is not satisfiable",
    )
    INVALID_PART_ORDER = (
        "InvalidPartOrder",
        400,
        "The list of parts was not in ascending order. Parts must be ordered by part number.",
    )
    KEY_TOO_LONG = ("KeyTooLongError", 400, "Your key is too long")
    NO_SUCH_KEY = ("NoSuchKey", 404, "The specified key does not exist.")
    NO_SUCH_UPLOAD = (
        "NoSuchUpload",
        404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may "
        "have been aborted or completed.",
    )
    NO_SUCH_VERSION = ("NoSuchVersion", 404, "The specified version does not exist.")
    # Ours
    INTERNAL_ERROR = (
        "InternalError",
        500,
        "We encountered an internal error. Please try again.",
    )
    SERVICE_UNAVAILABLE = (
        "ServiceUnavailable",
        503,
        "Service is unable to handle request.",
    )
    SLOW_DOWN = ("SlowDown", 503, "Please reduce your request rate.")

    def __init__(self, code: str, status: int, message: str) -> None:
        self.code = code
        self.status = status
        self.message = message


class S3Error(Exception):
    """An answer to the client. `details` become extra XML elements, `headers` extra headers.

    `code` INTERNAL_ERROR is for the pipeline alone. 304 and other bodiless statuses are responses,
    not errors.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str | None = None,
        *,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message or code.message)
        self.code = code
        self.message = message or code.message
        self.details = dict(details or {})
        self.headers = dict(headers or {})


def invalid_argument(name: str, value: str, message: str) -> S3Error:
    """InvalidArgument that names the culprit, as AWS does in ArgumentName and ArgumentValue."""
    return S3Error(
        ErrorCode.INVALID_ARGUMENT,
        message,
        details={"ArgumentName": name, "ArgumentValue": value},
    )


def not_implemented_header(name: str, *, operation: str = "") -> S3Error:
    """NotImplemented for a header that asks for something this gateway does not offer."""
    return S3Error(
        ErrorCode.NOT_IMPLEMENTED,
        details={"Header": name, **({"Operation": operation} if operation else {})},
    )


def render_error(error: S3Error, resource: str, request_id: str, host_id: str) -> bytes:
    """The XML body of an error answer (no namespace: AWS uses none for errors)."""
    parts = [
        DECLARATION,
        "<Error><Code>",
        error.code.code,
        "</Code><Message>",
        escape(error.message),
        "</Message>",
    ]
    for name, value in error.details.items():
        parts.append(f"<{name}>{escape(value)}</{name}>")
    parts.append(
        f"<Resource>{escape(resource)}</Resource><RequestId>{escape(request_id)}</RequestId>"
        f"<HostId>{escape(host_id)}</HostId></Error>"
    )
    return "".join(parts).encode("utf-8", "replace")
