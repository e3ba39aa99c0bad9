"""Words and signs of answers: units, numerals, functions, operators and relations."""

# Units in lower case, and Chinese units and measure words.
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
# Units only if set upright or in capitals; otherwise these are products of variables.
UNITS_LIKE_PRODUCTS = frozenset("nm rs pa kj kw".split())
# Single letters that are units if set upright.
LETTER_UNITS = frozenset("mgshtlLNJWVAKCF")
UNIT_MODIFIERS = frozenset(("sq", "square", "cubic"))
UNIT_POWERS = frozenset(("squared", "cubed"))
# Plurals without -s that may follow a count, and plurals with -s that may not, since they are
# numbers themselves or change the value.
COUNTED_NOUNS = frozenset(("people", "children", "men", "women", "mice", "dice"))
NUMBER_NOUNS = frozenset(
  """
  halves quarters thirds ones twos threes fours fives sixes sevens eights nines tens dozens pairs
  couples scores hundreds thousands times plus minus less always zeros zeroes singles doubles
  triples quadruples lakhs crores myriads grosses decades centuries negatives positives inverses
  reciprocals evens odds lefts rights ups downs heads tails wins losses gains
  """.split()
)
NUMBER_NOUN_ENDINGS = ("ths", "ss", "us", "is", "wards", "wise", "illions", "ties", "fold")

SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_ONES = "zero one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
# English numerals up to ninety-nine, with spaces for hyphens -> digits.
NUMBER_WORDS = {word: str(number) for number, word in enumerate(_ONES + _TEENS)} | {
  f"{word} {_ONES[ones]}" if ones else word: str(10 * tens + ones)
  for tens, word in enumerate(_TENS, start=2)
  for ones in range(10)
}

# Labels of three letters in front of an equals sign. Longer words are always labels, other short
# ones are products of variables.
SHORT_LABELS = frozenset("sum age avg max min gcd lcm".split())
FUNCTIONS = frozenset(
  "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp".split()
)
LOGARITHMS = frozenset(("log", "ln", "lg", "exp"))
RECIPROCALS = {"sec": "cos", "csc": "sin", "cot": "tan"}
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
# Letters that name functions, whatever is in the brackets after them: f(x + 1), P(X = 3).
FUNCTION_LETTERS = frozenset("fghEFGP")
# Combinations C(5, 2), permutations A and P, Ramsey numbers R and Stirling numbers S; distributions
# such as N(0, 1).
COMBINATORIAL_LETTERS = frozenset("ACPRS")
DISTRIBUTION_LETTERS = frozenset("BNU")
SYMBOLS = frozenset(
  """
  alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho
  sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega
  pi ell hbar
  """.split()
)
# Commands that form one name with their argument: \angle ABC.
NAME_COMMANDS = frozenset(
  (r"\angle", r"\triangle", r"\odot", r"\square", r"\widehat", r"\overarc", r"\overline")
  + (r"\overrightarrow", r"\vec", r"\hat", r"\bar", r"\mathbb")
)

# Relation signs -> their usual form.
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
# Inequality signs -> their usual form, for answers that are compared as text.
INEQUALITIES = {sign: usual for sign, usual in RELATIONS.items() if usual[0] in "<>!"}
# Inequality signs -> the sign for exchanged sides.
FLIPPED = {">": "<", ">=": "<="}

ALTERNATIVES = frozenset(("or", "或", "或者"))
CONJUNCTIONS = frozenset(("and", "和", "与", "及", "且", "并且"))
SEPARATORS = frozenset((",", ";")) | ALTERNATIVES | CONJUNCTIONS
TIMES_SIGNS = frozenset(("*", r"\times", r"\cdot", r"\ast"))
DIVISION_SIGNS = frozenset(("/", r"\div"))
SIGNS = frozenset(("+", "-", r"\pm"))
RATIO_SIGNS = frozenset((":", r"\colon"))
CLOSERS = frozenset((")", "]", r"\}", "}", "|", "&", r"\\", r"\end"))
# Tokens that end a product.
PRODUCT_ENDS = CLOSERS | SEPARATORS | SIGNS | RATIO_SIGNS | frozenset(RELATIONS) | {r"\cup"}
POSTFIXES = frozenset("!^_°") | {"**"}
MATRICES = frozenset(("matrix", "pmatrix", "bmatrix", "smallmatrix"))
CASES = frozenset(("cases", "dcases"))
