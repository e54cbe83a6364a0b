"""What the image is."""

from __future__ import annotations

from templates_app.errors.base import CoppiceError

# --- what the image is -------------------------------------------------------------------------


class PlatformIncompatible(CoppiceError):
    code, status = "platform_incompatible", 422
    title = "The image has nothing for this platform"
    hint = "Set COPPICE_PLATFORM to a platform that the image offers."


class TreeRefused(CoppiceError):
    code, status = "tree_refused", 422
    title = "The image's file tree is refused"


class NotAnImage(CoppiceError):
    code, status = "not_an_image", 422
    title = "The reference names an artifact, not a container image"
