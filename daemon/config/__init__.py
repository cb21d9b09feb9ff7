"""The configuration: one table of keys, read from a TOML file and the environment, checked before anything starts.

`config.toml` documents the same keys for people; a test keeps the two alike. The environment variable
`INCUS_COURIER__SECTION__KEY` overrides a key of the file. An unknown key or a bad value stops the start.
"""

import os
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from daemon.config import environment as variables
from daemon.config import validators as values
from daemon.errors import CannotStart
from daemon.model.grant import KEYS, Grant
from daemon.model.task import State
from daemon.model.upload import MAX_ID

#: Where an installed service has its configuration.
INSTALLED_FILE: Final = Path("/etc/incus-courier/config.toml")
#: Names the configuration file when --config does not.
FILE_VARIABLE: Final = "INCUS_COURIER_CONFIG"
ENV_PREFIX: Final = variables.PREFIX
#: Where systemd puts the credentials of a service (LoadCredential=).
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
#: The name of the remote that [incus] describes.
LOCAL: Final = values.LOCAL
#: The file that `load` is reading, for the one who asks: a class for each file would cost more than all of the rest.
_SOURCE: ContextVar[Path | None] = ContextVar("_SOURCE", default=None)

Octal = Annotated[str, AfterValidator(values.octal)]
Address = Annotated[str, AfterValidator(values.address)]
Host = Annotated[str, AfterValidator(values.host)]
Endpoint = Annotated[str | tuple[str, ...], AfterValidator(values.endpoint)]
Origin = Annotated[str, AfterValidator(values.origin)]
Fingerprint = Annotated[str, AfterValidator(values.fingerprint)]
TrustedProxy = Annotated[str, AfterValidator(values.trusted_proxy)]
HeaderName = Annotated[str, AfterValidator(values.header_name)]
HostName = Annotated[str, AfterValidator(values.name_or_none)]
HolderName = Annotated[str, AfterValidator(values.holder_name)]
OwnCellName = Annotated[str, AfterValidator(values.name_or_none)]
AccountName = Annotated[str, AfterValidator(values.account)]
NameGlob = Annotated[str, AfterValidator(values.name_glob)]
PathGlob = Annotated[str, AfterValidator(values.path_glob)]
Ids = Annotated[str, AfterValidator(values.ids)]
Project = Annotated[str, AfterValidator(values.project)]
RemoteName = Annotated[str, AfterValidator(values.remote_name)]
WebhookUrl = Annotated[str, AfterValidator(values.webhook_url)]
WebhookSecret = Annotated[str, AfterValidator(values.webhook_secret)]
Network = Annotated[str, AfterValidator(values.network)]
StateLabel = Annotated[str, AfterValidator(values.state_label)]
Uid = Annotated[int, Field(ge=0, le=MAX_ID)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Wait = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0)]


#: Marks a key whose change needs a restart; all others change while the service runs.
RESTART: Final = "restart"
#: As many processes of the API as are of use: more of them wait for the same disk, and each takes some 70 MiB.
MOST_PROCESSES: Final = 4


def _credential(path: str) -> str:
    directory = os.environ.get(CREDENTIALS)
    return path.replace(f"${CREDENTIALS}", directory, 1) if directory and path.startswith("$") else path


