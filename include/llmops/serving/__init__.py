"""The HTTP service: answers from the production release of each assistant, and feedback on them."""

from llmops.serving._app import create_app
from llmops.serving._follower import Release, ReleaseFollower, ReleaseSource
from llmops.serving._limits import ServiceLimits

__all__ = ["Release", "ReleaseFollower", "ReleaseSource", "ServiceLimits", "create_app"]
