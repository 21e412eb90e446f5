"""Writes the bill of materials of the binary for a target, in CycloneDX: python3 bill.py TARGET OUT."""

import json
import pathlib
import re
import sys

from crates import linked_crates

MODELS = pathlib.Path("models")


def component(package):
    known = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{package['name']}@{package['version']}",
        "name": package["name"],
        "version": package["version"],
        "purl": f"pkg:cargo/{package['name']}@{package['version']}",
    }
    if package["license"]:
        known["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return known


def main(target, out):
    linked, own = linked_crates(target)
    runtime = re.search(r'VERSION: &str = "(.*)"', pathlib.Path("build.rs").read_text())[1]
    components = [component(package) for package in linked]
    components.append({
        "type": "library",
        "bom-ref": f"onnxruntime@{runtime}",
        "name": "onnxruntime",
        "version": runtime,
        "purl": f"pkg:github/microsoft/onnxruntime@v{runtime}",
        "licenses": [{"expression": "MIT"}],
    })
    for manifest in sorted(MODELS.glob("*/model.toml")):
        name = manifest.parent.name
        components.append({"type": "machine-learning-model", "bom-ref": f"model/{name}", "name": name})
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**component(own), "type": "application"}},
        "components": components,
    }
    path = pathlib.Path(out) / f"eddy-{own['version']}-{target}.cdx.json"
    path.write_text(json.dumps(bill, indent=1) + "\n")
    print(path)


main(*sys.argv[1:])
