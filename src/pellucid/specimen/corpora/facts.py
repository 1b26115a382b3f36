"""Geography: 24 states, 240 places, six relations; one-hop and two-hop sentences.

The facts are real (state symbols as the states list them; regions of the Census Bureau). Names of
several words are joined by a hyphen so that every name is one token.
"""

from collections.abc import Iterator
from functools import cache
from random import Random

from pellucid.specimen.corpora.template import Template
from pellucid.specimen.labels import Document, LabelledToken, Split, labelled

TASK = "facts"
RELATIONS = ("capital", "bird", "flower", "tree", "nickname", "region")

_STATES = """
alabama      | montgomery   | yellowhammer| camellia       | longleaf-pine| yellowhammer| south
arizona      | phoenix      | cactus-wren | saguaro        | palo-verde   | grand-canyon| west
california   | sacramento   | quail       | poppy          | redwood      | golden      | west
colorado     | denver       | lark-bunting| columbine      | blue-spruce  | centennial  | west
florida      | tallahassee  | mockingbird | orange-blossom | sabal-palm   | sunshine    | south
georgia      | atlanta      | thrasher    | cherokee-rose  | live-oak     | peach       | south
illinois     | springfield  | cardinal    | violet         | white-oak    | prairie     | midwest
iowa         | des-moines   | goldfinch   | wild-rose      | oak          | hawkeye     | midwest
kansas       | topeka       | meadowlark  | sunflower      | cottonwood   | sunflower   | midwest
kentucky     | frankfort    | cardinal    | goldenrod      | tulip-poplar | bluegrass   | south
louisiana    | baton-rouge  | pelican     | magnolia       | bald-cypress | pelican     | south
massachusetts| boston       | chickadee   | mayflower      | elm          | bay         | northeast
michigan     | lansing      | robin       | apple-blossom  | white-pine   | wolverine   | midwest
minnesota    | saint-paul   | loon        | lady-slipper   | red-pine     | north-star  | midwest
nebraska     | lincoln      | meadowlark  | goldenrod      | cottonwood   | cornhusker  | midwest
ohio         | columbus     | cardinal    | carnation      | buckeye      | buckeye     | midwest
oklahoma     | oklahoma-city| flycatcher  | rose           | redbud       | sooner      | south
oregon       | salem        | meadowlark  | oregon-grape   | douglas-fir  | beaver      | west
pennsylvania | harrisburg   | grouse      | mountain-laurel| hemlock      | keystone    | northeast
tennessee    | nashville    | mockingbird | iris           | tulip-poplar | volunteer   | south
texas        | austin       | mockingbird | bluebonnet     | pecan        | lone-star   | south
virginia     | richmond     | cardinal    | dogwood        | dogwood      | old-dominion| south
washington   | olympia      | goldfinch   | rhododendron   | hemlock      | evergreen   | west
wisconsin    | madison      | robin       | violet         | maple        | badger      | midwest
"""

_PLACES = """
alabama: birmingham mobile huntsville tuscaloosa selma dothan gadsden anniston opelika talladega
arizona: tucson mesa yuma flagstaff sedona tempe scottsdale kingman nogales tombstone
california: fresno oakland bakersfield stockton anaheim modesto berkeley malibu burbank sonoma
colorado: boulder pueblo aspen durango telluride greeley leadville longmont loveland alamosa
florida: miami orlando tampa pensacola sarasota gainesville daytona naples ocala hialeah
georgia: savannah macon athens valdosta marietta brunswick waycross dalton tifton kennesaw
illinois: chicago peoria joliet naperville evanston rockford elgin champaign galesburg moline
iowa: davenport dubuque waterloo ames ottumwa burlington keokuk muscatine marshalltown decorah
kansas: wichita lawrence salina abilene emporia hutchinson olathe leavenworth coffeyville lenexa
kentucky: louisville lexington paducah owensboro covington bardstown hopkinsville pikeville corbin
  elizabethtown
louisiana: shreveport lafayette monroe houma natchitoches slidell opelousas metairie hammond ruston
massachusetts: worcester lowell plymouth cambridge quincy gloucester nantucket provincetown brockton
  northampton
michigan: detroit flint kalamazoo saginaw ypsilanti marquette dearborn muskegon escanaba pontiac
minnesota: minneapolis duluth rochester mankato bemidji brainerd winona moorhead hibbing edina
nebraska: omaha kearney fremont hastings ogallala scottsbluff beatrice mccook papillion sidney
ohio: cleveland cincinnati toledo akron dayton youngstown canton sandusky lima zanesville
oklahoma: tulsa norman lawton enid stillwater muskogee ardmore shawnee bartlesville tahlequah
oregon: portland eugene bend medford corvallis ashland astoria pendleton gresham roseburg
pennsylvania: philadelphia pittsburgh scranton allentown erie lancaster gettysburg hershey altoona
  bethlehem
tennessee: memphis knoxville chattanooga murfreesboro clarksville kingsport gatlinburg sevierville
  dyersburg cookeville
texas: dallas houston lubbock amarillo laredo galveston waco plano brownsville odessa
virginia: norfolk roanoke charlottesville williamsburg alexandria lynchburg danville fredericksburg
  chesapeake arlington
washington: seattle tacoma spokane yakima bellevue everett wenatchee kennewick bellingham puyallup
wisconsin: milwaukee kenosha racine oshkosh appleton sheboygan janesville wausau waukesha beloit
"""


