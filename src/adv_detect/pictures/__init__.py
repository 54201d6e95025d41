"""Pictures as people have them, and the input of a network that is made of them."""

from adv_detect.pictures.inputs import PictureInput
from adv_detect.pictures.opening import PictureError, opened_picture
from adv_detect.pictures.transform import Header, Transform

__all__ = ["Header", "PictureError", "PictureInput", "Transform", "opened_picture"]
