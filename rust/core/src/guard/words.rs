//! The guard's word lists: what may stand for what, what may be left out, and what never may. All written by hand.
//!
//! A line is one entry, words are parted by spaces, `_` is the space inside a phrase. Regular inflections (-s, -ed,
//! -ing) and the British spellings of -ize and -yze are made from these forms; `~` marks an irregular past. In doubt
//! a word is in no list: then a change of it is a conflict, which costs a model call, not a lesson.

use super::verdict::Difference::{self, Connective, Modality, Negation, Order, Quantifier};

/// A word of these on one side only, or one changed into another, is never harmless.
pub(super) const MARKED: &[(Difference, &str)] = &[
    (
        Negation,
        "non not no never without unless neither nor none nothing nobody nowhere no_one hardly barely scarcely rarely \
         seldom except except_for excluding lacking avoid stop refuse skip cease forbid prohibit prevent instead_of \
         rather_than in_place_of other_than no_longer not_yet but_not unlike against far_from refrain_from steer_clear_of \
         disallow unable impossible free_of",
    ),
    (
        Quantifier,
        "all some any each every both either most many few a_few several only always usually often sometimes \
         occasionally generally typically normally mostly frequently entire whole partial partially partly half enough \
         much little a_little exactly precisely approximately roughly about around nearly almost exclusively solely merely just even \
         also another other others single multiple once twice thrice double triple numerous again too alone at_all \
         everything everyone everybody everywhere something someone somebody somewhere anything anyone anybody anywhere \
         invariably ever a_lot_of lots_of plenty_of each_and_every a_couple_of a_pair_of per same so such",
    ),
    (
        Modality,
        "must may might can could should shall will would ought ought_to have_to need_to has_to needs_to required_to \
         allowed_to able_to free_to optional optionally mandatory possibly perhaps maybe probably likely unlikely certainly \
         definitely try attempt consider prefer",
    ),
    (
        Order,
        "first last next previous before after then finally earlier later initially eventually lastly firstly second third \
         fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth \
         seventeenth eighteenth nineteenth twentieth top bottom left right up down above below over under minimum maximum \
         min max minimal maximal least at_least at_most up_to more less fewer more_than less_than greater_than larger_than smaller_than \
         fewer_than no_more_than no_less_than no_fewer_than ascending descending increasing decreasing higher lower \
         highest lowest largest smallest biggest longest shortest greater greatest best worst better worse prior_to reverse \
         reversed forward backward inside outside between beyond within during preceding following prior subsequent \
         subsequently afterwards afterward ahead_of behind immediately mean median average inclusive exclusive \
         simultaneously sequentially until till since",
    ),
    (
        Connective,
        "and or but if when whenever while because although though whether than since so therefore thus hence however \
         nevertheless iff only_if if_and_only_if even_if even_though as_soon_as as_long_as as_well_as in_addition_to \
         due_to because_of despite in_spite_of with in_case_of plus",
    ),
];

/// The words among [`MARKED`] whose coming or going alone turns the sense.
pub(super) const TURNING: &str = "non not no never without unless neither nor none nothing nobody nowhere no_one hardly barely scarcely rarely seldom \
     except except_for excluding lacking avoid stop refuse skip cease forbid prohibit prevent instead_of rather_than \
     in_place_of other_than no_longer not_yet but_not unlike unable impossible disallow refrain_from steer_clear_of only solely exclusively \
     merely half double twice thrice triple at_least at_most more_than less_than greater_than fewer_than larger_than \
     smaller_than no_more_than no_less_than no_fewer_than up_to";

/// Words of grammar: a change of one into another says something else, but contradicts only as an opposite.
pub(super) const GRAMMAR: &str = "a an the of for by as at in on to into onto from off out via per is are was were be been being am has have had \
     do does did done having that this these those there here which who whom whose what where how why let get upon \
     across along through throughout towards toward using e.g i.e in_order_to so_as_to";

/// Words and phrases that add nothing: they may stand or be missing where no neighbour gives them a sense.
pub(super) const FILLERS: &str = "a an the that then also very really quite simply actually basically please kindly indeed \
     carefully you are be_sure_to make_sure_to remember_to of_course note_that remember_that keep_in_mind_that \
     essentially";

/// The starts of words after which "that" only opens a clause: "ensure that", "so that", "given that".
pub(super) const BEFORE_THAT: &[&str] = &[
    "assum",
    "believ",
    "check",
    "conclud",
    "confirm",
    "ensur",
    "fact",
    "find",
    "given",
    "guarantee",
    "imply",
    "know",
    "make sure",
    "mean",
    "mind",
    "note",
    "notic",
    "observ",
    "prov",
    "remember",
    "requir",
    "say",
    "see",
    "show",
    "so",
    "stat",
    "such",
    "suppos",
    "sure",
    "think",
    "verif",
];

/// After these "you" names nobody but the reader: "when you solve" is "when solving".
pub(super) const BEFORE_YOU: &[&str] = &["after", "before", "if", "once", "when", "whenever", "while"];

