#!/usr/bin/env python3
"""Makes the small schemas beside this file from definitions of custom resources as their projects publish them.

    deploy/crds/make.py DIRECTORY...

What is kept is what an object may look like: names and types of fields, what must be there, what may not be else. Words, defaults, states that only a
controller writes, and templates of pods (which are checked as Kubernetes' own kinds are) are left out. check.py holds our objects against them.
"""

import json
import pathlib
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parent
# The kinds that are used here; more than one version of a kind is kept only where the project serves several.
KINDS = {"Application", "AppProject", "Certificate", "ClusterIssuer", "PodMonitor", "PrometheusRule", "AnalysisTemplate", "Rollout", "SecretProviderClass"}
LEFT_OUT = {"description", "default", "example", "format", "title", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations"}
# A pod's template, by the fields that nothing else has together.
POD = {"containers", "initContainers", "nodeSelector"}


def small(schema):
    if isinstance(schema, list):
        return [small(it) for it in schema]
    if not isinstance(schema, dict):
        return schema
    if POD <= schema.get("properties", {}).keys():
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    kept = {}
    for key, value in schema.items():
        if key == "properties":
            kept[key] = {name: small(it) for name, it in value.items()}
        elif key not in LEFT_OUT:
            kept[key] = small(value)
    return kept


def main():
    for directory in map(pathlib.Path, sys.argv[1:]):
        for path in sorted(directory.glob("*.yaml")):
            for definition in yaml.safe_load_all(path.read_text()):
                spec = (definition or {}).get("spec", {})
                kind = spec.get("names", {}).get("kind")
                if kind not in KINDS:
                    continue
                versions = {}
                for version in spec["versions"]:
                    schema = small(version["schema"]["openAPIV3Schema"])
                    for written_by_controllers in ("status", "operation"):
                        schema["properties"].pop(written_by_controllers, None)
                    versions[version["name"]] = schema
                whole = {"group": spec["group"], "kind": kind, "versions": versions}
                (HERE / f"{kind.lower()}.json").write_text(json.dumps(whole, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
