"""Post-processing on the devices that predict: what leaves them is maps and short tables, not logits.

sampling    which mask logits a pixel of a picture mixes, for a batch of pictures of several sizes
semantic, panoptic, instance    the rules of `postprocess`, for all queries and pixels, and what the host does then
"""
