"""Short stories whose later words follow from earlier ones.

A name decides the pronoun, a profession the tool, the workplace and the work, an animal its home
and its sound, an event the emotion; the pet's colour, the favourite food and the setting come back
sentences later.
"""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from pellucid.specimen.corpora.template import Template
from pellucid.specimen.labels import Document, LabelledToken, Split, labelled

TASK = "stories"


class Profession(NamedTuple):
    """What a profession decides."""

    tool: str
    workplace: str
    action: str
    product: str


class Animal(NamedTuple):
    """What an animal decides."""

    home: str
    sound: str


SHE = ("anna", "clara", "dora", "emma", "greta", "ida", "julia", "lucy", "mary", "nora")
HE = ("adam", "ben", "carl", "david", "felix", "henry", "ivan", "jack", "leo", "tom")
PRONOUN_OF = dict.fromkeys(SHE, "she") | dict.fromkeys(HE, "he")
SETTINGS = ("village", "city", "valley", "island", "forest", "desert", "mountains", "suburb")
COLOURS = ("red", "blue", "green", "black", "white", "brown", "grey", "yellow")
FOODS = ("bread", "apples", "cheese", "soup", "rice", "honey", "pears", "noodles", "plums", "cake")
PROFESSIONS = {
    "baker": Profession("oven", "bakery", "bakes", "loaves"),
    "farmer": Profession("tractor", "farm", "grows", "corn"),
    "doctor": Profession("stethoscope", "hospital", "heals", "patients"),
    "teacher": Profession("chalk", "classroom", "teaches", "pupils"),
    "painter": Profession("brush", "studio", "paints", "portraits"),
    "fisher": Profession("net", "harbour", "catches", "trout"),
    "carpenter": Profession("hammer", "workshop", "builds", "tables"),
    "pilot": Profession("headset", "airport", "flies", "planes"),
    "gardener": Profession("rake", "greenhouse", "plants", "tulips"),
    "tailor": Profession("needle", "boutique", "sews", "coats"),
    "firefighter": Profession("hose", "station", "fights", "fires"),
    "librarian": Profession("catalogue", "library", "lends", "books"),
}
ANIMALS = {
    "dog": Animal("kennel", "barks"),
    "cat": Animal("basket", "meows"),
    "horse": Animal("stable", "neighs"),
    "cow": Animal("barn", "moos"),
    "parrot": Animal("cage", "squawks"),
    "wolf": Animal("den", "howls"),
    "frog": Animal("pond", "croaks"),
    "bee": Animal("hive", "buzzes"),
    "owl": Animal("nest", "hoots"),
    "pig": Animal("sty", "grunts"),
    "goat": Animal("pen", "bleats"),
    "snake": Animal("terrarium", "hisses"),
}
EVENTS = {
    "happy": ("got a gift", "met an old friend", "heard a joke"),
    "sad": ("lost a ring", "said goodbye to a friend", "heard bad news"),
    "afraid": ("saw a ghost", "heard a scream", "met a tiger"),
    "angry": ("missed the train", "found a scratch", "got a fine"),
    "proud": ("won a prize", "finished a race", "passed a test"),
    "ashamed": ("broke a vase", "told a lie", "forgot a promise"),
    "surprised": ("found a treasure", "saw a comet", "won the lottery"),
    "tired": ("worked all night", "climbed a hill", "ran for hours"),
}

DETERMINED_ROLES = frozenset(
    (
        *("pronoun", "tool", "workplace", "action", "product", "home", "sound", "emotion"),
        *("recalled_animal", "recalled_colour", "recalled_food", "recalled_setting"),
    )
)
"""Roles of the words that follow from the text before them."""


def _templates(*texts: str) -> tuple[Template, ...]:
    return tuple(Template(TASK, text) for text in texts)


