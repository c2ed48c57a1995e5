"""What must not be logged, taken out: secrets by their names, by their shapes, and by their values.

Values are known from the environment and from settings (see `remember`). They are looked for as they are, and as
messages write them: quoted, escaped, in an address, on one line. The longest ones go first, so that a secret which
begins another one does not leave the rest of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from lightning_mem1.io.terminal import printable

HIDDEN = "***"
SHORTEST_SECRET = 8  # characters; shorter values of variables are in ordinary words
SHORTEST_SETTING = 6  # the same of a setting whose name says that it is secret


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# a name that holds one of these words is a secret's
SECRETS = _words(
    """password passwords passwd passwds passphrase passphrases passcode passcodes pwd pwds secret secrets credential
    credentials cred creds apikey apikeys authorization bearer jwt cookie cookies"""
)
# and one that holds `key` or `tokens` behind one of these
KINDS = _words(
    """access account api auth bearer client deploy encryption github gitlab hf hmac hub huggingface id identity license
    login master openai personal private refresh secret security serper service session shared signing ssh storage user
    wandb webhook write read"""
)
# `token` is a secret's but behind one of these: a piece of text
PIECES = _words(
    """action added bos by class cls each end eos first full image information last mask mean new next of one pad per
    prompt sep special start state stop sum text think unk vision word"""
)
COUNTS = _words("max min num n has is use show require requires allow count total")  # begin other names
POINTERS = _words(  # end the names of what only says where or how
    """variable variables env file files path paths name names folder dir length len field fields type types count limit
    size policy required enabled unit units header ids per"""
)
NO_SECRETS = frozenset(("", HIDDEN, "expected", "None", "null", "true", "false", "True", "False"))
IN_ADDRESS = _words("key sig signature token auth code pass pw")  # more words of an address's query
SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:(?:API)?KEY|TOKEN|SECRET|PASS(?:WORD|WD|PHRASE|CODE)?|CRED(?:ENTIAL)?|AUTH|PAT|JWT)S?$|_PWD$", re.I
)
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

AUTHORITY = re.compile(r"(?<=://)[^/\s'\"]*(?=@)")  # user, or user and password
SLASHED = re.compile(r"(?<=://)[^/\s:@'\"]{0,256}:[^\s@'\"]{1,1024}(?=@)")  # the same with a slash in the password
PORT = re.compile(r"[\w.-]*:\d{1,5}/")  # of a host, and no password
PARAMETER = re.compile(r"(?<=[?&;])([\w.\-\[\]%]+)=([^&\s#;'\"]+)")
PAIR = re.compile(
    r"(?<![\w.-])([\w.-]++)(['\"]?\s*+[:=]\s*+)(?:'([^']*)(?:'|\Z)|\"([^\"]*)(?:\"|\Z)|([^\s'\",;&}\])]+))"
)  # name: value, name='value' and "name": "value"
SCHEME = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}")
SHAPES = re.compile(  # of keys that services hand out
    r"\b(?:sk-[\w-]{20,}|hf_[A-Za-z0-9]{20,}|gh[a-z]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}"
    r"|A[KS]IA[0-9A-Z]{16}|AIza[\w-]{30,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)

SPACES = r"(?:\s|\\[nrt]|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|%[0-9a-fA-F]{2}|\+)+"  # between two words of a secret
_remembered: set[str] = set()


def is_secret(name: str) -> bool:
    """Whether a name says that what it names is secret; of a dotted one any part.

    >>> [is_secret(name) for name in ("hfToken", "data.credentials.user", "max_new_tokens", "key_variable")]
    [True, True, False, False]
    """
    return any(_is_secret(WORDS.findall(part)) for part in name.split("."))


def _is_secret(found: list[str]) -> bool:
    words = [word.lower() for word in found]
    if not words or words[0] in COUNTS or words[-1] in POINTERS:
        return False
    if not SECRETS.isdisjoint(words):
        return True
    for before, word in zip(["", *words], words, strict=False):
        if word in ("key", "keys", "tokens") and (before in KINDS or words == ["tokens"]):
            return True
    return words[-1] == "token" and (len(words) == 1 or words[-2] not in PIECES)


def remember(settings: Any) -> None:
    """Take the values of secret settings out of whatever is said from now on.

    Args:
        settings: A dict, a list or a plain value, nested as in a config.
    """
    found = (value.strip() for value in _secret_values(settings, False))
    _remembered.update(value for value in found if len(value) >= SHORTEST_SETTING)


def remember_arguments(arguments: Iterable[str]) -> None:
    """The same of a command line: ``--api_key VALUE`` and ``--api_key=VALUE``."""
    name = ""
    for argument in arguments:
        given, _, value = argument.partition("=")
        if argument.startswith("--"):
            name = given[2:]
        else:
            value = argument
        if value and is_secret(name):
            remember({"secret": value})


def _secret_values(settings: Any, secret: bool) -> Iterator[str]:
    """Secret texts; a list that holds itself, as an alias of YAML can write it, is read once."""
    seen: set[tuple[int, bool]] = set()
    waiting = [(settings, secret)]
    while waiting:
        value, secret = waiting.pop()
        if isinstance(value, str):
            if secret:
                yield value
            continue
        if (id(value), secret) in seen:
            continue
        seen.add((id(value), secret))
        if isinstance(value, Mapping):
            waiting += [(inner, secret or is_secret(str(key))) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(inner, secret) for inner in value]


def redacted(text: str) -> str:
    """A text without secrets.

    >>> redacted("postgresql://me:pa55@host/db and https://host/x?token=abc&page=2")
    'postgresql://***@host/db and https://host/x?token=***&page=2'
    """
    if known := _known():
        text = _any_of(known).sub(HIDDEN, text)
    text = SHAPES.sub(HIDDEN, text)
    text = AUTHORITY.sub(HIDDEN, text)
    text = SLASHED.sub(lambda found: found[0] if _is_host(found[0]) else HIDDEN, text)
    text = PARAMETER.sub(_parameter, text)
    text = SCHEME.sub(rf"\1 {HIDDEN}", text)
    return PAIR.sub(_pair, text)


def _is_host(text: str) -> bool:
    """``example.com:80/a`` is a host, its port and a path; ``me:80/a`` may be a password."""
    return bool(PORT.match(text)) and ("." in text.partition(":")[0] or text.startswith("localhost:"))


def _parameter(found: re.Match[str]) -> str:
    words = {word.lower() for word in WORDS.findall(unquote(found[1]))}
    return f"{found[1]}={HIDDEN}" if is_secret(unquote(found[1])) or words & IN_ADDRESS else found[0]


def _pair(found: re.Match[str]) -> str:
    """``password: x`` and the like; not ``token: expected ...``, which says something about one."""
    name, between, *values = found.groups()
    value = next(each for each in values if each is not None)
    spoken = name in ("token", "tokens") and between.strip() == ":"  # invalid token: ...
    if not is_secret(name) or spoken or value in NO_SECRETS:
        return found[0]
    start = len(name + between)
    return found[0][:start] + found[0][start:].replace(value, HIDDEN)


def _known() -> frozenset[str]:
    """Secret values; of one with several lines each long line too."""
    values = set(_remembered)
    for name, given in os.environ.items():
        value = given.strip()
        if SECRET_VARIABLE.search(name) and len(value) >= SHORTEST_SECRET:
            values.add(value)
        elif "://" in value and (found := AUTHORITY.search(value)):
            password = unquote(found[0].partition(":")[2])
            values |= {password} if len(password) >= SHORTEST_SECRET else set()
    lines = {line.strip() for value in values for line in value.splitlines()}
    return frozenset(values | {line for line in lines if len(line) >= 2 * SHORTEST_SECRET})


@lru_cache(maxsize=8)
def _any_of(values: frozenset[str]) -> re.Pattern[str]:
    """Any of some values, the longest that is there, in every form in which a message may hold it."""
    return re.compile("|".join(_in_every_form(value) for value in sorted(values, key=len, reverse=True)))


def _in_every_form(value: str) -> str:
    """A value as a pattern: as it is, quoted, escaped, in an address, with its lines joined or broken elsewhere."""
    return "".join(
        SPACES if part.isspace() else "".join(map(_sign, part)) for part in re.split(r"(\s+)", value) if part
    )


def _sign(sign: str) -> str:
    encoded = quote(sign, safe="", errors="replace")
    forms = {sign, json.dumps(sign)[1:-1], repr(sign)[1:-1], encoded, encoded.lower(), ascii(sign)[1:-1]}
    forms |= {"''", "\\'"} if sign == "'" else {'\\"'} if sign == '"' else set()
    if len(forms) == 1:
        return re.escape(sign)
    return f"(?:{'|'.join(map(re.escape, sorted(forms, key=len, reverse=True)))})"


def shown(text: str) -> str:
    """A text from outside in a message: on one line, without secrets and control characters.

    >>> shown("at http://me:pa55@host,\\n\\x1b[2J")
    'at http://***@host, \\\\x1b[2J'
    """
    return printable(" ".join(redacted(text).split()))


def root(error: BaseException) -> BaseException:
    """The error that the others were raised for."""
    return [*causes(error)][-1]


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, the one that it was raised for, and so on to the first."""
    yield error
    while (cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        yield (error := cause)


def reason(error: BaseException) -> str:
    """The first words of what went wrong in the first place, in one line."""
    return shown(str(root(error)))[:120]


def redacted_settings(settings: Any, name: str = "") -> Any:
    """Settings without what their names or their values say is secret.

    Args:
        settings: A dict, a list or a plain value, nested as in a config; all of one with a secret name is hidden.
        name: Under which it stands.
    """
    if isinstance(settings, Mapping):
        inside = f"{name}." if is_secret(name) else ""
        return {key: redacted_settings(value, f"{inside}{key}") for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [redacted_settings(value, name) for value in settings]
    if isinstance(settings, bool) or settings is None or settings == "":
        return settings
    if is_secret(name):
        return HIDDEN
    return redacted(settings) if isinstance(settings, str) else settings
