"""The PyTorch front end: runs losses in the real framework and records their forward and backward ops as a graph."""

from whynan.frontends.torch.program import MODES, TorchProgram, load

__all__ = ["MODES", "TorchProgram", "load"]