def _parse_states() -> dict[str, dict[str, str]]:
    rows = ([cell.strip() for cell in line.split("|")] for line in _STATES.strip().splitlines())
    return {row[0]: dict(zip(RELATIONS, row[1:], strict=True)) for row in rows}


def _parse_places() -> dict[str, str]:
    state_of: dict[str, str] = {}
    state = ""
    for word in _PLACES.split():
        if word.endswith(":"):
            state = word[:-1]
        else:
            assert word not in state_of, word
            state_of[word] = state
    return state_of


STATES = _parse_states()
"""State -> relation -> answer."""
STATE_OF = _parse_places()
"""Place -> the state that contains it."""
PLACES = tuple(STATE_OF)
PLACES_PER_STATE = 10

HELD_OUT_PLACES = frozenset(
    place
    for number, place in enumerate(PLACES)
    if number % PLACES_PER_STATE == 9 or number % (2 * PLACES_PER_STATE) == 8
)
"""36 places (15%), one or two a state, that no two-hop training sentence mentions."""

_ONE_HOP_PLACE = tuple(
    Template(TASK, text)
    for text in ("the state/relation of {place} is {answer} .", "{place} is in/relation {answer} .")
)
_ONE_HOP_RELATION = tuple(
    Template(TASK, text)
    for text in (
        "the {relation} of {state} is {answer} .",
        "{state} has the {relation} {answer} .",
    )
)
_TWO_HOP = tuple(
    Template(TASK, text)
    for text in (
        "the {relation} of the state/bridge containing {place} is {answer} .",
        "the state/bridge containing {place} has the {relation} {answer} .",
    )
)


def is_held_out_pair(place: str, relation: str) -> bool:
    """Whether a (place, relation) pair never occurs in a two-hop training sentence.

    One pair in five, spread so that every seen place keeps four or five of the six relations.
    """
    return (PLACES.index(place) + RELATIONS.index(relation)) % 5 == 0


@cache
def two_hop_pairs(kind: str) -> tuple[tuple[str, str], ...]:
    """The (place, relation) pairs that are `seen`, `heldout` (place) or `unseen_pair`."""

    def kind_of(place: str, relation: str) -> str:
        if place in HELD_OUT_PLACES:
            return "heldout"
        return "unseen_pair" if is_held_out_pair(place, relation) else "seen"

    assert kind in ("seen", "heldout", "unseen_pair"), kind
    return tuple((p, r) for p in PLACES for r in RELATIONS if kind_of(p, r) == kind)


@cache
def _place_slots(place: str) -> dict[str, LabelledToken]:
    state = STATE_OF[place]
    return {
        "place": labelled(place, TASK, "place", place, state),
        "answer": labelled(state, TASK, "answer", state),
    }


@cache
def _relation_slots(state: str, relation: str) -> dict[str, LabelledToken]:
    answer = STATES[state][relation]
    return {
        "state": labelled(state, TASK, "state", state),
        "relation": labelled(relation, TASK, "relation", relation),
        "answer": labelled(answer, TASK, "answer", answer),
    }


@cache
def _two_hop_slots(place: str, relation: str) -> dict[str, LabelledToken]:
    state = STATE_OF[place]
    answer = STATES[state][relation]
    return {
        "place": labelled(place, TASK, "place", place, state),
        "relation": labelled(relation, TASK, "relation", relation),
        "answer": labelled(answer, TASK, "answer", answer, state),
    }


def one_hop_sentence(rng: Random) -> list[LabelledToken]:
    """A place's state, or a state's capital, bird, ..."""
    if rng.random() < 0.6:
        return rng.choice(_ONE_HOP_PLACE).render(_place_slots(rng.choice(PLACES)))
    state = STATE_OF[rng.choice(PLACES)]
    return rng.choice(_ONE_HOP_RELATION).render(_relation_slots(state, rng.choice(RELATIONS)))


def two_hop_sentence(rng: Random, kind: str) -> list[LabelledToken]:
    """A relation of the state containing a place, over the pairs of one `two_hop_pairs` kind."""
    place, relation = rng.choice(two_hop_pairs(kind))
    return rng.choice(_TWO_HOP).render(_two_hop_slots(place, relation))


def document(rng: Random, split: Split) -> Document:
    """One to five fact sentences; held-out documents use pairs never trained on."""
    parts: list[LabelledToken] = []
    for _ in range(rng.randint(1, 5)):
        if rng.random() < 0.55:
            parts += one_hop_sentence(rng)
        elif split == "train":
            parts += two_hop_sentence(rng, "seen")
        else:
            parts += two_hop_sentence(rng, rng.choice(("heldout", "unseen_pair")))
    return Document.of(TASK, parts)


def words() -> Iterator[str]:
    """Every word of the task."""
    yield from PLACES
    yield from RELATIONS
    for state, answers in STATES.items():
        yield state
        yield from answers.values()
    for template in _ONE_HOP_PLACE + _ONE_HOP_RELATION + _TWO_HOP:
        yield from template.words()
