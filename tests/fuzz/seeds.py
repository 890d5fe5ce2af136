"""Where fuzzing begins: a few inputs of each kind that are taken, and some that were findings."""

from typing import Final

BOUNDARY: Final = "xYzZy"

POLICIES: Final = (
    b'{"Version":"2012-10-17","Id":"p","Statement":[{"Sid":"a","Effect":"Allow","Principal":"*",'
    b'"Action":["s3:GetObject","s3:List*"],"Resource":["arn:aws:s3:::bucket","arn:aws:s3:::bucket/${aws:username}/*"],'
    b'"Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"},"StringLike":{"s3:prefix":["a*","b?"]}}}]}',
    b'{"Version":"2008-10-17","Statement":{"Effect":"Deny","NotPrincipal":{"AWS":["123456789012",'
    b'"arn:aws:iam::123456789012:user/ann"]},"NotAction":"s3:*","NotResource":"arn:aws:s3:::bucket/x"}}',
    b'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":'
    b'{"DateGreaterThanIfExists":{"aws:CurrentTime":"2020-01-01T00:00:00Z"},"NumericLessThan":{"s3:max-keys":"10"},'
    b'"Bool":{"aws:SecureTransport":"true"},"Null":{"aws:userid":"false"},"ForAllValues:StringEquals":'
    b'{"s3:RequestObjectTagKeys":["a","b"]},"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/*"},'
    b'"BinaryEquals":{"aws:x":"QUJD"},"StringNotEqualsIgnoreCase":{"s3:ExistingObjectTag/k":"v"}}}]}',
    b'{"Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::123456789012:oidc-provider/h"},'
    b'"Action":"sts:AssumeRoleWithWebIdentity"}]}',
)

DOCUMENTS: Final = (
    b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet><Object><Key>a&amp;b</Key>'
    b"<VersionId>null</VersionId><ETag>&quot;x&quot;</ETag><Size>3</Size></Object></Delete>",
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;0123456789abcdef0123456789abcdef"
    b"&quot;</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>",
    b"<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint><Tags><Tag><Key>k</Key>"
    b"<Value>v</Value></Tag></Tags></CreateBucketConfiguration>",
    b"<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Disabled</MfaDelete></VersioningConfiguration>",
    b"<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>",
    b"<AccessControlPolicy><Owner><ID>a</ID></Owner><AccessControlList><Grant><Grantee "
    b'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"><ID>a</ID></Grantee>'
    b"<Permission>FULL_CONTROL</Permission></Grant></AccessControlList></AccessControlPolicy>",
    b"<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>",
    b"<PublicAccessBlockConfiguration><BlockPublicAcls>TRUE</BlockPublicAcls></PublicAccessBlockConfiguration>",
    b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms"
    b"</SSEAlgorithm><KMSMasterKeyID>k</KMSMasterKeyID></ApplyServerSideEncryptionByDefault><BucketKeyEnabled>true"
    b"</BucketKeyEnabled></Rule></ServerSideEncryptionConfiguration>",
    b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE"
    b"</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
    b"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate></Retention>",
    b"<LegalHold><Status>ON</Status></LegalHold>",
    b"<WebsiteConfiguration><IndexDocument><Suffix>i.html</Suffix></IndexDocument><ErrorDocument><Key>e</Key>"
    b"</ErrorDocument><RoutingRules><RoutingRule><Condition><KeyPrefixEquals>a</KeyPrefixEquals>"
    b"<HttpErrorCodeReturnedEquals>404</HttpErrorCodeReturnedEquals></Condition><Redirect><HostName>h</HostName>"
    b"<Protocol>https</Protocol><ReplaceKeyPrefixWith>b</ReplaceKeyPrefixWith><HttpRedirectCode>302"
    b"</HttpRedirectCode></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>",
    b"<WebsiteConfiguration><RedirectAllRequestsTo><HostName>h</HostName><Protocol>http</Protocol>"
    b"</RedirectAllRequestsTo></WebsiteConfiguration>",
    b'<!DOCTYPE a [<!ENTITY b "c">]><Tagging>&b;</Tagging>',
)

LIFECYCLES: Final = (
    b"<LifecycleConfiguration><Rule><ID>r</ID><Filter><And><Prefix>p</Prefix><Tag><Key>k</Key><Value>v</Value></Tag>"
    b"<ObjectSizeGreaterThan>10</ObjectSizeGreaterThan><ObjectSizeLessThan>99</ObjectSizeLessThan></And></Filter>"
    b"<Status>Enabled</Status><Expiration><Days>3</Days></Expiration><NoncurrentVersionExpiration><NoncurrentDays>2"
    b"</NoncurrentDays><NewerNoncurrentVersions>5</NewerNoncurrentVersions></NoncurrentVersionExpiration>"
    b"</Rule></LifecycleConfiguration>",
    b"<LifecycleConfiguration><Rule><Prefix></Prefix><Status>Disabled</Status><Expiration><Date>2030-01-01T00:00:00Z"
    b"</Date></Expiration></Rule><Rule><Filter><Prefix>x</Prefix></Filter><Status>Enabled</Status>"
    b"<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
    b"</Rule></LifecycleConfiguration>",
    b"<LifecycleConfiguration><Rule><Filter/><Status>Enabled</Status><Expiration><ExpiredObjectDeleteMarker>true"
    b"</ExpiredObjectDeleteMarker></Expiration><Transition><Days>1</Days><StorageClass>STANDARD_IA</StorageClass>"
    b"</Transition><NoncurrentVersionTransition><NoncurrentDays>1</NoncurrentDays><StorageClass>GLACIER"
    b"</StorageClass></NoncurrentVersionTransition></Rule></LifecycleConfiguration>",
)

