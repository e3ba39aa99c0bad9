"""The words and signs that answers are written with."""

# Units that may stand behind a number, in lower case, and Chinese words for what is counted.
UNITS = frozenset(
  """
  mm cm dm km nm um in inch inches ft foot feet yd yard yards mi mile miles
  millimeter millimeters centimeter centimeters meter meters metre metres kilometer kilometers
  mg kg gram grams lb lbs pound pounds oz ton tons ml liter liters litre litres
  kilogram kilograms cc ms sec secs second seconds min mins minute minutes hr hrs hour hours
  day days week weeks month months year years
  deg degs degree degrees rad rads radian radians unit units percent pct
  mph kph kmh kj kw pa kpa hz mol cal kcal ohm ohms cent cents dollar dollars usd rs yuan
  度 米 厘米 公分 毫米 分米 千米 公里 英寸 英尺 平方米 平方厘米 平方毫米 平方分米 平方千米
  立方米 立方厘米 克 毫克 千克 公斤 斤 吨 升 毫升 秒 分 分钟 小时 天 周 年 岁 元 美元
  个 只 条 张 本 块 颗 人 名 次 种 根 支 枝 棵 辆 件 份 页 台 座 间 头 匹 朵
  """.split()
)
# Bare, these are products of variables; they are units where they are set upright or in capitals.
LIKE_PRODUCTS = frozenset("nm rs pa kj kw".split())
# One letter is a unit where it is set upright.
LETTER_UNITS = frozenset("mgshtlLNJWVAKCF")
UNIT_MODIFIERS = frozenset(("sq", "square", "cubic"))
UNIT_POWERS = frozenset(("squared", "cubed"))
# What is counted, other than in a plural with s; and plurals that are numbers, or tell which way.
COUNTED = frozenset(("people", "children", "men", "women", "mice", "dice"))
QUANTITIES = frozenset(
  """
  halves quarters thirds ones twos threes fours fives sixes sevens eights nines tens dozens pairs
  couples scores hundreds thousands times plus minus less always zeros zeroes singles doubles
  triples quadruples lakhs crores myriads grosses decades centuries negatives positives inverses
  reciprocals evens odds lefts rights ups downs heads tails wins losses gains
  """.split()
)
QUANTITY_ENDINGS = ("ths", "ss", "us", "is", "wards", "wise", "illions", "ties", "fold")

SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_ONES = "zero one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
# Words of numbers up to ninety-nine, hyphens as blanks.
NUMBER_WORDS = {word: str(number) for number, word in enumerate(_ONES + _TEENS)} | {
  f"{ten} {_ONES[one]}" if one else ten: str(10 * tens + one)
  for tens, ten in enumerate(_TENS, start=2)
  for one in range(10)
}

# Words in front of an equals sign that are no products of letters; longer words never are.
SHORT_LABELS = frozenset("sum age avg max min gcd lcm".split())
FUNCTIONS = frozenset(
  "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp".split()
)
LOGARITHMS = frozenset(("log", "ln", "lg", "exp"))
RECIPROCALS = {"sec": "cos", "csc": "sin", "cot": "tan"}
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
# Letters that name functions whatever bracket follows: f(x + 1), P(X = 3).
APPLIED = frozenset("fghEFGP")
# Letters of selections, C(5, 2), of Ramsey and Stirling numbers, and of distributions, N(0, 1).
SELECTIONS = frozenset("ACPRS")
DISTRIBUTIONS = frozenset("BNU")
SYMBOLS = frozenset(
  """
  alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho
  sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega
  pi ell hbar
  """.split()
)
# Commands that, with what follows, name one thing.
NAMING = frozenset(
  (r"\angle", r"\triangle", r"\odot", r"\square", r"\widehat", r"\overarc", r"\overline")
  + (r"\overrightarrow", r"\vec", r"\hat", r"\bar", r"\mathbb")
)

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
# Signs of order, which are one sign however they are written.
ORDERS = {sign: one for sign, one in RELATIONS.items() if one[0] in "<>!"}
FLIPPED = {">": "<", ">=": "<="}

ALTERNATIVES = frozenset(("or", "或", "或者"))
CONJUNCTIONS = frozenset(("and", "和", "与", "及", "且", "并且"))
SEPARATORS = frozenset((",", ";")) | ALTERNATIVES | CONJUNCTIONS
TIMES = frozenset(("*", r"\times", r"\cdot", r"\ast"))
OVER = frozenset(("/", r"\div"))
SIGNS = frozenset(("+", "-", r"\pm"))
COLONS = frozenset((":", r"\colon"))
CLOSERS = frozenset((")", "]", r"\}", "}", "|", "&", r"\\", r"\end"))
# What ends a product.
ENDS = CLOSERS | SEPARATORS | SIGNS | COLONS | frozenset(RELATIONS) | {r"\cup"}
POSTFIXES = frozenset("!^_°") | {"**"}
MATRICES = frozenset(("matrix", "pmatrix", "bmatrix", "smallmatrix"))
CASES = frozenset(("cases", "dcases"))
