"""The words and signs that answers are written with."""

# Units that may stand bare behind a number. One letter counts only after a blank: 5 m is a length,
# 5m a product.
UNITS = frozenset(
  """
  mm cm dm m km nm um in inch inches ft foot feet yd yard yards mi mile miles
  mg g kg lb lbs oz t ton tons ml mL l L liter liters litre litres
  ms s sec secs second seconds min mins minute minutes h hr hrs hour hours
  day days week weeks month months year years
  deg degs degree degrees rad rads radian radians unit units sq square squared cubic cubed percent
  mph kph kmh N J kJ W kW V A K Pa kPa Hz mol cal kcal C F ohm ohms
  cent cents dollar dollars usd USD rs Rs
  """.split()
)
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
FUNCTIONS = frozenset(
  "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp".split()
)
# Words behind a number that are no unit: "3 out of 5" is not 3, "10% less" is not "10% more".
NO_UNITS = (
  FUNCTIONS
  | SCALES.keys()
  | set(
    """
  pi sqrt of out to than tenths hundredths thousandths half halves thirds quarters
  more less fewer greater smaller larger increase decrease increased decreased gain loss profit
  left right up down above below before after ago later early late ahead behind
  north south east west clockwise counterclockwise anticlockwise positive negative
  """.split()
  )
)
NUMBER_WORDS = {
  word: str(number)
  for number, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve".split()
  )
}

RELATIONS = {
  "=": "=",
  r"\approx": "=",
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
MATRICES = frozenset(("matrix", "pmatrix", "bmatrix", "vmatrix"))
