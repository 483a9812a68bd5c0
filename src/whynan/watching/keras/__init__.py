"""Watching Keras: what is the same on its three backends."""
