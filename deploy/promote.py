#!/usr/bin/env python3
"""Puts the digests of the images into an environment: into its overlay, and into its values of the chart.

    deploy/promote.py staging --registry ghcr.io/orchestrator --control sha256:… --probe sha256:… --agent sha256:…

Only those lines change, so that a review shows what really changes. Needs nothing but Python.
"""

import argparse
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
ENVIRONMENTS = ("dev", "staging", "prod")


def digest(text):
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no digest: sha256: and 64 of 0-9a-f")
    return text


def overlay(text, registry, digests):
    """An overlay whose images are these."""
    for component, value in digests.items():
        entry = f"  - name: orchestrator-{component}\n    newName: {registry}/orchestrator-{component}\n    digest: {value}\n"
        text, count = re.subn(rf"  - name: orchestrator-{component}\n(?:    \w+: .*\n)*", entry, text)
        if count != 1:
            sys.exit(f"the overlay names the image orchestrator-{component} {count} times")
    return text


def values(text, registry, digests):
    """Values whose images are these; what else stands there stays."""
    lines = {it: f"  {it}: {{name: {registry}/orchestrator-{it}, tag: \"\", digest: \"{value}\"}}\n" for it, value in digests.items()}
    if not re.search(r"^images:\n", text, re.M):
        text = re.sub(r"^\{\}\n", "", text, flags=re.M) + "images:\n" + "".join(lines.values())
        return text
    for component, line in lines.items():
        text, count = re.subn(rf"^  {component}: \{{.*\}}\n", line, text, flags=re.M)
        if not count:
            text = re.sub(r"^images:\n", "images:\n" + line, text, flags=re.M)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", choices=ENVIRONMENTS)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--control", type=digest, required=True)
    parser.add_argument("--probe", type=digest, required=True)
    parser.add_argument("--agent", type=digest, required=True)
    parser.add_argument("--chart-defaults", action="store_true", help="the chart's own values instead of an environment's: for publishing it")
    parser.add_argument("--in", dest="root", type=pathlib.Path, default=HERE, help="another copy of this directory")
    options = parser.parse_args()
    digests = {"control": options.control, "probe": options.probe, "agent": options.agent}
    chart = options.root / "helm/orchestrator"
    if options.chart_defaults:
        changed = {chart / "values.yaml": values}
    else:
        changed = {options.root / f"k8s/overlays/{options.environment}/kustomization.yaml": overlay, chart / f"values-{options.environment}.yaml": values}
    for path, change in changed.items():
        path.write_text(change(path.read_text(), options.registry, digests))


if __name__ == "__main__":
    main()