CORS: Final = (
    b"<CORSConfiguration><CORSRule><ID>a</ID><AllowedMethod>GET</AllowedMethod><AllowedOrigin>http://*.test"
    b"</AllowedOrigin><AllowedHeader>x-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>30"
    b"</MaxAgeSeconds></CORSRule><CORSRule><AllowedMethod>PUT</AllowedMethod><AllowedOrigin>*</AllowedOrigin>"
    b"</CORSRule></CORSConfiguration>",
)

CHUNKED: Final = (
    b"\x02\x01" + b"40\r\n" + b"d" * 64 + b"\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
    b"\x00\x01" + b"40;chunk-signature=" + b"0" * 64 + b"\r\n" + b"d" * 64 + b"\r\n",
    b"\x01\x00" + b"0;chunk-signature=" + b"0" * 64 + b"\r\nx-amz-checksum-crc32:AAAAAA==\r\n"
    b"x-amz-trailer-signature:" + b"0" * 64 + b"\r\n\r\n",
    b"\x0f\x00" + b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\nmore",
)

_FILE: Final = (
    b'--xYzZy\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\nthe file\r\n--xYzZy--\r\n"
)
POST_POLICIES: Final = (
    b'{"expiration":"2030-01-01T00:00:00.000Z","conditions":[{"bucket":"bucket"},["starts-with","$key","a/"],'
    b'["eq","$acl","private"],["content-length-range",0,1024],["starts-with","$Content-Type",""]]}',
    b'{"expiration":"2030-01-01T00:00:00Z","conditions":[["content-length-range","1","2"],{"x\\$y":"\\v"}]}',
)
FORMS: Final = (
    b'--xYzZy\r\nContent-Disposition: form-data; name="key"\r\n\r\na/${filename}\r\n' + _FILE,
    b'--xYzZy\r\nContent-Disposition: form-data; name="policy"\r\n\r\n'
    b"eyJleHBpcmF0aW9uIjoiMjAzMC0wMS0wMVQwMDowMDowMFoiLCJjb25kaXRpb25zIjpbXX0=\r\n"
    b'--xYzZy\r\nContent-Disposition: form-data; name="AWSAccessKeyId"\r\n\r\nAK\r\n'
    b'--xYzZy\r\nContent-Disposition: form-data; name="signature"\r\n\r\nc2ln\r\n' + _FILE,
    b'--xYzZy\r\nContent-Disposition: form-data; name="x-amz-algorithm"\r\n\r\nAWS4-HMAC-SHA256\r\n'
    b'--xYzZy\r\nContent-Disposition: form-data; name="x-amz-credential"\r\n\r\n'
    b"AK/20231114/us-east-1/s3/aws4_request\r\n"
    b'--xYzZy\r\nContent-Disposition: form-data; name="x-amz-date"\r\n\r\n20231114T221320Z\r\n'
    b'--xYzZy\r\nContent-Disposition: form-data; name="x-amz-signature"\r\n\r\n00\r\n'
    b'--xYzZy\r\nContent-Disposition: form-data; name="policy"\r\n\r\ne30=\r\n' + _FILE,
    b"preamble\r\n--xYzZy \t\r\nContent-Disposition: form-data; name=\"file\"; filename*=utf-8''%c3%a9\r\n\r\n"
    b"x\r\n--xYzZy\r\nContent-Disposition: form-data; name=after\r\n\r\ny\r\n--xYzZy--",
)

REQUESTS: Final = (
    b"GET /bucket/a%20b?versionId=null&list-type=2 HTTP/1.1\r\nHost: localhost:9000\r\n"
    b"Authorization: AWS4-HMAC-SHA256 Credential=AK/20231114/us-east-1/s3/aws4_request, "
    b"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=" + b"0" * 64 + b"\r\n"
    b"X-Amz-Date: 20231114T221320Z\r\nX-Amz-Content-Sha256: UNSIGNED-PAYLOAD",
    b"PUT /k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20231114%2Fus-east-1%2Fs3%2Faws4_request"
    b"&X-Amz-Date=20231114T221320Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00 HTTP/1.1\r\n"
    b"Host: bucket.s3.test\r\nContent-Length: 3\r\nContent-MD5: AAAAAAAAAAAAAAAAAAAAAA==",
    b"DELETE /b/k HTTP/1.1\r\nHost: h\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nAuthorization: AWS AK:c2ln\r\n"
    b"x-amz-meta-a: b",
    b"GET /b/k?AWSAccessKeyId=AK&Expires=1700000100&Signature=c2ln HTTP/1.0",
    b"PUT http://h/b/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
    b"Authorization: AWS4-HMAC-SHA256 Credential=AK/20231114/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=00\r\n"
    b"X-Amz-Content-Sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nX-Amz-Decoded-Content-Length: 5\r\n"
    b"X-Amz-Trailer: x-amz-checksum-crc32c\r\nX-Amz-Date: 20231114T221320Z",
)

IAM_FORMS: Final = (b"Action=CreateUser&Version=2010-05-08&UserName=ann&Tags.member.1.Key=a%C3%A9",)
