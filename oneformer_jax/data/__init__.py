"""Images and their annotations, up to the batches that a network takes."""

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet: R, G, B on 0..255, which all published weights expect."""
