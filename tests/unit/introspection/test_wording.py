import json
from dataclasses import asdict

import pytest

import pellucid
from pellucid.core.errors import ConfigError, PromptError
from pellucid.introspection.dialogue import Dialogue
from pellucid.introspection.wording import BUILT_IN, Wording, read_wording


@pytest.fixture(scope="module")
def specimen():
    return pellucid.load_model("specimen", check=False)


def record(name: str = "specimen") -> dict:
    return json.loads(json.dumps(asdict(read_wording(name))))


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_wording_is_what_its_file_says(name, tmp_path):
    path = tmp_path / "wording.json"
    path.write_text(json.dumps(record(name)))
    assert read_wording(path) == read_wording(name)
    assert len(read_wording(name).concepts) >= 50


@pytest.mark.parametrize(
    "change, message",
    [
        ({"detection": "is it there ?"}, r"detection is 'is it there \?' without \{n\}"),
        ({"concepts": ["dog", "dog", "cat", "cow"]}, "4 concepts, 3 of them distinct"),
        ({"baselines": ["dog", "corn"]}, "'dog' among its concepts and its baselines"),
        ({"chat": {"user": "{text}"}}, "lacks 'assistant'"),
        ({"colour": "red"}, "the entry 'colour' is unknown"),
        ({"naming": None}, "the entry 'naming' is missing"),
    ],
)
def test_a_malformed_wording_is_refused(change, message, tmp_path):
    values = record() | change
    path = tmp_path / "wording.json"
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    with pytest.raises(ConfigError, match=message):
        read_wording(path)


def test_a_missing_wording_is_named():
    with pytest.raises(ConfigError, match="no wording at 'klingon'; use english or specimen"):
        read_wording("klingon")


def test_every_prompt_of_the_specimens_wording_is_in_its_words(specimen):
    wording = read_wording("specimen")
    dialogue = Dialogue(specimen, wording)
    for word in wording.concepts + wording.baselines:
        dialogue.concept(word)
    for question in wording.factual + wording.factual_yes:
        dialogue.factual(question)


def test_parts_are_found_token_by_token(specimen):
    dialogue = Dialogue(specimen, read_wording("specimen"))
    prompt = dialogue.trial("test 3 : is a gift here ?")
    texts = specimen.token_texts(list(prompt.ids))
    start, stop = prompt.spans["trial"]
    assert " ".join(texts[start:stop]) == "test 3 : is a gift here ?"
    assert texts[stop:] == ["assistant", ":"]
    assert prompt.spans["setting"][0] > 0


def test_the_specimen_knows_the_factual_questions(specimen):
    wording = read_wording("specimen")
    dialogue = Dialogue(specimen, wording)
    for right, questions in ((dialogue.no, wording.factual), (dialogue.yes, wording.factual_yes)):
        for question in questions:
            ids = dialogue.factual(question).ids
            logits = specimen.logits(specimen.encode_ids(ids)[None])[0, -1]
            assert int(logits.argmax()) in right, question


def test_a_model_without_these_words_is_told_so(specimen):
    with pytest.raises(PromptError, match="does not know any of the words"):
        Dialogue(specimen, read_wording("english"))


def test_a_wording_is_equal_to_itself_alone():
    assert Wording(**record()) == read_wording("specimen")
