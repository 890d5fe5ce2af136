"""The query APIs of IAM and STS, on the S3 port."""
