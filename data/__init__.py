"""The data layer: data sets by name, the order of examples, feeds, augmentation.

This file makes `data` a regular package, which wins over a folder of the same name under tests/.
"""
