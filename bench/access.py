"""What it costs to know who asks."""

from typing import Final

from bench import load
from bench.figures import Figure, Goal, Section, alternate, median
from bench.load import Load
from bench.plan import Plan
from bench.service import Service
from daemon.access.token_file import Key, Token, Tokens, change_tokens, token_file_of
from daemon.access.token_text import make
from daemon.model.grant import Grant

TITLE: Final = "Uploads with tokens"
METHOD: Final = """\
`POST /upload` of 1 KiB over 16 keep-alive connections, as above, to three services that take turns: one to which nobody
shows a token, one with 10 tokens, and one with 10,000. The token that is shown has globs for instances and paths.
"""
INSTANCES: Final = [f"access-{number}" for number in range(8)]
#: How many tokens the services have.
NUMBERS: Final = (0, 10, 10_000)


def run(plan: Plan) -> Section:
    """Measure it."""
    services = [Service(plan.directory(f"access-{number}"), target="directory") for number in NUMBERS]
    try:
        shown = [_make_tokens(service, number) for service, number in zip(services, NUMBERS, strict=True)]
        for service in services:
            service.start_api()

        def loaded(at: int) -> Load:
            return load.run(services[at].port, seconds=plan.load_s, instances=INSTANCES, token=shown[at])

        found = alternate(plan.rounds, {
            "none": lambda: loaded(0), "few": lambda: loaded(1), "many": lambda: loaded(2)})
    finally:
        for service in services:
            service.stop()
    rates = {name: median([one.rate for one in some]) for name, some in found.items()}
    return Section(title=TITLE, method=METHOD, figures=[
        Figure(what="accepted with one of 10,000 tokens", value=rates["many"], unit="/s", peer="with one of 10",
               peer_value=rates["few"], goals=[Goal("ratio", ">=", 0.95)]),
        Figure(what="accepted with one of 10 tokens", value=rates["few"], unit="/s", peer="without tokens",
               peer_value=rates["none"]),
    ])


def _make_tokens(service: Service, number: int) -> str:
    """Give a service so many tokens; return the text of one in the middle, or nothing."""
    if not number:
        return ""
    file = token_file_of(service.config)
    assert file is not None  # it belongs to a configuration file
    made = [make() for _ in range(number)]
    grant = Grant.read({"may": ["upload"], "instances": ["web-*", "access-*"], "paths": ["/srv/**", "/*"]})
    tokens = tuple(Token(name=f"bench-{at}", keys=(Key(id=one.key_id, sha256=one.sha256, made_at=0.0),), grant=grant,
                         made_at=0.0) for at, one in enumerate(made))
    change_tokens(file, lambda _: Tokens(tokens))
    return made[number // 2].text
