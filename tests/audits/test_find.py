"""Which names of a module are losses."""

import types

import torch
from tests.audits import fake_losses

from whynan.audits.find import Found, find_losses, is_home, versions


def test_losses_are_found_by_name_and_signature_in_the_modules_order() -> None:
    found, others = find_losses(fake_losses)
    names = "squared_loss log_loss sleeping_loss deadly_loss refused_loss ScaledLoss BrokenLoss".split()
    assert [f.name for f in found] == names
    assert others == ["learning_rate"]


def test_another_name_of_the_same_object_is_an_alias_and_what_a_class_needs_is_told() -> None:
    found, _ = find_losses(fake_losses)
    assert Found("ScaledLoss", ("scaled",), ("scale",)) in found


def test_the_losses_among_torchs_functions_are_found_and_nothing_else() -> None:
    names = [f.name for f in find_losses(torch.nn.functional)[0]]
    assert {"cross_entropy", "kl_div", "nll_loss", "binary_cross_entropy", "huber_loss"} <= {*names}
    assert not {"relu", "softmax", "pairwise_distance", "normalize", "has_torch_function"} & {*names}


def test_outside_a_module_of_losses_a_target_does_not_make_a_loss() -> None:
    def compare(prediction, target):
        return prediction - target

    compare.__module__ = "tools"
    tools = types.ModuleType("tools")
    tools.compare = compare
    assert find_losses(tools) == ([], ["compare"])
    losses = types.ModuleType("tools.losses")
    losses.compare = compare
    assert [f.name for f in find_losses(losses)[0]] == ["compare"]
    assert is_home("my_losses") and is_home("keras.losses") and not is_home("lossless_codec")


def test_abstract_classes_and_containers_of_nothing_to_call_are_no_losses() -> None:
    import abc

    class PlainLoss:
        weight = 1.0

    class OpenLoss(abc.ABC):
        @abc.abstractmethod
        def forward(self, p, t): ...

    module = types.ModuleType("some.losses")
    module.__all__ = ["PlainLoss", "OpenLoss", "missing"]
    module.PlainLoss, module.OpenLoss = PlainLoss, OpenLoss
    assert find_losses(module) == ([], ["PlainLoss", "OpenLoss"])


def test_versions_name_the_package_and_its_framework() -> None:
    assert versions(torch.nn.functional)["torch"] == torch.__version__
