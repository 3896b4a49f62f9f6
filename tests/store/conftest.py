"""Tests of this folder have a real S3 server, and an Azure one."""

from azure_server import azure_server, container
from s3_server import bucket, s3_server, vector_cache

__all__ = ["azure_server", "bucket", "container", "s3_server", "vector_cache"]
