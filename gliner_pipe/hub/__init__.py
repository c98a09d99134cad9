"""Pipelines on a model hub: pushing and loading.

The login is HF_TOKEN, or the one that ``hf auth login`` has stored. No function takes a token, and none is written to a
file.
"""

from gliner_pipe.hub.push import push_to_hub
from gliner_pipe.hub.uploader import HubUploader
from gliner_pipe.pipeline.load import from_hub, load
from gliner_pipe.util.hub_client import check_hub

__all__ = ["HubUploader", "check_hub", "from_hub", "load", "push_to_hub"]
