"""The README and docs say what is true: their commands parse, their files exist."""

import re
import shlex
from pathlib import Path

import pytest

from tomostain.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def spoken():
    for page in PAGES:
        for line in re.findall(r"tomostain [a-z-]+[^`\n]*", page.read_text()):
            words = shlex.split(line.split(" #")[0].rstrip(":;.,"), comments=True)
            if len(words) > 1 and words[1] in COMMANDS:
                yield page.name, words


@pytest.mark.parametrize(("page", "words"), list(spoken()), ids=lambda value: str(value)[:60])
def test_flags_of_commands_in_the_docs_exist(page, words, capsys):
    main([words[1], "--help"])
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) | {"--recipe", "--help"}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_page_on_architecture_lists_every_folder_of_the_package():
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = set(re.findall(r"`([a-z_]+)/`", page.partition("## Rules")[0]))
    folders = {p.name for p in (ROOT / "src" / "tomostain").iterdir() if p.is_dir() and p.name[0] not in "._"}
    assert folders <= listed


def sentences(page):
    text = re.sub(r"```.*?```", " ", page, flags=re.DOTALL)
    text = re.sub(r"^ {4,}.*$|^[|#].*$|`[^`\n]*`|\]\([^)]*\)", " ", text, flags=re.MULTILINE)
    text = re.sub(r"\n\s*(?=\n|[-*] |\d\. )", " . ", text)
    return [" ".join(sentence.split()) for sentence in re.split(r"[.:;?!·](?=\s)", text)]


@pytest.mark.parametrize("name", ["README.md", "docs/getting_started.md"])
def test_no_sentence_is_longer_than_25_words(name):
    found = sentences((ROOT / name).read_text())
    assert len(found) > 15
    assert [sentence for sentence in found if len(sentence.split()) > 25] == []
