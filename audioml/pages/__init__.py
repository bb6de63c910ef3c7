"""Pages of one file each: no network, light and dark, phones too."""

from audioml.pages.media import audio_uri, picture_uri
from audioml.pages.rendering import render

__all__ = ["audio_uri", "picture_uri", "render"]
