from collections import defaultdict

from pellucid.specimen.corpora import stories
from pellucid.specimen.mixture import sample_documents

CATEGORIES = ("animal", "colour", "food", "emotion", "profession", "setting")


def test_there_are_forty_concepts_and_more() -> None:
    concepts = defaultdict(set)
    for story in sample_documents(1, 2000, "stories"):
        for label in story.labels:
            concepts[label.role].add(label.concept)
    assert sum(len(concepts[category]) for category in CATEGORIES) >= 40
    assert len(concepts["workplace"]) == len(concepts["tool"]) == len(stories.PROFESSIONS)


def test_stories_have_three_to_six_sentences() -> None:
    lengths = {story.tokens.count(".") for story in sample_documents(2, 500, "stories")}
    assert lengths == {3, 4, 5, 6}


def test_determined_words_follow_from_the_text_before_them() -> None:
    """Every determined word is recomputed from earlier words alone."""
    emotion_of = {event: mood for mood, events in stories.EVENTS.items() for event in events}
    for story in sample_documents(3, 500, "stories"):
        for position, label in enumerate(story.labels):
            if label.role not in stories.DETERMINED_ROLES:
                continue
            before = story.tokens[:position]
            text = " ".join(before)
            expected = {
                "pronoun": lambda b: stories.PRONOUN_OF[only(b, stories.PRONOUN_OF)],
                "tool": lambda b: trade(b).tool,
                "workplace": lambda b: trade(b).workplace,
                "action": lambda b: trade(b).action,
                "product": lambda b: trade(b).product,
                "home": lambda b: stories.ANIMALS[only(b, stories.ANIMALS)].home,
                "sound": lambda b: stories.ANIMALS[only(b, stories.ANIMALS)].sound,
                "emotion": lambda b, t=text: next(m for e, m in emotion_of.items() if e in t),
                "recalled_animal": lambda b: only(b, stories.ANIMALS),
                "recalled_colour": lambda b: only(b, stories.COLOURS),
                "recalled_food": lambda b: only(b, stories.FOODS),
                "recalled_setting": lambda b: only(b, stories.SETTINGS),
            }[label.role](before)
            assert story.tokens[position] == expected, story.text


def only(words: tuple[str, ...], table: object) -> str:
    (word,) = {word for word in words if word in table}
    return word


def trade(words: tuple[str, ...]) -> stories.Profession:
    return stories.PROFESSIONS[only(words, stories.PROFESSIONS)]


def test_event_labels_name_the_event_and_hold_its_emotion() -> None:
    for story in sample_documents(4, 200, "stories"):
        words = [t for t, x in zip(story.tokens, story.labels, strict=True) if x.role == "event"]
        for label in {label for label in story.labels if label.role == "event"}:
            assert label.concept == " ".join(words)
            assert label.concept in stories.EVENTS[label.hidden]
