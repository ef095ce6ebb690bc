"""Models: the only package that imports Keras. Takes and gives NumPy arrays."""
