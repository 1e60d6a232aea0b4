"""The word pairs that the planted variants use: WordNet proposes them, a reader chose among them.

WordNet's first synonym of "void" is "nothingness", of "threads" it is "togs": taken blindly it spoils the truth of a
planted duplicate. So the pairs most frequent in the corpus were read one by one and the harmless ones are listed
here; `lexicon.py` uses a pair only if WordNet too has both words in one synset (or as opposites).
"""

from __future__ import annotations


def _cut(text: str) -> frozenset[str]:
    return frozenset(text.split())


# One word, then what may stand in its place wherever the word occurs.
ADVERBS = """
often frequently|usually normally ordinarily|exactly precisely|therefore hence|immediately instantly
particularly especially|especially particularly|completely entirely totally|wholly entirely|entirely wholly
totally completely entirely|quickly rapidly|rapidly quickly|almost nearly|nearly almost|perhaps maybe|maybe perhaps
obviously evidently|evidently obviously|hardly scarcely|scarcely hardly|mostly largely|slightly somewhat
somewhat slightly|separately individually|individually separately|rarely seldom|seldom rarely|precisely exactly
essentially basically|basically essentially|mainly chiefly primarily
chiefly mainly|primarily mainly|frequently often|partially partly|partly partially|afterwards subsequently
subsequently afterwards|similarly likewise|likewise similarly|accordingly consequently|consequently accordingly
approximately roughly|roughly approximately|moreover furthermore|furthermore moreover|certainly surely|surely certainly
fairly reasonably|deliberately intentionally|intentionally deliberately|solely exclusively|exclusively solely
anyway anyhow|considerably substantially|substantially considerably|unfortunately regrettably
apparently seemingly|relatively comparatively|commonly normally|hence therefore|everywhere everyplace
"""
ADJECTIVES = """
larger bigger|bigger larger|large big|enormous huge|hidden concealed
famous renowned|renowned famous|faster quicker|fastest quickest|closest nearest|nearest closest
unnecessary unneeded|feasible workable|wrong incorrect|incorrect wrong|difficult hard|entire whole
tedious tiresome|understandable intelligible|symmetric symmetrical|algebraic algebraical
alphabetic alphabetical|excessive inordinate|preferable preferred|doubtful dubious
"""
NOUNS = """
lifetime lifespan|vendor seller|calculation computation|computation calculation|mistake error
purpose aim|assistance help|manner way|portion part|amount quantity|viewpoint standpoint|standpoint viewpoint
terminology nomenclature|uprising insurrection|insurrection uprising|programmer coder|provider supplier
consequence result outcome|outcome result|mathematics math|likelihood likeliness|workforce manpower
beginning start|lawyer attorney|physician doctor|automobile car
"""
# Base forms: used only after a word that makes a verb of them ("to", "can", "you", ...), or as a passive participle.
VERBS = """
begin start|choose pick select|select choose|pick choose|obtain get|forbid prohibit|prohibit forbid
allow permit|permit allow|require need|utilize use|employ use|help assist|assist help|gather collect|purchase buy
buy purchase|modify alter|alter modify|ensure guarantee|happen occur|occur happen
build construct|construct build|create make|exceed surpass|attempt try|try attempt|retain keep
terminate end|postpone defer|defer postpone|predict forecast|subtract deduct|demonstrate show|clarify elucidate
complete finish|finish complete|comprehend understand|erase delete|prevent forestall
"""
PARTICIPLES = {
    "begin": "begun", "start": "started", "choose": "chosen", "pick": "picked", "select": "selected",
    "obtain": "obtained", "forbid": "forbidden", "prohibit": "prohibited", "allow": "allowed", "permit": "permitted",
    "require": "required", "need": "needed", "utilize": "utilized", "use": "used", "employ": "employed",
    "gather": "gathered", "collect": "collected", "purchase": "purchased", "buy": "bought", "modify": "modified",
    "alter": "altered", "ensure": "ensured", "guarantee": "guaranteed", "fix": "fixed", "repair": "repaired",
    "build": "built", "construct": "constructed", "exceed": "exceeded", "surpass": "surpassed",
    "attempt": "attempted", "try": "tried", "retain": "retained", "keep": "kept", "terminate": "terminated",
    "end": "ended", "postpone": "postponed", "defer": "deferred", "predict": "predicted", "forecast": "forecast",
    "subtract": "subtracted", "deduct": "deducted", "clarify": "clarified", "elucidate": "elucidated",
    "complete": "completed", "finish": "finished", "erase": "erased", "delete": "deleted",
    "demonstrate": "demonstrated", "show": "shown",
}  # fmt: skip

