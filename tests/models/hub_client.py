"""Run in a process of its own, as huggingface_hub reads its variables when it is imported.

python -m tests.models.hub_client WHAT WORKDIR NAME [FIELD=VALUE ...]
"""

import json
import sys

from sejax import config as config_lib
from sejax import storage, train


def main() -> None:
  """Does what is asked, and prints what came of it as JSON."""
  what, workdir, name, *changes = sys.argv[1:]
  workdir = storage.Path(workdir)
  if what == "push":
    print(json.dumps(train._push(workdir, 18, name)))
    return
  config = config_lib.default()
  config.update_from_flattened_dict(dict(change.split("=", 1) for change in changes))
  config_lib.keep_revisions(config, workdir)
  local = config_lib.with_local_inputs(config, [name])
  config_lib.save(config_lib.with_revisions(config, local), workdir)
  section, field = name.split(".")
  found = {"path": local[section][field], "revision": local[section].revision}
  print(json.dumps(found | {"name": local.data.name}))


if __name__ == "__main__":
  main()
