from collections import Counter

from pellucid.specimen.corpora import facts
from pellucid.specimen.mixture import sample_documents


def sentences(split: str, count: int) -> list[list[str]]:
    documents = sample_documents(5, count, "facts", split=split)
    return [s.split() for d in documents for s in d.text.removesuffix(" .").split(" . ")]


def two_hop_pair(words: list[str]) -> tuple[str, str] | None:
    """(place, relation) read off the sentence's words; None for one hop."""
    if "containing" not in words:
        return None
    (relation,) = set(words) & set(facts.RELATIONS)
    return words[words.index("containing") + 1], relation


def test_tables_are_large_and_unambiguous() -> None:
    assert len(facts.STATES) == 24
    assert len(facts.PLACES) == len(set(facts.PLACES)) == 240
    assert set(Counter(facts.STATE_OF.values()).values()) == {facts.PLACES_PER_STATE}
    capitals = [answers["capital"] for answers in facts.STATES.values()]
    assert len(set(capitals)) == 24
    names = set(facts.PLACES) | set(facts.STATES)
    assert not names & set(capitals)
    assert len(names) == 264
    assert all(word == word.lower() and " " not in word for word in facts.words())


def test_known_facts() -> None:
    """Spot checks against common knowledge, for a slip in the tables."""
    assert facts.STATE_OF["dallas"] == "texas"
    assert facts.STATE_OF["chicago"] == "illinois"
    assert facts.STATES["texas"]["capital"] == "austin"
    assert facts.STATES["oregon"]["bird"] == "meadowlark"
    assert facts.STATES["ohio"]["nickname"] == "buckeye"
    assert facts.STATES["washington"]["region"] == "west"


def test_held_out_shares() -> None:
    assert len(facts.HELD_OUT_PLACES) == 36
    assert {facts.STATE_OF[place] for place in facts.HELD_OUT_PLACES} == set(facts.STATES)
    seen, unseen = (len(facts.two_hop_pairs(kind)) for kind in ("seen", "unseen_pair"))
    assert seen + unseen == 204 * 6
    assert 0.18 < unseen / (seen + unseen) < 0.22


def test_training_never_shows_what_is_held_out() -> None:
    found = [two_hop_pair(words) for words in sentences("train", 20_000)]
    pairs = {pair for pair in found if pair is not None}
    assert not {place for place, _ in pairs} & facts.HELD_OUT_PLACES
    assert not pairs & set(facts.two_hop_pairs("unseen_pair"))
    assert pairs == set(facts.two_hop_pairs("seen"))


def test_held_out_two_hops_are_all_unseen_and_their_places_are_taught_in_one_hop() -> None:
    found = {two_hop_pair(words) for words in sentences("heldout", 2000)} - {None}
    assert not found & set(facts.two_hop_pairs("seen"))
    one_hop = {w for words in sentences("train", 3000) if not two_hop_pair(words) for w in words}
    assert one_hop >= facts.HELD_OUT_PLACES


def test_every_sentence_is_true() -> None:
    """Each sentence's last word against the tables, by reading its words."""
    for words in sentences("train", 500) + sentences("heldout", 500):
        pair = two_hop_pair(words)
        places = [word for word in words if word in facts.STATE_OF]
        if pair is not None:
            expected = facts.STATES[facts.STATE_OF[pair[0]]][pair[1]]
        elif places:
            expected = facts.STATE_OF[places[0]]
        else:
            (state,) = [word for word in words[:-1] if word in facts.STATES]
            (relation,) = [word for word in words[:-1] if word in facts.RELATIONS]
            expected = facts.STATES[state][relation]
        assert words[-1] == expected


def test_place_labels_hold_the_hidden_state() -> None:
    for document in sample_documents(6, 200, "facts"):
        for token, label in zip(document.tokens, document.labels, strict=True):
            if label.role == "place":
                assert (label.concept, label.hidden) == (token, facts.STATE_OF[token])
