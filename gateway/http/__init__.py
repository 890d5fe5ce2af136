"""HTTP/1.1 on the S3 port: protocol class, bodies, admission, access log."""
