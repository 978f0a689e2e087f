"""Labels as people and benchmarks have them, read and written as COCO. Free of JAX.

A reader for each layout (`reader.py` says what one is) gives pictures with their labels; `write.py` writes them.
"""
