"""The HTML page: well-formed, self-contained, and inert whatever the user's files hold."""

import re
from html.parser import HTMLParser

from whynan.report.html import to_fragment, to_html

VOID = {"meta"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.marked, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if "mark" in self.open:
            self.marked.append(data)


def test_golden(name, example, matches_golden):
    if name in ("epsilon-rounds-away", "hostile"):
        matches_golden(f"html/{name}.html", to_html(example))


def test_nothing_runs_and_nothing_is_loaded(name, example):
    page = to_html(example)
    reader = Reader(page)
    assert not {"script", "link", "img", "iframe", "object", "b", "i", "u", "x"} & set(reader.tags)
    assert {key for key, _ in reader.attributes} <= {"class", "lang", "charset", "name", "content"}
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)


def test_the_expression_is_marked(examples):
    assert Reader(to_html(examples["epsilon-rounds-away"]())).marked == ["torch.log(1 - p)"]
    assert "torch.sqrt(y)," in Reader(to_html(examples["where-trap"]())).marked


def test_the_page_says_what_the_terminal_says(examples):
    text = " ".join("".join(Reader(to_html(examples["epsilon-rounds-away"]())).text).split())
    for part in (
        "UNSAFE bce can become NaN: log(0.0) in line 8",
        "p = 0.5 everywhere but [3, 0] = 1.0",
        "mul(0.0, -inf) -> nan",
        "t = binary(8, 1)",
        "print('again')",
        "19 of 23 sites proven finite",
    ):
        assert part in text


def test_undecided_and_safe(examples):
    assert "unknown op acme.spline" in to_html(examples["undecided-op"]())
    assert "<h2>Proven</h2>" in to_html(examples["safe-softmax"]())


def test_the_fragment_is_a_part_of_the_page_with_its_own_style(examples):
    fragment = to_fragment(examples["where-trap"]())
    assert fragment.startswith('<div class="whynan">')
    assert fragment in to_html(examples["where-trap"]())
    style = fragment[fragment.index("<style>") + 7 : fragment.index("</style>")]
    selectors = [s.strip() for rule in re.findall(r"([^{}]+)\{", style) for s in rule.split(",")]
    assert all(s.startswith((".whynan", "@media")) for s in selectors if s)
