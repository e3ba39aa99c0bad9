"""The words and signs that answers are written with."""

# Units that may stand behind a number, in lower case.
UNITS = frozenset(
  """
  mm cm dm km nm um in inch inches ft foot feet yd yard yards mi mile miles
  millimeter millimeters centimeter centimeters meter meters metre metres kilometer kilometers
  mg kg gram grams lb lbs pound pounds oz ton tons ml liter liters litre litres
  ms sec secs second seconds min mins minute minutes hr hrs hour hours
  day days week weeks month months year years
  deg degs degree degrees rad rads radian radians unit units percent
  mph kph kmh kj kw pa kpa hz mol cal kcal ohm ohms cent cents dollar dollars usd rs
  """.split()
)
# One letter is a unit where it is set upright; bare, only the metre, behind a blank: 5 m.
LETTER_UNITS = frozenset("mgshtlLNJWVAKCF")
UNIT_MODIFIERS = frozenset(("sq", "square", "cubic"))
UNIT_POWERS = frozenset(("squared", "cubed"))

SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
NUMBER_WORDS = {
  word: str(number)
  for number, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve".split()
  )
}

FUNCTIONS = frozenset(
  "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp".split()
)
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
# Letters that name functions or points when a bracket follows: f(2), P(X = 3).
APPLIED = frozenset("fghFGP")
SYMBOLS = frozenset(
  """
  alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho
  sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega
  pi ell hbar
  """.split()
)
# Commands that, with what follows, name one thing.
NAMING = frozenset((r"\angle", r"\triangle", r"\odot", r"\square", r"\widehat", r"\overarc"))

RELATIONS = {
  "=": "=",
  r"\approx": "~",
  r"\equiv": "=",
  r"\ne": "!=",
  r"\neq": "!=",
  r"\in": "in",
  "<": "<",
  r"\lt": "<",
  r"\le": "<=",
  r"\leq": "<=",
  r"\leqslant": "<=",
  ">": ">",
  r"\gt": ">",
  r"\ge": ">=",
  r"\geq": ">=",
  r"\geqslant": ">=",
}
FLIPPED = {">": "<", ">=": "<="}

SEPARATORS = frozenset((",", ";", "and", "or"))
TIMES = frozenset(("*", r"\times", r"\cdot", r"\ast"))
OVER = frozenset(("/", r"\div"))
SIGNS = frozenset(("+", "-", r"\pm"))
COLONS = frozenset((":", r"\colon"))
CLOSERS = frozenset((")", "]", r"\}", "}", "|", "&", r"\\", r"\end"))
# What ends a product.
ENDS = CLOSERS | SEPARATORS | SIGNS | COLONS | frozenset(RELATIONS) | {r"\cup"}
POSTFIXES = frozenset("!^%_")
MATRICES = frozenset(("matrix", "pmatrix", "bmatrix"))
