"""TFDS builders of our own, one a file: NAME.py holds the builder of data set NAME."""
