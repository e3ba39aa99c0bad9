"""Text processing on the host: prompts, answers, verdicts, and the exact comparison of answers.

- `prompts`, `messages`: what the Actor and the Judge are asked.
- `answers`, `boxes`, `verdicts`: reading trajectories and the Judge's replies.
- `canonical`: equality of answers for votes.
- `equivalence`, with `rounding`, `sentences` and `math_worker`: grading against gold answers.
- Parsing an answer, from text to value: `phrases`, `latex`, `numerals` (text to tokens);
  `token_stream`, `unit_parser`, `arithmetic_parser`, `answer_parser`, each a subclass of the one
  before, and `vocabulary` (tokens to value); `values`, `algebra`, `equations`, `variable_names`,
  `list_items` (values).
- `terminal`: output that no terminal breaks.
"""
