"""The command line. The report goes to the standard output, progress and errors to the standard error."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from operate import stacks
from verify.clients import Clients
from verify.deployment import Deployment
from verify.failures import Stopped, explained
from verify.mirroring import Mirroring
from verify.probes import Probes
from verify.report import Report
from verify.workspace import Workspace


def main(arguments: Sequence[str] | None = None) -> int:
    """Proves a stack. Returns 0 if everything is as it should be, else 1. Exits if there is nothing to prove."""
    options = _options(arguments)
    report = Report()
    with stacks.errors_in_one_line(), _terminated_as_interrupted():
        try:
            session = stacks.open_session()
            deployment = Deployment.find(session, options.stack)
            with closing(Clients(session)) as clients:
                _prove(options, clients, deployment, report)
        except KeyboardInterrupt:
            report.say("Interrupted.")
            return 1
        except Stopped as reason:
            sys.exit(str(reason))
    print(report.markdown(deployment))
    return 0 if report.passed else 1


def _prove(options: argparse.Namespace, clients: Clients, deployment: Deployment, report: Report) -> None:
    workspace = Workspace(clients, deployment)
    mirroring = Mirroring(clients, workspace, report, options.timeout)
    phases = [mirroring.run]
    if options.probe:
        phases.append(Probes(workspace, report, options.large_mib * 1024 * 1024).run)
    try:
        for phase in phases:
            try:
                phase()
            except (Stopped, ClientError, BotoCoreError) as error:
                report.check("the proof goes through", explained(error), holds=False)
    finally:
        with _uninterrupted():
            _clean_up(workspace, report, keep=options.keep)


def _clean_up(workspace: Workspace, report: Report, *, keep: bool) -> None:
    where = f"s3://{workspace.deployment.bucket}/{workspace.folder}"
    if keep:
        report.say(f"kept {where} and the repositories {workspace.repository_name}*: delete them yourself")
        return
    report.say("deleting what was made, which may take a minute")
    left = workspace.delete()
    report.check(
        "nothing is left behind", "; ".join(left) or f"{where} and its repositories are deleted", holds=not left
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m verify", description="Proves that a deployed stack works.")
    stack = stacks.stack_name()
    parser.add_argument("--stack", default=stack, help=f"the stack's name in CloudFormation ({stack})")
    parser.add_argument("--probe", action="store_true", help="ask ECR, too, what the function assumes of it")
    parser.add_argument("--keep", action="store_true", help="delete nothing at the end")
    parser.add_argument("--timeout", type=float, default=300, help="how many seconds the stack may take (300)")
    parser.add_argument(
        "--large-mib", type=int, default=1024, help="the size of the largest layer to probe with (1024)"
    )
    return parser.parse_args(arguments)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treats the request to end, by which systems stop a process, as Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignores Ctrl-C and the request to end, or what was made would be left behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
