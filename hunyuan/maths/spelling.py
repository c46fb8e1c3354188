"""Words of mathematics that were misspelt: ``simplfy``, ``diffrentiate``, ``determinent``."""

import re

WORDS = """
    absolute angle antiderivative approaches area arithmetic arrange arrangements average
    between
    binomial calculate choose circle circumference coefficient combinations complex compound compute
    conjugate convert correlation cosine cube cubed cylinder decimal definite degrees denominator
    derivative derivatives determinant deviation diameter difference differentiate distance divided
    divisor eigenvalue eigenvalues eigenvectors equation equations evaluate expand expected
    expression factor factorial factorise factorization factorize factors formula fourth fraction
    function geometric graph greatest hypotenuse imaginary improper increase indefinite inequality
    infinity integral integrate interest inverse kilometers laplace largest least length limit
    linear loan logarithm maclaurin matrix maximum mean median minimum minus modulo modulus monthly
    multiple multiplied multiply normal number numbers partial payment percent percentage percentile
    perimeter permutations plot polynomial population prime principal probability product pythagoras
    pythagorean quadratic quartiles quotient radius radical rank rationalize rectangle regression
    remainder respect roots sample second series simplify simplified slope solution solutions solve
    sphere square squared standard statistics substitute subtract sum surface system tangent taylor
    theorem third transpose trapezoid triangle values variance variable volume weighted
    """
VOCABULARY = frozenset(WORDS.split())
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{5,16}(?![A-Za-z(])")


def corrected(text: str) -> str:
    """The text with every word that is one slip away from exactly one word of mathematics mended.

    A slip is a letter too many, too few, wrong, or two exchanged; long words may have two.
    """
    return WORD.sub(lambda found: _mended(found[0]), text)


def _mended(word: str) -> str:
    lowered = word.lower()
    if lowered in VOCABULARY or lowered.rstrip("s") in VOCABULARY:
        return word
    near = _slips(lowered) & VOCABULARY
    if not near and len(word) >= 8:
        near = {
            known
            for known in VOCABULARY
            if abs(len(known) - len(word)) <= 2
            and known[0] == lowered[0]
            and _slips(known) & _slips(lowered)
        }
    return near.pop() if len(near) == 1 else word


def _slips(word: str) -> set[str]:
    halves = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    fewer = {a + b[1:] for a, b in halves if b}
    swapped = {a + b[1] + b[0] + b[2:] for a, b in halves if len(b) > 1}
    changed = {a + c + b[1:] for a, b in halves if b for c in ALPHABET}
    more = {a + c + b for a, b in halves for c in ALPHABET}
    return fewer | swapped | changed | more