# Either may replace the other: the sentence then says the opposite.
ANTONYMS = """
possible impossible|available unavailable|defined undefined|useful useless|true false|common uncommon
important unimportant|able unable|full empty|simple complex|allow disallow|necessary unnecessary|large small
known unknown|include exclude|similar dissimilar|addition subtraction|good bad|valid invalid
explicitly implicitly|selected unselected|software hardware|internal external|expected unexpected|fail succeed
appear disappear|positive negative|related unrelated|short long|easy difficult|parent child|success failure
efficient inefficient|dependent independent|accept reject|absolute relative|visible invisible|natural unnatural
majority minority|mutable immutable|latter former|exact inexact|major minor|relevant irrelevant|likely unlikely
correctly incorrectly|compatible incompatible|quickly slowly|finite infinite|enable disable|automatic manual
wide narrow|consistent inconsistent|upgrade downgrade|signed unsigned|vertical horizontal|strong weak
stable unstable|connect disconnect|inner outer|incoming outgoing|minimal maximal|upload download|legal illegal
formal informal|presence absence|cheap expensive|conditional unconditional|primary secondary
sufficient insufficient|temporarily permanently|safe dangerous|private public|rich poor|successful unsuccessful
complete incomplete|increasing decreasing|continuous discontinuous|accurate inaccurate|synchronous asynchronous
acceptable unacceptable|capable incapable|reliable unreliable|explicit implicit|ascending descending
directly indirectly|early late|old new|capitalism socialism|import export|reversible irreversible|legally illegally
"""

# Order, bound and extremum words: (found, put instead); spaces mark a phrase.
ORDER = """
before>after|after>before|at least>at most|at most>at least|minimum>maximum|maximum>minimum|highest>lowest
lowest>highest|largest>smallest|smallest>largest|earlier>later|later>earlier|previous>next|longest>shortest
shortest>longest|newest>oldest|oldest>newest|greater than>less than|less than>greater than|more than>less than
larger than>smaller than|smaller than>larger than|higher than>lower than|lower than>higher than|always>never
never>always|the first>the last|the last>the first|the beginning of>the end of|the end of>the beginning of
the left>the right|top of>bottom of|bottom of>top of|increases>decreases|decreases>increases|increase>decrease
all of>none of|the best>the worst|the worst>the best|longer than>shorter than|shorter than>longer than
earliest>latest|preceding>following|ascending>descending|the upper>the lower|the lower>the upper
"""
# After these, "before"/"earlier"/"previous" speak of the text itself and turning them around says nothing.
ABOUT_TEXT = _cut("""
mentioned described discussed noted said seen shown as saw given explained presented listed ever
""")

# British and American spellings; `lexicon.py` tries both ways, with a plural or a verb's ending kept.
SPELLINGS = """
colour color|behaviour behavior|favour favor|centre center|neighbour neighbor|honour honor|labour labor
licence license|catalogue catalog|dialogue dialog|grey gray|modelling modeling|labelled labeled|cancelled canceled
travelling traveling|organise organize|organised organized|recognise recognize|recognised recognized
initialise initialize|optimise optimize|optimisation optimization|initialisation initialization
organisation organization|realise realize|analyse analyze|customise customize|normalise normalize
defence defense|programme program|artefact artifact|judgement judgment|utilise utilize
centralised centralized|specialised specialized|generalised generalized|standardised standardized
"""

# A phrase and another that says the same in any sentence of this kind.
PHRASES = """
in order to>to|due to>because of|for example,>for instance,|for instance,>for example,|prior to>before|is able to>can
are able to>can|does not>doesn't|do not>don't|is not>isn't|are not>aren't|will not>won't|did not>didn't
each time you>whenever you|every time you>whenever you|each time the>whenever the|every time the>whenever the
as soon as the>once the|as soon as you>once you|as soon as it>once it|you need to>you have to|we need to>we have to
they need to>they have to|make sure that>ensure that|make sure you>ensure you|make sure the>ensure the
a lot of>plenty of|it is possible to>you can|at the moment>currently|such as>like|due to the fact that>because
in addition to>besides|take note that>observe that|note that>observe that|would not>wouldn't
should not>shouldn't|has not>hasn't|have not>haven't|was not>wasn't|in spite of>despite|at present>currently
in the same way>likewise|in this way>thus|in particular>specifically|a large number of>many
a variety of>various|take into account>consider|whether or not>whether
"""
DROPPABLE = _cut("""
simply very really actually basically please indeed also
""")

# Nouns so general, or so often part of a fixed phrase, that another in their place may say the same or nothing.
VAGUE = _cut("""
case cases way ways kind kinds sort sorts example examples fact number numbers thing things point points part parts
use uses order place time times purpose purposes result results matter reason reasons term terms addition respect
account sake form forms type types instance manner means course while lot need sense end place effect detail details
section sections chapter book page document note information something anything nothing everything someone anyone
everyone person people one ones set sets area value bit piece amount
""")
