"""The words that facts are about: a key is `<noun>_<suffix>`, such as `door_code`, and its value is four digits.

Each word is one token of the shipped tokenizer, so that a key costs two tokens and a value two more. One tenth
of the pairs is never used in training: recall is examined on keys that the model has not met.
"""

_NOUNS = """
door gate room desk lamp fan oven pump tank pipe valve motor wheel brake clock phone radio camera printer
router server modem cable switch panel meter sensor robot drone truck train plane boat ship bus taxi bike
car engine battery lock safe vault box shelf rack store shop bank hotel school lab clinic office garage
garden farm barn field pool lake river bridge tower tunnel road street park station port dock market museum
library cafe bar kitchen bath hall stair roof wall floor window fence yard mill mine well forest beach
island hill valley camp tent cabin house villa studio stage cinema arena track court team club band crew
guest driver pilot nurse doctor client vendor agent worker manager chef baker farmer tenant owner parcel
ticket order invoice project task event meeting course flight
"""
_SUFFIXES = """
code pin key id number count size rate speed limit level price cost fee tax weight height width depth length
area age year date hour minute delay power load force heat temp pressure voltage current charge volume flow
score rank grade index offset seed gear channel zone row seat slot lane batch serial model part total stock
quota margin budget credit balance target range step
"""

NOUNS = tuple(_NOUNS.split())
SUFFIXES = tuple(_SUFFIXES.split())


def held_out(noun: int, suffix: int) -> bool:
    """Whether a pair of word indices is kept out of training.

    Args:
        noun: Index into NOUNS.
        suffix: Index into SUFFIXES.

    Returns:
        True for one pair in ten; each word itself occurs in training with other partners.
    """
    return (3 * noun + 7 * suffix) % 10 == 0