/// A word that begins with one of these apart is not the same joined: "in complete", "a part", "all ready".
pub(super) const NOT_JOINED: &[&str] = &[
    "after", "al", "all", "an", "any", "as", "be", "before", "can", "down", "every", "for", "here", "how",
    "il", "im", "in", "ir", "may", "no", "not", "off", "on", "out", "over", "some", "there", "to", "un",
    "under", "up", "what", "where", "who", "with",
];

/// Before these, or after these, "a" is a name or a measure ("option a", "a second"), or changes the sense ("a few").
pub(super) const NAMED_BEFORE: &str = "option vitamin point class grade column node type step plan series team group variant version case set part \
     side letter variable matrix choice answer appendix section figure table hepatitis schedule event vertex user to \
     from and or between over than minus plus times by per once twice times";

/// See [`NAMED_BEFORE`].
pub(super) const MEASURED_AFTER: &str = "few little lot lots couple number bit second minute hour day week month year quarter half third fourth fifth \
     time times hundred thousand million dozen is are was were be to and or of from in on at by for with if when \
     then not no as than has have must should can may will plus minus equals";

/// Pairs that look like inflections of one word and are two.
pub(super) const NOT_INFLECTED: &[(&str, &str)] = &[
    ("arm", "arms"),
    ("base", "basing"),
    ("correct", "corrected"),
    ("custom", "customs"),
    ("direct", "directed"),
    ("even", "evened"),
    ("even", "evening"),
    ("even", "evens"),
    ("follow", "following"),
    ("following", "follows"),
    ("found", "founded"),
    ("glass", "glasses"),
    ("good", "goods"),
    ("interest", "interesting"),
    ("keras", "kera"),
    ("mean", "meaning"),
    ("mean", "means"),
    ("meaning", "means"),
    ("miss", "missing"),
    ("new", "news"),
    ("odd", "odds"),
    ("panda", "pandas"),
    ("part", "parting"),
    ("second", "seconds"),
    ("sign", "signed"),
    ("state", "united"),
    ("third", "thirds"),
    ("time", "timed"),
    ("time", "times"),
    ("time", "timing"),
    ("unit", "united"),
    ("weight", "weighted"),
    ("wound", "wounded"),
];

/// Stems in which British "our" is American "or".
pub(super) const OUR_STEMS: &[&str] = &[
    "arbour",
    "ardour",
    "armour",
    "behaviour",
    "candour",
    "clamour",
    "colour",
    "demeanour",
    "endeavour",
    "favour",
    "fervour",
    "flavour",
    "glamour",
    "harbour",
    "honour",
    "humour",
    "labour",
    "neighbour",
    "odour",
    "parlour",
    "rancour",
    "rigour",
    "rumour",
    "saviour",
    "savour",
    "splendour",
    "tumour",
    "valour",
    "vapour",
    "vigour",
];

/// Pieces at a word's start that are each other's mistyping only by chance.
pub(super) const PREFIXES: &[&str] = &[
    "ab", "ad", "an", "ante", "anti", "auto", "bi", "cent", "co", "com", "con", "de", "demi", "des", "di",
    "dis", "em", "en", "endo", "ex", "fore", "giga", "hemi", "hype", "hypo", "il", "im", "in", "ir", "kilo",
    "macr", "maxi", "mega", "meta", "micr", "mill", "mini", "mis", "mono", "nano", "non", "ob", "of", "on",
    "op", "out", "over", "para", "per", "peri", "pico", "poly", "pos", "post", "pre", "pro", "re", "semi",
    "sub", "sup", "sur", "tele", "tera", "un", "uni", "up",
];

/// Contractions written without their apostrophe.
pub(super) const BARE_CONTRACTIONS: &[(&str, &str)] = &[
    ("arent", "are"),
    ("cannot", "can"),
    ("cant", "can"),
    ("couldnt", "could"),
    ("didnt", "did"),
    ("doesnt", "does"),
    ("dont", "do"),
    ("hadnt", "had"),
    ("hasnt", "has"),
    ("havent", "have"),
    ("isnt", "is"),
    ("mustnt", "must"),
    ("shouldnt", "should"),
    ("wasnt", "was"),
    ("werent", "were"),
    ("wont", "will"),
    ("wouldnt", "would"),
];

/// The values of number words. Those from twenty on may be followed by a unit, and all by a power of ten.
pub(super) const NUMBERS: &[(&str, u64)] = &[
    ("eight", 8),
    ("eighteen", 18),
    ("eighty", 80),
    ("eleven", 11),
    ("fifteen", 15),
    ("fifty", 50),
    ("five", 5),
    ("forty", 40),
    ("four", 4),
    ("fourteen", 14),
    ("nine", 9),
    ("nineteen", 19),
    ("ninety", 90),
    ("one", 1),
    ("seven", 7),
    ("seventeen", 17),
    ("seventy", 70),
    ("six", 6),
    ("sixteen", 16),
    ("sixty", 60),
    ("ten", 10),
    ("thirteen", 13),
    ("thirty", 30),
    ("three", 3),
    ("twelve", 12),
    ("twenty", 20),
    ("two", 2),
    ("zero", 0),
];

/// The ordinals from the first to the twentieth, in order.
pub(super) const ORDINALS: &[&str] = &[
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
];
