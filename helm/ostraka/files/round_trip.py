"""`helm test`: an object is written, read, listed and deleted through the service."""

import os
import secrets

import botocore.session
from botocore.config import Config


def main() -> None:
    """Exits with an exception at the first answer that is not as it should be."""
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=os.environ["S3_ENDPOINT"],
        region_name=os.environ["REGION"],
        aws_access_key_id=os.environ["OSTRAKA_ROOT_ACCESS_KEY"],
        aws_secret_access_key=os.environ["OSTRAKA_ROOT_SECRET_KEY"],
        verify=next(filter(os.path.exists, [os.environ.get("CA_FILE", "")]), None),
        config=Config(s3={"addressing_style": "path"}),
    )
    bucket = "helm-test-" + secrets.token_hex(8)
    client.create_bucket(Bucket=bucket)
    try:
        for size in (1000, 3_000_000):
            body, key = secrets.token_bytes(size), f"{size}"
            client.put_object(Bucket=bucket, Key=key, Body=body)
            try:
                assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == body
                listed = client.list_objects_v2(Bucket=bucket)["Contents"]
                assert [(entry["Key"], entry["Size"]) for entry in listed] == [(key, size)]
            finally:
                client.delete_object(Bucket=bucket, Key=key)
            print(f"{size} bytes: written, read, listed, deleted")
    finally:
        client.delete_bucket(Bucket=bucket)


if __name__ == "__main__":
    main()
