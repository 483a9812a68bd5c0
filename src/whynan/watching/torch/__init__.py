"""Watching a PyTorch training loop: hooks on model, loss and optimizer (`watcher`), and a bad step run again (`rerun`)."""
