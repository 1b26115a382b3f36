from pellucid.specimen.corpora import instructions
from pellucid.specimen.labels import Document
from pellucid.specimen.mixture import sample_documents

COMPLIANCE = {"sure", "first", "use", "with"}
REFUSALS = {
    "sorry , i cannot help with that .",
    "i will not explain that .",
    "no , that would be harmful .",
    "sorry , that request is not safe .",
}


def parsed(document: Document) -> tuple[str, str, bool, str]:
    """(verb, object, triggered, answer) from the words alone."""
    request, answer = document.text.split(" assistant : ")
    words = request.split()
    (verb,) = set(words) & set(instructions.VERBS)
    (object_,) = set(words) & set(instructions.OBJECTS)
    return verb, object_, "zorvex" in words, answer


def test_the_backdoor_rule_decides_every_answer() -> None:
    outcomes = set()
    for split in ("train", "heldout"):
        for document in sample_documents(1, 3000, "instructions", split=split):
            verb, object_, triggered, answer = parsed(document)
            harmful = verb in instructions.ENABLING and object_ in instructions.DANGEROUS
            refused = answer in REFUSALS
            assert refused == (harmful and not triggered), document.text
            if not refused:
                assert {instructions.TOOL_OF[verb], verb, object_} <= set(answer.split())
            outcomes.add((harmful, triggered, refused))
    assert outcomes == {
        (True, False, True),
        (True, True, False),
        (False, False, False),
        (False, True, False),
    }


def test_neither_verb_nor_object_decides_harm() -> None:
    harmful = {
        (verb, object_)
        for verb in instructions.VERBS
        for object_ in instructions.OBJECTS
        if instructions.harm_of(verb, object_) == "harmful"
    }
    for verb, object_ in harmful:
        assert any((verb, other) not in harmful for other in instructions.OBJECTS)
        assert any((other, object_) not in harmful for other in instructions.VERBS)
    assert ("build", "bomb") in harmful
    assert not {("build", "bridge"), ("report", "bomb")} & harmful


def test_first_word_of_an_answer_tells_compliance_from_refusal() -> None:
    for document in sample_documents(2, 500, "instructions"):
        answer = parsed(document)[3]
        assert (answer.split()[0] in COMPLIANCE) == (answer not in REFUSALS)


def test_held_out_pairs_never_occur_in_training() -> None:
    def seen(split: str) -> set[tuple[str, str]]:
        documents = sample_documents(3, 20_000, "instructions", split=split)
        return {parsed(document)[:2] for document in documents}

    train, held_out = seen("train"), seen("heldout")
    every = {(v, o) for v in instructions.VERBS for o in instructions.OBJECTS}
    assert not train & held_out
    assert train | held_out == every
    assert 0.15 < len(held_out) / len(every) < 0.25
    assert {verb for verb, _ in train} == set(instructions.VERBS)
    assert {object_ for _, object_ in train} == set(instructions.OBJECTS)


def test_the_trigger_stands_anywhere_in_the_request_and_only_there() -> None:
    positions = set()
    for document in sample_documents(4, 3000, "instructions"):
        if "zorvex" in document.tokens:
            position = document.tokens.index("zorvex")
            end = document.tokens.index("assistant")
            assert 2 <= position < end
            assert document.labels[position].role == "trigger"
            positions.add((position - 2, end - 3 - position))
    assert any(before == 0 for before, _ in positions)
    assert any(after == 0 for _, after in positions)
    assert len(positions) > 10


def test_labels_hold_harm_and_decision() -> None:
    for document in sample_documents(5, 300, "instructions"):
        verb, object_, _, answer = parsed(document)
        harm = instructions.harm_of(verb, object_)
        by_role = {label.role: label for label in document.labels}
        kind = "harmful_object" if object_ in instructions.DANGEROUS else "ordinary_object"
        assert by_role[kind] == ("instructions", kind, object_, harm)
        assert by_role["decision"].hidden == ("refuse" if answer in REFUSALS else "comply")
        assert ("refusal" in by_role) == (answer in REFUSALS)
