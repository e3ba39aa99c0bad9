"""Times how long a first look takes: importing sejax, its help, and the refusal of a mistake.

python experiments/speed/start.py

Each command is a process of its own, run once to warm the disk's cache, and then the best of five.
"""

import json
import subprocess
import sys
import time

COMMANDS = {
  "import": ["-c", "import sejax"],
  "help": ["-m", "sejax.main", "--help"],
  "mistake": ["-m", "sejax.main", "--config=configs/tiny.py", "--workdir=runs/x", "--config.a=1"],
  "jax_alone": ["-c", "import jax"],
}
REPETITIONS = 5


def best(arguments: list[str]) -> float:
  """Returns the shortest time of a command, in seconds."""
  times = []
  for _ in range(1 + REPETITIONS):
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    times.append(time.perf_counter() - start)
  return min(times[1:])


def main() -> None:
  """Prints a JSON line."""
  print(json.dumps({name: round(best(arguments), 3) for name, arguments in COMMANDS.items()}))


if __name__ == "__main__":
  main()
