"""Rules: what a line of output says about the cause. Data, one table, each with a test.

A rule is general: it knows the words of operating systems, languages and servers, never those of
one program's own code. ``{name}`` in a text stands for the group of that name in the pattern.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which output names a cause."""

    kind: str
    pattern: re.Pattern[str]
    says: str
    """The cause as the end of a sentence that begins with "because"."""
    then: str
    """What to look at, or to do."""


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule has found in a line."""

    rule: Rule
    line: str
    found: Mapping[str, str] = field(default_factory=dict)

    @property
    def says(self) -> str:
        return _filled(self.rule.says, self.found)

    @property
    def then(self) -> str:
        return _filled(self.rule.then, self.found)


def _filled(text: str, found: Mapping[str, str]) -> str:
    known = {name: value for name, value in found.items() if value}
    out = re.sub(r" at \{(\w+)\}", lambda m: f" at {known[m[1]]}" if m[1] in known else "", text)
    out = re.sub(r"\{(\w+)\}", lambda m: known.get(m[1], ""), out)
    return re.sub(r" +", " ", out).strip()


_Q = r"['\"\u2018`]"
_ADDRESS = r"(?P<at>(?:\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5})"


def _rule(kind: str, says: str, then: str, *patterns: str) -> list[Rule]:
    return [Rule(kind, re.compile(p, re.IGNORECASE), says, then) for p in patterns]


RULES: Final[tuple[Rule, ...]] = (
    *_rule(
        "gpu_memory",
        "the GPU's memory is used up {detail}",
        "see who holds it: nvidia-smi; a smaller batch, or fewer replicas on one GPU",
        r"CUDA out of memory\.?(?P<detail> Tried to allocate [^.]*\.\d* ?\w+)?",
        r"CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation",
    ),
    *_rule(
        "memory",
        "it ran out of memory",
        "its limit and its use: everup status; limits.memory in the config",
        r"\bMemoryError\b|std::bad_alloc|java\.lang\.OutOfMemoryError"
        r"|JavaScript heap out of memory|Cannot allocate memory|\bENOMEM\b",
    ),
    *_rule(
        "address_in_use",
        "the address {at} is in use by another process",
        "see who has it: ss -ltnp; with `listen` everup opens the address itself",
        rf"(?:address already in use|EADDRINUSE|WinError 10048)[^\n]*?{_ADDRESS}",
        rf"{_ADDRESS}[^\n]*(?:address already in use|EADDRINUSE|\(98:)",
        r"address already in use[^\n]*?\('(?P<host>[^']*)', (?P<port>\d+)\)",
        r"\('(?P<host>[^']*)', (?P<port>\d+)[^\n]*address already in use",
        r"address already in use|EADDRINUSE",
    ),
    *_rule(
        "too_many_clients",
        "the database takes no more connections",
        "count them: fewer replicas or a smaller pool, or a larger max_connections",
        r"too many clients already|remaining connection slots are reserved|Too many connections"
        r"|max number of clients reached|QueuePool limit of size|connection pool (?:is )?exhausted"
        r"|timeout exceeded when trying to connect",
    ),
    *_rule(
        "credentials",
        "its credentials were refused {user}",
        "compare user and password on both sides; who changed them last?",
        r"password authentication failed for user \W?(?P<user>[\w.-]+)",
        r"Access denied for user \W?(?P<user>[\w.-]+)",
        r"authentication failed|NOAUTH|WRONGPASS|invalid_grant|401 Unauthorized|invalid api key",
    ),
    *_rule(
        "refused",
        "nobody answers at {at}: the connection was refused",
        "is what should listen there up? everup status; for others: ss -ltn",
        rf"(?:connection refused|ECONNREFUSED)[^\n]*?{_ADDRESS}",
        rf"{_ADDRESS}[^\n]*(?:connection refused|ECONNREFUSED|actively refused)",
        r"\('(?P<host>[^']+)', (?P<port>\d+)\)[^\n]*connect(?:ion)? (?:call )?(?:refused|failed)",
        r"connect(?:ion)? (?:call )?failed[^\n]*?\('(?P<host>[^']+)', (?P<port>\d+)\)",
        r"to server at \W(?P<host>[\w.-]+)\W[^\n]*port (?P<port>\d+) failed: Connection refused",
        r"connection refused|ECONNREFUSED",
    ),
    *_rule(
        "name",
        "the name {host} cannot be resolved",
        "ask yourself: getent hosts {host}; /etc/resolv.conf, /etc/hosts",
        rf"could not translate host name {_Q}?(?P<host>[\w.-]+)",
        r"getaddrinfo (?:ENOTFOUND|EAI_AGAIN) (?P<host>[\w.-]+)",
        r"lookup (?P<host>[\w.-]+)[^\n]*no such host",
        r"host=\W?(?P<host>[\w.-]+)[^\n]*(?:Name or service not known|Temporary failure in name)",
        r"Name or service not known|Temporary failure in name resolution|Name does not resolve"
        r"|nodename nor servname provided|EAI_AGAIN|UnknownHostException",
    ),
    *_rule(
        "certificate",
        "a certificate is not accepted {detail}",
        "its dates and names: openssl s_client -connect HOST:PORT </dev/null | openssl x509 -text",
        r"certificate verify failed:? ?(?P<detail>[\w ,'.-]*)",
        r"x509: (?P<detail>certificate [^\n]{0,120})",
        r"(?P<detail>certificate has expired|CERT_HAS_EXPIRED|self[- ]signed certificate)",
    ),
    *_rule(
        "disk_full",
        "the disk is full {file}",
        "find what fills it: df -h; df -i; du -xh --max-depth=1 /",
        rf"No space left on device:? ?{_Q}?(?P<file>/[^'\"\n]*)?|\bENOSPC\b|Disk quota exceeded"
        r"|could not (?:extend|write)[^\n]*: No space",
    ),
    *_rule(
        "read_only",
        "the file system is read-only {file}",
        "what the kernel says of it: dmesg | tail; mount | grep ' ro'",
        rf"Read-only file system:? ?{_Q}?(?P<file>/[^'\"\n]*)?|\bEROFS\b",
    ),
    *_rule(
        "descriptors",
        "it has too many files or sockets open",
        "count them: ls /proc/PID/fd | wc -l; limits.open_files in the config, or a leak",
        r"Too many open files|\bEMFILE\b|\bENFILE\b",
    ),
    *_rule(
        "module",
        "the module {name} is not installed where it looks",
        "which interpreter runs it, and what is installed there? a new dependency in this deploy?",
        r"ModuleNotFoundError: No module named ['\"](?P<name>[\w.-]+)",
        r"Cannot find (?:module|package) ['\"](?P<name>[^'\"\n]+)",
        r"ImportError: cannot import name ['\"](?P<name>\w+)",
        r"java\.lang\.(?:ClassNotFoundException|NoClassDefFoundError): (?P<name>[\w./$]+)",
        r"Can't locate (?P<name>\S+) in @INC",
        r"cannot load such file -- (?P<name>\S+)",
    ),
    *_rule(
        "library",
        "the shared library {name} is missing",
        "which package has it? ldd on the program tells all that are missing",
        r"error while loading shared libraries: (?P<name>\S+):",
        r"version `(?P<name>\S+)' not found",
    ),
    *_rule(
        "syntax",
        "its code does not parse {detail}",
        "what changed in the last deploy",
        r"(?:SyntaxError|IndentationError|TabError): (?P<detail>[^\n]{0,120})",
        r"PHP Parse error: +(?P<detail>[^\n]{0,120})",
    ),
    *_rule(
        "variable",
        "the environment variable {name} is not set",
        "environment and environment_file of the service: everup check",
        r"environment variable \W?(?P<name>[A-Z][A-Z0-9_]+)\W? (?:is )?"
        r"(?:not set|required|missing)",
        r"Missing (?:required )?environment variable:? \W?(?P<name>[A-Z][A-Z0-9_]+)",
        r"^KeyError: '(?P<name>[A-Z][A-Z0-9_]{2,})'$",
    ),
    *_rule(
        "permission",
        "it may not use {file}",
        "owner and mode of the path, for the user that the service runs as: namei -l PATH",
        rf"Permission denied:? ?{_Q}?(?P<file>/[^'\"\n:)]*)?",
        r"(?P<file>/[^\s'\":]+)[^\n]{0,20}(?:Permission denied|EACCES)",
        r"\bEACCES\b|Operation not permitted|\bEPERM\b",
    ),
    *_rule(
        "program",
        "the program {name} is not there",
        "PATH of the service, and whether the program is installed",
        r"(?:^|: )(?P<name>[\w./-]+): (?:command )?not found$",
        r"exec: \"(?P<name>[^\"]+)\": executable file not found",
        r"spawn (?P<name>\S+) ENOENT",
    ),
    *_rule(
        "file",
        "the file {file} is not there",
        "is it part of the deploy, and is `directory` of the service right?",
        rf"No such file or directory:? ?{_Q}?(?P<file>[^'\"\n]+)",
        r"(?P<file>/[^\s'\":]+): No such file or directory",
        r"ENOENT[^\n]*?['\"](?P<file>[^'\"\n]+)",
        r"open (?P<file>\S+): no such file or directory",
        r"No such file or directory|\bENOENT\b",
    ),
    *_rule(
        "schema",
        "the database lacks {name}",
        "has the migration run? everup events -s ...",
        r"(?:relation|table|column|database) \"(?P<name>[\w.]+)\" does not exist",
        r"no such (?:table|column): (?P<name>[\w.]+)",
        r"(?:Table|Unknown database|Unknown column) '(?P<name>[\w.]+)'",
    ),
    *_rule(
        "lock",
        "another one holds a lock that it needs",
        "who holds it, and since when? a transaction or a process that does not end",
        r"database is locked|deadlock detected|Lock wait timeout exceeded"
        r"|could not obtain lock|Resource temporarily unavailable: .*lock|pid ?file .*exists"
        r"|already running",
    ),
    *_rule(
        "timeout",
        "what it depends on did not answer in time {at}",
        "is that slow or away? everup status; ping and time a request by hand",
        rf"(?:timed out|timeout|ETIMEDOUT)[^\n]*?{_ADDRESS}",
        r"Connection timed out|\bETIMEDOUT\b|ReadTimeout|ConnectTimeout|deadline exceeded"
        r"|upstream timed out|TimeoutError",
    ),
    *_rule(
        "config",
        "it does not accept its configuration {detail}",
        "what changed in it; most servers check it by themselves (nginx -t, haproxy -c)",
        r"\[emerg\] \d+#\d+: (?P<detail>[^\n]{0,160})",
        r"(?P<detail>unknown directive [^\n]{0,80})",
        r"(?P<detail>unrecognized (?:arguments?|option)[^\n]{0,80})",
        r"(?P<detail>(?:invalid|unknown|bad) (?:configuration|config|option|flag|parameter)"
        r"[^\n]{0,80})",
        r"(?:yaml|toml|json)\S*(?:Error|Exception):? ?(?P<detail>[^\n]{0,120})",
        r"(?P<detail>FATAL CONFIG FILE ERROR[^\n]{0,80})",
    ),
)
"""In order: the first that matches a line is taken, so what is more special comes first."""


def match(text: str) -> Match | None:
    """Find the first rule that knows a line; None: none does."""
    line = text[:2000]
    for rule in RULES:
        if found := rule.pattern.search(line):
            groups = {k: v.strip() for k, v in found.groupdict().items() if v and v.strip()}
            if "port" in groups:
                groups["at"] = f"{groups.get('host') or '*'}:{groups['port']}"
            return Match(rule, line.strip(), groups)
    return None
