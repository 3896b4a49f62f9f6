"""Tests of this folder have a real Azure blob store, too."""

from azure_server import azure_server, container

__all__ = ["azure_server", "container"]
