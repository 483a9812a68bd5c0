"""The files that say what inference cannot know."""

from importlib import resources
from pathlib import Path

import pytest

from whynan.audits.overrides import Override, Overrides, from_file, shipped, unused
from whynan.errors import DomainError, TargetError


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "overrides.toml"
    file.write_text(text)
    return file


def test_a_file_says_how_to_make_a_loss_what_its_inputs_are_and_what_is_left_out(tmp_path: Path) -> None:
    text = '[domains]\np = "prob(4)"\n[losses.A]\ncall = "A(2)"\ndomains = { t = "binary(4)" }\n[losses.B]\nexclude = "no loss"\n'
    read = from_file(written(tmp_path, text))
    assert read.domains == {"p": "prob(4)"}
    assert read.of("A") == Override("A(2)", {"t": "binary(4)"}) and read.of("B").exclude == "no loss" and read.of("C") == Override()


def test_the_users_file_counts_where_it_differs_from_the_shipped_one() -> None:
    both = Overrides("m", {"A": Override("A(1)"), "B": Override("B()")}, {"p": "prob(4)"}).plus(Overrides("", {"A": Override("A(2)")}))
    assert both.module == "m" and both.of("A").call == "A(2)" and both.of("B").call == "B()" and both.domains == {"p": "prob(4)"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[losses.A", "no TOML"),
        ("[loses.A]\ncall = 'A()'", "'loses' is not known"),
        ("[losses.A]\nskip = 'why'", "'skip' is not known"),
        ("[losses.A]\nexclude = ''", "must be a text"),
        ("[losses.A]\ncall = 3", "must be a text"),
        ("losses = 3", "must be tables"),
        ("[losses.A]\ndomains = { p = 1 }", "must be texts"),
    ],
)
def test_what_cannot_be_understood_is_an_error_that_names_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TargetError) as error:
        from_file(written(tmp_path, text))
    assert said in str(error.value) and "overrides.toml" in str(error.value)


def test_a_domain_that_cannot_be_read_is_an_error_that_names_loss_and_argument(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match=r"overrides\.toml, A: p: .*prop"):
        from_file(written(tmp_path, '[losses.A]\ndomains = { p = "prop(4)" }'))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot be read"):
        from_file(tmp_path / "none.toml")


def test_a_loss_that_the_module_does_not_have_is_named_with_the_nearest_one() -> None:
    said = Overrides("m", {"focal_los": Override("x")})
    assert unused(said, {"focal_loss", "dice"}) == "there is no loss 'focal_los'; did you mean focal_loss?"
    assert unused(said, {"focal_los"}) == ""


def test_every_shipped_file_can_be_read_and_is_named_after_its_module() -> None:
    files = [f for f in resources.files("whynan.audits").joinpath("overrides").iterdir() if f.name.endswith(".toml")]
    assert len(files) >= 5
    for file in files:
        module = file.name.removesuffix(".toml")
        assert shipped(module).module == module and shipped(module).losses
    assert shipped("no.such.module") == Overrides("no.such.module")
