"""Run in a process of its own, as huggingface_hub reads its variables when it is imported.

python -m tests.models.hub_client WHAT WORKDIR NAME [FIELD=VALUE ...]
"""

import json
import sys

from sejax import config as config_lib
from sejax import storage, train
from sejax.models import hub


def main() -> None:
  """Does what is asked, and prints what came of it as JSON."""
  what, workdir, name, *changes = sys.argv[1:]
  workdir = storage.Path(workdir)
  if what == "push":
    address = hub.create(name, train._PUBLISHED)
    train._push(workdir, 18, name)
    print(json.dumps(address))
    return
  config = config_lib.default()
  config.update_from_flattened_dict(dict(change.split("=", 1) for change in changes))
  config_lib.save_if_new(config, workdir)
  commits = config_lib.commits(workdir)
  local = config_lib.with_local_inputs(config, [name], commits)
  config_lib.save_commits(commits, workdir)
  section, field = name.split(".")
  commit = commits[hub.key(config[section][field], config[section].revision, "dataset")]
  found = {"path": local[section][field], "revision": commit}
  print(json.dumps(found | {"name": local.data.name}))


if __name__ == "__main__":
  main()
