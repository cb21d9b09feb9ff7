"""The command `push`: what was typed, carried out."""

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from client.push.plan import STDIN, PushOptions, PushPlan, plan
from client.push.record import ResumeRecord, state_directory
from client.push.report import JsonReporter, Reporter, TextReporter
from client.push.run import PushCourse, PushRun, refuse, would_be_sent
from client.push.sending import PushOrder
from client.push.target import PushTarget, parse_target
from client.server import ChosenServer, ServerOptions, find_server
from daemon.errors import Rejected
from daemon.model.names import check_project
from daemon.process.exit_status import Misused


@dataclass(frozen=True, kw_only=True)
class PushSettings:
    """What was typed about how it is done."""

    project: str | None
    wait: bool
    timeout_s: float | None
    jobs: int
    retry_for_s: float
    dry_run: bool
    as_json: bool
    quiet: bool


def push(words: Sequence[str], options: PushOptions, settings: PushSettings, server: ServerOptions) -> int:
    """Send files into an instance; the last word is the destination. Returns the exit code."""
    if settings.timeout_s is not None and not settings.wait:
        raise Misused("--timeout goes with --wait.")
    if settings.project is not None:
        try:
            check_project(settings.project)
        except Rejected as error:
            raise Misused(error.detail) from None
    target = parse_target(words[-1])
    chosen = find_server(server, os.environ)
    made = plan(words[:-1], target, options)
    if made.wrong:
        return refuse(made, _reporter(target, made, settings, bars=False))
    if settings.dry_run:
        return would_be_sent(made, _reporter(target, made, settings, bars=False))
    chosen.warn_of_readers()
    return _run(made, target, options, settings, chosen)


def _run(
    made: PushPlan, target: PushTarget, options: PushOptions, settings: PushSettings, chosen: ChosenServer,
) -> int:
    scope = "\n".join((chosen.address.name, target.instance, settings.project or ""))
    order = PushOrder(
        server=chosen, instance=target.instance, project=settings.project, mkdirs=options.makes_directories,
        uid=options.uid, gid=options.gid, record=ResumeRecord(state_directory(os.environ), scope), scope=scope,
        retry_for_s=settings.retry_for_s, stop=threading.Event(), reached=threading.Event())
    course = PushCourse(jobs=settings.jobs, wait=settings.wait, timeout_s=settings.timeout_s)
    reporter = _reporter(target, made, settings, bars=True)
    return PushRun(made, order, chosen, course, reporter).run()


def _reporter(target: PushTarget, made: PushPlan, settings: PushSettings, *, bars: bool) -> Reporter:
    if settings.as_json or not (sys.stdout.isatty() or settings.quiet):
        return JsonReporter(target.instance)
    # What reads from a terminal and draws on it at once would be in its own way.
    from_terminal = any(file.source == STDIN for file in made.files) and sys.stdin.isatty()
    if settings.quiet or from_terminal or not bars or not made.files:
        return TextReporter(target.instance, quiet=settings.quiet)
    from client.push.terminal import TerminalReporter

    return TerminalReporter(target.instance, made.files, wait=settings.wait)
