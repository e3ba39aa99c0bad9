"""Model families: parameter trees and pure functions over them."""

import os

# Else transformers says at each start that it has no PyTorch, which nothing here needs.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
