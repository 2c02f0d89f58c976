"""The id that stands for an image."""

IMAGE_TOKEN_INDEX = -200
