"""Pipelines on a model hub: pushed to it, and loaded from it.

The login is the hub's own: HF_TOKEN, or what ``hf auth login`` has stored. No function takes a token, and
none is written anywhere.
"""

from gliner_pipe.hub.push import push_to_hub
from gliner_pipe.hub.uploader import HubUploader
from gliner_pipe.pipeline.load import from_hub, load
from gliner_pipe.util.hub_client import check_hub

__all__ = ["HubUploader", "check_hub", "from_hub", "load", "push_to_hub"]
