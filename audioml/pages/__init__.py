"""Pages of one file each: no network, light and dark, phones too."""

from audioml.pages.media import audio_uri, picture_uri
from audioml.pages.rendering import PageError, check_installed, render

__all__ = ["PageError", "audio_uri", "check_installed", "picture_uri", "render"]