class Section(BaseModel):
    """A section of the configuration: values never change after the start, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("must not be true or false")
        return value


class Api(Section):
    """[api]: the front door."""

    listen: Annotated[list[Address], RESTART] = Field(default=["127.0.0.1:8420"], min_length=1)
    hosts: list[Host] = []
    origins: list[Origin] = []
    cors_origins: list[Origin] = []
    anonymous: Literal["auto", "none", "all"] = "auto"
    processes: Annotated[int, RESTART] = Field(default=0, ge=0, le=64)
    drain_s: Seconds = 60.0
    allow_anonymous: Annotated[bool, RESTART] = False
    body_timeout_s: Wait = 30.0
    min_rate_bytes_s: Bytes = 1024
    keep_alive_s: Wait = 75.0
    max_connections: int = Field(default=512, ge=1, le=65536)
    max_wait_s: int = Field(default=45, ge=0, le=3600)
    ui: bool = True

    @property
    def process_count(self) -> int:
        """How many processes that makes: with 0 one for each core that this process may use, and not too many."""
        return self.processes or min(len(os.sched_getaffinity(0)), MOST_PROCESSES)


class Tls(Section):
    """[tls]: the certificate of the addresses that begin with tls:, and who signed those of clients."""

    certificate: str = ""
    key: str = ""
    client_ca: str = ""

    @model_validator(mode="after")
    def _certificate_and_key_go_together(self) -> "Tls":
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together")
        return self

    def file(self, path: str) -> str:
        """A configured path to a certificate or key, with $CREDENTIALS_DIRECTORY filled in where systemd set it."""
        return _credential(path)


class Proxy(Section):
    """[proxy]: whose word about others counts."""

    trusted: list[TrustedProxy] = []
    user_header: HeaderName = "x-forwarded-user"


class Holder(Section):
    """What has the keys of a grant beside its own."""

    grant: Grant

    @model_validator(mode="before")
    @classmethod
    def _take_grant(cls, keys: Any) -> Any:
        if not isinstance(keys, dict) or "grant" in keys:
            return keys
        return {**{key: value for key, value in keys.items() if key not in KEYS},
                "grant": Grant.read({key: value for key, value in keys.items() if key in KEYS})}


class ClientCertificate(Holder):
    """One of [[certificates]]: who shows that client certificate, and what he may do."""

    name: HolderName
    fingerprint: Fingerprint = ""
    ca: str = ""
    subject: str = ""

    @model_validator(mode="after")
    def _is_told_apart(self) -> "ClientCertificate":
        if bool(self.fingerprint) == bool(self.ca and self.subject) or bool(self.ca) != bool(self.subject):
            raise ValueError("give either fingerprint, or ca and subject")
        return self


class Peer(Holder):
    """One of [[peers]]: who comes through a Unix socket as that user or with that group, and what he may do."""

    name: HolderName
    user: AccountName = ""
    group: AccountName = ""

    @model_validator(mode="after")
    def _is_user_or_group(self) -> "Peer":
        if bool(self.user) == bool(self.group):
            raise ValueError("give either user or group")
        return self


class ProxyUser(Holder):
    """One of [[users]]: who a trusted proxy says that he is, and what he may do."""

    name: NameGlob


class CellSection(Section):
    """[cell]: which of the [[cells]] this host is."""

    name: OwnCellName = ""
    redirect: bool = False


class Cell(Section):
    """One of [[cells]]: a host, and the instances that it has."""

    name: HolderName
    address: Origin
    instances: list[NameGlob] = Field(default=["*"], min_length=1)
    projects: list[NameGlob] = Field(default=["*"], min_length=1)
    remotes: list[NameGlob] = Field(default=["*"], min_length=1)

    @property
    def has_rest(self) -> bool:
        """True when it names no instances: it has all that no other cell names."""
        return self.instances == self.projects == self.remotes == ["*"]


class StateSection(Section):
    """[state]: where the spool and the queue live."""

    directory: Annotated[str, RESTART] = ""
    host: Annotated[HostName, RESTART] = ""

    @property
    def path(self) -> Path:
        """The state directory: the configured one, else $STATE_DIRECTORY, else ./var; absolute."""
        chosen = self.directory or os.environ.get("STATE_DIRECTORY", "").split(":")[0] or "var"
        return Path(chosen).absolute()


class Queue(Section):
    """[queue]: how the work is divided."""

    shards: Annotated[int, RESTART] = Field(default=2, ge=1, le=64)


class TargetSection(Section):
    """[target]: what kind of thing uploads are delivered to."""

    kind: Annotated[Literal["auto", "incus", "directory"], RESTART] = "auto"


class Remote(Section):
    """[incus] and each [remotes.NAME]: one Incus and how to talk to it."""

    endpoint: Endpoint = ""
    project: Project = "default"
    client_cert: str = ""
    client_key: str = ""
    server_cert: str = ""
    timeout_s: Wait = 30.0

    @model_validator(mode="after")
    def _certificates_come_in_pairs(self) -> "Remote":
        if bool(self.client_cert) != bool(self.client_key):
            raise ValueError("client_cert and client_key go together")
        return self

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The addresses by which it is reached, one or several of its cluster; none: it has to be found."""
        several = (self.endpoint,) if isinstance(self.endpoint, str) else self.endpoint
        return tuple(filter(None, several))

    def file(self, path: str) -> str:
        """A configured path to a certificate or key, with $CREDENTIALS_DIRECTORY filled in where systemd set it."""
        return _credential(path)


class Limits(Section):
    """[limits]: what is turned away at the door."""

    max_upload_bytes: int = Field(default=10 * 2**30, ge=1)
    max_pending_tasks: int = Field(default=2_000_000, ge=1)
    max_pending_bytes: int = Field(default=2**40, ge=1)
    min_free_bytes: Bytes = 256 * 2**20
    reserve_bytes: Bytes = 16 * 2**20


class UploadsSection(Section):
    """[uploads]: uploads that go on where they were cut off."""

    expire_s: Wait = 86400.0
    max_partials: int = Field(default=1000, ge=1)
    max_partial_bytes: int = Field(default=2**38, ge=1)


