"""Tests of this folder have a real S3 server."""

from s3_server import bucket, s3_server, vector_cache

__all__ = ["bucket", "s3_server", "vector_cache"]