_INTRODUCTIONS = _templates(
    "{name} is a {profession} in the {setting} .",
    "in the {setting} lives a {profession} called {name} .",
)
_EVENTS = {
    (emotion, event): Template(
        TASK,
        "one day {pronoun} " + " ".join(f"{word}/event" for word in event.split()) + " .",
        {"event": (event, emotion)},
    )
    for emotion, events in EVENTS.items()
    for event in events
}
_SETUPS = {
    "pet": _templates(
        "at home {pronoun} has a {colour} {animal} .",
        "last year {pronoun} bought a {colour} {animal} .",
    ),
    "food": _templates("above all {pronoun} loves {food} .", "as a child {pronoun} ate {food} ."),
}
_PAYOFFS = {
    "pet": _templates(
        "at night the {recalled_animal} sleeps in the {home} .",
        "everyone says that the {recalled_animal} is {recalled_colour} .",
        "often the {recalled_animal} {sound} loudly .",
    ),
    "food": _templates(
        "for dinner {name} eats {recalled_food} .",
        "so {pronoun} always carries {recalled_food} .",
    ),
    "event": _templates(
        "now {name} feels {emotion} .",
        "that evening {pronoun} is still {emotion} .",
    ),
    "work": _templates(
        "every morning {pronoun} takes the {tool} to the {workplace} .",
        "with the {tool} {pronoun} {action} {product} .",
    ),
    "setting": _templates("the whole {recalled_setting} likes {name} ."),
}
_WITH_SETUP = ("pet", "food", "event")
_WITHOUT_SETUP = ("work", "setting")


class _Scene:
    """The people and things of one story, as slots, and the event that happens."""

    def __init__(self, rng: Random) -> None:
        name, profession = rng.choice((*SHE, *HE)), rng.choice(tuple(PROFESSIONS))
        animal, colour = rng.choice(tuple(ANIMALS)), rng.choice(COLOURS)
        food, setting = rng.choice(FOODS), rng.choice(SETTINGS)
        emotion, event = rng.choice(tuple(_EVENTS))
        pronoun, trade, habits = PRONOUN_OF[name], PROFESSIONS[profession], ANIMALS[animal]
        self.event = _EVENTS[emotion, event]
        self.slots: dict[str, LabelledToken] = {
            "name": labelled(name, TASK, "name", name, pronoun),
            "pronoun": labelled(pronoun, TASK, "pronoun", pronoun, name),
            "profession": labelled(profession, TASK, "profession", profession),
            "tool": labelled(trade.tool, TASK, "tool", trade.tool, profession),
            "workplace": labelled(trade.workplace, TASK, "workplace", trade.workplace, profession),
            "action": labelled(trade.action, TASK, "action", trade.action, profession),
            "product": labelled(trade.product, TASK, "product", trade.product, profession),
            "animal": labelled(animal, TASK, "animal", animal),
            "recalled_animal": labelled(animal, TASK, "recalled_animal", animal),
            "home": labelled(habits.home, TASK, "home", habits.home, animal),
            "sound": labelled(habits.sound, TASK, "sound", habits.sound, animal),
            "colour": labelled(colour, TASK, "colour", colour),
            "recalled_colour": labelled(colour, TASK, "recalled_colour", colour, animal),
            "food": labelled(food, TASK, "food", food),
            "recalled_food": labelled(food, TASK, "recalled_food", food),
            "setting": labelled(setting, TASK, "setting", setting),
            "recalled_setting": labelled(setting, TASK, "recalled_setting", setting),
            "emotion": labelled(emotion, TASK, "emotion", emotion, event),
        }


def document(rng: Random, split: Split) -> Document:
    """Three to six sentences; both splits draw from the same scenes, under different seeds."""
    scene = _Scene(rng)
    threads = rng.sample(_WITH_SETUP, rng.randint(1, 2))
    payoffs = list(threads)
    if rng.random() < 0.6:
        payoffs.append(rng.choice(_WITHOUT_SETUP))
    rng.shuffle(payoffs)
    parts = rng.choice(_INTRODUCTIONS).render(scene.slots)
    for thread in threads:
        setup = scene.event if thread == "event" else rng.choice(_SETUPS[thread])
        parts += setup.render(scene.slots)
    for thread in payoffs:
        parts += rng.choice(_PAYOFFS[thread]).render(scene.slots)
    return Document.of(TASK, parts)


def words() -> Iterator[str]:
    """Every word of the task."""
    yield from PRONOUN_OF
    yield from PRONOUN_OF.values()
    yield from SETTINGS + COLOURS + FOODS
    for table in (PROFESSIONS, ANIMALS):
        for word, decided in table.items():
            yield word
            yield from decided
    yield from EVENTS
    groups = (_INTRODUCTIONS, tuple(_EVENTS.values()), *_SETUPS.values(), *_PAYOFFS.values())
    for group in groups:
        for template in group:
            yield from template.words()