class Allowed(Section):
    """[delivery.allow]: the worker delivers nothing else, whatever is in the queue."""

    instances: list[NameGlob] = ["*"]
    projects: list[NameGlob] = ["*"]
    remotes: list[NameGlob] = ["*"]
    paths: list[PathGlob] = ["/**"]
    modes: Octal = "7777"
    uids: list[Ids] = ["0-4294967294"]
    gids: list[Ids] = ["0-4294967294"]


class Denied(Section):
    """[delivery.deny]: the worker does not deliver that, even where it is allowed."""

    instances: list[NameGlob] = []
    projects: list[NameGlob] = []
    remotes: list[NameGlob] = []
    paths: list[PathGlob] = []
    modes: Octal = "0000"
    uids: list[Ids] = []
    gids: list[Ids] = []


class DeliverySection(Section):
    """[delivery]: how a file is put into an instance."""

    mkdirs: bool = False
    mode: Octal = "0644"
    uid: Uid = 0
    gid: Uid = 0
    dir_mode: Octal = "0755"
    symlinks: Literal["follow", "replace"] = "follow"
    replace_group: Literal["keep", "narrow", "in-place"] = "keep"
    verify: Literal["size", "digest"] = "size"
    stopped: Literal["push", "wait"] = "push"
    on_newer: Literal["supersede", "deliver-all"] = "supersede"
    per_instance: int = Field(default=16, ge=1, le=64)
    per_worker: Annotated[int, RESTART] = Field(default=16, ge=1, le=256)
    keep_s: Seconds = 60.0
    drain_s: Seconds = 20.0
    allow: Allowed = Allowed()
    deny: Denied = Denied()

    @property
    def supersedes(self) -> bool:
        """True when a newer upload to a path replaces older ones that wait."""
        return self.on_newer == "supersede"

    @property
    def mode_bits(self) -> int:
        """`mode` as a number."""
        return int(self.mode, 8)

    @property
    def dir_mode_bits(self) -> int:
        """`dir_mode` as a number."""
        return int(self.dir_mode, 8)


class Webhook(Section):
    """One of [[webhooks]]: who is told what happens to tasks."""

    name: HolderName
    url: WebhookUrl
    secret: WebhookSecret = Field(repr=False)
    events: list[StateLabel] = Field(default=[State.DELIVERED.label, State.FAILED.label], min_length=1)
    instances: list[NameGlob] = Field(default=["*"], min_length=1)

    @property
    def shown_url(self) -> str:
        """The address for people, without its query: that may hold a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}{'?…' if parts.query else ''}"

    @property
    def secret_file(self) -> Path | None:
        """The file of its secrets, with $CREDENTIALS_DIRECTORY filled in where systemd set it; None: it has none."""
        return None if self.secret.startswith("whsec_") else Path(_credential(self.secret))


class SenderSection(Section):
    """[sender]: the process that sends webhooks."""

    socket: Annotated[str, RESTART] = ""
    allow: list[Network] = []
    try_timeout_s: Wait = 20.0


class Retry(Section):
    """[retry]: when a transient failure is tried again, and when it is given up."""

    first_delay_s: Wait = 1.0
    max_delay_s: Wait = 300.0
    jitter: float = Field(default=1.0, ge=0, le=1)
    give_up_after_s: Seconds = 432_000.0
    max_attempts: int = Field(default=0, ge=0)


class Retention(Section):
    """[retention]: how long finished tasks can still be asked about."""

    delivered_s: Seconds = 604_800.0
    delivered_max: int = Field(default=100_000, ge=0)
    failed_s: Seconds = 0.0


class EventsSection(Section):
    """[events]: how far back whoever follows tasks can go on."""

    keep_s: Seconds = 86_400.0
    keep_most: int = Field(default=500_000, ge=0)


class Log(Section):
    """[log]: what is written where."""

    format: Annotated[Literal["auto", "console", "json", "journal"], RESTART] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(BaseSettings):
    """Every key of the service. Build it with `load`."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENV_PREFIX, env_nested_delimiter="__", case_sensitive=False,
    )

    api: Api = Api()
    tls: Tls = Tls()
    proxy: Proxy = Proxy()
    certificates: list[ClientCertificate] = Field(default_factory=list)
    peers: list[Peer] = Field(default_factory=list)
    users: list[ProxyUser] = Field(default_factory=list)
    cell: CellSection = CellSection()
    cells: list[Cell] = Field(default_factory=list)
    state: StateSection = StateSection()
    queue: Queue = Queue()
    target: TargetSection = TargetSection()
    incus: Remote = Remote()
    remotes: dict[RemoteName, Remote] = Field(default_factory=dict)
    limits: Limits = Limits()
    uploads: UploadsSection = UploadsSection()
    delivery: DeliverySection = DeliverySection()
    webhooks: list[Webhook] = Field(default_factory=list)
    sender: SenderSection = SenderSection()
    retry: Retry = Retry()
    retention: Retention = Retention()
    events: EventsSection = EventsSection()
    log: Log = Log()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment over the file over the defaults, and nothing else."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _SOURCE.get())

    @model_validator(mode="after")
    def _remotes_have_endpoints(self) -> "Config":
        for name, remote in self.remotes.items():
            if not remote.endpoints and self.target.kind != "directory":
                raise ValueError(f"remotes.{name}.endpoint: must be a socket path or an https:// URL")
        return self

    @model_validator(mode="after")
    def _names_are_one_holders(self) -> "Config":
        named: tuple[tuple[str, Sequence[Holder | Webhook | Cell]], ...] = (
            ("certificates", self.certificates), ("peers", self.peers), ("users", self.users),
            ("webhooks", self.webhooks), ("cells", self.cells))
        for section, holders in named:
            names = [str(getattr(holder, "name", "")) for holder in holders]
            if len(set(names)) < len(names):
                raise ValueError(f"{section}: two have the same name")
        return self

    @model_validator(mode="after")
    def _cells_are_told_apart(self) -> "Config":
        if self.cells and self.cell.name not in {cell.name for cell in self.cells}:
            names = ", ".join(cell.name for cell in self.cells)
            raise ValueError(f"cell.name: must be one of [[cells]], which is this host: {names}")
        if sum(cell.has_rest for cell in self.cells) > 1:
            raise ValueError("cells: only one can have the rest; the others name instances, projects or remotes")
        return self

    @property
    def sender_socket(self) -> Path:
        """Where the sender listens: the configured path, else in the state directory; absolute."""
        return Path(self.sender.socket).absolute() if self.sender.socket else self.state.path / "sender.sock"

    def remote(self, name: str) -> Remote | None:
        """The remote of that name, or None. `local` is the [incus] section."""
        return self.incus if name == LOCAL else self.remotes.get(name)

    def project_of(self, remote: str) -> str:
        """The project that a remote's instances are in unless one is named; a remote may be configured no more."""
        described = self.remote(remote)
        return described.project if described else "default"


