"""Objects of every kind, and what checks that they are still there."""

import random
from collections.abc import Callable
from typing import Any

MIB = 1 << 20
SIZES = (0, 1, 1000, (16 << 10) + 1, 200_000, 3 * MIB + 7)


def bytes_of(name: str, size: int) -> bytes:
    """The bytes of an object by that name."""
    return random.Random(name).randbytes(size)


def fill(s3: Any) -> Callable[[Any], None]:
    """Objects of every kind; what checks that they are there."""
    s3.create_bucket(Bucket="plain")
    for size in SIZES:
        key = f"size/{size}"
        s3.put_object(Bucket="plain", Key=key, Body=bytes_of(key, size), Metadata={"n": str(size)})
    s3.put_object(Bucket="plain", Key="gone", Body=b"gone")
    s3.copy_object(Bucket="plain", Key="copy", CopySource="plain/size/200000")
    s3.put_object_tagging(
        Bucket="plain", Key="size/1", Tagging={"TagSet": [{"Key": "colour", "Value": "red"}]}
    )
    s3.delete_object(Bucket="plain", Key="gone")
    s3.put_object(
        Bucket="plain", Key="sealed", Body=bytes_of("sealed", 70_000), ServerSideEncryption="AES256"
    )
    upload = s3.create_multipart_upload(Bucket="plain", Key="parts", ContentType="text/parts")
    parts = []
    for number, size in ((1, 5 * MIB), (2, 1000)):
        answer = s3.upload_part(
            Bucket="plain", Key="parts", UploadId=upload["UploadId"], PartNumber=number,
            Body=bytes_of(f"part {number}", size),
        )  # fmt: skip
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(
        Bucket="plain", Key="parts", UploadId=upload["UploadId"], MultipartUpload={"Parts": parts}
    )
    s3.create_bucket(Bucket="versions")
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    ids = [
        s3.put_object(Bucket="versions", Key="v", Body=b"version %d" % number)["VersionId"]
        for number in range(3)
    ]
    s3.delete_object(Bucket="versions", Key="v")

    def check(s3: Any) -> None:
        for size in SIZES:
            key = f"size/{size}"
            found = s3.get_object(Bucket="plain", Key=key)
            assert found["Body"].read() == bytes_of(key, size)
            assert found["Metadata"] == {"n": str(size)}
        copied = s3.get_object(Bucket="plain", Key="copy")["Body"].read()
        assert copied == bytes_of("size/200000", 200_000)
        tags = s3.get_object_tagging(Bucket="plain", Key="size/1")["TagSet"]
        assert tags == [{"Key": "colour", "Value": "red"}]
        sealed = s3.get_object(Bucket="plain", Key="sealed")
        assert sealed["ServerSideEncryption"] == "AES256"
        assert sealed["Body"].read() == bytes_of("sealed", 70_000)
        found = s3.get_object(Bucket="plain", Key="parts")
        assert found["ContentType"] == "text/parts"
        assert found["Body"].read() == bytes_of("part 1", 5 * MIB) + bytes_of("part 2", 1000)
        listed = {item["Key"] for item in s3.list_objects_v2(Bucket="plain")["Contents"]}
        assert listed == {"copy", "sealed", "parts", *(f"size/{size}" for size in SIZES)}
        versions = s3.list_object_versions(Bucket="versions")
        assert [v["VersionId"] for v in versions["Versions"]] == ids[::-1]
        assert [m["IsLatest"] for m in versions["DeleteMarkers"]] == [True]
        for number, version in enumerate(ids):
            body = s3.get_object(Bucket="versions", Key="v", VersionId=version)["Body"].read()
            assert body == b"version %d" % number

    return check
