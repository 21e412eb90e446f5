"""The crates that are linked into the binary for a target."""

import json
import subprocess


def linked_crates(target):
    """The metadata of each, sorted, and that of the binary's own package."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    # Without build and test dependencies.
    linked, todo = set(), [root]
    while todo:
        node = todo.pop()
        if node not in linked:
            linked.add(node)
            deps = nodes[node]["deps"]
            todo += [dep["pkg"] for dep in deps if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    crates = [packages[node] for node in linked - {root}]
    return sorted(crates, key=lambda package: (package["name"], package["version"])), packages[root]