def find_file(chosen: str | None) -> Path | None:
    """The configuration file: `chosen`, else $INCUS_COURIER_CONFIG, else the installed one, else none."""
    named = chosen or os.environ.get(FILE_VARIABLE)
    if named:
        return Path(named)
    return INSTALLED_FILE if os.path.lexists(INSTALLED_FILE) else None


def load(file: Path | None) -> Config:
    """Return the checked configuration from `file` and the environment.

    Raises CannotStart('bad_config') naming each wrong key and what would be right.
    """
    reading = _SOURCE.set(file)
    try:
        if file is not None and not file.is_file():
            raise CannotStart("bad_config", f"{file}: there is no such file")
        variables.check(Config.model_fields)
        return Config()
    except ValidationError as error:
        raise CannotStart("bad_config", _explain(error, file)) from error
    except (SettingsError, ValueError, OSError) as error:
        raise CannotStart("bad_config", f"{file or 'environment'}: {error}") from error
    finally:
        _SOURCE.reset(reading)


def reloaded(old: Config, new: Config) -> tuple[Config, list[str]]:
    """What is in force after a reload: `new`, with the keys of `old` that need a restart.

    Returns with it the names of the keys that have changed and wait for one. Pure.
    """
    kept: dict[str, Section] = {}
    waiting: list[str] = []
    for name, field in Config.model_fields.items():
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            continue
        before, after = getattr(old, name), getattr(new, name)
        changed = [key for key, described in field.annotation.model_fields.items()
                   if RESTART in described.metadata and getattr(before, key) != getattr(after, key)]
        kept[name] = after.model_copy(update={key: getattr(before, key) for key in changed})
        waiting += [f"{name}.{key}" for key in changed]
    return new.model_copy(update=kept), waiting


def _explain(error: ValidationError, file: Path | None) -> str:
    lines = [f"{file or 'environment'}: the configuration is wrong"]
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            lines.append(f"  {message}")
            continue
        key = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        if problem["type"] == "extra_forbidden":
            message = f"there is no such key{_nearest(problem['loc'])}"
        elif problem["loc"][0] != "webhooks":
            # What belongs to a webhook may be its secret.
            message += f" (it is {problem['input']!r})"
        lines.append(f"  {key}: {message}{variables.origin(problem['loc'])}")
    return "\n".join(lines)


def _nearest(where: tuple[int | str, ...]) -> str:
    known = _keys_beside(where)
    return f"; the keys here are: {', '.join(sorted(known))}" if known else ""


def _keys_beside(where: tuple[int | str, ...]) -> set[str]:
    model: Any = Config
    for part in where[:-1]:
        field = model.model_fields.get(str(part)) if hasattr(model, "model_fields") else None
        if field is None:
            return set(Remote.model_fields) if where[0] == "remotes" else set()
        model = field.annotation
    return set(getattr(model, "model_fields", {}))
