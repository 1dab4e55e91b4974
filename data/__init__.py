"""The data layer: data sets, the order of examples, feeds, augmentation, text.

This file makes `data` a regular package, which wins over a folder of the same name under tests/.
"""
